# Maskers: the codebook that one of them needs; training where they learn; saliency of every image.

MASKERS = phases.PHASES["mask"].systems(CONFIG)
LEARNING = [masker for masker in MASKERS if CONFIG.masks.trained(masker)]
ZERO_SHOT = [masker for masker in MASKERS if masker not in LEARNING]


rule codebook:
    input:
        inputs("codebook"),
    output:
        outputs("codebook", seed=None),
    log:
        log_of("codebook"),
    benchmark:
        benchmark_of("codebook")
    priority: 3
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=GPU,
    shell:
        "fader run codebook > {log} 2>&1"


rule mask:
    input:
        inputs("mask"),
    output:
        outputs("mask", seed=None),
    log:
        log_of("mask", "{place}", "{system}"),
    benchmark:
        benchmark_of("mask", "{place}", "{system}")
    wildcard_constraints:
        system=one_of(ZERO_SHOT),
    priority: 3
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=120,
        gpu=GPU,
    shell:
        "fader run mask {wildcards.place} --system {wildcards.system} > {log} 2>&1"


rule mask_of_seed:
    input:
        inputs("mask"),
    output:
        outputs("mask"),
    log:
        log_of("mask", "{place}", "{system}", "seed{seed}"),
    benchmark:
        benchmark_of("mask", "{place}", "{system}", "seed{seed}")
    wildcard_constraints:
        system=one_of(LEARNING),
    priority: 2
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=12000,
        runtime=1440,
        gpu=GPU,
    shell:
        "fader run mask {wildcards.place} --system {wildcards.system} --seed {wildcards.seed} > {log} 2>&1"
