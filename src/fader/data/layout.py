"""What every data-set layout is indexed into: samples, categories, and a public release's counts.

A category is one object or texture (``bottle``, ``pcb1``) with normal training images and a
labelled test split. Indexing touches names only; ``pack.read_category`` decodes the images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fader.errors import FaderError

GOOD = "good"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Sample:
    """One image; ``mask`` is None and ``defect`` is 'good' for a normal one."""

    image: Path
    mask: Path | None
    defect: str


@dataclass(frozen=True)
class Category:
    """An indexed category. ``folder`` holds it; the names of images are relative to it.

    Both splits are sorted by (defect, name), 'good' first. ``train`` is all good, ``test`` has good
    and defective samples.
    """

    name: str
    folder: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


class Counts(NamedTuple):
    """Images of a category, by split and label."""

    train_good: int
    test_good: int
    test_defective: int


@dataclass(frozen=True)
class Release:
    """A public data set as its authors distribute it: one archive with all categories at its top.

    ``urls`` are mirrors of the archive in order of preference, ``sha256`` is the whole archive's,
    ``size`` its bytes, ``counts`` the images of each category.
    """

    title: str
    homepage: str
    licence: str
    archive: str
    urls: tuple[str, ...]
    sha256: str
    size: int
    counts: dict[str, Counts]


def category_folder(root: Path, category: str) -> Path:
    """``root/category``; FaderError says what is there instead if it is missing."""
    if not root.is_dir():
        raise FaderError(
            f"{root}: no such folder; set datasets.<name>.root to the folder of the categories"
        )
    folder = root / category
    if not folder.is_dir():
        there = ", ".join(folders(root)) or "no folder at all"
        raise FaderError(f"{root}: no category {category!r}; there is {there}")
    return folder


def folders(parent: Path) -> list[str]:
    """Sorted names of the folders in ``parent``, without hidden ones."""
    return sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def images(folder: Path) -> list[Path]:
    """The image files of ``folder`` sorted by name; hidden files (``._000.png``) are not images.

    Raises
    ------
    FaderError : the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise FaderError(
            f"{folder}: no such folder; the data set is incomplete or in another layout"
        )
    found = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if not found:
        raise FaderError(
            f"{folder}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}); the data set is incomplete"
        )
    return found


def check_counts(category: Category, release: Release) -> None:
    """Compare an indexed category with the published counts.

    Raises
    ------
    FaderError : the release has no such category, or a split has another number of images.
    """
    if category.name not in release.counts:
        raise FaderError(
            f"{category.name}: not a category of {release.title}; choose from "
            f"{', '.join(release.counts)}"
        )
    test_good = sum(sample.defect == GOOD for sample in category.test)
    found = Counts(len(category.train), test_good, len(category.test) - test_good)
    expected = release.counts[category.name]
    if found != expected:
        differences = ", ".join(
            f"{there} {field.replace('_', ' ')} instead of {wanted}"
            for field, there, wanted in zip(Counts._fields, found, expected, strict=True)
            if there != wanted
        )
        raise FaderError(
            f"{category.folder}: {differences}; this is not the complete {release.title} category, "
            f"extract {release.archive} again"
        )
