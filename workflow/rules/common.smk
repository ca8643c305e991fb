# Configuration and the table of phases, for all rules: what a rule reads, writes and depends on.

import gc
import os
import sys
from pathlib import Path

from fader.pipeline import failures

# Ends with one line, as the command line does. Whatever fails from here on ends so too.
stop = failures.watch().stop

from fader import config as schema
from fader.data import own
from fader.errors import FaderError
from fader.pipeline import external, listing, locks, paths, phases, weights
from fader.pipeline.jobs import Job, on_gpu
from fader.report import warnings

# What is imported stays, and so does the graph of jobs: the garbage collector need not go through
# them all over again, which would take a fifth of planning.
gc.freeze()
gc.set_threshold(10_000_000)

# One configuration file, complete: params.yaml, or the one given by --configfile.
given = workflow.config_settings
PARAMS = Path(given.configfiles[0]) if given.configfiles else Path("params.yaml")


try:
    if given.config or len(given.configfiles) > 1:
        stop(
            "--config overrides and several --configfile are not supported: edit one complete file"
        )
    CONFIG = schema.load(PARAMS)
    config.update(CONFIG.plain)
    # Decided once: jobs follow what the main process writes, and nobody else does meanwhile.
    if workflow.is_main_process and not locks.engine_at_work():
        own.check(CONFIG, listing.unlisted(CONFIG), str(PARAMS))
        CONFIG = weights.plan(CONFIG)
        external.write_states(CONFIG)
    else:
        CONFIG = weights.planned(CONFIG)
except (OSError, FaderError) as error:
    stop(error)

# Every `fader` command of a rule reads the same file.
os.environ["FADER_PARAMS"] = str(PARAMS)


envvars:
    "FADER_PARAMS",


# One engine at a time: see fader.pipeline.locks.
if workflow.is_main_process:
    try:
        locks.refuse_beside_dvc()
    except ValueError as error:
        stop(error)


onsuccess:
    for line in warnings(CONFIG):
        print(line, file=sys.stderr)


onstart:
    try:
        locks.hold_engine()
    except (OSError, ValueError) as error:
        stop(error)
    for line in listing.descriptions(CONFIG):
        print(line, file=sys.stderr)


wildcard_constraints:
    place="|".join([*CONFIG.datasets, *CONFIG.categories]),
    seed=r"\d+",


def job_of(phase, wildcards):
    """The job of a phase for the wildcards of its rule."""
    seed = wildcards.get("seed")
    return Job(
        phase,
        wildcards.get("place"),
        wildcards.get("system"),
        None if seed is None else int(seed),
    )


def inputs(phase):
    """A file of each job that a job reads, and its state: settings, code, files of the user's own.

    Every further file costs planning, and says no more: see ``lacking``.
    """

    def of_job(wildcards):
        job = job_of(phase, wildcards)
        return [*phases.made_before(CONFIG, job), external.state_file(CONFIG, job)]

    return of_job


def outputs(phase, seed="{seed}"):
    """Files that a phase writes, with wildcards for place, system and seed."""
    place = None if phases.PHASES[phase].over == "run" else "{place}"
    system = "{system}" if phases.PHASES[phase].systems else None
    return list(phases.outputs(CONFIG, Job(phase, place, system, seed)).values())


def shown(path):
    """A file of the report as `snakemake --report` shows it; tables as CSV, figures as PNG."""
    path = Path(path)
    category = {"tables": "Tables", "figures": "Figures", "report": "Report"}.get(
        path.parent.name
    )
    if category is None or path.suffix not in (".csv", ".png", ".html"):
        return str(path)
    own = Path(paths.CAPTIONS, f"{path.stem}.rst")
    general = {"Tables": "table", "Figures": "figure", "Report": "site"}[category]
    caption = own if own.exists() else own.with_stem(general)
    return report(str(path), caption=f"../report/{caption.name}", category=category)


def lacking():
    """A file of every job that has not made all of its own, and that no other such job asks for.

    Snakemake makes a missing file only where another has to be made from it: one that was deleted,
    or went with a failed job, would stay away as long as the page is there.
    """
    missing = {}
    for job in phases.jobs(CONFIG):
        files = phases.outputs(CONFIG, job).values()
        if absent := [path for path in files if not Path(path).exists()]:
            missing[job] = absent
    asked = {other for job in missing for other in phases.inputs(CONFIG, job)}
    for job, absent in missing.items():
        if job not in asked or phases.artefacts(CONFIG, job)[0] not in absent:
            yield absent[0]


def one_of(names):
    """Constraint of a wildcard; none matches where there are no names."""
    return "|".join(names) or "(?!)"


def log_of(phase, *names):
    """Log of a job; its benchmark lies beside it."""
    return paths.log(CONFIG.run, ".".join([phase, *names])) + ".log"


def benchmark_of(phase, *names):
    return log_of(phase, *names).removesuffix(".log") + ".tsv"


# Priorities of rules: what others wait for comes first, so that no core is idle at the end.

# One job at a time on a GPU.
GPU = int(on_gpu(CONFIG))
# The cache of features lies beside the network and the images.
FADER_MB = 4000 + int(1024 * CONFIG.fader.cache_gib)
