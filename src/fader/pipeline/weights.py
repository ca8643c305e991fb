"""Which optional maskers a run goes without, decided once, when it is planned.

A masker that ``masks.optional`` lists is left out where its pretrained weights cannot be had: none
of its jobs is planned, and the tables say why. Snakemake decides when it plans and leaves the
decision in ``results/<run>/missing.json``, which the jobs follow.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fader.config import Config, WinClip
from fader.errors import FaderError
from fader.pipeline import artifacts, paths
from fader.pipeline.artifacts import Header
from fader.vision import sources
from fader.vision.registry import BACKBONES, CLIP, Backbone, published

PLAN = "plan"  # kind of the file that keeps the decision


def decide(config: Config) -> dict[str, str]:
    """Optional masker → why its weights cannot be had. Nothing is fetched."""
    reasons = {name: _lacking(config, name) for name in _optional(config)}
    return {name: reason for name, reason in reasons.items() if reason}


def _optional(config: Config) -> list[str]:
    """Maskers that the run can do without, and those that take their saliency again."""
    masks = config.masks
    return [name for name in masks.maskers if masks.source(name) in masks.optional]


def planned(config: Config) -> Config:
    """The configuration less the maskers that the run's plan leaves out; decided now where nothing
    was planned yet."""
    path = paths.missing(config.run)
    if not Path(path).is_file():
        return config.without(decide(config))
    missing = artifacts.check(path, PLAN, {"run": config.run}).facts
    return config.without({name: missing[name] for name in _optional(config) if name in missing})


def plan(config: Config) -> Config:
    """As ``planned``, decided anew and written down."""
    missing = decide(config)
    path, header = paths.missing(config.run), Header(PLAN, {"run": config.run}, {}, missing)
    try:
        artifacts.write_changed(path, header)
    except FaderError:  # damaged: the decision is the same without it
        artifacts.write_json(path, header)
    return config.without(missing)


def local_files(config: Config, masker: str) -> list[str]:
    """Files in the user's own folder of weights that a masker reads."""
    settings = config.masks.settings(masker)
    if isinstance(settings, WinClip):
        return _there(config, CLIP.files)
    name = getattr(settings, "backbone", None)
    return [] if name is None else backbone_files(config, name)


def backbone_files(config: Config, name: str) -> list[str]:
    """Files in the user's own folder of weights that a backbone is read from."""
    return _there(config, [_entry(name).file])


def _there(config: Config, names: list[str] | tuple[str, ...]) -> list[str]:
    folder = config.weights_dir or os.environ.get("FADER_WEIGHTS")
    if not folder:
        return []
    return [str(path) for name in names if (path := Path(folder, name)).is_file()]


def _lacking(config: Config, masker: str) -> str | None:
    settings = config.masks.settings(masker)
    file = config.codebook.file
    if config.masks.coded(masker) and file and not Path(file).is_file():
        return f"{file}: no such file (codebook.file); put it there or set null to train one"
    name: Any = getattr(settings, "backbone", None)
    if not isinstance(settings, WinClip) and name is None:
        return None
    directory = sources.weights_directory(config.weights_folder)
    if isinstance(settings, WinClip):
        return sources.lacking_clip(masker, directory)
    return sources.lacking(name, _entry(name), directory)


def _entry(name: str) -> Backbone:
    return BACKBONES[name] if name in BACKBONES else published(name)
