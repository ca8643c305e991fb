"""Images of the user's own: found by their names, decoded as the tables' are, and resized.

A file is decoded by ``fader.data.decode`` and resized by ``fader.data.pack.resized``. Only what was
resized stays in memory.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fader.data import decode, layout
from fader.data.decode import White
from fader.data.layout import listed
from fader.data.pack import resized
from fader.errors import FaderError
from fader.files import shown

Item = Path | np.ndarray  # a file, or pixels (H, W, 3) uint8, RGB
Source = str | Path | np.ndarray | Sequence[str | Path] | Sequence[np.ndarray]


@dataclass(frozen=True)
class Found:
    """Images, none of them decoded yet.

    Parameters
    ----------
    items : the images, in order.
    places : path of each relative to the folder that holds all that was asked for, all different;
        an array's is its number.
    ignored : why files were ignored → their number.
    """

    items: tuple[Item, ...]
    places: tuple[Path, ...]
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        """The places as text that can be printed, their parts parted by ``/``."""
        return [shown(place.as_posix()) for place in self.places]

    def __str__(self) -> str:
        """``50 images; ignored: 3 files (.txt)``."""
        images = f"{len(self)} image{'s' * (len(self) != 1)}"
        return images + layout.told_ignored(self.ignored)


def find(images: Source, *, tolerant: bool = False) -> Found:
    """The images of a folder and of those in it, of files, or of arrays (N, H, W, 3) uint8.

    Parameters
    ----------
    tolerant : take images of formats that are not read as well, which whoever decodes them reports.

    Raises
    ------
    FaderError : there is no image, no such file, arrays of another kind; or as ``layout.sort_out``.
    """
    arrays = _arrays(images)
    if arrays is not None:
        return Found(tuple(arrays), tuple(Path(str(i)) for i in range(len(arrays))))
    given: Sequence[str | Path] = [images] if isinstance(images, str | Path) else images  # type: ignore[assignment]
    paths = [Path(path).expanduser() for path in given]
    reasons: Counter[str] = Counter()
    files: dict[Path, None] = {}  # in order, each once
    for path in paths:
        if path.is_dir():
            of_folder, ignored = layout.sort_out(path, tolerant=tolerant)
            reasons += ignored
        elif path.is_file():
            of_folder = [path]
        else:
            raise FaderError(f"{shown(path)}: no such file or folder; give one that is there")
        files |= dict.fromkeys(map(_absolute, of_folder))
    if not files:
        where = ", ".join(map(shown, paths)) or "an empty list"
        raise FaderError(f"{where}: no image in it; give a folder of images, or images")
    around = [_absolute(path) if path.is_dir() else _absolute(path).parent for path in paths]
    root = Path(os.path.commonpath(around))
    return Found(tuple(files), tuple(path.relative_to(root) for path in files), reasons)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # links stay as they are named


def _arrays(images: Source) -> list[np.ndarray] | None:
    """Images that are arrays; None where they are not."""
    if isinstance(images, str | Path):
        return None
    arrays = list(images)
    if not isinstance(images, np.ndarray) and not any(isinstance(a, np.ndarray) for a in arrays):
        return None
    for number, array in enumerate(arrays):
        fits = isinstance(array, np.ndarray) and array.dtype == np.uint8
        if not fits or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else repr(array)
            raise FaderError(f"images: number {number} is {what}; give uint8 (H, W, 3), RGB")
    if not arrays:
        raise FaderError("images: an array of none; give uint8 (N, H, W, 3), RGB")
    return arrays


def opened(item: Item, white: White | None) -> Image.Image:
    """An image upright, as RGB of 8 bits.

    Raises
    ------
    FaderError : as ``decode.read`` and ``decode.rgb``.
    """
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    return decode.rgb(decode.read(item), white)


def decoded(item: Item, sides: Sequence[int], white: White | None) -> tuple["Sizes", "Sides"]:
    """Height and width of an image, and side → it as (3, side, side) uint8."""
    rgb = opened(item, white)
    return (rgb.height, rgb.width), {side: resized(rgb, side) for side in sides}


Sizes = tuple[int, int]
Sides = dict[int, np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """Decoded images.

    Parameters
    ----------
    names : see ``Found.names``.
    sizes : height and width of each before it was resized.
    pixels : side → (N, 3, side, side) uint8.
    white : of the images of more than 8 bits, None where there are none.
    ignored : as in ``Found``.
    """

    names: list[str]
    sizes: list[Sizes]
    pixels: dict[int, Tensor]
    white: White | None
    ignored: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """Sha256 of the largest pixels, 16 hexadecimal digits."""
        pixels = self.pixels[max(self.pixels)]
        return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]

    def remarks(self) -> Iterator[str]:
        """What a user should know of the images: their bits, sizes and copies, a line each."""
        if self.white:
            yield f"16-bit images: {self.white}"
        counted = Counter(f"{width} x {height}" for height, width in self.sizes)
        if len(counted) > 1:
            number = listed([f"{size} ({count})" for size, count in counted.most_common()])
            yield f"images of {len(counted)} sizes, all scaled to the same square: {number}"
        first: dict[bytes, str] = {}
        pairs = []
        for name, image in zip(self.names, self.pixels[max(self.pixels)].numpy(), strict=True):
            known = first.setdefault(hashlib.sha256(image.tobytes()).digest(), name)
            if known != name:
                pairs.append(f"{name} = {known}")
        if pairs:
            yield (
                f"images that are copies of others ({len(pairs)}): {listed(pairs)}; remove them,"
                " for a copy makes what is held out look better than it is"
            )


def read(found: Found, sides: Sequence[int], white: float | None = None) -> Pictures:
    """Decode images and keep them at each side.

    Parameters
    ----------
    white : pixel value of white in images of more than 8 bits; None measures it on all of them.

    Raises
    ------
    FaderError : naming the file: as ``decode.read``, ``decode.rgb`` and ``decode.measured_white``.
    """
    files = [item for item in found.items if isinstance(item, Path)]
    level = White(white) if white else decode.measured_white(files)
    kept = {side: np.empty((len(found), 3, side, side), np.uint8) for side in sides}

    def one(i: int) -> Sizes:
        size, at_sides = decoded(found.items[i], sides, level)
        for side, pixels in at_sides.items():
            kept[side][i] = pixels
        return size

    sizes = decode.each(one, range(len(found)))
    pixels = {side: torch.from_numpy(array) for side, array in kept.items()}
    return Pictures(found.names, sizes, pixels, level, found.ignored)
