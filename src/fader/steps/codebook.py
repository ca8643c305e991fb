"""The quantised autoencoder that all categories of a run share."""

from pathlib import Path

import torch

from fader import runtime
from fader.config import Config
from fader.errors import FaderError, MissingWeights
from fader.files import write_text
from fader.maskers import codebook
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import codebook_path, losses_path
from fader.seeds import derive_seed
from fader.steps import maskers
from fader.steps.category import Category
from fader.steps.checkpoints import checkpoint, finish
from fader.steps.masker import losses_csv
from fader.training.loop import Run


def make_codebook(config: Config) -> None:
    """Read the codebook from its file, or train it on normals of every category."""
    categories = [Category(config, *pair) for pair in config.pairs()]
    users = [masker for masker in config.masks.maskers if config.masks.coded(masker)]
    if not users:
        raise FaderError("no masker of this run has a codebook")
    settings = config.codebook
    machine = runtime.start(config.runtime)
    target = codebook_path(config.run)
    chosen = categories[0].settings("codebook")
    read = [] if settings.file else [path for c in categories for path in _read_paths(c)]
    used = artifacts.inputs(*read)
    facts = {"machine": machine.facts()}
    history = {}
    if settings.file:
        try:
            state = codebook.read(Path(settings.file), settings)
        except MissingWeights as error:
            for masker in users:
                facts |= maskers.optional(config, masker, error)
            state = {}
    else:
        images = torch.cat([_normals(category, settings.images) for category in categories])
        key = [chosen, used, machine.facts()]
        run = Run(
            derive_seed(0, "codebook"), config.run, lambda stage: checkpoint(target, stage, key)
        )
        state, history = codebook.fit(images, settings, machine, run)
    write_text(losses_path(target), losses_csv(history))
    artifacts.write_tensors(target, state, Header("codebook", chosen, used, facts))
    finish(target)


def _read_paths(category: Category) -> list[str]:
    return [category.files.packed(), category.files.validation()]


def _normals(category: Category, most: int) -> torch.Tensor:
    """At most ``most`` fitted normals of a category, evenly spaced, (n, 3, H, W) uint8."""
    packed, _ = category.packed()
    fit = category.validation()["fit"]
    chosen = torch.linspace(0, len(fit) - 1, min(most, len(fit))).round().long()
    return packed["train"][fit[chosen]]
