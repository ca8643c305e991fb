# Images: made, fetched or found; packed; and the label-free validation split.


def source_images(wildcards):
    """Images of a category in a folder of the user's own, so that a changed image is noticed."""
    chosen = CONFIG.datasets[wildcards.dataset]
    if chosen.source != "folder":
        return []
    folder = Path(chosen.root) / wildcards.category
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


rule dataset:
    output:
        manifest_path("{dataset}"),
    params:
        **settings("dataset"),
    log:
        "logs/dataset/{dataset}.log",
    benchmark:
        "logs/dataset/{dataset}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
    retries: 2
    shell:
        "fader dataset --config {PARAMS} {wildcards.dataset} > {log} 2>&1"


rule pack:
    input:
        manifest_path("{dataset}"),
        source_images,
    output:
        FILES.packed(),
    params:
        **settings("pack"),
    log:
        LOGS + "/pack.log",
    benchmark:
        LOGS + "/pack.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "fader pack --config {PARAMS} --dataset {wildcards.dataset} --category {wildcards.category}"
        " > {log} 2>&1"


rule validation:
    input:
        FILES.packed(),
    output:
        FILES.validation(),
    params:
        **settings("validation"),
    log:
        LOGS + "/validation.log",
    benchmark:
        LOGS + "/validation.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "fader validation --config {PARAMS} --dataset {wildcards.dataset}"
        " --category {wildcards.category} > {log} 2>&1"
