# EAR: pre-training of the U-Net, and the label-free search of the mosaic scale m*.


rule ear:
    input:
        inputs("ear"),
    output:
        outputs("ear"),
    log:
        log_of("ear", "{place}", "seed{seed}"),
    benchmark:
        benchmark_of("ear", "{place}", "seed{seed}")
    priority: 3
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=GPU,
    shell:
        "fader run ear {wildcards.place} --seed {wildcards.seed} > {log} 2>&1"


rule mosaic:
    input:
        inputs("mosaic"),
    output:
        outputs("mosaic"),
    log:
        log_of("mosaic", "{place}", "seed{seed}"),
    benchmark:
        benchmark_of("mosaic", "{place}", "seed{seed}")
    priority: 3
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=GPU,
    shell:
        "fader run mosaic {wildcards.place} --seed {wildcards.seed} > {log} 2>&1"
