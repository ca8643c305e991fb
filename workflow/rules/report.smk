# The printed page: tables and figures from every metrics file of the run.

TABLES = ["table1", "table2"]
FIGURES = ["fig1"]


def of_run(path):
    """``path`` for every category of the run (categories of two data sets may share a name)."""
    return [
        filled
        for dataset, category in CONFIG.pairs()
        for filled in expand(
            path,
            dataset=dataset,
            category=category,
            seed=CONFIG.seeds,
            method=CONFIG.methods(),
            masker=CONFIG.masks.maskers,
        )
    ]


rule tables:
    input:
        [path for name in TABLES for path in table_paths(CONFIG.run, name)],
        [path for name in FIGURES for path in figure_paths(CONFIG.run, name)],


rule table:
    input:
        of_run(FILES.metrics("{seed}", "{method}")),
        "reference",
    output:
        table_paths(CONFIG.run, "{table}"),
    params:
        **settings("report"),
    wildcard_constraints:
        table="|".join(TABLES),
    log:
        f"logs/{CONFIG.run}/{{table}}.log",
    benchmark:
        f"logs/{CONFIG.run}/{{table}}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "fader table --config {PARAMS} {wildcards.table} > {log} 2>&1"


rule figure:
    input:
        of_run(FILES.packed()),
        of_run(FILES.maps("{seed}", "{method}")),
        of_run(FILES.metrics("{seed}", "{method}")),
    output:
        figure_paths(CONFIG.run, "{figure}"),
    params:
        **settings("report"),
    wildcard_constraints:
        figure="|".join(FIGURES),
    log:
        f"logs/{CONFIG.run}/{{figure}}.log",
    benchmark:
        f"logs/{CONFIG.run}/{{figure}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "fader figure --config {PARAMS} {wildcards.figure} > {log} 2>&1"
