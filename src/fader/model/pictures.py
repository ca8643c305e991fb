"""What a prediction looks like: a heat map over the image, and the map itself in 16 bits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fader.files import replacing
from fader.model.model import Model
from fader.model.predictions import Prediction

OPACITY = 0.65  # of the heat map where it is hottest
COLOURS = "inferno"
WHITE = 65535
SMALLEST = 1e-30  # difference of map values that are told apart


def heat(values: np.ndarray, low: float, limit: float) -> np.ndarray:
    """Map values (H, W) → share (H, W) in [0, 1] of the scale of colours: 0 at ``low``, what is
    usual, 1/2 at ``limit``, which hardly any pixel of a normal image exceeds, and 1 as far beyond.

    The anchors are the model's, so that a colour means the same in every image.
    """
    span = max(2 * (limit - low), SMALLEST)
    return ((values - low) / span).clip(0, 1)


def overlay(image: Image.Image, values: np.ndarray, low: float, limit: float) -> Image.Image:
    """The heat map (H, W) over an image of its size: what is usual is transparent."""
    share = heat(values, low, limit)
    colours = _table()[(share * 255).round().astype(np.uint8)]
    alpha = (OPACITY * np.minimum(1, 2 * share))[..., None]
    mixed = (1 - alpha) * np.asarray(image, np.float32) + alpha * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


@cache
def _table() -> np.ndarray:
    """The scale of colours, (256, 3) from 0 to 255."""
    import matplotlib

    return np.asarray(matplotlib.colormaps[COLOURS](np.arange(256))[:, :3] * 255, np.float32)


def deep(values: np.ndarray) -> tuple[Image.Image, float, float]:
    """A map as a grey image of 16 bits, and the values that 0 and ``WHITE`` stand for."""
    low, high = float(values.min()), float(values.max())
    scaled = (values.astype(np.float64) - low) * (WHITE / max(high - low, SMALLEST))
    return Image.fromarray(scaled.round().astype(np.uint16)), low, high


def write(model: Model, one: Prediction, folder: Path) -> tuple[float, float]:
    """Write ``heatmaps/NAME.png`` and ``maps/NAME.png`` of an image at its own size; NAME is its
    whole path, so that no two images share one. Returns the values of the map's 0 and ``WHITE``.

    Raises
    ------
    FaderError : the image cannot be read again, or the system refuses.
    """
    values, about = one.restored(), model.facts["map"]
    picture = overlay(model.opened(one.item), values, about["low"], about["limit"])
    grey, low, high = deep(values)
    place = one.place.with_name(f"{one.place.name}.png")
    for kind, image in (("heatmaps", picture), ("maps", grey)):
        with replacing(folder / kind / place) as temporary:
            image.save(temporary, "PNG")
    return low, high
