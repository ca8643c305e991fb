"""What the truth of a test set lets one measure: most sets of one's own have no masks, and some
have good images only, or defective ones only.

A metric that cannot be measured is left out with a reason; it is never NaN, and nothing stands in
for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fader.evaluation import metrics
from fader.evaluation.pimo import aupimo

IMAGE = ("image_auroc", "image_ap", "image_f1max")
PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")
AUPIMO = "aupimo"
COVERAGE = ("mask_recall", "mask_precision", "mask_complete")
NO_GOOD, NO_DEFECTIVE = "no good test images", "no defective test images"
_AREAS = {"mask_area_good": NO_GOOD, "mask_area_defective": NO_DEFECTIVE}


@dataclass(frozen=True)
class Measured:
    """Metrics of a method.

    Parameters
    ----------
    values : name → number.
    unmeasured : name → why it could not be measured; no name is in both.
    """

    values: dict[str, float]
    unmeasured: dict[str, str]

    def __or__(self, other: Measured) -> Measured:
        return Measured(self.values | other.values, self.unmeasured | other.unmeasured)


@dataclass(frozen=True)
class Truth:
    """What is known of a category's test images.

    Parameters
    ----------
    labels : (N,) 0/1, 1 = defective; N > 0.
    masks : (N, H, W) 0/1, defective pixels; None where the data set has no masks.
    without : why there are no masks; empty where there are.
    """

    labels: np.ndarray
    masks: np.ndarray | None
    without: str = ""

    @cached_property
    def lacks_images(self) -> str:
        """Why image metrics cannot be measured; empty where they can."""
        if not self.labels.any():
            return NO_DEFECTIVE
        return NO_GOOD if self.labels.all() else ""

    @cached_property
    def lacks_defects(self) -> str:
        """Why defective pixels are unknown; empty where some are known."""
        if not self.labels.any():
            return NO_DEFECTIVE
        if self.masks is None:
            return self.without
        height, width = self.masks.shape[1:]
        return "" if self.masks.any() else f"no defective pixel at {height} × {width}"

    @cached_property
    def lacks_pixels(self) -> str:
        """Why pixel metrics cannot be measured; empty where pixels of both kinds are known, be it
        in defective images alone."""
        if self.masks is not None and self.masks.all():
            return "no normal pixel in the test images"
        return self.lacks_defects

    def of_scores(self, scores: np.ndarray) -> Measured:
        """``metrics.image_metrics`` of image scores (N,)."""
        if self.lacks_images:
            return Measured({}, dict.fromkeys(IMAGE, self.lacks_images))
        return Measured(metrics.image_metrics(scores, self.labels), {})

    def of_maps(self, maps: np.ndarray) -> Measured:
        """``metrics.pixel_metrics`` and ``pimo.aupimo``, which needs good images too, of anomaly
        maps (N, H, W)."""
        if self.masks is None or self.lacks_pixels:
            return Measured({}, dict.fromkeys((*PIXEL, AUPIMO), self.lacks_pixels))
        values = metrics.pixel_metrics(maps, self.masks)
        if self.labels.all():
            return Measured(values, {AUPIMO: NO_GOOD})
        return Measured(values | {AUPIMO: aupimo(maps, self.masks, self.labels)}, {})

    def of_masks(self, masks: np.ndarray) -> Measured:
        """``metrics.mask_areas`` and ``metrics.mask_coverage`` of binary masks (N, H, W) bool."""
        areas = metrics.mask_areas(masks, self.labels)
        lacking = {name: why for name, why in _AREAS.items() if name not in areas}
        if self.masks is None or self.lacks_defects:
            return Measured(areas, lacking | dict.fromkeys(COVERAGE, self.lacks_defects))
        return Measured(areas | metrics.mask_coverage(masks, self.masks), lacking)
