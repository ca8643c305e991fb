"""Maskers of a category as the phases make them: with the run's weights and codebook."""

from pathlib import Path

from fader import runtime
from fader.config import Config
from fader.errors import FaderError, MissingWeights
from fader.maskers import Context, Masker, create
from fader.pipeline import artifacts
from fader.pipeline.paths import codebook_path
from fader.steps.category import MISSING, Category


def known(category: Category, masker: str) -> None:
    """FaderError when the configuration has no such masker."""
    maskers = category.config.masks.maskers
    if masker not in maskers:
        raise FaderError(f"masker {masker!r} is not under masks.maskers ({', '.join(maskers)})")


def codebook_of(category: Category, masker: str) -> list[str]:
    """The codebook that a masker reads, as a list of no path or one."""
    return [codebook_path(category.config.run)] if category.config.masks.coded(masker) else []


def make(category: Category, masker: str, machine: runtime.Machine) -> Masker:
    """The masker, untrained where it learns.

    MissingWeights when its weights, or those of its codebook, cannot be had.
    """
    config = category.config
    codebook = None
    for path in codebook_of(category, masker):
        header = category.checked(path, "codebook")
        if MISSING in header.facts:
            raise MissingWeights(header.facts[MISSING])
        codebook = artifacts.read_tensors(path)
    weights = Path(config.weights_dir) if config.weights_dir else None
    context = Context(category.name, machine, weights, codebook)
    return create(masker, config.masks.maskers[masker], context)


def optional(config: Config, masker: str, error: MissingWeights) -> dict[str, str]:
    """The fact that an optional masker's weights are missing; raises ``error`` for any other."""
    if masker not in config.masks.optional:
        raise error
    return {MISSING: str(error)}
