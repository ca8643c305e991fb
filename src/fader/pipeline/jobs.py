"""Jobs: one run of a phase each, and how they refer to one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fader.config import Config
from fader.pipeline import paths
from fader.pipeline.methods import Method, of_variant

# str (a seed: int, in rules str) or None, as the phase has it (``Phase.over``, ``systems`` and
# ``seeded``): which of the two, no type can tell.
Wildcard = Any


@dataclass(frozen=True)
class Job:
    """One run of a phase; in a rule, its values are wildcards.

    Parameters
    ----------
    phase : a key of ``PHASES``.
    place : key of ``datasets`` or of ``categories``, as the phase says; None for a whole run.
    system : masker, variant or detector.
    seed : None where all seeds share what is made.
    """

    phase: str
    place: Wildcard = None
    system: Wildcard = None
    seed: Wildcard = None

    def __str__(self) -> str:
        seed = None if self.seed is None else f"seed{self.seed}"
        return ".".join(part for part in (self.phase, self.place, self.system, seed) if part)

    def of(self, phase: str, system: str | None = None) -> Job:
        """The job of another phase at the same place and seed."""
        return replace(self, phase=phase, system=system)


def on_gpu(config: Config) -> bool:
    """Whether jobs ask for a GPU: ``auto`` does where NVIDIA's driver shows one."""
    device = config.runtime.device
    return device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists())


def dataset_of(config: Config, place: str) -> str:
    """The data set of a category, by the category's key."""
    return config.categories[place].dataset


def mask_job(config: Config, job: Job, masker: str) -> Job:
    """The saliency of a masker: that of the job's seed where it learns, otherwise of all seeds."""
    seed = job.seed if config.masks.trained(masker) else None
    return Job("mask", job.place, config.masks.source(masker), seed)


def trained_job(config: Config, job: Job, method: Method) -> Job:
    """The job that trains a method: EAR, FADeR, a plug-in, a variant or a detector."""
    if method.stage == "ear":
        return job.of("ear")
    if method.stage == "detector":
        return job.of("detector", method.system)
    if method.variant:
        return job.of("variant", method.variant)
    return (
        job.of("fader") if method.system == config.masks.base else job.of("plugin", method.system)
    )


def method_of(config: Config, job: Job) -> Method:
    """The method that a job trains: the inverse of ``trained_job``."""
    if job.phase == "detector":
        return Method("detector", job.system)
    if job.phase == "variant":
        return of_variant(config, job.system)
    return Method("fader", job.system or config.masks.base)


def inherits(config: Config, job: Job) -> bool:
    """Whether a FADeR takes over the grid point that the base masker's FADeR picked."""
    if job.phase == "variant":
        return config.variants[job.system].grid == "inherit"
    return job.phase == "plugin" and config.fader.tuning == "base"


def of_method(config: Config, job: Job, method: Method) -> dict[str, str]:
    """Paths of what a job of ``evaluate`` writes for a method: metrics, and pictures with maps."""
    metrics = f"{paths.metrics(config.run, job.place)}/seed{job.seed}/{method}.json"
    maps = f"{paths.category(config.run, job.place)}/maps/seed{job.seed}/{method}.safetensors"
    return {f"metrics {method}": metrics, f"maps {method}": maps}
