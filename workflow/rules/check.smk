# The gate: the run's AUROCs against the expected ones, on the terminal and in the log.


# It has no output, so that it runs whenever it is asked for. Hence no benchmark either: Snakemake
# counts that file as a product, and would find nothing to do the second time.
rule check:
    input:
        [
            path
            for job in phases.jobs(CONFIG, "evaluate")
            for path in phases.artefacts(CONFIG, job)
        ],
        "reference/expected.csv",
    log:
        log_of("check"),
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "set -o pipefail; fader check 2>&1 | tee {log}"
