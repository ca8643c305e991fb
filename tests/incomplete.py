"""Test sets of one's own that are incomplete: without masks, without good or without defective
images."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from fader.data import synthetic

NO_MASKS = "no masks (datasets.unmasked.masks: absent)"
NO_GOOD, NO_DEFECTIVE = "no good test images", "no defective test images"


def images(root: Path, names: Iterable[str]) -> None:
    """The same category under each name, with something taken away of ``bare``, ``bad`` and
    ``good``."""
    synthetic.generate(root, "mvtec", seed=0, size=64, train=10, good=3, defective=2)
    for name in names:
        shutil.copytree(root / "bolt", root / name)
    shutil.rmtree(root / "bare/ground_truth")
    shutil.rmtree(root / "bad/test/good")
    shutil.rmtree(root / "good/ground_truth")
    for folder in (root / "good/test").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)


def sections(root: Path, names: Iterable[str]) -> dict[str, dict]:
    """Their ``datasets`` and ``categories`` in a configuration."""
    folder = {"source": "folder", "layout": "mvtec", "root": str(root), "paper": None}
    folder |= {"complete": False, "white": None}
    return {
        "datasets": {
            "masked": folder | {"masks": "present"},
            "unmasked": folder | {"masks": "absent"},
        },
        "categories": {
            name: {"dataset": "unmasked" if name == "bare" else "masked", "category": name}
            for name in names
        },
    }
