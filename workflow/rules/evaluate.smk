# Metrics and pictures of every method on the test images: a masker's own, EAR's and FADeR's in one
# job, and all variants in another, since starting a job takes longer than measuring a few images.

STAGES = ("mask", "ear", "fader")


rule evaluate:
    input:
        lambda wildcards: evaluated_inputs(wildcards, wildcards.masker),
        code=CODE["evaluate"],
    output:
        [FILES.metrics("{seed}", f"{stage}-{{masker}}") for stage in STAGES],
        [FILES.maps("{seed}", f"{stage}-{{masker}}") for stage in STAGES],
    log:
        log_file("evaluate.{masker}.seed{seed}"),
    benchmark:
        benchmark_file("evaluate.{masker}.seed{seed}")
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=6000,
        runtime=60,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("evaluate"),
        methods=[f"--method {stage}-{{masker}}" for stage in STAGES],
    shell:
        "fader evaluate --dataset {wildcards.dataset} --category {wildcards.category}"
        " --seed {wildcards.seed} {params.methods} > {log} 2>&1"


if CONFIG.variants:

    use rule evaluate as evaluate_variants with:
        input:
            lambda wildcards: [
                path
                for variant in CONFIG.variants
                for path in evaluated_inputs(
                    wildcards, f"{CONFIG.masks.base}-{variant}"
                )
            ],
            code=CODE["evaluate"],
        output:
            [FILES.metrics("{seed}", method) for method in CONFIG.variant_methods()],
            [FILES.maps("{seed}", method) for method in CONFIG.variant_methods()],
        log:
            log_file("evaluate.variants.seed{seed}"),
        benchmark:
            benchmark_file("evaluate.variants.seed{seed}")
        params:
            **settings("evaluate"),
            methods=[f"--method {method}" for method in CONFIG.variant_methods()],
            variants=config["variants"],


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
