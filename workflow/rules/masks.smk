# Maskers: trained where they learn; then saliency and binary masks, computed once per image.

TRAINED = CONFIG.trained_maskers()


rule train_codebook:
    input:
        codebook_files,
        code=CODE["codebook"],
    output:
        codebook_path(CONFIG.run),
        losses_path(codebook_path(CONFIG.run)),
    log:
        f"logs/{CONFIG.run}/codebook.log",
    benchmark:
        f"logs/{CONFIG.run}/codebook.tsv"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("codebook"),
    shell:
        "fader train-codebook > {log} 2>&1"


rule train_masker:
    input:
        FILES.packed(),
        FILES.validation(),
        codebook,
        weight_files,
        code=code("masker"),
    output:
        FILES.masker("{masker}", "{seed}"),
        losses_path(FILES.masker("{masker}", "{seed}")),
    log:
        log_file("masker.{masker}.seed{seed}"),
    benchmark:
        benchmark_file("masker.{masker}.seed{seed}")
    wildcard_constraints:
        masker="|".join(TRAINED) or "(?!)",
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=12000,
        runtime=1440,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("masker"),
    shell:
        "fader train-masker --dataset {wildcards.dataset} --category {wildcards.category}"
        " --seed {wildcards.seed} --masker {wildcards.masker} > {log} 2>&1"


rule mask:
    input:
        FILES.packed(),
        FILES.validation(),
        weight_files,
        code=code("mask"),
    output:
        FILES.mask("{masker}"),
    log:
        log_file("mask.{masker}"),
    benchmark:
        benchmark_file("mask.{masker}")
    wildcard_constraints:
        masker="|".join(set(CONFIG.masks.maskers) - set(TRAINED)) or "(?!)",
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("mask"),
        seed="",
    shell:
        "fader mask --dataset {wildcards.dataset} --category {wildcards.category}"
        " --masker {wildcards.masker} {params.seed} > {log} 2>&1"


use rule mask as mask_of_trained with:
    input:
        FILES.packed(),
        FILES.validation(),
        codebook,
        FILES.masker("{masker}", "{seed}"),
        code=code("mask"),
    output:
        FILES.mask("{masker}", "{seed}"),
    log:
        log_file("mask.{masker}.seed{seed}"),
    benchmark:
        benchmark_file("mask.{masker}.seed{seed}")
    wildcard_constraints:
        masker="|".join(TRAINED) or "(?!)",
    params:
        **settings("mask"),
        seed="--seed {seed}",
