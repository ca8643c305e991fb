"""Data sets of one's own on disk: one tiny category in either layout, and what is changed in it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fader.errors import FaderError


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def spot(row: int = 2, column: int = 5, value: int = 255) -> np.ndarray:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[row, column] = value
    return mask


def write_nut(root: Path) -> Path:
    """One category in MVTec layout; its files are not created in sorted order."""
    folder = root / "nut"
    save(folder / "test/scratch/001.png", noise(5))
    save(folder / "ground_truth/scratch/001_mask.png", spot())
    save(folder / "test/scratch/000.png", noise(4))
    save(folder / "ground_truth/scratch/000_mask.png", spot())
    save(folder / "test/bent/000.PNG", noise(3))
    save(folder / "ground_truth/bent/000.png", spot(7, 0, 1))
    save(folder / "test/good/000.bmp", noise(2))
    save(folder / "train/good/001.Tif", noise(1))
    save(folder / "train/good/000.png", noise(0))
    return root


def write_chip(root: Path) -> Path:
    """One category in VisA layout."""
    images, masks = "chip/Data/Images", "chip/Data/Masks/Anomaly"
    for i, name in enumerate(["Normal/0001.JPG", "Normal/0000.JPG", "Normal/0002.JPG"]):
        save(root / images / name, noise(i))
    for i in range(2):
        save(root / images / f"Anomaly/00{i}.JPG", noise(i + 3))
        save(root / masks / f"00{i}.png", spot(value=i + 1))
    (root / "split_csv").mkdir()
    split(root).write_text(
        "object,split,label,image,mask\n"
        f"chip,train,normal,{images}/Normal/0001.JPG,\n"
        f"chip,train,normal,{images}/Normal/0000.JPG,\n"
        f"chip,test,anomaly,{images}/Anomaly/001.JPG,{masks}/001.png\n"
        f"chip,test,normal,{images}/Normal/0002.JPG,\n"
        f"chip,test,anomaly,{images}/Anomaly/000.JPG,{masks}/000.png\n"
        "pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,\n"
    )
    return root


def split(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def remove(folder: Path, pattern: str) -> None:
    found = list(folder.glob(pattern))
    assert found
    for path in found:
        path.unlink()


def move(folder: Path, old: str, new: str) -> None:
    (folder / new).parent.mkdir(parents=True, exist_ok=True)
    (folder / old).rename(folder / new)


def line_of(call, *arguments, **options) -> str:
    """The one line that a call ends with."""
    with pytest.raises(FaderError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
