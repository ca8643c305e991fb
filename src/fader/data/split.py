"""The label-free validation split: held-out training normals, and synthetic defects painted on
copies of them."""

from dataclasses import dataclass

import numpy as np

from fader.config import Validation
from fader.data import defects as painter
from fader.errors import FaderError
from fader.seeds import derive_seed


@dataclass(frozen=True)
class Split:
    """Indices of fitted and held-out normals, and the synthetic defects on the held-out ones.

    Parameters
    ----------
    fit, held : (n,) and (k,) int64, sorted.
    defects : (k·per_image, 3, H, W) uint8.
    defect_masks : (k·per_image, H, W) uint8 0/1.
    kinds : kind of each defect.
    """

    fit: np.ndarray
    held: np.ndarray
    defects: np.ndarray
    defect_masks: np.ndarray
    kinds: tuple[str, ...]


def split(train: np.ndarray, settings: Validation, seed: int) -> Split:
    """Hold out ``settings.fraction`` of the normals (N, 3, H, W) uint8 and paint defects on copies
    of them.

    Raises
    ------
    FaderError : fewer than two images would be left on either side.
    """
    count = len(train)
    held_count = max(2, round(settings.fraction * count))
    if count - held_count < 2:
        raise FaderError(
            f"{count} training normals, {held_count} of them held out, leave fewer than 2 to fit;"
            " lower validation.fraction or give at least 4 images"
        )
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(count)
    held, fit = np.sort(order[:held_count]), np.sort(order[held_count:])
    defects, masks, kinds = painter.paint(
        train[held],
        kinds=settings.kinds,
        per_image=settings.per_image,
        seed=derive_seed(seed, "defects"),
    )
    return Split(fit, held, defects, masks, tuple(kinds))
