"""Maskers: what points at the suspected defect before an image is obfuscated (EAR and FADeR's M_B).

A masker gives a saliency, never a mask: one rule (``fader.maskers.threshold``) binarises them
all, otherwise a comparison of maskers would compare thresholds. To add one, write a module here
with a ``create`` function of the signature below and add its line to ``_MODULES``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fader.errors import FaderError

if TYPE_CHECKING:
    # The names are needed where torch is not (configuration, command line).
    import torch
    from torch import Tensor

#: Returns a fresh precision context, such as ``partial(torch.autocast, "cuda", torch.bfloat16)``.
Autocast = Callable[[], AbstractContextManager]


class Masker(Protocol):
    """Saliency of suspected defects.

    weights: the pretrained weights used, in words and with their digest, for the record.
    """

    weights: str

    def fit(self, normal: Tensor) -> None:
        """Learn from normal images (N,3,H,W) in [0,1]; nothing to do for a zero-shot masker."""

    def saliency(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) in [0,1] -> (N,h,w) fp32, non-negative, higher = more suspicious.

        h, w may be coarser than the image: the caller resizes to it, nearest.
        """


# name -> module of this package that makes it
_MODULES = {
    "dino": "attention",
    "vit": "attention",
    "dinov2": "attention",
}

NAMES = tuple(_MODULES)


def create(
    name: str,
    settings: Mapping[str, Any],
    *,
    weights_dir: Path | None = None,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
) -> Masker:
    """Make the masker ``name`` with its own ``settings`` (documented in its module).

    Raises:
        FaderError: unknown name or setting, or weights that cannot be had.
    """
    if name not in _MODULES:
        raise FaderError(f"unknown masker {name!r}: choose one of {', '.join(NAMES)}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return module.create(name, settings, weights_dir=weights_dir, device=device, autocast=autocast)
