"""Decoding a category into arrays, once, at the working resolution.

Images are resized with Pillow's bicubic filter, whose support grows with the scale factor
(antialiased), and the aspect ratio is not kept. Masks are resized with the nearest neighbour: a
pixel is a defect if the original pixel at its centre is non-zero. Pixels are taken as stored: an
EXIF orientation is not applied.
"""

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fader.data.layout import GOOD, Category, Sample
from fader.errors import FaderError

# Everything Pillow's decoders raise on a truncated or damaged file.
DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Arrays:
    """A category in memory; the order is that of the ``Category``.

    Parameters
    ----------
    train, test : (N, 3, size, size) and (M, 3, size, size) uint8, RGB, 0..255.
    mask : (M, size, size) uint8 0/1, zeros for good images.
    label : (M,) uint8 0/1, 1 = defective.
    train_names, test_names : POSIX paths relative to the category's folder
        (``test/scratch/003.png``).
    defects : type of each test image.
    """

    train: np.ndarray
    test: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    train_names: list[str]
    test_names: list[str]
    defects: list[str]


def read_category(category: Category, size: int) -> Arrays:
    """Decode every image and mask of ``category`` at ``size`` x ``size`` pixels.

    Grey images become three equal channels, 16-bit ones keep their upper 8 bits, an alpha channel
    is dropped. A defect too small to meet a pixel centre leaves its mask empty and its label 1.

    Raises
    ------
    FaderError : naming the file: it is unreadable or truncated, has 32-bit pixels, is a mask of
        another size than its image, or a mask without a defect pixel at its original size.
    """
    train, _ = _decode(category.train, size)
    test, mask = _decode(category.test, size)
    return Arrays(
        train=train,
        test=test,
        mask=mask,
        label=np.array([sample.defect != GOOD for sample in category.test], dtype=np.uint8),
        train_names=_names(category, category.train),
        test_names=_names(category, category.test),
        defects=[sample.defect for sample in category.test],
    )


def _names(category: Category, samples: Sequence[Sample]) -> list[str]:
    return [sample.image.relative_to(category.folder).as_posix() for sample in samples]


def _decode(samples: Sequence[Sample], size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3, size, size) images and (N, size, size) masks. Pillow decodes outside the GIL."""
    images = np.empty((len(samples), 3, size, size), dtype=np.uint8)
    masks = np.zeros((len(samples), size, size), dtype=np.uint8)

    def decode(i: int) -> None:
        rgb = _rgb(samples[i].image)
        if samples[i].mask is not None:
            masks[i] = _resized_mask(samples[i].mask, samples[i].image, rgb.size, size)  # type: ignore[arg-type]  # there
        if rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BICUBIC)
        images[i] = np.asarray(rgb).transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(decode, range(len(samples))):
            pass  # in order, so that of several bad files the first is reported
    return images, masks


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except DECODE_ERRORS as error:
        raise FaderError(
            f"{path}: unreadable image ({error}); restore it from the archive"
        ) from error


def _rgb(path: Path) -> Image.Image:
    image = _open(path)
    if image.mode.startswith("I;16"):  # convert() would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise FaderError(
            f"{path}: 32-bit pixels have no agreed white level; save it with 8 or 16 bits"
        )
    return image.convert("RGB")


def _resized_mask(path: Path, image: Path, image_size: tuple[int, int], size: int) -> np.ndarray:
    mask = _open(path)
    if mask.size != image_size:
        raise FaderError(f"{path}: mask of {mask.size} pixels, but {image} has {image_size}")
    defect: Any
    if mask.mode in ("1", "L", "I", "F") or mask.mode.startswith("I;16"):
        defect = np.asarray(mask) != 0
    else:  # black is normal, whatever its palette index, and alpha says nothing
        defect = np.asarray(mask.convert("RGB")).any(axis=2)
    if not defect.any():
        raise FaderError(
            f"{path}: no defect pixel, but {image} is filed as defective; "
            "correct the mask or move the image to test/good"
        )
    return defect[np.ix_(*(_nearest(side, size) for side in defect.shape))].astype(np.uint8)


def _nearest(side: int, size: int) -> np.ndarray:
    """Index of the input pixel under each output pixel's centre, floor((i + 1/2) side / size).

    In whole numbers: Pillow's NEAREST sums floats and misses centres that fall on a pixel border.
    """
    return (2 * np.arange(size) + 1) * side // (2 * size)
