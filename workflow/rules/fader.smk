# FADeR and its variants on top of a trained EAR: the η × schedule grid in one job.


def fader_inputs(wildcards):
    """EAR and masks, and the proposed FADeR where a variant inherits its pick."""
    masker, _, variant = wildcards.system.partition("-")
    paths = [
        FILES.packed(),
        FILES.validation(),
        FILES.mask(masker),
        FILES.ear("{seed}"),
        FILES.mosaic("{seed}"),
    ]
    if variant and CONFIG.variants[variant].grid == "inherit":
        paths.append(FILES.fader("{seed}", masker))
    return [path.format(**wildcards) for path in paths]


rule train_fader:
    input:
        fader_inputs,
    output:
        FILES.fader("{seed}", "{system}"),
        FILES.losses(FILES.fader("{seed}", "{system}")),
    params:
        **settings("fader"),
        variant=lambda wildcards: config["variants"].get(wildcards.system.partition("-")[2]),
    log:
        LOGS + "/fader.{system}.seed{seed}.log",
    benchmark:
        LOGS + "/fader.{system}.seed{seed}.tsv"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=12000,
        runtime=1440,
        gpu=int(CONFIG.runtime.device == "cuda"),
    shell:
        "fader train-fader --config {PARAMS} --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} --system {wildcards.system}"
        " > {log} 2>&1"
