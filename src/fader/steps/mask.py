"""Saliency of suspected defects by one masker, which is trained first where it learns, and its own
binary masks where it segments."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fader import runtime
from fader.maskers import Masker, SegmentingMasker
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.steps import inputs, training


def make_mask(context: Context) -> None:
    """Saliency (N, h, w) of every train, validation and test image, see ``Masker.saliency``; and
    ``native`` masks (N, h', w') uint8 of a ``SegmentingMasker``."""
    masker = context.job.system
    machine = runtime.start(context.config.runtime)
    model = inputs.untrained_masker(context, masker, machine)
    about: dict[str, Any] = {"weights": model.weights}
    learns = context.config.masks.trained(masker)
    images = inputs.at_side(context, context.config.masks.settings(masker).input_size)
    if learns:
        about["seed"] = context.job.seed
        run = training.run_of(context, machine, context.seed(f"masker/{masker}"))
        normals = images["train"][inputs.split(context)["fit"]]
        history = model.fit(normals, run)  # type: ignore[attr-defined]  # a ``TrainedMasker``
    header = context.header({"machine": machine.facts()} | about)
    artifacts.write_tensors(context.output("saliency"), _saliency(model, images), header)
    if learns:
        training.keep(context, machine, model.state(), history, about)  # type: ignore[attr-defined]  # a ``TrainedMasker``


def _saliency(model: Masker, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Saliency of images, float32, and native masks, uint8, on the CPU."""
    found: dict[str, list[Tensor]] = {}
    for name, pixels in images.items():
        for batch in pixels.split(model.batch):
            for key, values in _of_batch(model, name, batch):
                found.setdefault(key, []).append(values.cpu())
    return {key: torch.cat(parts) for key, parts in found.items()}


def _of_batch(model: Masker, name: str, pixels: Tensor) -> Iterator[tuple[str, Tensor]]:
    images = pixels.float() / 255
    saliency = model.saliency(images).float()
    yield name, saliency
    if isinstance(model, SegmentingMasker):
        yield f"native_{name}", model.native(images, saliency).to(torch.uint8)
