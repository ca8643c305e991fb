# The gate: the run's AUROCs against the expected ones, on the terminal and in the log.


# It has no output, so that it runs whenever it is asked for. Hence no benchmark either: Snakemake
# counts that file as a product, and would find nothing to do the second time.
rule check:
    input:
        of_run(FILES.metrics("{seed}", "{method}")),
        "reference/expected.csv",
    log:
        f"logs/{CONFIG.run}/check.log",
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "set -o pipefail; fader check 2>&1 | tee {log}"
