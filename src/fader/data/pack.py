"""A category as arrays, decoded once and resized to each side that something needs.

``decode`` says how image files are read, ``masks`` which pixels of a mask are the defect. Images
are resized with Pillow's bicubic filter, whose support grows with the scale factor (antialiased),
and the aspect ratio is not kept. Masks are resized with the nearest neighbour: a pixel is a defect
if the original pixel at its centre is one.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fader.data import decode, masks
from fader.data.decode import Picture, White
from fader.data.layout import GOOD, Category, Sample, listed
from fader.errors import FaderError
from fader.files import shown


@dataclass(frozen=True)
class Arrays:
    """A category in memory; the order is that of the ``Category``.

    Parameters
    ----------
    train, test : side → (N, 3, side, side) and (M, 3, side, side) uint8, RGB, 0..255.
    mask : (M, size, size) uint8 0/1, zeros for good images, and for all where masks are absent.
    label : (M,) uint8 0/1, 1 = defective.
    train_names, test_names : POSIX paths relative to the category's folder
        (``test/scratch/003.png``), as text that can be printed.
    defects : type of each test image.
    white : of the images of more than 8 bits; None where there are none.
    vanished : number of masks without a pixel at ``size``.
    warnings : lines about what looks odd in the images.
    """

    train: dict[int, np.ndarray]
    test: dict[int, np.ndarray]
    mask: np.ndarray
    label: np.ndarray
    train_names: list[str]
    test_names: list[str]
    defects: list[str]
    white: White | None
    vanished: int
    warnings: list[str]


class _Read(NamedTuple):
    """What is kept of an image beside its pixels at the working resolution.

    ``digest`` is that of its pixels, ``covered`` the share of them that its mask marks, ``turned``
    whether it has another EXIF orientation than its mask.
    """

    name: str
    defect: str
    digest: bytes
    deep: bool
    covered: float
    turned: bool


def read_category(
    category: Category,
    sides: Sequence[int],
    *,
    white: float | None = None,
    digests: Mapping[str, str] | None = None,
) -> Arrays:
    """Decode every image and mask of ``category``, each image resized from the original to every
    side, each mask to the first, the working resolution.

    A defect too small to meet a pixel centre leaves its mask empty and its label 1, with a warning.

    Parameters
    ----------
    white : pixel value of white in images of more than 8 bits; None measures it.
    digests : path relative to the category's folder, as ``Category.path`` gives it → sha256 that
        the file's bytes must have, in hexadecimal. None takes any bytes.

    Raises
    ------
    FaderError : naming the file: as ``decode.read``, ``decode.rgb`` and ``masks.defect``; a mask is
        of another size than its image; or naming the folder: the masks cover most of the images, or
        no mask is left at ``size``.
    """
    level = White(white) if white else decode.measured_white([s.image for s in category.train])
    train, _, of_train = _decoded(category, category.train, sides, level, digests)
    test, mask, of_test = _decoded(category, category.test, sides, level, digests)
    size = sides[0]
    masked = [i for i, sample in enumerate(category.test) if sample.mask is not None]
    masks.check_typical(
        [of_test[i].covered for i in masked],
        inverted=category.masks == "inverted",
        folder=shown(category.folder),
    )
    vanished = [of_test[i].name for i in masked if not mask[i].any()]
    if masked and len(vanished) == len(masked):
        raise FaderError(
            f"{shown(category.folder)}: no defect is left of the masks at {size} x {size} pixels;"
            " raise image.size"
        )
    every = [*of_train, *of_test]
    return Arrays(
        train=train,
        test=test,
        mask=mask,
        label=np.array([sample.defect != GOOD for sample in category.test], dtype=np.uint8),
        train_names=[read.name for read in of_train],
        test_names=[read.name for read in of_test],
        defects=[sample.defect for sample in category.test],
        white=level if any(read.deep for read in every) else None,
        vanished=len(vanished),
        warnings=[
            *_vanishing(vanished, len(masked), size),
            *_mixed(every),
            *_turned(of_test),
            *_copies(of_train, of_test),
        ],
    )


def _decoded(
    category: Category,
    samples: Sequence[Sample],
    sides: Sequence[int],
    white: White | None,
    digests: Mapping[str, str] | None,
) -> tuple[dict[int, np.ndarray], np.ndarray, list[_Read]]:
    """Images at each side, and masks at the first. A few at a time are in memory as they are on
    disk."""
    images = {side: np.empty((len(samples), 3, side, side), dtype=np.uint8) for side in sides}
    size = sides[0]
    defective = np.zeros((len(samples), size, size), dtype=np.uint8)

    def read(path: Path) -> Picture:
        sha256 = None if digests is None else digests.get(category.path(path), "not there")
        return decode.read(path, sha256)

    def one(i: int) -> _Read:
        sample = samples[i]
        picture, covered, turned = read(sample.image), 0.0, False
        if sample.mask is not None:
            mask = read(sample.mask)
            inverted = category.masks == "inverted"
            defective[i], covered = marked(mask, picture, size, inverted=inverted)
            turned = mask.orientation != picture.orientation
        rgb = decode.rgb(picture, white)
        digest = hashlib.sha256(str(rgb.size).encode() + rgb.tobytes()).digest()
        for side, kept in images.items():
            kept[i] = resized(rgb, side)
        name = category.label(sample)
        return _Read(name, sample.defect, digest, picture.deep, covered, turned)

    return images, defective, decode.each(one, range(len(samples)))


def marked(mask: Picture, image: Picture, size: int, *, inverted: bool) -> tuple[np.ndarray, float]:
    """Defective pixels (size, size) uint8 0/1 of an image by its mask, and the share of the image
    that they cover.

    Raises
    ------
    FaderError : as ``masks.defect``; or the mask is of another size than the image.
    """
    _check_sizes(mask, image)
    found = masks.defect(mask, image, inverted=inverted)
    at = np.ix_(*(_nearest(side, size) for side in found.shape))
    return found[at].astype(np.uint8), float(found.mean())


def resized(rgb: Image.Image, side: int) -> np.ndarray:
    """A picture as (3, side, side) uint8: Pillow's bicubic filter, the aspect ratio not kept."""
    if rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(rgb).transpose(2, 0, 1)


