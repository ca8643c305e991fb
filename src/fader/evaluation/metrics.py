"""Detection metrics of images and of pixels: AUROC, average precision, best F1 and AUPRO."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import numpy as np

from fader.errors import FaderError
from fader.evaluation.curves import exact_curve
from fader.evaluation.pixels import PixelHistogram as PixelHistogram


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact AUROC: the probability that a defective score exceeds a normal one, ties count half.

    ``scores`` real and finite, ``labels`` 0 or 1, same shape; FaderError otherwise, and if a class
    is absent.
    """
    return exact_curve(scores, labels).auroc()


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact average precision, step-wise as scikit-learn's; arguments and errors as ``auroc``."""
    return exact_curve(scores, labels).average_precision()


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact largest F1 over the thresholds "score >= t"; arguments and errors as ``auroc``."""
    return exact_curve(scores, labels).f1_max()


def aupro(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray], fpr_limit: float = 0.3) -> float:
    """AUPRO of one class: its score maps, (H, W) each, and masks, good images included (mask 0).

    Raises FaderError as ``PixelHistogram.update``, if the numbers of maps and masks differ, or if
    there is no normal or no defective pixel.
    """
    return _histogram(maps, masks).aupro(fpr_limit)


def image_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``image_auroc``, ``image_ap`` and ``image_f1max`` of (N,) scores and labels of one class."""
    curve = exact_curve(scores, labels)
    return {
        "image_auroc": curve.auroc(),
        "image_ap": curve.average_precision(),
        "image_f1max": curve.f1_max(),
    }


def mask_areas(masks: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How much binary masks cover, whatever there is below them.

    Parameters
    ----------
    masks : (N, H, W) bool, True = suspected; N > 0.
    labels : (N,) 0/1, 1 = a defective image.

    Returns
    -------
    ``mask_area``: masked share of all pixels; ``mask_area_good``, ``mask_area_defective``: of the
    pixels of the normal and of the defective images, where there are such.
    """
    defective = labels.astype(bool)
    parts = {"mask_area_good": masks[~defective], "mask_area_defective": masks[defective]}
    return {"mask_area": masks.mean()} | {
        name: part.mean() for name, part in parts.items() if len(part)
    }


def mask_coverage(masks: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How much of the defects binary masks cover: the incomplete-mask problem (FADeR, section 1) in
    numbers.

    Parameters
    ----------
    masks : (N, H, W) bool, True = suspected.
    truth : (N, H, W) 0/1, defective pixels, at least one.

    Returns
    -------
    ``mask_recall``: share of the defective pixels that are masked; ``mask_precision``: share of the
    masked pixels of images with a defective pixel that are defective (0 where nothing is masked);
    ``mask_complete``: share of these images whose defect is masked to the last pixel.
    """
    truth = truth.astype(bool)
    defective = truth.any(axis=(1, 2))
    hit = (masks & truth).sum(axis=(1, 2))
    suspected = masks[defective].sum()
    return {
        "mask_recall": hit.sum() / truth.sum(),
        "mask_precision": hit.sum() / suspected if suspected else 0.0,
        "mask_complete": (hit == truth.sum(axis=(1, 2)))[defective].mean(),
    }


def pixel_metrics(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> dict[str, float]:
    """``pixel_auroc``, ``pixel_ap``, ``pixel_f1max`` and ``aupro``; arguments as ``aupro``."""
    histogram = _histogram(maps, masks)
    return {
        "pixel_auroc": histogram.auroc(),
        "pixel_ap": histogram.average_precision(),
        "pixel_f1max": histogram.f1_max(),
        "aupro": histogram.aupro(),
    }


def _histogram(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> PixelHistogram:
    histogram = PixelHistogram()
    for index, (score_map, mask) in enumerate(zip_longest(maps, masks)):
        if score_map is None or mask is None:
            raise FaderError(f"maps and masks differ in number: only one of them has item {index}")
        try:
            histogram.update_map(score_map, mask)
        except FaderError as error:
            raise FaderError(f"image {index}: {error}") from error
    return histogram
