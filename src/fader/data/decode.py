"""Decoding image files: upright, and as RGB of 8 bits.

*Upright.* An EXIF orientation is applied, to each file by its own tag.

*One picture a file.* An animation or a TIFF of several pages is refused. Of a camera's JPEG with
further pictures behind the first (MPO), the first counts.

*More than 8 bits.* Values are scaled from 0 … white to 0 … 255 and clipped there, with one white
for all of a category: the stated one, or else the largest number of the bits (8, 10, 12, 14 or 16)
that hold every value of the training images. Images of floats have no bits: theirs must be stated.
Pillow gives 16 bits of grey images only. Of 16-bit colour it gives the upper 8, which is enough
where white needs all bits and is refused where it does not. It scales PPM, JPEG 2000 and AVIF by
the range that the file states.

*Colours.* Grey, palette, CMYK and other images become RGB; an alpha channel is dropped.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as Tag
from PIL.ImageFile import ImageFile

from fader.data.layout import FORMATS
from fader.errors import FaderError
from fader.files import shown

# Everything Pillow's decoders raise on a truncated or damaged file.
DECODE_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
BITS = (8, 10, 12, 14, 16)
UPPER_BYTE = 257  # 16-bit value of a step of the upper 8 bits: 255 stands for 65535
TURNS = {  # EXIF orientation → what turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Item = TypeVar("Item")
Result = TypeVar("Result")


class Picture(NamedTuple):
    """A decoded file.

    Parameters
    ----------
    path : of the file.
    image : upright, in Pillow's mode of it.
    format : Pillow's name of the file's format.
    orientation : EXIF orientation of the pixels as stored, 2 … 8; 1 is upright.
    upper : whether the pixels are the upper 8 of 16 bits.
    """

    path: Path
    image: Image.Image
    format: str
    orientation: int
    upper: bool

    @property
    def deep(self) -> bool:
        """Whether the file has more than 8 bits a channel."""
        return self.upper or is_deep(self.image)


@dataclass(frozen=True)
class White:
    """Value of white in a category's images of more than 8 bits.

    ``bits`` are those of the training images that it was measured on, None where it is stated.
    """

    value: float
    bits: int | None = None

    def __str__(self) -> str:
        how = f"{self.bits} bits, measured on the training images" if self.bits else "as stated"
        return f"white is {self.value:.10g} ({how})"


def read(path: Path, sha256: str | None = None) -> Picture:
    """Decode a file, read once.

    Parameters
    ----------
    sha256 : that its bytes must have, in hexadecimal; None where any will do.

    Raises
    ------
    FaderError : it cannot be read, has other bytes, is damaged or of no known format, or holds
        several pictures.
    """
    with _damage_named(path):
        content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise FaderError(f"{shown(path)}: changed while the run was under way; run again")
    with _damage_named(path), Image.open(BytesIO(content), formats=list(FORMATS)) as image:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        upper = _upper(image)
        turned = image.format == "TIFF"  # by Pillow, which then drops the tag
        orientation = _orientation(image) if turned else 1
        image.load()
        orientation = orientation if turned else _orientation(image)
        turn = None if turned else TURNS.get(orientation)
        upright = image if turn is None else image.transpose(turn)
    if frames > 1:
        raise FaderError(
            f"{shown(path)}: {frames} pictures in one file; save each of them as a file of its own"
        )
    orientation = orientation if orientation in TURNS else 1
    return Picture(path, upright, image.format or "", orientation, upper)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """FaderError of what Pillow raises over a file."""
    try:
        yield
    except DECODE_ERRORS as error:
        reason, remedy = str(error), "restore it from the archive"
        if isinstance(error, UnidentifiedImageError):  # its own text has an address in memory
            reason = f"none of {', '.join(FORMATS)}"
        if isinstance(error, Image.DecompressionBombError):
            remedy = "make it smaller or cut it up"
        raise FaderError(f"{shown(path)}: unreadable image ({reason}); {remedy}") from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1, as in viewers, where nothing can be made of the block."""
    try:
        return image.getexif().get(Tag.Orientation, 1)
    except (SyntaxError, ValueError, struct.error):
        return 1


def is_deep(image: Image.Image) -> bool:
    """Whether the decoded pixels have more than 8 bits; always a single channel."""
    return image.mode.startswith("I") or image.mode == "F"


def _upper(image: ImageFile) -> bool:
    """Whether loading gives the upper 8 of 16 bits: Pillow's raw mode is then ``RGB;16B``."""
    unpacked = image.format in ("PNG", "TIFF") and ";16" in str(image.tile[:1])
    return unpacked and not is_deep(image)


# Colours.


def rgb(picture: Picture, white: White | None) -> Image.Image:
    """Pixels as RGB of 8 bits; ``white`` is that of the category.

    Raises
    ------
    FaderError : the image has more than 8 bits, and no white is known; or its upper 8 bits are not
        enough for that white; or it has negative numbers, or none at all.
    """
    if not picture.deep:
        with _damage_named(picture.path):
            return picture.image.convert("RGB")
    path = shown(picture.path)
    if white is None:
        raise FaderError(
            f"{path}: more than 8 bits, but no training image has so many that white could be"
            " measured; state it: datasets.<name>.white"
        )
    if picture.upper and white.value < 1 << BITS[-2]:
        raise FaderError(
            f"{path}: 16-bit colour, of which only the upper 8 bits can be read, but {white};"
            " save it with 8 bits"
        )
    values = _values(picture)
    if values.min() <= -white.value / 255:
        raise FaderError(f"{path}: negative pixels, down to {values.min():g}; save it from 0 up")
    scaled = np.rint(values.clip(0, white.value) * (255 / white.value)).astype(np.uint8)
    return Image.fromarray(scaled).convert("RGB")


def _values(picture: Picture) -> np.ndarray:
    """Pixels of an image of more than 8 bits: (H, W), or (H, W, 3) of 16-bit colour; float64."""
    if picture.upper:
        return np.asarray(picture.image.convert("RGB")) * float(UPPER_BYTE)
    values = np.asarray(picture.image).astype(np.float64)
    if not np.isfinite(values).all():
        raise FaderError(f"{shown(picture.path)}: pixels that are no numbers (NaN); correct it")
    return values


def measured_white(paths: Sequence[Path]) -> White | None:
    """White of a category, by its training images; None where none has more than 8 bits.

    Raises
    ------
    FaderError : as ``read``; or an image has floats or values of more than 16 bits.
    """
    largest = max(each(_largest, paths), default=0)
    bits = next(bits for bits in BITS if largest < 1 << bits)
    return White(2**bits - 1, bits) if largest else None


def _largest(path: Path) -> int:
    """Largest value of an image of more than 8 bits, at least 1; 0 of any other, which is not
    decoded."""
    with _damage_named(path), Image.open(path, formats=list(FORMATS)) as image:
        if not (is_deep(image) or _upper(image)):
            return 0
    picture = read(path)
    largest = _values(picture).max()
    if picture.image.mode == "F":
        raise FaderError(
            f"{shown(path)}: floating-point pixels, up to {largest:g}; state which value is white:"
            " datasets.<name>.white"
        )
    if largest >= 1 << BITS[-1]:
        raise FaderError(
            f"{shown(path)}: pixels of more than 16 bits, up to {largest:.0f}; state which value is"
            " white: datasets.<name>.white"
        )
    return max(1, int(largest))


def each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results of a function of every item. Threads: Pillow decodes outside the GIL. Of several
    errors, the first item's is raised."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))
