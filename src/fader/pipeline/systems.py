"""Which systems each phase has, by their names in the configuration."""

from __future__ import annotations

from fader.config import Config
from fader.pipeline.jobs import Job


def maskers(config: Config) -> list[str]:
    """Maskers of a run, less those that it goes without."""
    return [masker for masker in config.masks.maskers if masker not in config.missing]


def saliencies(config: Config) -> list[str]:
    """Those of the maskers that have a saliency of their own."""
    return [masker for masker in config.masks.salient if masker not in config.missing]


def threshold(config: Config, job: Job) -> dict[str, str | float]:
    """Rule and level by which the masker of a job is binarised."""
    rule, level = config.masks.threshold(job.system)
    return {"rule": rule, "level": level}


def plugins(config: Config) -> list[str]:
    """Maskers on which FADeR is trained beside the base masker."""
    return [masker for masker in maskers(config) if masker != config.masks.base]


def variants(config: Config) -> list[str]:
    """FADeR's variants."""
    return list(config.variants)


def detectors(config: Config) -> list[str]:
    """Baselines."""
    return list(config.detectors)
