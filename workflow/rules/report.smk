# The printed page: tables, figures and numbers from everything that was measured in the run.


rule tables:
    input:
        outputs("report", seed=None),
        list(lacking()),


rule cost:
    input:
        inputs("cost"),
    output:
        outputs("cost", seed=None),
    log:
        log_of("cost"),
    benchmark:
        benchmark_of("cost")
    # All there are, so that nothing else runs while it is timed; it uses runtime.threads of them.
    threads: workflow.resource_settings.cores or 1
    resources:
        mem_mb=8000,
        runtime=60,
        gpu=GPU,
    shell:
        "fader run cost > {log} 2>&1"


rule report:
    input:
        inputs("report"),
        paths.REFERENCE,
        [
            str(path)
            for folder in (paths.CAPTIONS, paths.TEMPLATES)
            for path in sorted(Path(folder).iterdir())
        ],
    output:
        list(map(shown, outputs("report", seed=None))),
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    shell:
        "fader run report > {log} 2>&1"
