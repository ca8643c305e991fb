"""The quantised autoencoder that all categories of a run share."""

from pathlib import Path

import torch

from fader import runtime
from fader.maskers.dsr import codebook
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job
from fader.seeds import derive_seed
from fader.steps import inputs, training
from fader.training.loop import History


def make_codebook(context: Context) -> None:
    """Read the codebook from its file, or train it on normals of every category."""
    config, settings = context.config, context.config.codebook
    machine = runtime.start(config.runtime)
    history: dict[str, History]
    if settings.file:
        state, history = codebook.read(Path(settings.file), settings), {}
    else:
        categories = [_of_category(context, place) for place in config.categories]
        run = training.run_of(context, machine, derive_seed(0, "codebook"))
        state, history = codebook.fit(torch.cat(categories), settings, machine, run)
    training.keep(context, machine, state, history)


def _of_category(context: Context, place: str) -> torch.Tensor:
    """Some of a category's fitted normals, (n, 3, H, W) uint8."""
    category = context.of(Job("pack", place))
    return inputs.sampled(inputs.normals(category).pixels, context.config.codebook.images)
