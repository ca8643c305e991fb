# Metrics and pictures of every method on the test images.


def evaluated_inputs(wildcards):
    """Images, masks, EAR with its m*, and the trained FADeR for every method but EAR's own."""
    stage, _, system = wildcards.method.partition("-")
    paths = [
        FILES.packed(),
        FILES.mask(system.partition("-")[0]),
        FILES.ear("{seed}"),
        FILES.mosaic("{seed}"),
    ]
    if stage != "ear":
        paths.append(FILES.fader("{seed}", system))
    return [path.format(**wildcards) for path in paths]


rule evaluate:
    input:
        evaluated_inputs,
    output:
        FILES.metrics("{seed}", "{method}"),
        FILES.maps("{seed}", "{method}"),
    params:
        **settings("evaluate"),
        variant=lambda wildcards: config["variants"].get(
            wildcards.method.partition("-")[2].partition("-")[2]
        ),
    log:
        LOGS + "/evaluate.{method}.seed{seed}.log",
    benchmark:
        LOGS + "/evaluate.{method}.seed{seed}.tsv"
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=int(CONFIG.runtime.device == "cuda"),
    shell:
        "fader evaluate --config {PARAMS} --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} --method {wildcards.method}"
        " > {log} 2>&1"
