"""Images of the user's own: which categories a folder holds, and a configuration for them.

A category is a folder in one of the two layouts, see ``fader.data.mvtec`` and ``fader.data.visa``.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from fader.config import Config, Folder, activate, load
from fader.config.roots import clash
from fader.data.layout import category_folder, folders
from fader.data.visa import SPLIT_FILE
from fader.errors import FaderError, near
from fader.files import shown

TEMPLATE = Path("presets/real.yaml")  # laptop settings, every detector
NAME = "mine"  # of the data set in the configuration
LONGEST = 40  # characters of a category's key: it is part of many file names

HEADER = f"""\
# Images of your own, by `fader preset own`; all other settings are those of {TEMPLATE}:
# 128² pixels, some twenty minutes a category on two CPU cores.
"""
CATEGORIES = "categories: # a key of your own, which names files: the category's folder\n"
DATASET = """\
datasets:
  {name}:
    source: folder
    layout: {layout}
    root: {root} # holds the folders of the categories
    paper: null # a copy of no public set
    complete: false
    masks: {masks} # or inverted: black is the defect; absent: there are none, no pixel metrics
    white: null # pixel value of white in images of more than 8 bits; null: measured
"""


@dataclass(frozen=True)
class _Marks:
    """What a category of a layout is known by: paths in its folder, masks as a pattern."""

    inner: str
    normal: str
    masks: str


MARKS = {
    "mvtec": _Marks("train", "train/good", "ground_truth/*/*"),
    "visa": _Marks("Data", "Data/Images", "Data/Masks/*/*"),
}


@dataclass(frozen=True)
class Images:
    """Categories of one layout in a folder.

    Parameters
    ----------
    root : the folder that holds them.
    layout : a key of ``MARKS``.
    categories : names of their folders, sorted.
    others : names of the other folders in ``root`` that were looked into.
    """

    root: Path
    layout: str
    categories: tuple[str, ...]
    others: tuple[str, ...]

    def __str__(self) -> str:
        listed = f"{shown(self.root)} holds {', '.join(self.categories)}"
        return listed + (f"; no category: {', '.join(map(shown, self.others))}" * bool(self.others))

    @property
    def masked(self) -> bool:
        """Whether there is a mask of any defect."""
        pattern = MARKS[self.layout].masks
        return any(any((self.root / name).glob(pattern)) for name in self.categories)


def find(folder: Path, layout: str | None = None) -> Images:
    """The categories in a folder; the folder alone, where it is a category itself.

    Raises
    ------
    FaderError : there is no such folder or layout, no category in it, or some of either layout; or
        they lie where the project writes.
    """
    if layout not in (None, *MARKS):
        known = ", ".join(MARKS)
        raise FaderError(f"no layout {layout!r} (there are: {known}){near(layout, MARKS)}")
    folder = folder.expanduser()
    if not folder.is_dir():
        raise FaderError(f"{shown(folder)}: no folder; --root is the one that holds the categories")
    try:
        found = [_of_layout(folder, each) for each in MARKS if layout in (None, each)]
    except OSError as error:
        raise FaderError(f"{shown(error.filename)}: cannot be read ({error.strerror})") from None
    found = [images for images in found if images.categories]
    if not found:
        raise FaderError(
            f"{shown(folder)}: no folder NAME in it with NAME/train/good (MVTec AD's layout) or"
            " NAME/Data/Images (VisA's)"
        )
    if len(found) > 1:
        raise FaderError(f"{shown(folder)}: categories in both layouts; take one by --layout")
    for path in (str(found[0].root), *found[0].categories):
        if shown(path) != path:
            raise FaderError(f"{shown(path)}: a name that is not UTF-8; rename the folder")
    if reason := clash(str(found[0].root)):
        raise FaderError(f"{shown(folder)}: the categories' folder {found[0].root} {reason}")
    return found[0]


def _of_layout(folder: Path, layout: str) -> Images:
    marks = MARKS[layout]
    if (folder / marks.normal).is_dir():
        named = folder if folder.name not in ("", "..") else folder.resolve()
        return Images(named.parent, layout, (named.name,), ())
    names = folders(folder)
    categories = tuple(name for name in names if (folder / name / marks.inner).is_dir())
    others = {*names} - {*categories, *SPLIT_FILE.parts}
    return Images(folder, layout, categories, tuple(sorted(others)))


def configuration(images: Images, template: str) -> str:
    """The text of a configuration: a preset's with other categories, data set and name."""
    categories = "".join(
        f"  {key}: {{dataset: {NAME}, category: {_quoted(name)}}}\n"
        for key, name in zip(_keys(images.categories), images.categories, strict=True)
    )
    dataset = DATASET.format(
        name=NAME,
        layout=images.layout,
        root=_quoted(str(images.root)),
        masks="present" if images.masked else "absent",
    )
    blocks = {"run": "run: own\n", "categories": CATEGORIES + categories, "datasets": dataset}
    sections = re.split(r"^(?=\w+:)", template, flags=re.MULTILINE)[1:]
    return HEADER + "".join(blocks.get(text.partition(":")[0], text) for text in sections)


def _keys(names: Iterable[str]) -> list[str]:
    """A key for each category: of its name, what is a letter or digit of ASCII."""
    keys: list[str] = []
    for name in names:
        text = unicodedata.normalize("NFKD", name.casefold()).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^a-z0-9]+", "_", text).strip("_")[:LONGEST] or "category"
        key, number = f"{NAME}-{stem}", 1
        while key in keys:
            number += 1
            key = f"{NAME}-{stem}_{number}"
        keys.append(key)
    return keys


def _quoted(text: str) -> str:
    """A text as YAML reads it back, whatever is in it."""
    return yaml.safe_dump(text, allow_unicode=True, default_style='"', width=float("inf")).strip()


def use(folder: Path, layout: str | None, target: Path) -> tuple[Images, Path | None]:
    """Write a configuration for the categories in a folder; returns them, and where a former
    configuration is kept (see ``fader.config.activate``)."""
    images = find(folder, layout)
    load(TEMPLATE)
    text = configuration(images, TEMPLATE.read_text(encoding="utf-8-sig"))
    return images, activate(text.encode(), shown(target), target)


def check(config: Config, places: Iterable[str], source: str) -> None:
    """Whether the folders of some categories are there, where they are the user's own.

    Raises
    ------
    FaderError : one is not; ``source`` is the name of the configuration in the line.
    """
    for place in places:
        category = config.categories[place]
        dataset = config.datasets[category.dataset]
        if not isinstance(dataset, Folder):
            continue
        if not Path(dataset.root).is_dir():
            raise FaderError(
                f"{source}: datasets.{category.dataset}.root: no folder {dataset.root!r}"
            )
        try:
            category_folder(Path(dataset.root), category.category)
        except FaderError as error:
            raise FaderError(f"{source}: categories.{place}.category: {error}") from None
