"""Suspected defects of every image by one masker, through the one threshold rule."""

import torch

from fader import runtime
from fader.errors import FaderError, MissingWeights
from fader.maskers import Masker
from fader.maskers.threshold import binarise
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.steps import maskers
from fader.steps.category import MISSING, Category


def make_mask(category: Category, masker: str, seed: int | None = None) -> None:
    """Saliency and binary masks of every train, test and validation image by one masker.

    seed : of the trained masker; None for a zero-shot one, whose masks serve every seed.
    """
    config, files = category.config, category.files
    maskers.known(category, masker)
    if config.masks.trained(masker) != (seed is not None):
        raise FaderError(
            f"masker {masker!r} {'learns: give' if seed is None else 'is zero-shot: leave out'}"
            " --seed"
        )
    machine = runtime.start(config.runtime)
    read = [files.packed(), files.validation(), *maskers.codebook_of(category, masker)]
    if seed is not None:
        read.append(files.masker(masker, seed))
    facts = {"machine": machine.facts()}
    tensors = {}
    try:
        model = _ready(category, masker, seed, machine)
    except MissingWeights as error:
        facts |= maskers.optional(config, masker, error)
    else:
        facts |= {"weights": model.weights, "mean_area": {}}
        packed, _ = category.packed()
        for name, pixels in (
            ("train", packed["train"]),
            ("validation", category.validation()["defects"]),
            ("test", packed["test"]),
        ):
            saliency = model.saliency(pixels.float() / 255).cpu()
            mask = binarise(saliency, config.masks.rule, config.masks.level)
            tensors |= {f"saliency/{name}": saliency.half(), f"mask/{name}": mask.to(torch.uint8)}
            facts["mean_area"][name] = round(mask.float().mean().item(), 6)
    settings = category.settings("mask", masker=masker)
    header = Header("mask", settings, artifacts.inputs(*read), facts)
    artifacts.write_tensors(files.mask(masker, seed), tensors, header)


def _ready(category: Category, masker: str, seed: int | None, machine: runtime.Machine) -> Masker:
    """The masker, with what it learnt where it learns."""
    model = maskers.make(category, masker, machine)
    if seed is not None:
        path = category.files.masker(masker, seed)
        header = category.checked(path, "masker", masker=masker)
        if MISSING in header.facts:
            raise MissingWeights(header.facts[MISSING])
        model.load(artifacts.read_tensors(path))
    return model
