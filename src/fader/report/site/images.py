"""Pictures inside the page, as data URIs, within what a page may weigh.

A page is for a person who opens it from a disk or a mail: so many bytes for all galleries together,
so many for the figures, whatever the number of categories and images.
"""

import base64
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

GALLERY = 2_000_000  # characters of a category's pictures, at most
GALLERIES = 42_000_000  # and of all of them: for 27 categories the pictures become smaller
FIGURES = 6_000_000

_QUALITY = 82  # of WebP
_LEAST = 24  # pixels of a side
_WIDEST, _HIGHEST = 2_400, 12_000  # pixels of a figure; WebP holds 16,383 at most
_SHRINK = 0.85


def of_case(categories: int, pictures: int) -> int:
    """Characters that each of a category's pictures may take."""
    return min(GALLERY, GALLERIES // categories) // max(pictures, 1)


def picture(pixels: np.ndarray, most: int) -> str:
    """Data URI of an image (H, W, 3) uint8, smaller where it would be longer than ``most``."""
    return _within(Image.fromarray(pixels), most)


def mask(pixels: np.ndarray, side: int = 128) -> str:
    """Data URI of a mask (H, W) bool, white where True, at most ``side`` pixels wide."""
    image = Image.fromarray(pixels.astype(np.uint8) * 255)
    image.thumbnail((side, side), Image.Resampling.NEAREST)
    return _uri(_encoded(image.convert("1"), "PNG"), "png")


def figure(path: Path, most: int) -> tuple[str, tuple[int, int]]:
    """Data URI of a figure and its width and height in pixels: the file as it is where it is short
    enough, otherwise a smaller picture of it."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        if _length(data) <= most and image.width <= _WIDEST:
            return _uri(data, "png"), image.size
        size = image.size
        small = image.convert("RGB")
    small.thumbnail((_WIDEST, _HIGHEST))
    return _within(small, most), size


def _within(image: Image.Image, most: int) -> str:
    data = _encoded(image, "WEBP")
    scale = 1.0
    while _length(data) > most and min(image.size) * scale > _LEAST:
        scale *= _SHRINK
        width, height = (max(1, round(side * scale)) for side in image.size)
        data = _encoded(image.resize((width, height), Image.Resampling.BOX), "WEBP")
    return _uri(data, "webp")


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    options = {"quality": _QUALITY, "method": 4} if kind == "WEBP" else {"optimize": True}
    image.save(stream, kind, **options)
    return stream.getvalue()


def _length(data: bytes) -> int:
    """Characters of the data in base64."""
    return 4 * math.ceil(len(data) / 3)


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
