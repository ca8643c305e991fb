"""VisA in the layout of its archive, split as its authors' one-class protocol says.

::

    <root>/<category>/Data/Images/{Normal,Anomaly}/*.JPG
    <root>/<category>/Data/Masks/Anomaly/*.png      (label images: every value > 0 is a defect)
    <root>/split_csv/1cls.csv                       (object,split,label,image,mask; in the archive)

Paths in the split file are relative to the root, with slashes of either kind. It names every image
of the category: one that it does not name is refused, because nobody can tell its split.

Source: Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, "SPot-the-Difference Self-Supervised
Pre-training for Anomaly Detection and Segmentation", ECCV 2022; github.com/amazon-science/spot-diff
"""

import csv
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from fader.config.data import MaskUse
from fader.data.layout import (
    GOOD,
    Category,
    Counts,
    Release,
    Sample,
    category_folder,
    nfc,
    sort_out,
)
from fader.errors import FaderError
from fader.files import shown

DEFECT = "anomaly"
MASKS = "Data/Masks"
SPLIT_FILE = Path("split_csv", "1cls.csv")
COLUMNS = ["object", "split", "label", "image", "mask"]
KINDS = [("train", "normal"), ("test", "normal"), ("test", "anomaly")]

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


def index(root: Path, category: str, masks: MaskUse = "present") -> Category:
    """Index ``root/category`` by ``root/split_csv/1cls.csv``; every defect is called 'anomaly'.

    By names alone. Masks that are absent are not looked for.

    Raises
    ------
    FaderError : naming the file: root, category or split file is missing; the split file lacks a
        column, the category, its training or all of its test images, names a file twice, or has an
        unknown label or split; an image or mask is missing; an anomaly has no mask; an image or
        mask is not in the split file.
    """
    folder = category_folder(root, category)
    split_file = root / SPLIT_FILE
    images, reasons = sort_out(folder, (MASKS,) if masks == "absent" else ())
    names = _Names(root, images)
    samples: dict[tuple[str, str], list[Sample]] = {kind: [] for kind in KINDS}
    for line, row in _rows(split_file, category):
        where = f"{shown(split_file)}: line {line}"
        split, label = row["split"], row["label"]
        if (split, label) not in samples:
            raise FaderError(
                f"{where}: split {shown(split)!r} with label {shown(label)!r}; "
                f"expected {', '.join(' '.join(kind) for kind in KINDS)}"
            )
        image = names.take(row["image"], where)
        mask = None
        if label == "anomaly" and masks != "absent":
            if not row["mask"]:
                raise FaderError(
                    f"{where}: {shown(row['image'])} has no mask; where there are no masks, say so:"
                    " datasets.<name>.masks: absent"
                )
            mask = names.take(row["mask"], where)
        elif row["mask"] and names.leave(row["mask"]):
            kind = "masks of normal images" if label == "normal" else "masks"
            reasons[kind] += 1
        samples[split, label].append(Sample(image, mask, DEFECT if label == "anomaly" else GOOD))
    train, good, anomalies = (sorted(samples[kind], key=_place) for kind in KINDS)
    for kind, found in (("train normal", train), ("test", good + anomalies)):
        if not found:
            raise FaderError(f"{shown(split_file)}: no {kind} images of {shown(category)}")
    for path in names.without_use():
        is_mask = path.is_relative_to(folder / MASKS)
        raise FaderError(
            f"{shown(path)}: {'mask without an image' if is_mask else 'image without a split'} in"
            f" {shown(split_file)}; add its line or move it away"
        )
    return Category(category, folder, tuple(train), (*good, *anomalies), masks, reasons)


def _place(sample: Sample) -> Path:
    return sample.image


class _Names:
    """Images of a category by the names that a split file gives them; each has one use."""

    def __init__(self, root: Path, images: Sequence[Path]) -> None:
        self.root = root
        self.there: dict[str, Path] = {}
        for path in images:
            other = self.there.setdefault(_key(path.relative_to(root).as_posix()), path)
            if other is not path:
                raise FaderError(
                    f"{shown(other)} and {shown(path.name)}: one name to a split file; rename one"
                )
        self.used: set[Path] = set()

    def take(self, name: str, where: str) -> Path:
        """The file of a name, which ``where`` gives."""
        path = self.there.get(_key(name))
        if path is None:
            raise FaderError(f"{shown(self.root / name)}: no such file, but {where} names it")
        if path in self.used:
            raise FaderError(f"{where}: {shown(name)} is named before; a file has one use")
        self.used.add(path)
        return path

    def leave(self, name: str) -> bool:
        """Whether a name stands for a file without a use so far; it has none from now on."""
        path = self.there.get(_key(name))
        if path is None or path in self.used:
            return False
        self.used.add(path)
        return True

    def without_use(self) -> list[Path]:
        """Files that were not named."""
        return [path for path in self.there.values() if path not in self.used]


def _key(name: str) -> str:
    """What names of one file have in common: neither slashes, letters nor suffix tell them
    apart."""
    stem, suffix = posixpath.splitext(posixpath.normpath(nfc(name).replace("\\", "/")))
    return stem + suffix.lower()


def _rows(split_file: Path, category: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of the split file about a category, by number. Bytes that are not UTF-8 are as those of
    file names."""
    if not split_file.is_file():
        raise FaderError(f"{shown(split_file)}: no such file; it is part of {RELEASE.archive}")
    with split_file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, restval="")
        try:
            if reader.fieldnames != COLUMNS:
                raise FaderError(
                    f"{shown(split_file)}: columns {reader.fieldnames}, expected"
                    f" {','.join(COLUMNS)}"
                )
            rows = [
                (reader.line_num, row)
                for row in reader
                if nfc(row["object"].strip()) == nfc(category)
            ]
        except csv.Error as error:
            raise FaderError(f"{shown(split_file)}: line {reader.line_num}: {error}") from None
    for line, row in rows:
        if None in row:
            raise FaderError(
                f"{shown(split_file)}: line {line}: more than {len(COLUMNS)} fields; put names"
                " with commas in quotes"
            )
        yield line, {name: text.strip() for name, text in row.items()}
