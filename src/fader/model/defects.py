"""A few defective images of the user's own, and masks of those that have one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fader.data import decode
from fader.data.decode import Picture
from fader.data.masks import check_typical
from fader.data.pack import marked
from fader.data.pairs import Named, beside, pairs
from fader.errors import FaderError
from fader.files import shown
from fader.model import images as sources
from fader.model.images import Found, Item, Source

Masks = Source | Sequence[np.ndarray | None]


@dataclass(frozen=True)
class Defects:
    """Defective images.

    Parameters
    ----------
    pixels : side → (N, 3, side, side) uint8.
    masked : (k,) int64, rows of those with a mask.
    truth : size → (k, size, size) uint8 0/1, their defective pixels.
    """

    pixels: dict[int, Tensor]
    masked: Tensor
    truth: dict[int, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.pixels.values())))


def read(
    defects: Source,
    masks: Masks | None,
    sides: Sequence[int],
    sizes: Collection[int],
    white: float | None,
) -> Defects:
    """Decode defective images at ``sides``, and masks at ``sizes``.

    Parameters
    ----------
    masks : a folder or files, each at its image's place below the folder, or directly in it, and
        called as its image or that and ``_mask``, ``_gt``, ``_seg`` or ``_label``; or an array (H,
        W) or None for each image. An image may go without. None: all do.

    Raises
    ------
    FaderError : as ``fader.model.images``; a mask has no image or two, an image two masks; or as
        ``fader.data.pack.marked``.
    """
    found = sources.find(defects)
    of_rows: Mapping[int, Path | np.ndarray] = {}
    if masks is not None:
        found, of_rows = _matched(found, masks)
    _check_beside(found)
    pixels = sources.read(found, sides, white).pixels
    rows = sorted(of_rows)
    truth = {size: np.zeros((len(rows), size, size), np.uint8) for size in sizes}

    def one(number: int) -> float:
        row = rows[number]
        image, mask = (_picture(each, row) for each in (found.items[row], of_rows[row]))
        for size, kept in truth.items():
            kept[number], share = marked(mask, image, size, inverted=False)
        return share

    check_typical(decode.each(one, range(len(rows))), inverted=False, folder="masks")
    for size, kept in truth.items():
        if rows and not kept.any():
            raise FaderError(f"masks: no defect is left of them at {size} x {size}; raise --size")
    tensors = {size: torch.from_numpy(kept) for size, kept in truth.items()}
    return Defects(pixels, torch.tensor(rows, dtype=torch.int64), tensors)


def _picture(item: Item, row: int) -> Picture:
    if isinstance(item, Path):
        return decode.read(item)
    return Picture(Path(f"number {row}"), Image.fromarray(item), "PNG", 1, False)


def _matched(found: Found, masks: Masks) -> tuple[Found, Mapping[int, Path | np.ndarray]]:
    """Images that are not themselves masks, and row → mask."""
    arrays = None if isinstance(masks, str | Path) else [*masks]
    if arrays is not None and any(isinstance(each, np.ndarray) for each in arrays):
        return found, _of_arrays(len(found), arrays)
    there = sources.find(masks)  # type: ignore[arg-type]  # no arrays
    files = {item for item in there.items if isinstance(item, Path)}
    rows = [row for row, item in enumerate(found.items) if not _is_in(item, files)]
    if not rows:
        raise FaderError("defects: all of them are masks; give the masks a folder of their own")
    items = tuple(found.items[row] for row in rows)
    found = replace(found, items=items, places=tuple(found.places[row] for row in rows))
    return found, _of_files(found, there)


def _is_in(item: Item, files: Collection[Path]) -> bool:
    return isinstance(item, Path) and item in files


def _of_arrays(count: int, masks: Sequence[object]) -> dict[int, np.ndarray]:
    """Row → mask of the rows that have one."""
    if len(masks) != count:
        raise FaderError(f"masks: {len(masks)} for {count} defects; give one for each, or None")
    of_rows = {}
    for row, mask in enumerate(masks):
        if mask is None:
            continue
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
            raise FaderError(f"masks: number {row} is no array (H, W), bool or uint8; give one")
        of_rows[row] = mask.astype(np.uint8)
    return of_rows


def _of_files(found: Found, masks: Found) -> dict[int, Path]:
    """As ``_of_arrays``, by names."""
    files = [item for item in masks.items if isinstance(item, Path)]
    images = [Named(*each) for each in zip(found.places, found.names, found.names, strict=True)]
    named = [Named(place, shown(f), shown(f)) for place, f in zip(masks.places, files, strict=True)]
    of_rows = {row: files[number] for row, number in pairs(images, named).items()}
    used = set(of_rows.values())
    for mask in files:
        if mask not in used:
            raise FaderError(
                f"{shown(mask)}: mask without an image among the defects; correct its name or"
                " remove it"
            )
    return of_rows


def _check_beside(found: Found) -> None:
    """FaderError where an image is called as the mask of another one beside it."""
    for place, image in beside(found.places):
        raise FaderError(
            f"{shown(place)}: called as a mask of {shown(image.name)} beside it; give the masks a"
            " folder of their own, by --masks"
        )
