"""Images of one's own and a preset for them, as small as they get."""

from pathlib import Path

import chain
import numpy as np
import yaml
from folders import save
from tiny import PRESET

from fader.data.synthetic import render

UNET = {"kind": "unet", "epochs": 2, "batch": 4, "lr": 0.002, "schedule": "onecycle"}
PATCHCORE = PRESET["detectors"]["patchcore"] | {"input_size": 56, "most": 50}
SIZE = 32
COUNT = 12


def preset(folder: Path, name: str = "tiny", **changes) -> Path:
    """The configuration of ``chain`` with PCA, a U-Net and further ``detectors``, as a file."""
    values = chain.small(**changes)
    values["detectors"] |= {"unet": UNET}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def pixels(number: int, defect: str | None = None, side: int = 48) -> np.ndarray:
    """A bolt, (side, side, 3) uint8."""
    return render("bolt", "train", number, seed=0, size=side, defect=defect)[0]


def mask(number: int, defect: str, side: int = 48) -> np.ndarray:
    """Its defective pixels, (side, side) uint8 0/1."""
    return (render("bolt", "train", number, seed=0, size=side, defect=defect)[1] > 0).astype(
        np.uint8
    )


def folder_of(folder: Path, count: int = COUNT, defect: str | None = None) -> Path:
    """A folder of bolts."""
    for number in range(count):
        save(folder / f"{number:03}.png", pixels(number, defect))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Path → bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}
