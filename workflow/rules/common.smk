# Configuration and the table of phases, for all rules: what a rule reads, writes and depends on.

import os
import sys
from pathlib import Path

import yaml

from fader import config as schema
from fader.pipeline import external, paths, phases, record, weights
from fader.pipeline.jobs import Job, on_gpu
from fader.report import warnings

# One configuration file, complete: params.yaml, or the one given by --configfile.
given = workflow.config_settings.configfiles
PARAMS = Path(given[0]) if given else Path("params.yaml")


def stop(message):
    """End with one line, as the command line does."""
    raise SystemExit(f"fader: {message}")


try:
    plain = yaml.safe_load(PARAMS.read_text())
    if config and config != plain:
        stop(
            "--config overrides and several --configfile are not supported: edit one complete file"
        )
    config.update(plain)
    CONFIG = schema.parse(plain, str(PARAMS))
    # Decided once: jobs follow what the main process writes.
    CONFIG = (
        weights.plan(CONFIG) if workflow.is_main_process else weights.planned(CONFIG)
    )
except FileNotFoundError:
    stop(f"{PARAMS}: no such file; `fader preset demo` writes one")
except (yaml.YAMLError, TypeError, ValueError) as error:
    stop(" ".join(str(error).split()))

# Every `fader` command of a rule reads the same file.
os.environ["FADER_PARAMS"] = str(PARAMS)


envvars:
    "FADER_PARAMS",


# One engine at a time: see fader.pipeline.record.
if workflow.is_main_process:
    try:
        record.refuse_beside_dvc()
    except ValueError as error:
        stop(error)


onsuccess:
    for line in warnings(CONFIG):
        print(line, file=sys.stderr)


onstart:
    try:
        record.hold_dvc()
    except ValueError as error:
        stop(error)


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
    """Artefacts that a job reads, and files of the user's own."""

    def of_job(wildcards):
        job = job_of(phase, wildcards)
        return phases.read_paths(CONFIG, job) + external.files(CONFIG, job)

    return of_job


def outputs(phase, seed="{seed}"):
    """Files that a phase writes, with wildcards for place, system and seed."""
    place = None if phases.PHASES[phase].over == "run" else "{place}"
    system = "{system}" if phases.PHASES[phase].systems else None
    return list(phases.outputs(CONFIG, Job(phase, place, system, seed)).values())


def settings(phase):
    """The part of the configuration that a job depends on: another value reruns it."""
    return lambda wildcards: phases.settings(CONFIG, job_of(phase, wildcards))


def code(phase):
    """Digest of the code that a job runs: see fader.pipeline.code."""
    return lambda wildcards: external.code_digest(CONFIG, job_of(phase, wildcards))


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
