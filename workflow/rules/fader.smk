# FADeR on a trained EAR: with the base masker, as a plug-in of the others, and its variants. The
# η × schedule grid is one job.


rule fader:
    input:
        inputs("fader"),
    output:
        outputs("fader"),
    log:
        log_of("fader", "{place}", "seed{seed}"),
    benchmark:
        benchmark_of("fader", "{place}", "seed{seed}")
    priority: 3
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=FADER_MB,
        runtime=1440,
        gpu=GPU,
    shell:
        "fader run fader {wildcards.place} --seed {wildcards.seed} > {log} 2>&1"


rule plugin:
    input:
        inputs("plugin"),
    output:
        outputs("plugin"),
    log:
        log_of("plugin", "{place}", "{system}", "seed{seed}"),
    benchmark:
        benchmark_of("plugin", "{place}", "{system}", "seed{seed}")
    wildcard_constraints:
        system=one_of(phases.PHASES["plugin"].systems(CONFIG)),
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=FADER_MB,
        runtime=1440,
        gpu=GPU,
    shell:
        "fader run plugin {wildcards.place} --system {wildcards.system} --seed {wildcards.seed} > {log} 2>&1"


rule variant:
    input:
        inputs("variant"),
    output:
        outputs("variant"),
    log:
        log_of("variant", "{place}", "{system}", "seed{seed}"),
    benchmark:
        benchmark_of("variant", "{place}", "{system}", "seed{seed}")
    wildcard_constraints:
        system=one_of(CONFIG.variants),
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=FADER_MB,
        runtime=1440,
        gpu=GPU,
    shell:
        "fader run variant {wildcards.place} --system {wildcards.system} --seed {wildcards.seed} > {log} 2>&1"
