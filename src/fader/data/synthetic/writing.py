"""The files of the published layouts, and the list of how difficult each defect is."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fader.data.synthetic.rendering import difficulty, render
from fader.data.synthetic.scenes import CATEGORIES

DIFFICULTY = "difficulty.csv"


def write_mvtec(root: Path, seed: int, size: int, train: int, good: int, defective: int) -> None:
    """Write the categories in MVTec AD's layout; see ``fader.data.synthetic.generate``."""
    difficulties: list[tuple[str, ...]] = []
    for category, defect, split, count in _splits("mvtec", train, good, defective):
        folder = _made(root / category / split)
        for index in range(count):
            image, mask = render(category, split, index, seed=seed, size=size, defect=defect)
            path = folder / f"{index:03d}.png"
            Image.fromarray(image).save(path)
            if defect is not None:
                masks = _made(root / category / "ground_truth" / defect)
                Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{index:03d}_mask.png")
                name = path.relative_to(root).as_posix()
                difficulties.append((name, _difficulty(category, defect, index, seed)))
    _save_csv(root / DIFFICULTY, ("image", "difficulty"), difficulties)


def _splits(
    layout: str, train: int, good: int, defective: int
) -> Iterator[tuple[str, str | None, str, int]]:
    for category, spec in CATEGORIES.items():
        if spec.layout == layout:
            yield category, None, "train/good", train
            yield category, None, "test/good", good
            for defect in spec.defects:
                yield category, defect, f"test/{defect}", defective


def write_visa(root: Path, seed: int, size: int, train: int, good: int, defective: int) -> None:
    """Write the categories in VisA's layout; see ``fader.data.synthetic.generate``."""
    split_rows: list[tuple[str, ...]] = []
    difficulties: list[tuple[str, ...]] = []
    for category, spec in CATEGORIES.items():
        if spec.layout != "visa":
            continue
        data = root / category / "Data"
        normal, anomaly = _made(data / "Images/Normal"), _made(data / "Images/Anomaly")
        masks = _made(data / "Masks/Anomaly")
        kinds = tuple(spec.defects)
        notes: list[tuple[str, ...]] = []
        for index in range(train + good):
            path = normal / f"{index:04d}.JPG"
            _save_jpeg(render(category, "normal", index, seed=seed, size=size)[0], path)
            name = path.relative_to(root).as_posix()
            split_rows.append((category, "train" if index < train else "test", "normal", name, ""))
            notes.append((name, "normal", ""))
        # The types take turns, so that more images of each type only lengthen the list.
        for number in range(defective * len(kinds)):
            index, kind = divmod(number, len(kinds))
            defect = kinds[kind]
            image, mask = render(category, defect, index, seed=seed, size=size, defect=defect)
            path, mask_path = anomaly / f"{number:04d}.JPG", masks / f"{number:04d}.png"
            _save_jpeg(image, path)
            Image.fromarray(mask.astype(np.uint8) * (kind + 1)).save(mask_path)
            name, mask_name = (p.relative_to(root).as_posix() for p in (path, mask_path))
            split_rows.append((category, "test", "anomaly", name, mask_name))
            notes.append((name, defect, mask_name))
            difficulties.append((name, _difficulty(category, defect, index, seed)))
        _save_csv(root / category / "image_anno.csv", ("image", "label", "mask"), notes)
    header = ("object", "split", "label", "image", "mask")
    _save_csv(_made(root / "split_csv") / "1cls.csv", header, split_rows)
    _save_csv(root / DIFFICULTY, ("image", "difficulty"), difficulties)


def read_difficulties(root: Path) -> dict[str, float]:
    """Name of every defective image of a generated set, relative to its root → its difficulty in
    [0, 1], as ``fader.data.synthetic.difficulty``, to six decimals."""
    with (root / DIFFICULTY).open(newline="", encoding="utf-8") as file:
        return {row["image"]: float(row["difficulty"]) for row in csv.DictReader(file)}


def _difficulty(category: str, defect: str, index: int, seed: int) -> str:
    return f"{difficulty(category, defect, index, seed=seed):.6f}"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save_jpeg(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, format="JPEG", quality=95)


def _save_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
