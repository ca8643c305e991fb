"""The chain of a run, in process on a tiny category, up to the metrics."""

import copy
import shutil
from pathlib import Path

import torch
from tiny import PRESET

from fader import steps
from fader.config import Config, parse
from fader.pipeline import phases, weights
from fader.pipeline.artifacts import read_header
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job

PLACE = "first"
EVALUATE = Job("evaluate", PLACE, seed=0)
PACK = Job("pack", PLACE)
EAR, MOSAIC, FADER = (Job(phase, PLACE, seed=0) for phase in ("ear", "mosaic", "fader"))


def small(**changes: dict) -> dict:
    """The ci preset as small as it gets: one category of 32-pixel images, two epochs, a zero-shot
    masker and one that learns, a control that inherits, an ablation that does not, a baseline."""
    values = copy.deepcopy(PRESET) | {"detectors": {"pca": {"kind": "pca", "components": 4}}}
    values["categories"] = {PLACE: {"dataset": "synthetic_small", "category": "bolt"}}
    values["datasets"]["synthetic_small"] |= {"train": 12, "good": 6, "defective": 2}
    values["image"]["size"] = 32
    values["validation"] |= {"held": 3, "checked": 2, "most": 0.5, "per_image": 2}
    maskers = values["masks"]["maskers"]
    learning = {"input_size": 64, "width": 4, "steps": None, "epochs": 1, "upsampler": 1.0}
    values["masks"]["maskers"] = {
        "dinov2": maskers["dinov2"] | {"input_size": 56},
        "dsr": maskers["dsr"] | learning,
    }
    values["masks"]["optional"] = []
    values["codebook"] |= {"channels": 8, "codes": 8, "images": 4, "steps": None, "epochs": 1}
    values["unet"]["widths"] = [4, 8]
    values["ear"] |= {"steps": None, "epochs": 2, "batch": 4, "scales": [4, 8], "lr": 0.01}
    values["fader"] |= {
        "steps": None,
        "epochs": 2,
        "batch": 4,
        "hidden": 8,
        "watch": "every",
        "tuning": "base",
    }
    values["fader"] |= {"lrs": [0.01, 0.001], "schedules": ["fixed", "warmup"]}
    variants = values["variants"]
    values["variants"] = {
        "nomask": variants["nomask"] | {"grid": "inherit"},
        "hard": variants["hard"] | {"grid": "own"},
    }
    values["score"]["smooth"] = 3
    values["runtime"] |= {"device": "cpu", "precision": "fp32"}
    for section, keys in changes.items():
        values[section] |= keys
    return values


CONFIG = parse(small(), "small")


def alone(policy: str = "search", optional: tuple[str, ...] = ("dsr",), **changes) -> Config:
    """One grid point, no variant, and a masker whose codebook cannot be had."""
    values = small(mosaic={"policy": policy}, codebook={"file": "absent.pckl"})
    values["fader"] |= {
        "steps": None,
        "epochs": 1,
        "watch": "last",
        "lrs": [0.01],
        "schedules": ["fixed"],
    }
    values["masks"]["optional"] = list(optional)
    config = parse(values | {"variants": {}} | changes, "alone")
    return config.without(weights.decide(config))


def run(config: Config, job: Job) -> None:
    """Do a job in the present folder; torch's settings stay what they were."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        steps.run(Context(config, job))
    finally:
        torch.use_deterministic_algorithms(deterministic)


def make(config: Config, *wanted: str) -> None:
    """The jobs of phases, by default of all but cost and report."""
    for job in phases.jobs(config):
        if job.phase in wanted or (not wanted and job.phase not in ("cost", "report")):
            run(config, job)


def copied(folder: Path, target: Path, monkeypatch) -> None:
    """In a copy of a run's folder."""
    shutil.copytree(folder, target)
    monkeypatch.chdir(target)


def file(config: Config, job: Job, name: str) -> str:
    return phases.outputs(config, job)[name]


def record(config: Config, name: str, job: Job = EVALUATE) -> dict:
    """What was measured of a method."""
    return dict(read_header(file(config, job, f"metrics {name}")).facts)


def facts(job: Job, name: str = "weights", config: Config = CONFIG) -> dict:
    return dict(read_header(file(config, job, name)).facts)
