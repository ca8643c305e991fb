"""Maskers: what points at the suspected defect before an image is obfuscated (EAR and FADeR's M_B).

A masker gives a saliency, and one rule (``fader.maskers.threshold``) binarises them all, otherwise
a comparison of maskers would compare thresholds. Methods that segment have binary masks of their
own besides, for the rule ``native``. To add one, write a module here with a ``create`` function of
the signature below, and add its settings, whose ``kind`` is the module's name, to ``fader.config``:
``docs/adding-a-masker.md`` shows one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    # The names are needed where torch is not (configuration, command line).
    from torch import Tensor, nn

    from fader.config import Salient
    from fader.runtime import Machine
    from fader.training.loop import History, Run


@dataclass(frozen=True)
class Context:
    """Where a masker works.

    Parameters
    ----------
    category : name of the images' category (for the words of a prompt).
    weights_dir : local directory of pretrained weights; None reads ``$FADER_WEIGHTS``.
    machine : device and precision.
    codebook : tensors of the run's pre-trained codebook, for the maskers that have one.
    random : draw the pretrained weights instead of loading them, on torch's current device: for
        what depends on shapes alone, as cost does.
    """

    category: str
    machine: Machine
    weights_dir: Path | None = None
    codebook: Mapping[str, Tensor] | None = None
    random: bool = False


class Masker(Protocol):
    """Saliency of suspected defects.

    Attributes
    ----------
    weights : the pretrained weights, in words and with their digest, for the record.
    batch : images per forward pass. Cut between such batches, images may come in any number of
        calls.
    """

    weights: str
    batch: int

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """Networks that learn from a category's normals."""

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Networks that came pretrained."""

    def saliency(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] → (N, h, w) fp32, non-negative, higher = more suspicious.

        h, w may be coarser than the image: the caller resizes to it, nearest. The map of an image
        does not depend on the other images given.
        """


@runtime_checkable
class SegmentingMasker(Masker, Protocol):
    """A masker whose method makes binary masks itself."""

    def native(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] and their ``saliency`` → (N, h, w) bool, True = suspected
        defect; h, w need not be those of the saliency."""


class TrainedMasker(Masker, Protocol):
    """A masker that learns from normal images; deterministic, and resumed from its checkpoints."""

    def initialise(self, seed: int) -> None:
        """Draw the weights that ``fit`` starts from, whatever the state of torch's generator."""

    def fit(self, normal: Tensor, run: Run) -> dict[str, History]:
        """Learn from normal images (N, 3, H, W) uint8; returns the history of each stage (see
        ``training.train``)."""

    def state(self) -> dict[str, Tensor]:
        """What was learnt, without any frozen weights that ``create`` loads anew."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; FaderError when it is not of these settings."""


def create(name: str, settings: Salient, context: Context) -> Masker:
    """Make the masker ``name`` from its section of the configuration.

    Raises
    ------
    MissingWeights : pretrained weights that cannot be had.
    FaderError : settings that do not go together.
    """
    module: Any = importlib.import_module(f"{__name__}.{settings.kind}")
    return module.create(name, settings, context)
