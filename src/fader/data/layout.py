"""What every data-set layout is indexed into, and the one walk of a category's folder.

A category is one object or texture (``bottle``, ``pcb1``) with normal training images and a
labelled test split. Indexing touches names only; ``pack.read_category`` decodes the images.

Every file below a category's folder is an image that is used, is ignored and counted, or ends the
reading with a line that names it. Ignored are hidden files and folders (``._000.png``), what
systems and archives leave behind (``__MACOSX``, ``@eaDir``), and files that are no images by their
suffix. Upper and lower case of a suffix are one, and so are the composed and decomposed forms of
letters in names (NFC, NFD).
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from fader.config.data import MaskUse
from fader.errors import FaderError
from fader.files import shown

GOOD = "good"
NAMED = 5  # most names in one line

# Pillow's name of a format that is read → suffixes of its files.
FORMATS: dict[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif",),
}
# Those that Pillow may have been built without → its name of the feature.
_FEATURES = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
# Images of formats that are not read.
UNREADABLE = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".hdp", ".wdp", ".exr", ".hdr", ".fits"),
        *(".dcm", ".dicom", ".tga", ".pcx", ".svg", ".svgz"),
        *(".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf"),
        *(".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mrw"),
    )
)
_IMAGES = UNREADABLE.union(*FORMATS.values())
_LEFT_BEHIND = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)


@dataclass(frozen=True)
class Sample:
    """One image; ``defect`` is 'good' for a normal one. ``mask`` is None for a normal image, and
    for a defective one where masks are absent."""

    image: Path
    mask: Path | None
    defect: str


@dataclass(frozen=True)
class Category:
    """An indexed category. ``folder`` holds it; the names of images are relative to it.

    Parameters
    ----------
    train : normal images, sorted by name; not empty.
    test : sorted by (defect, name), 'good' first; not empty. Good or defective ones may be missing.
    masks : how the masks are read.
    ignored : suffix, or what else is ignored → number of files.
    warnings : lines about what looks odd in the folder.
    """

    name: str
    folder: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    masks: MaskUse = "present"
    ignored: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        """Its images and masks."""
        samples = [*self.train, *self.test]
        return [path for sample in samples for path in (sample.image, sample.mask) if path]

    def path(self, file: Path) -> str:
        """POSIX path of one of its files, relative to ``folder``."""
        return file.relative_to(self.folder).as_posix()

    def label(self, sample: Sample) -> str:
        """The same of a sample's image, as text that can be printed."""
        return shown(self.path(sample.image))


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


# Names.


def nfc(name: str) -> str:
    """A name with composed letters (NFC), by which names are matched."""
    return unicodedata.normalize("NFC", name)


