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

from fader.config import Score
from fader.evaluation import metrics
from fader.evaluation.scoring import Reconstruct, image_scores, maps_of
from fader.runtime import Machine


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
