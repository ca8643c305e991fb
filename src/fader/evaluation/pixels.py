"""Metrics of pixels from a stream of images, in bounded memory.

Up to ``block_pixels`` pixels (2**24: every MVTec AD and VisA class at 256 x 256) all scores are
kept and the metrics are exact, ties included. A longer stream is sorted block by block, and each
block keeps, of its normal and of its defective scores, the highest 2**19 and as many quantiles of
the rest. The bins therefore follow the mass of the scores and not their range: a histogram with
bins fixed in advance, linear or on the leading bits of the float, fails on scores that crowd into a
narrow interval. The highest scores are kept one by one because precision hangs on them: there, a
bin of a few normal pixels changes it much.

AUPRO is the per-region overlap of Bergmann et al. (Uninformed Students, CVPR 2020; The MVTec
Anomaly Detection Dataset, IJCV 2021): the fraction of a component that is detected, averaged over
the 8-connected components of all masks of a class, integrated over the false positive rate of all
normal pixels of the class from 0 to 0.3, divided by 0.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fader.errors import FaderError
from fader.evaluation.curves import Curve, Sample, checked, curve_of, pool, sorted_samples, thin

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
_SAMPLES_KEPT = 4


class PixelHistogram:
    """Streaming equi-depth histogram of pixel scores, of bounded memory.

    Exact for at most ``block_pixels`` pixels. Beyond, the numbers of normal and of defective pixels
    at or above any score are off by at most 2 / ``resolution`` of each, and by as much again each
    time that the samples of several blocks are thinned to one (first after four blocks); scores
    tied often enough to fill two groups are still counted exactly. AUROC inherits the bound; its
    usual error is far below it, since the deviations have either sign. How the stream is cut into
    updates never matters.
    """

    def __init__(self, block_pixels: int = 2**24, resolution: int = 2**20) -> None:
        if block_pixels < 1 or resolution < 2:
            raise FaderError("PixelHistogram: block_pixels must be at least 1 and resolution 2")
        self._block_pixels = block_pixels
        self._resolution = resolution
        self._normal: list[Sample] = []
        self._defective: list[Sample] = []
        self._pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._filled = 0
        self._cached: Curve | None = None

    def update(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Add pixels.

        Parameters
        ----------
        scores : anomaly scores, any shape, finite floats, higher is more anomalous. float16 is
            widened to float32; float32 and float64 are compared as they are.
        labels : same shape, 0 or 1 (or bool); 1 marks a defective pixel.

        Raises
        ------
        FaderError : scores not floating, NaN or infinite, shapes that differ, other labels.
        """
        scores, labels = checked(scores, labels)
        # NaN marks overlap that is unknown: it reaches aupro(), which refuses, and nothing else.
        self._add(scores.ravel(), labels.ravel(), np.full(np.count_nonzero(labels), np.nan))

    def update_map(self, score_map: np.ndarray, mask: np.ndarray) -> None:
        """Add one image, (H, W) scores and (H, W) mask: ``update`` with the regions AUPRO needs."""
        if np.ndim(score_map) != 2:
            raise FaderError(f"score map: expected shape (H, W), got {np.shape(score_map)}")
        scores, labels = checked(score_map, mask)
        self._add(scores.ravel(), labels.ravel(), _overlap_weights(labels))

    def auroc(self) -> float:
        """Area under the ROC curve; raises FaderError if a class is absent, as all below do."""
        return self._curve().auroc()

    def average_precision(self) -> float:
        """See ``Curve.average_precision``."""
        return self._curve().average_precision()

    def f1_max(self) -> float:
        """See ``Curve.f1_max``."""
        return self._curve().f1_max()

    def aupro(self, fpr_limit: float = 0.3) -> float:
        """Area under the region overlap up to ``fpr_limit``, in [0, 1]; needs ``update_map``."""
        return self._curve().aupro(fpr_limit)

    def _add(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        self._cached = None
        while scores.size:
            if self._filled == self._block_pixels:
                self._keep(*sorted_samples(self._pieces, self._resolution))
                self._pieces, self._filled = [], 0
            n = min(self._block_pixels - self._filled, scores.size)
            defects = np.count_nonzero(labels[:n])
            self._pieces.append((scores[:n], labels[:n], weights[:defects]))
            self._filled += n
            scores, labels, weights = scores[n:], labels[n:], weights[defects:]
            if not scores.size:
                # The caller may reuse its arrays; every earlier piece has been sampled already.
                self._pieces[-1] = tuple(array.copy() for array in self._pieces[-1])  # type: ignore[assignment]  # of three

    def _keep(self, normal: Sample, defective: Sample) -> None:
        self._cached = None
        self._normal.append(normal)
        self._defective.append(defective)
        if len(self._normal) > _SAMPLES_KEPT:
            self._normal = [thin(*pool(self._normal), self._resolution)]
            self._defective = [thin(*pool(self._defective), self._resolution)]

    def _curve(self) -> Curve:
        if self._cached is None:
            normal, defective = list(self._normal), list(self._defective)
            if self._pieces:
                resolution = self._resolution if normal else self._filled
                for samples, rest in zip(
                    (normal, defective), sorted_samples(self._pieces, resolution), strict=True
                ):
                    samples.append(rest)
            self._cached = curve_of(normal, defective)
        return self._cached


def _overlap_weights(mask: NDArray[np.bool_]) -> np.ndarray:
    """1 / |component| for every defective pixel of an (H, W) bool mask, in row-major order."""
    from scipy import ndimage  # a third of a second, and only AUPRO needs it

    components, _ = ndimage.label(mask, EIGHT_CONNECTED)
    return (1.0 / np.maximum(np.bincount(components.ravel()), 1))[components[mask]]  # type: ignore[no-any-return]
