# Metrics and pictures of every method on the test images.


rule evaluate:
    input:
        evaluated_inputs,
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
