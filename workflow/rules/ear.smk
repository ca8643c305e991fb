# EAR: pre-training of the U-Net, and the label-free search of the mosaic scale m*.


rule train_ear:
    input:
        FILES.packed(),
        FILES.validation(),
        masks(CONFIG.masks.base),
        code=CODE["ear"],
    output:
        FILES.ear("{seed}"),
        losses_path(FILES.ear("{seed}")),
    log:
        log_file("ear.seed{seed}"),
    benchmark:
        benchmark_file("ear.seed{seed}")
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("ear"),
    shell:
        "fader train-ear --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} > {log} 2>&1"


rule search_mosaic:
    input:
        FILES.packed(),
        FILES.validation(),
        masks(CONFIG.masks.base),
        FILES.ear("{seed}"),
        code=CODE["mosaic"],
    output:
        FILES.mosaic("{seed}"),
    log:
        log_file("mosaic.seed{seed}"),
    benchmark:
        benchmark_file("mosaic.seed{seed}")
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("mosaic"),
    shell:
        "fader search-mosaic --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} > {log} 2>&1"