def _check_sizes(mask: Picture, picture: Picture) -> None:
    size = picture.image.size
    if mask.image.size == size:
        return
    line = "{}: mask of {} x {} pixels, but {} has {} x {}".format(
        shown(mask.path), *mask.image.size, shown(picture.path), *size
    )
    if picture.orientation >= 5 and mask.image.size == size[::-1]:
        line += (
            " as its EXIF orientation turns it upright: the mask is drawn on the picture as stored;"
            " turn the mask, or remove the orientation"
        )
    raise FaderError(line)


def _nearest(side: int, size: int) -> np.ndarray:
    """Index of the input pixel under each output pixel's centre, floor((i + 1/2) side / size).

    In whole numbers: Pillow's NEAREST sums floats and misses centres that fall on a pixel border.
    """
    return (2 * np.arange(size) + 1) * side // (2 * size)


# What looks odd.


def _vanishing(names: Sequence[str], masked: int, size: int) -> Iterator[str]:
    if names:
        yield (
            f"masks without a pixel at {size} x {size} ({len(names)} of {masked}): {listed(names)};"
            " raise image.size if they matter"
        )


def _mixed(images: Sequence[_Read]) -> Iterator[str]:
    names = [image.name for image in images if image.deep]
    if 0 < len(names) < len(images):
        yield (
            "images of more than 8 bits among others, which are taken as they are"
            f" ({len(names)} of {len(images)}): {listed(names)}"
        )


def _turned(images: Sequence[_Read]) -> Iterator[str]:
    names = [image.name for image in images if image.turned]
    if names:
        yield (
            "images of another EXIF orientation than their masks, which are taken as drawn on the"
            f" upright picture ({len(names)}): {listed(names)}"
        )


def _copies(train: Sequence[_Read], test: Sequence[_Read]) -> Iterator[str]:
    """Lines about images with the same pixels."""
    good = [image for image in test if image.defect == GOOD]
    defective = [image for image in test if image.defect != GOOD]
    for kind, images, where, others in (
        ("defective", defective, "training", train),
        ("normal test", good, "training", train),
        ("defective", defective, "normal test", good),
    ):
        names = {other.digest: other.name for other in others}
        pairs = [f"{i.name} = {names[i.digest]}" for i in images if i.digest in names]
        if pairs:
            yield f"{kind} images that are {where} images as well ({len(pairs)}): {listed(pairs)}"
    for kind, images in (("training", train), ("normal test", good), ("defective", defective)):
        repeated = len(images) - len({image.digest for image in images})
        if repeated:
            yield f"{kind} images that are copies of others: {repeated}"
