"""Which keys of the configuration matter to which phase."""

from collections.abc import Mapping
from typing import Any

from fader.config import Config

# The keys of params.yaml that each phase depends on. Braces are wildcards of the phase's files.
# FADeR and its evaluation depend on their own variant besides, which `Config.variant` finds.
PHASES: dict[str, tuple[str, ...]] = {
    "dataset": ("datasets.{dataset}",),
    "pack": ("datasets.{dataset}", "image"),
    "validation": ("validation",),
    "codebook": ("categories", "codebook", "runtime"),
    "masker": ("masks.maskers.{masker}", "runtime"),
    "mask": ("masks.maskers.{masker}", "masks.rule", "masks.level", "runtime"),
    "ear": ("ear", "unet", "loss", "masks.base", "runtime"),
    "mosaic": ("mosaic", "ear.scales", "score", "unet", "masks.base", "runtime"),
    "fader": ("fader", "unet", "loss", "score", "masks.base", "runtime"),
    "cost": (
        *("image", "masks.base", "masks.maskers", "codebook", "unet", "score"),
        *("mosaic.fixed", "fader.hidden", "fader.vit", "runtime"),
    ),
    "evaluate": (
        "score",
        "unet",
        "fader.hidden",
        "fader.vit",
        "masks.base",
        "report.images",
        "runtime",
    ),
    "report": ("run", "categories", "seeds", "masks", "mosaic.policy", "variants", "report"),
}


# Keys that say which files a phase makes, beyond those above that say what is in them. A Snakemake
# rule makes one file and does not depend on them; a DVC stage makes all of a category's.
AXES: dict[str, tuple[str, ...]] = {
    "masker": ("seeds",),
    "mask": ("seeds",),
    "ear": ("seeds",),
    "mosaic": ("seeds",),
    "fader": ("seeds", "masks.maskers", "variants"),
    "evaluate": ("seeds", "masks.maskers", "variants"),
}


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path of a plain configuration dictionary; KeyError names the path."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(path)
        value = value[key]
    return value


def settings(config: Config, phase: str, **wildcards: str) -> dict[str, Any]:
    """The part of the configuration that ``phase`` depends on: dotted key → plain value."""
    plain = config.model_dump(mode="json")
    return {
        key.format(**wildcards): lookup(plain, key.format(**wildcards)) for key in PHASES[phase]
    }
