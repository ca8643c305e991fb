"""The honest protocol: every choice is made on training normals and synthetic defects painted on
them.

A part of the training normals is held out; copies of them carry synthetic defects. m*, η × schedule
and any threshold are chosen on these two sets. No test image and no test label takes part (the
``oracle`` policy, a diagnostic, is the one exception and says so in its artefact).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fader.detectors.base import Detector, Images, Scores
from fader.evaluation import metrics


@dataclass(frozen=True)
class Examples:
    """What candidates are judged on.

    Parameters
    ----------
    normal, defective : images of either kind, with a masker's masks.
    truth : (N, H, W) bool, defective pixels of ``defective``.
    """

    normal: Images
    defective: Images
    truth: Tensor

    def judge(self, detector: Detector) -> dict[str, float]:
        """The label-free criterion of a detector."""
        return criterion(detector.scores(self.normal), detector.scores(self.defective), self.truth)


def criterion(normal: Scores, defective: Scores, truth: Tensor) -> dict[str, float]:
    """The label-free criterion from scores of held-out normals and of synthetic defects.

    ``value`` is the mean of image and pixel AUROC: with some twenty normals the image AUROC alone
    ties often.
    """
    scores = torch.cat([normal.images, defective.images]).numpy()
    labels = np.repeat([0, 1], [len(normal.images), len(defective.images)])
    pixels = metrics.PixelHistogram()
    pixels.update(normal.maps.numpy(), np.zeros(normal.maps.shape, np.uint8))
    pixels.update(defective.maps.numpy(), truth.numpy())
    image, pixel = metrics.auroc(scores, labels), pixels.auroc()
    return {"image_auroc": image, "pixel_auroc": pixel, "value": (image + pixel) / 2}


def search_mosaic(
    candidates: Sequence[int], judge: Callable[[int], Mapping[str, float]]
) -> tuple[int, dict[str, dict[str, float]]]:
    """m*: the candidate with the best criterion, ties to the larger; and the criterion of each."""
    results = {m: dict(judge(m)) for m in sorted(candidates)}
    best = max(results, key=lambda m: (results[m]["value"], m))
    return best, {str(m): result for m, result in results.items()}
