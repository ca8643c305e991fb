"""From the identity of an image to its pixels and its defect mask."""

import numpy as np

from fader.data.synthetic.light import (
    SUPERSAMPLING,
    at_least_half,
    changed,
    photograph,
    sample_light,
)
from fader.data.synthetic.scene import stream
from fader.data.synthetic.scenes import CATEGORIES

GOLDEN = 0.6180339887498949


def render(
    category: str, split: str, index: int, *, seed: int, size: int, defect: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Image ``index`` of ``split``, uint8 (size, size, 3), and its defect mask, bool (size, size).

    Without ``defect`` it is the same picture before the damage (same pose, light and sensor noise)
    and the mask is empty.
    """
    identity = (seed, category, split, index)
    recipe, grid = CATEGORIES[category], size * SUPERSAMPLING
    scene = recipe.sample(stream(*identity, "scene"))
    light = sample_light(stream(*identity, "light"), recipe.shininess)
    surface = recipe.build(scene, grid)
    mask = np.zeros((size, size), dtype=bool)
    if defect is not None:
        ease = 1.0 - difficulty(category, defect, index, seed=seed)
        damaged = recipe.defects[defect](scene, grid, stream(*identity, "defect"), ease)
        mask = at_least_half(changed(surface, damaged, light))
        surface = damaged
    return photograph(surface, light, stream(*identity, "sensor")), mask


def difficulty(category: str, defect: str, index: int, *, seed: int) -> float:
    """Of image ``index`` of a defect type, in [0, 1): 0 is plain, 1 barely visible. It is 1 − the
    ease by which a ``Recipe`` sets the size and the contrast of the defect.

    A golden-ratio sequence with a random start: evenly spread for any number of images, while the
    value of one image does not depend on how many there are.
    """
    return float((stream(seed, category, defect, "difficulty").random() + index * GOLDEN) % 1.0)
