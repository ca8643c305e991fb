# Images: made, fetched or found; packed; and the label-free validation split.


rule dataset:
    input:
        code=CODE["dataset"],
    output:
        manifest_path("{dataset}"),
    log:
        "logs/dataset/{dataset}.log",
    benchmark:
        "logs/dataset/{dataset}.tsv"
    retries: 2
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
    params:
        **settings("dataset"),
    shell:
        "fader dataset {wildcards.dataset} > {log} 2>&1"


rule pack:
    input:
        manifest_path("{dataset}"),
        source_images,
        code=CODE["pack"],
    output:
        FILES.packed(),
    log:
        log_file("pack"),
    benchmark:
        benchmark_file("pack")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        **settings("pack"),
    shell:
        "fader pack --dataset {wildcards.dataset} --category {wildcards.category}"
        " > {log} 2>&1"


rule validation:
    input:
        FILES.packed(),
        code=CODE["validation"],
    output:
        FILES.validation(),
        normals_path(CONFIG.run, "{dataset}", "{category}"),
    log:
        log_file("validation"),
    benchmark:
        benchmark_file("validation")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        **settings("validation"),
    shell:
        "fader validation --dataset {wildcards.dataset}"
        " --category {wildcards.category} > {log} 2>&1"
