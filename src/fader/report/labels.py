"""What methods are called in print, and which systems of the paper they stand beside.

Both follow what was loaded, a masker's kind and backbone, never the name that a configuration gives
to it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fader.config import Config, Salient
from fader.pipeline.methods import Method
from fader.vision.registry import BACKBONES

DATASETS = {"mvtec_ad": "MVTec AD", "visa": "VisA"}
STAGES = {"mask": "Masker", "ear": "EAR", "fader": "FADeR"}
_PAPER_DINO = "DINO-ViT (read here as ViT-S/8)"


def maskers(config: Config) -> dict[str, str]:
    """Masker → its label; equal labels are told apart by the names of the configuration."""
    return _distinct({name: _masker(config, name) for name in config.masks.maskers})


def detectors(config: Config) -> dict[str, str]:
    """Baseline → its label, as for ``maskers``."""
    return _distinct({name: each.label for name, each in config.detectors.items()})


def _distinct(labels: Mapping[str, str]) -> dict[str, str]:
    times = Counter(labels.values())
    return {
        name: label if times[label] == 1 else f"{label}, {name}" for name, label in labels.items()
    }


def _masker(config: Config, name: str) -> str:
    settings, own = config.masks.settings(name), config.masks.maskers[name].rule
    backbone: Any = getattr(settings, "backbone", None)
    if settings.label is None:
        label = _backbone(backbone)
    else:
        known = backbone is None or backbone in settings.paper
        label = settings.label if known else f"{settings.label} ({_backbone(backbone)})"
    return f"{label}, {_rule(config, name)}" if own else label


def _rule(config: Config, name: str) -> str:
    rule, level = config.masks.threshold(name)
    return rule if rule in ("native", "otsu") else f"{rule} {level:g}"


def _backbone(name: str) -> str:
    return BACKBONES[name].label if name in BACKBONES else name


def system(config: Config, which: Method) -> str:
    """The label of a method's masker or baseline."""
    known = detectors(config) if which.stage == "detector" else maskers(config)
    return known.get(which.system, which.system)


def method(config: Config, which: Method) -> str:
    """A method's label: ``EAR, DINO ViT-S/8``, ``FADeR (hard), DINO ViT-S/8``, ``RIAD``."""
    if which.stage == "detector":
        return system(config, which)
    stage = STAGES.get(which.stage, "FADeR") + (f" ({which.variant})" if which.variant else "")
    return f"{stage}, {system(config, which)}"


def paper_masker(settings: Salient) -> str | None:
    """The masker of the paper's Tables 2 and 4 that one of ours is compared with; None where the
    paper has no such masker."""
    backbone = getattr(settings, "backbone", None)
    return settings.paper.get(backbone, next(iter(settings.paper.values()), None))


def stands_in(settings: Salient) -> bool:
    """Whether a masker is none of the paper's: of another backbone, or of another kind."""
    return getattr(settings, "backbone", None) not in settings.paper


def stand_in_notes(config: Config, names: Iterable[str]) -> tuple[str, ...]:
    """What to know where the paper's numbers stand beside another masker than its own."""
    labels = maskers(config)
    return tuple(
        f"The masks of {name} come from {labels[name]}; the paper's come from"
        f" {_paper_label(config.masks.settings(name))}."
        for name in names
        if config.masks.source(name) == name and stands_in(config.masks.settings(name))
    )


def _paper_label(settings: Salient) -> str:
    if settings.label is None or not settings.paper:
        return _PAPER_DINO
    return f"{settings.label} with {_backbone(str(next(iter(settings.paper))))}"
