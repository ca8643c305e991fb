# EAR: pre-training of the U-Net, and the label-free search of the mosaic scale m*.


rule train_ear:
    input:
        FILES.packed(),
        FILES.validation(),
        FILES.mask(CONFIG.masks.base),
    output:
        FILES.ear("{seed}"),
        FILES.losses(FILES.ear("{seed}")),
    params:
        **settings("ear"),
    log:
        LOGS + "/ear.seed{seed}.log",
    benchmark:
        LOGS + "/ear.seed{seed}.tsv"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=int(CONFIG.runtime.device == "cuda"),
    shell:
        "fader train-ear --config {PARAMS} --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} > {log} 2>&1"


rule search_mosaic:
    input:
        FILES.packed(),
        FILES.validation(),
        FILES.mask(CONFIG.masks.base),
        FILES.ear("{seed}"),
    output:
        FILES.mosaic("{seed}"),
    params:
        **settings("mosaic"),
    log:
        LOGS + "/mosaic.seed{seed}.log",
    benchmark:
        LOGS + "/mosaic.seed{seed}.tsv"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=int(CONFIG.runtime.device == "cuda"),
    shell:
        "fader search-mosaic --config {PARAMS} --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} > {log} 2>&1"
