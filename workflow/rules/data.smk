# Images: made, fetched or found; then packed, with the label-free validation split.


rule dataset:
    input:
        inputs("dataset"),
    output:
        outputs("dataset", seed=None),
    log:
        log_of("dataset", "{place}"),
    benchmark:
        benchmark_of("dataset", "{place}")
    priority: 3
    retries: 2
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
    shell:
        "fader run dataset {wildcards.place} > {log} 2>&1"


rule pack:
    input:
        inputs("pack"),
    output:
        outputs("pack", seed=None),
    log:
        log_of("pack", "{place}"),
    benchmark:
        benchmark_of("pack", "{place}")
    priority: 3
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "fader run pack {wildcards.place} > {log} 2>&1"
