# Baselines: any detector of the section `detectors`, each trained alone.


rule detector:
    input:
        inputs("detector"),
    output:
        outputs("detector"),
    log:
        log_of("detector", "{place}", "{system}", "seed{seed}"),
    benchmark:
        benchmark_of("detector", "{place}", "{system}", "seed{seed}")
    wildcard_constraints:
        system=one_of(CONFIG.detectors),
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=GPU,
    shell:
        "fader run detector {wildcards.place} --system {wildcards.system} --seed {wildcards.seed} > {log} 2>&1"
