# Metrics and pictures of every method on the test images of a category, in one job: starting one
# takes longer than measuring a few images. Then, of FADeR alone, pictures of its worst errors.


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


rule gallery:
    input:
        inputs("gallery"),
    output:
        outputs("gallery", seed=None),
    log:
        log_of("gallery", "{place}"),
    benchmark:
        benchmark_of("gallery", "{place}")
    priority: 1
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=4000,
        runtime=30,
        gpu=GPU,
    shell:
        "fader run gallery {wildcards.place} > {log} 2>&1"
