"""What a name stands for, and what was loaded under it."""

from dataclasses import dataclass
from typing import Self

import timm

from fader.errors import FaderError
from fader.vision.registry import BACKBONES, Backbone, published

RANDOM = "random, of the same architecture"


@dataclass(frozen=True)
class WeightsInfo:
    """What was loaded: registry name, label, source (no local path), digest of the file read."""

    name: str
    label: str
    source: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.label}, {self.source}, sha256 {self.sha256}"

    @classmethod
    def random(cls, name: str, label: str) -> Self:
        """Of weights that were drawn, not loaded: to measure cost."""
        return cls(name, label, RANDOM, "")


def backbone(name: str) -> Backbone:
    """The registry's entry, or one made of what timm says of ``architecture.tag``.

    FaderError when there is neither.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    known = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
    if "." not in name or known is None or not known.hf_hub_id:
        raise FaderError(
            f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}, or the full name of"
            " a model of timm with its tag"
        )
    licence = known.license or "not stated"
    return published(name, licence=licence, mean=known.mean, std=known.std)
