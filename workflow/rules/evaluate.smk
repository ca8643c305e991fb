# Metrics and pictures of every method on the test images of a category, in one job: starting one
# takes longer than measuring a few images.


rule evaluate:
    input:
        inputs("evaluate"),
    output:
        outputs("evaluate"),
    log:
        log_of("evaluate", "{place}", "seed{seed}"),
    benchmark:
        benchmark_of("evaluate", "{place}", "seed{seed}")
    priority: 1
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=GPU,
    shell:
        "fader run evaluate {wildcards.place} --seed {wildcards.seed} > {log} 2>&1"
