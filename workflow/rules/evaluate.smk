# Metrics and pictures of every method on the test images.


rule evaluate:
    input:
        evaluated_inputs,
        code=CODE["evaluate"],
    output:
        FILES.metrics("{seed}", "{method}"),
        FILES.maps("{seed}", "{method}"),
    log:
        log_file("evaluate.{method}.seed{seed}"),
    benchmark:
        benchmark_file("evaluate.{method}.seed{seed}")
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("evaluate"),
        variant=lambda wildcards: config["variants"].get(
            wildcards.method.partition("-")[2].partition("-")[2]
        ),
    shell:
        "fader evaluate --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} --method {wildcards.method}"
        " > {log} 2>&1"


rule summarise:
    input:
        measured,
        code=CODE["evaluate"],
    output:
        summary_path(CONFIG.run, "{dataset}", "{category}"),
    log:
        log_file("summarise"),
    benchmark:
        benchmark_file("summarise")
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        **settings("evaluate"),
    shell:
        "fader summarise --dataset {wildcards.dataset} --category {wildcards.category}"
        " > {log} 2>&1"
