# Saliency and binary masks of every masker, computed once per image.


rule mask:
    input:
        FILES.packed(),
        FILES.validation(),
        code=CODE["mask"],
    output:
        FILES.mask("{masker}"),
    log:
        log_file("mask.{masker}"),
    benchmark:
        benchmark_file("mask.{masker}")
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("mask"),
    shell:
        "fader mask --dataset {wildcards.dataset} --category {wildcards.category}"
        " --masker {wildcards.masker} > {log} 2>&1"
