"""Suspected defects of every image by one masker, through the one threshold rule."""

from pathlib import Path

import torch

from fader import artifacts, runtime
from fader.artifacts import Header
from fader.errors import FaderError
from fader.maskers import create
from fader.maskers.threshold import binarise
from fader.phases.category import Category


def make_mask(category: Category, masker: str) -> None:
    """Saliency and binary masks of every train, test and validation image by one masker."""
    config = category.config
    if masker not in config.masks.maskers:
        raise FaderError(
            f"masker {masker!r} is not under masks.maskers ({', '.join(config.masks.maskers)})"
        )
    machine = runtime.start(config.runtime)
    packed, _ = category.packed()
    split = category.validation()
    weights = Path(config.weights_dir) if config.weights_dir else None
    model = create(
        masker,
        config.masks.maskers[masker].model_dump(),
        weights_dir=weights,
        device=machine.device,
        autocast=machine.autocast,
    )
    model.fit(packed["train"][split["fit"]].float() / 255)
    tensors, areas = {}, {}
    for name, pixels in (
        ("train", packed["train"]),
        ("validation", split["defects"]),
        ("test", packed["test"]),
    ):
        saliency = model.saliency(pixels.float() / 255).cpu()
        mask = binarise(saliency, config.masks.rule, config.masks.level)
        tensors |= {f"saliency/{name}": saliency.half(), f"mask/{name}": mask.to(torch.uint8)}
        areas[name] = round(mask.float().mean().item(), 6)
    header = Header(
        "mask",
        category.settings("mask", masker=masker),
        artifacts.inputs(category.files.packed(), category.files.validation()),
        {"weights": model.weights, "mean_area": areas, "machine": machine.facts()},
    )
    artifacts.write_tensors(category.files.mask(masker), tensors, header)
