"""Which mask is which image's: by names, in data sets and among a user's own defects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from fader.data.layout import nfc
from fader.errors import FaderError

MASK_SUFFIXES = ("_mask", "_gt", "_seg", "_label")


@dataclass(frozen=True)
class Named:
    """An image or a mask.

    Parameters
    ----------
    place : its path below the folder of all images or all masks, by which the two are matched.
    name : what a message about it begins with.
    short : what it is called further on in a message.
    """

    place: PurePath
    name: str
    short: str

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that it lies in."""
        return tuple(map(nfc, self.place.parts[:-1]))


def split_stem(path: PurePath) -> tuple[str, str]:
    """Stem of a file, and the end of it that marks masks, or nothing: ``("000", "_mask")``."""
    stem = nfc(path.stem)
    for suffix in MASK_SUFFIXES:
        if stem.casefold().endswith(suffix):
            return stem[: -len(suffix)], suffix
    return stem, ""


def beside(images: Sequence[PurePath]) -> Iterator[tuple[PurePath, PurePath]]:
    """Images that are called as the mask of another one in the same folder, each with that one."""
    there = {(path.parent, nfc(path.stem)): path for path in images}
    for path in images:
        stem, suffix = split_stem(path)
        if suffix and (path.parent, stem) in there:
            yield path, there[path.parent, stem]


def pairs(images: Sequence[Named], masks: Sequence[Named]) -> dict[int, int]:
    """Number of an image → number of its mask, for the images that have one.

    A mask lies at its image's place, or directly in the folder of masks; it is called as its image,
    or that and one of ``MASK_SUFFIXES``, in any format of images.

    Raises
    ------
    FaderError : an image has two masks, or a mask two images. (A mask without any is for the caller
        to refuse, who knows what was searched.)
    """
    there: dict[tuple[tuple[str, ...], str], list[int]] = defaultdict(list)
    for number, mask in enumerate(masks):
        there[mask.folders, "".join(split_stem(mask.place))].append(number)
    mask_of: dict[int, int] = {}
    image_of: dict[int, int] = {}
    for row, image in enumerate(images):
        names = [nfc(image.place.stem) + suffix for suffix in ("", *MASK_SUFFIXES)]
        own, flat = (
            [number for name in names for number in there[folders, name]]
            for folders in (image.folders, ())
        )
        found = own or flat
        if not found:
            continue
        if len(found) > 1:
            first, second = (masks[number].short for number in found[:2])
            raise FaderError(
                f"{image.name}: two masks, {first} and {second}; remove the one that is not meant"
            )
        other = image_of.setdefault(found[0], row)
        if other != row:
            raise FaderError(
                f"{masks[found[0]].name}: one mask for two images, {images[other].short} and"
                f" {image.short}; give each its own, at the image's place below the folder of masks"
            )
        mask_of[row] = found[0]
    return mask_of
