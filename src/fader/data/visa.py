"""VisA in the layout of its archive, split as its authors' one-class protocol says.

::

    <root>/<category>/Data/Images/{Normal,Anomaly}/*.JPG
    <root>/<category>/Data/Masks/Anomaly/*.png      (label images: every value > 0 is a defect)
    <root>/split_csv/1cls.csv                       (object,split,label,image,mask; in the archive)

Source: Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, "SPot-the-Difference Self-Supervised
Pre-training for Anomaly Detection and Segmentation", ECCV 2022; github.com/amazon-science/spot-diff
"""

import csv
from pathlib import Path

from fader.data.layout import (
    GOOD,
    Category,
    Counts,
    Release,
    Sample,
    category_folder,
    images,
)
from fader.errors import FaderError

DEFECT = "anomaly"
SPLIT_FILE = Path("split_csv", "1cls.csv")
COLUMNS = ["object", "split", "label", "image", "mask"]

# sha256, size and counts agree in several independent public download scripts and audits. The link
# has not been tried by us.
RELEASE = Release(
    title="VisA",
    homepage="https://github.com/amazon-science/spot-diff",
    licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    archive="VisA_20220922.tar",
    urls=("https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",),
    sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
    size=1_929_840_640,
    counts={
        "candle": Counts(900, 100, 100),
        "capsules": Counts(542, 60, 100),
        "cashew": Counts(450, 50, 100),
        "chewinggum": Counts(453, 50, 100),
        "fryum": Counts(450, 50, 100),
        "macaroni1": Counts(900, 100, 100),
        "macaroni2": Counts(900, 100, 100),
        "pcb1": Counts(904, 100, 100),
        "pcb2": Counts(901, 100, 100),
        "pcb3": Counts(905, 101, 100),
        "pcb4": Counts(904, 101, 100),
        "pipe_fryum": Counts(450, 50, 100),
    },
)


def index(root: Path, category: str) -> Category:
    """Index ``root/category`` by ``root/split_csv/1cls.csv``; every defect is called 'anomaly'.

    Raises
    ------
    FaderError : naming the file: root, category or split file is missing; the split file lacks a
        column, the category or one of train normal, test normal, test anomaly, or has an unknown
        label or split; an image or mask is missing; an anomaly has no mask; a mask has no image.
    """
    folder = category_folder(root, category)
    split_file = root / SPLIT_FILE
    samples: dict[tuple[str, str], list[Sample]] = {
        ("train", "normal"): [],
        ("test", "normal"): [],
        ("test", "anomaly"): [],
    }
    for line, row in _rows(split_file):
        if row["object"] != category:
            continue
        kind = (row["split"], row["label"])
        if kind not in samples:
            raise FaderError(
                f"{split_file}: line {line}: split {row['split']!r} with label {row['label']!r}; "
                f"expected {', '.join(' '.join(known) for known in samples)}"
            )
        samples[kind].append(_sample(root, row, f"{split_file}: line {line}"))
    for (split, label), found in samples.items():
        if not found:
            raise FaderError(f"{split_file}: no {split} {label} images of {category}")
        found.sort(key=lambda sample: sample.image)

    anomalies = samples["test", "anomaly"]
    masked = {sample.mask for sample in anomalies}
    for mask in images(folder / "Data" / "Masks" / "Anomaly"):
        if mask not in masked:
            raise FaderError(f"{mask}: mask without an image in {split_file}")
    return Category(
        category,
        folder,
        tuple(samples["train", "normal"]),
        (*samples["test", "normal"], *anomalies),
    )


def _rows(split_file: Path) -> list[tuple[int, dict[str, str]]]:
    if not split_file.is_file():
        raise FaderError(f"{split_file}: no such file; it is part of {RELEASE.archive}")
    with split_file.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        if reader.fieldnames != COLUMNS:
            raise FaderError(
                f"{split_file}: columns {reader.fieldnames}, expected {','.join(COLUMNS)}"
            )
        return [(reader.line_num, row) for row in reader]


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    normal = row["label"] == "normal"
    if not normal and not row["mask"]:
        raise FaderError(f"{where}: {row['image']} has no mask")
    image = root / row["image"]
    mask = None if normal else root / row["mask"]
    for path in (image, mask):
        if path is not None and not path.is_file():
            raise FaderError(f"{path}: no such file, but {where} names it")
    return Sample(image, mask, GOOD if normal else DEFECT)
