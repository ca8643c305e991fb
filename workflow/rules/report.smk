# The printed page: tables and figures from every metrics file of the run.

TABLES = CONFIG.tables()
FIGURES = ["fig1", "fig2", "fig6"]


rule tables:
    input:
        [path for name in TABLES for path in table_paths(CONFIG.run, name)],
        [path for name in FIGURES for path in figure_paths(CONFIG.run, name)],
        number_paths(CONFIG.run),


rule cost:
    input:
        code=CODE["cost"],
    output:
        cost_path(CONFIG.run),
    log:
        f"logs/{CONFIG.run}/cost.log",
    benchmark:
        f"logs/{CONFIG.run}/cost.tsv"
    # All there are, so that nothing else runs while it is timed; it uses runtime.threads of them.
    threads: workflow.resource_settings.cores or 1
    resources:
        mem_mb=8000,
        runtime=60,
        gpu=int(CONFIG.runtime.device == "cuda"),
    params:
        **settings("cost"),
    shell:
        "fader cost > {log} 2>&1"


rule table:
    input:
        of_run(FILES.metrics("{seed}", "{method}")),
        cost_path(CONFIG.run),
        expand(
            "reference/{name}.csv",
            name=["corrections", *(f"table{number}" for number in range(1, 6))],
        ),
        code=CODE["report"],
    output:
        [path for name in TABLES for path in table_paths(CONFIG.run, name)],
    log:
        f"logs/{CONFIG.run}/tables.log",
    benchmark:
        f"logs/{CONFIG.run}/tables.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        **settings("report"),
        names=" ".join(TABLES),
    shell:
        "fader table {params.names} > {log} 2>&1"


rule figure:
    input:
        of_run(FILES.packed()),
        of_run(FILES.maps("{seed}", "{method}")),
        of_run(FILES.metrics("{seed}", "{method}")),
        code=CODE["report"],
    output:
        [path for name in FIGURES for path in figure_paths(CONFIG.run, name)],
    log:
        f"logs/{CONFIG.run}/figures.log",
    benchmark:
        f"logs/{CONFIG.run}/figures.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        **settings("report"),
        names=" ".join(FIGURES),
    shell:
        "fader figure {params.names} > {log} 2>&1"


rule numbers:
    input:
        of_run(FILES.metrics("{seed}", "{method}")),
        of_run(losses_path(FILES.ear("{seed}"))),
        of_run(losses_path(FILES.fader("{seed}", "{system}"))),
        of_run(summary_path(CONFIG.run, "{dataset}", "{category}")),
        code=CODE["report"],
    output:
        number_paths(CONFIG.run),
        [
            curve_path(CONFIG.run, curve, *place)
            for curve in ("roc", "pr", "losses")
            for place in CONFIG.pairs()
        ],
    log:
        f"logs/{CONFIG.run}/numbers.log",
    benchmark:
        f"logs/{CONFIG.run}/numbers.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        **settings("report"),
    shell:
        "fader numbers > {log} 2>&1"
