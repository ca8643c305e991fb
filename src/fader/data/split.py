"""The label-free split: training normals held out, in two folds, and synthetic defects painted on
copies of them.

Choices (m*, η × schedule) are made on the fold ``held``; on ``checked`` nothing is chosen, so that
the AUROC measured there is not the best of several. See DESIGN section 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fader.config import Validation
from fader.data import defects as painter
from fader.data.pack import resized
from fader.errors import FaderError
from fader.seeds import derive_seed

FOLDS = ("held", "checked")
LEAST = 2  # images in every part


@dataclass(frozen=True)
class Fold:
    """Held-out normals and the synthetic defects on them.

    Parameters
    ----------
    normals : (k,) int64 indices, sorted.
    defects : side → (k·per_image, 3, side, side) uint8: the same defects at every side.
    masks : (k·per_image, H, W) uint8 0/1, at the working resolution.
    kinds : kind of each defect.
    """

    normals: np.ndarray
    defects: dict[int, np.ndarray]
    masks: np.ndarray
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Indices of the fitted normals, (n,) int64, sorted; and the folds of the others, by name."""

    fit: np.ndarray
    folds: dict[str, Fold]


def sizes(count: int, settings: Validation) -> tuple[int, int]:
    """Normals of ``held`` and of ``checked`` for a category of ``count``: as told, or, where that
    is more than ``settings.most`` of them, both fewer in the same proportion.

    Raises
    ------
    FaderError : a part would have fewer than two images.
    """
    told = settings.held + settings.checked
    out = min(told, int(settings.most * count))
    held = max(LEAST, round(out * settings.held / told))
    checked = max(LEAST, out - held)
    if count - held - checked < LEAST:
        raise FaderError(
            f"{count} training normals, {held} and {checked} of them held out, leave fewer than"
            f" {LEAST} to fit; give at least {3 * LEAST} images"
        )
    return held, checked


def split(train: Mapping[int, np.ndarray], size: int, settings: Validation, seed: int) -> Split:
    """Hold out normals and paint defects on copies of them.

    Parameters
    ----------
    train : side → the normals at it, (N, 3, side, side) uint8; defects are painted at the largest
        and reduced to the others.
    size : the working resolution, one of the sides.

    Raises
    ------
    FaderError : as ``sizes``.
    """
    largest = max(train)
    count = len(train[largest])
    held, checked = sizes(count, settings)
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(count)
    parts = np.split(order, [held, held + checked])
    folds = {}
    for name, part in zip(FOLDS, parts, strict=False):
        normals = np.sort(part)
        painted, masks, kinds = painter.paint(
            train[largest][normals],
            kinds=settings.kinds,
            per_image=settings.per_image,
            seed=derive_seed(seed, "defects", name),
        )
        folds[name] = Fold(
            normals,
            {side: reduced(painted, side) for side in train},
            reduced_masks(masks, size),
            tuple(kinds),
        )
    return Split(np.sort(parts[-1]), folds)


def reduced(images: np.ndarray, side: int) -> np.ndarray:
    """Images (N, 3, H, W) uint8 at ``side``, as images from files are resized."""
    if images.shape[-1] == side:
        return images
    return np.stack([resized(Image.fromarray(i.transpose(1, 2, 0)), side) for i in images])


def reduced_masks(masks: np.ndarray, side: int) -> np.ndarray:
    """Masks (N, H, W) 0/1 at ``side``: a pixel is a defect if any below it is, so that none is
    lost."""
    factor = masks.shape[-1] / side
    edges = np.floor(np.arange(side) * factor).astype(int)
    rows = np.maximum.reduceat(masks, edges, axis=1)
    return np.maximum.reduceat(rows, edges, axis=2)