def listed(names: Collection[str]) -> str:
    """At most ``NAMED`` names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(list(names)[:NAMED]) + more


def category_folder(root: Path, category: str) -> Path:
    """Folder of a category in ``root``; FaderError says what is there instead if it is missing."""
    if not root.is_dir():
        raise FaderError(
            f"{shown(root)}: no such folder; set datasets.<name>.root to the folder of the"
            " categories"
        )
    if (root / category).is_dir():
        return root / category
    there = folders(root)
    same = [name for name in there if nfc(name) == nfc(category)]
    if len(same) == 1:
        return root / same[0]
    names = ", ".join(map(shown, there)) or "no folder at all"
    raise FaderError(f"{shown(root)}: no category {shown(category)!r}; there is {names}")


def folders(parent: Path) -> list[str]:
    """Sorted names of the folders in ``parent``, without hidden ones."""
    with _unreadable_named(), os.scandir(parent) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


# Files.


def files(folder: Path) -> list[Path]:
    """Every file below ``folder``, hidden ones too, sorted by the parts of its path.

    Links are followed, but a link to a folder that it lies in is not entered: its files are there
    already. Bytes of a name that are not UTF-8 are Python's surrogate escapes.

    Raises
    ------
    FaderError : a folder cannot be read, or something that is not hidden is neither file nor
        folder, such as a link to nowhere.
    """
    found: list[Path] = []
    with _unreadable_named():
        _walk(folder, (), found)
    return sorted(found, key=_order)


def _walk(folder: Path, around: tuple[tuple[int, int], ...], found: list[Path]) -> None:
    """Add the files below a folder; ``around`` are device and inode of the folders around it."""
    status = folder.stat()
    itself = (status.st_dev, status.st_ino)
    if itself in around:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir():
                _walk(path, (*around, itself), found)
            elif entry.is_file():
                found.append(path)
            elif not entry.name.startswith("."):
                kind = "a link to nowhere" if entry.is_symlink() else "neither file nor folder"
                raise FaderError(f"{shown(path)}: {kind}; remove it or put the file there")


@contextmanager
def _unreadable_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FaderError(
            f"{shown(error.filename)}: cannot be read ({error.strerror}); mend or remove it"
        ) from None


def _order(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(map(nfc, path.parts)), path.parts


def ignored(path: PurePath) -> str | None:
    """By what a file is ignored: 'hidden', a folder's name or its suffix; None for an image.

    ``path`` is relative to the category's folder.
    """
    for part in path.parts:
        if part in _LEFT_BEHIND:
            return part
        if part.startswith("."):
            return "hidden"
    suffix = path.suffix.strip().lower()
    if suffix in _IMAGES:
        return None
    return shown(suffix) or "no suffix"


def sort_out(
    folder: Path, without: Collection[str] = (), *, tolerant: bool = False
) -> tuple[list[Path], Counter[str]]:
    """Images below a category's folder, sorted, and the number of ignored files by reason.

    Parameters
    ----------
    without : folders, relative to it, whose files are ignored as well.
    tolerant : take images of formats that are not read as well.

    Raises
    ------
    FaderError : as ``files``; or an image is of a format that is not read.
    """
    images, reasons = [], Counter[str]()
    left_out = {PurePath(name).parts: name for name in without}
    for path in files(folder):
        inside = path.relative_to(folder)
        reason = ignored(inside) or next(
            (name for parts, name in left_out.items() if inside.parts[: len(parts)] == parts), None
        )
        if reason is not None:
            reasons[reason] += 1
        elif not (tolerant or _readable(suffix := path.suffix.strip().lower())):
            raise FaderError(
                f"{shown(path)}: {suffix} images are not read here; save them as PNG or TIFF, or"
                " move them away"
            )
        else:
            images.append(path)
    return images, reasons


@cache
def _readable(suffix: str) -> bool:
    """Whether files of a suffix can be decoded here."""
    name = next((name for name, suffixes in FORMATS.items() if suffix in suffixes), None)
    if name not in _FEATURES:
        return name is not None
    from PIL import features  # indexing is done without Pillow where it can

    return bool(features.check(_FEATURES[name]))


# Counts.


def counts(category: Category) -> dict[str, Any]:
    """Images by split: ``{"train": n, "test": {"good": n, defect: n, …}}``."""
    of_test = Counter(sample.defect for sample in category.test)
    return {"train": len(category.train), "test": {GOOD: 0} | of_test}


def describe(category: Category) -> str:
    """One line: ``train 12, test good 4, scratch 4; ignored: 3 files (.txt)``."""
    number = counts(category)
    tested = ", ".join(f"{defect} {count}" for defect, count in number["test"].items())
    return f"train {number['train']}, test {tested}{told_ignored(category.ignored)}"


def told_ignored(ignored: Mapping[str, int]) -> str:
    """What a line ends with where files were ignored: ``; ignored: 3 files (.txt)``."""
    total = sum(ignored.values())
    if not total:
        return ""
    reasons = [f"{reason} {count}" for reason, count in sorted(ignored.items())]
    of_what = ", ".join(reasons if len(reasons) > 1 else ignored)
    return f"; ignored: {total} file{'s' if total > 1 else ''} ({of_what})"


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
            f"{there} {split.replace('_', ' ')} instead of {wanted}"
            for split, there, wanted in zip(Counts._fields, found, expected, strict=True)
            if there != wanted
        )
        raise FaderError(
            f"{shown(category.folder)}: {differences}; this is not the complete {release.title}"
            f" category, extract {release.archive} again"
        )
