"""The honest protocol: every choice is made on training normals and synthetic defects painted on
them.

A part of the training normals is held out; copies of them carry synthetic defects. m*, η × schedule
and any threshold are chosen on these two sets. No test image and no test label takes part (the
``oracle`` policy, a diagnostic, is the one exception and says so in its artefact).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fader import metrics
from fader.config import Score, Validation, derive_seed
from fader.data import anomalies
from fader.errors import FaderError
from fader.runtime import Machine
from fader.scoring import Reconstruct, image_scores, maps_of


@dataclass(frozen=True)
class Split:
    """Indices of fitted and held-out normals, and the synthetic defects on the held-out ones.

    fit, held : (n,) and (k,) int64, sorted.
    defects : (k·per_image, 3, H, W) uint8; defect_masks : (k·per_image, H, W) uint8 0/1.
    kinds : kind of each defect.
    """

    fit: Tensor
    held: Tensor
    defects: Tensor
    defect_masks: Tensor
    kinds: tuple[str, ...]


def split(pixels: np.ndarray, settings: Validation, seed: int) -> Split:
    """Hold out ``settings.fraction`` of the normals (N, 3, H, W) uint8 and paint defects on copies
    of them.

    FaderError when fewer than two images would be left on either side.
    """
    count = len(pixels)
    held_count = max(2, round(settings.fraction * count))
    if count - held_count < 2:
        raise FaderError(
            f"{count} training normals, {held_count} of them held out, leave fewer than 2 to fit;"
            " lower validation.fraction or give at least 4 images"
        )
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(count)
    held, fit = np.sort(order[:held_count]), np.sort(order[held_count:])
    defects, masks, kinds = anomalies.paint(
        pixels[held],
        kinds=settings.kinds,
        per_image=settings.per_image,
        seed=derive_seed(seed, "defects"),
    )
    return Split(
        torch.from_numpy(fit),
        torch.from_numpy(held),
        torch.from_numpy(defects),
        torch.from_numpy(masks),
        tuple(kinds),
    )


def criterion(normal: Tensor, defective: Tensor, masks: Tensor) -> dict[str, float]:
    """The label-free criterion from anomaly maps of held-out normals and of synthetic defects.

    ``value`` is the mean of image and pixel AUROC: with some twenty normals the image AUROC alone
    ties often.
    """
    scores = torch.cat([image_scores(normal), image_scores(defective)]).numpy()
    labels = np.repeat([0, 1], [len(normal), len(defective)])
    pixels = metrics.PixelHistogram()
    pixels.update(normal.numpy(), np.zeros(normal.shape, np.uint8))
    pixels.update(defective.numpy(), masks.numpy())
    image, pixel = metrics.auroc(scores, labels), pixels.auroc()
    return {"image_auroc": image, "pixel_auroc": pixel, "value": (image + pixel) / 2}


@dataclass(frozen=True)
class Examples:
    """What candidates are judged on: uint8 images and binary masks of normals and of synthetic
    defects."""

    normal: Tensor
    normal_masks: Tensor
    defects: Tensor
    defects_masks: Tensor
    truth: Tensor

    def judge(self, reconstruct: Reconstruct, score: Score, machine: Machine) -> dict[str, float]:
        normal = maps_of(reconstruct, self.normal, self.normal_masks, score, machine)
        defective = maps_of(reconstruct, self.defects, self.defects_masks, score, machine)
        return criterion(normal, defective, self.truth)


def search_mosaic(
    candidates: Sequence[int], judge: Callable[[int], Mapping[str, float]]
) -> tuple[int, dict[str, dict[str, float]]]:
    """m*: the candidate with the best criterion, ties to the larger; and the criterion of each."""
    results = {m: dict(judge(m)) for m in sorted(candidates)}
    best = max(results, key=lambda m: (results[m]["value"], m))
    return best, {str(m): result for m, result in results.items()}
