"""What a model says of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fader.model.images import Item, Sizes


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image.

    Parameters
    ----------
    name : of the image, ``/``-separated, relative to the folder that was given; an array's number.
    place : the same as a path.
    item : the file, or the pixels (H, W, 3) uint8.
    size : height and width of the image, pixels.
    score : of the image, higher = more anomalous.
    defective : whether ``score`` is above the model's threshold.
    map : (S, S) float32 at the model's working size, higher = more anomalous.
    seconds : that decoding and scoring took, the mean over its batch.
    """

    name: str
    place: Path
    item: Item
    size: Sizes
    score: float
    defective: bool
    map: np.ndarray
    seconds: float

    def restored(self) -> np.ndarray:
        """The map (H, W) float32 at the image's own size, bilinear."""
        return _at_size(self.map, self.size)


@dataclass(frozen=True)
class Unread:
    """An image that cannot be read, and why, in one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class Predictions:
    """What a model says of images.

    Parameters
    ----------
    names : of the images (see ``Prediction``).
    scores : (N,) float32, higher = more anomalous.
    defective : (N,) bool, whether a score is above ``threshold``.
    maps : (N, S, S) float32 at the model's working size.
    sizes : height and width of each image.
    threshold : of the scores.
    """

    names: list[str]
    scores: np.ndarray
    defective: np.ndarray
    maps: np.ndarray
    sizes: list[Sizes]
    threshold: float

    def __len__(self) -> int:
        return len(self.names)

    def restored(self) -> Iterator[np.ndarray]:
        """The maps, each (H, W) float32 at its image's own size."""
        return map(_at_size, self.maps, self.sizes)


def _at_size(values: np.ndarray, size: Sizes) -> np.ndarray:
    height, width = size
    image = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)
