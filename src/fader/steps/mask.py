"""Saliency of suspected defects by one masker, which is trained first where it learns."""

from typing import Any

import torch
from torch import Tensor

from fader import runtime
from fader.maskers import Masker
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.steps import inputs, training


def make_mask(context: Context) -> None:
    """Saliency (N, h, w) of every train, validation and test image; see ``Masker.saliency``."""
    masker = context.job.system
    machine = runtime.start(context.config.runtime)
    model = inputs.untrained_masker(context, masker, machine)
    about: dict[str, Any] = {"weights": model.weights}
    learns = context.config.masks.trained(masker)
    if learns:
        about["seed"] = context.job.seed
        run = training.run_of(context, machine, context.seed(f"masker/{masker}"))
        history = model.fit(inputs.normals(context).pixels, run)  # type: ignore[attr-defined]  # a ``TrainedMasker``
    header = context.header({"machine": machine.facts()} | about)
    artifacts.write_tensors(context.output("saliency"), _saliency(context, model), header)
    if learns:
        training.keep(context, machine, model.state(), history, about)  # type: ignore[attr-defined]  # a ``TrainedMasker``


def _saliency(context: Context, model: Masker) -> dict[str, Tensor]:
    """Saliency of all images of the category, float32 on the CPU."""
    packed = inputs.packed(context)[0]
    images = {
        "train": packed["train"],
        "validation": inputs.split(context)["defects"],
        "test": packed["test"],
    }
    return {
        name: torch.cat([_of_batch(model, batch) for batch in pixels.split(model.batch)])
        for name, pixels in images.items()
    }


def _of_batch(model: Masker, pixels: Tensor) -> Tensor:
    return model.saliency(pixels.float() / 255).float().cpu()
