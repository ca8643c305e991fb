# Saliency and binary masks of every masker, computed once per image.


rule mask:
    input:
        FILES.packed(),
        FILES.validation(),
    output:
        FILES.mask("{masker}"),
    params:
        **settings("mask"),
    log:
        LOGS + "/mask.{masker}.log",
    benchmark:
        LOGS + "/mask.{masker}.tsv"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=int(CONFIG.runtime.device == "cuda"),
    shell:
        "fader mask --config {PARAMS} --dataset {wildcards.dataset} --category {wildcards.category}"
        " --masker {wildcards.masker} > {log} 2>&1"
