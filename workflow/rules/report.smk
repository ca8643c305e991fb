# The printed page: tables and figures from every metrics file of the run.

TABLES = ["table1", "table2"]
FIGURES = ["fig1"]


rule tables:
    input:
        [path for name in TABLES for path in table_paths(CONFIG.run, name)],
        [path for name in FIGURES for path in figure_paths(CONFIG.run, name)],
        number_paths(CONFIG.run),


rule table:
    input:
        of_run(FILES.metrics("{seed}", "{method}")),
        "reference/{table}.csv",
        "reference/corrections.csv",
        code=CODE["report"],
    output:
        table_paths(CONFIG.run, "{table}"),
    log:
        f"logs/{CONFIG.run}/{{table}}.log",
    benchmark:
        f"logs/{CONFIG.run}/{{table}}.tsv"
    wildcard_constraints:
        table="|".join(TABLES),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        **settings("report"),
    shell:
        "fader table {wildcards.table} > {log} 2>&1"


rule figure:
    input:
        of_run(FILES.packed()),
        of_run(FILES.maps("{seed}", "{method}")),
        of_run(FILES.metrics("{seed}", "{method}")),
        code=CODE["report"],
    output:
        figure_paths(CONFIG.run, "{figure}"),
    log:
        f"logs/{CONFIG.run}/{{figure}}.log",
    benchmark:
        f"logs/{CONFIG.run}/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(FIGURES),
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        **settings("report"),
    shell:
        "fader figure {wildcards.figure} > {log} 2>&1"


rule numbers:
    input:
        of_run(FILES.metrics("{seed}", "{method}")),
        of_run(FILES.losses(FILES.ear("{seed}"))),
        of_run(FILES.losses(FILES.fader("{seed}", "{system}"))),
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
