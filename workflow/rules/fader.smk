# FADeR and its variants on top of a trained EAR: the η × schedule grid in one job.


rule train_fader:
    input:
        fader_inputs,
        code=CODE["fader"],
    output:
        FILES.fader("{seed}", "{system}"),
        losses_path(FILES.fader("{seed}", "{system}")),
    log:
        log_file("fader.{system}.seed{seed}"),
    benchmark:
        benchmark_file("fader.{system}.seed{seed}")
    threads: CONFIG.runtime.threads
    resources:
        mem_mb=12000,
        runtime=1440,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("fader"),
        variant=lambda wildcards: config["variants"].get(
            wildcards.system.partition("-")[2]
        ),
    shell:
        "fader train-fader --dataset {wildcards.dataset}"
        " --category {wildcards.category} --seed {wildcards.seed} --system {wildcards.system}"
        " > {log} 2>&1"
