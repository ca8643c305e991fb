"""AUPIMO: how much of each image's defects is found at false positive rates so low that hardly a
good image would show one.

The definition is of Bertoldo et al. (AUPIMO: Redefining Anomaly Localization Benchmarks with High
Speed and Low Tolerance, arXiv 2401.01984). A threshold t flags the pixels with score >= t. Its
shared false positive rate is the mean over the good images of the share of their pixels that it
flags; the recall of an image with a defect is the share of its defective pixels that it flags. The
PIMO curve of the image is its recall as a function of the shared rate; AUPIMO is the area below it
over the logarithm of the rate, from 1e-5 to 1e-4, divided by the length of that interval.

Nothing is interpolated: at a rate f the recall is that of the lowest threshold whose rate is <= f,
so the curve is a step function, which rises where a rate becomes attainable. With M pixels in all
good images the rates are the multiples of 1 / M. Where the bounds lie below 1 / M only a threshold
above every pixel of the good images has a rate that low, and AUPIMO is the recall there. The
authors' programs take a grid of thresholds and trapezoids between them instead.

A defective pixel of score s is flagged at every rate from n / M on, where n pixels of the good
images score >= s. The area below the curve is therefore a mean over the image's defective pixels:
of log(U / f) / log(U / L), with f = n / M clipped to the bounds L and U. This needs no curve, and
of the good images no score but the highest U M.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

import numpy as np

from fader.errors import FaderError
from fader.evaluation.curves import checked

BOUNDS = (1e-5, 1e-4)


def aupimo(
    maps: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray,
    bounds: tuple[float, float] = BOUNDS,
) -> float:
    """Mean AUPIMO of the images with a defective pixel, in [0, 1]: exact, ties included.

    Parameters
    ----------
    maps : (N, H, W) anomaly scores, finite floats, higher is more anomalous; compared as they are,
        but for float16, which is widened to float32.
    masks : (N, H, W) 0 or 1 (or bool); 1 marks a defective pixel.
    labels : (N,) 0 or 1; 0 marks a good image, all of whose pixels are normal. A defective image
        without a defective pixel counts neither as good nor in the mean.
    bounds : lowest and highest shared false positive rate, 0 < lowest < highest <= 1.

    Raises
    ------
    FaderError : bounds out of order, shapes that do not fit, scores or masks as ``auroc`` refuses
        them, no good image, or no defective pixel in the others.
    """
    lowest, highest = bounds
    if not 0 < lowest < highest <= 1:
        raise FaderError(f"bounds: must be 0 < lowest < highest <= 1, got {bounds}")
    maps, defective = checked(maps, masks)
    good = np.asarray(labels) == 0
    if maps.ndim != 3 or good.shape != maps.shape[:1]:
        raise FaderError(
            f"aupimo: expected maps (N, H, W) and labels (N,), got {maps.shape} and {good.shape}"
        )
    shown = [image for image in np.flatnonzero(~good) if defective[image].any()]
    if not (good.any() and shown):
        lacking = "no defective pixel" if good.any() else "no good image"
        raise FaderError(f"aupimo: {lacking}; it needs both")
    pixels = maps[0].size * np.count_nonzero(good)
    normal = _highest((maps[image] for image in np.flatnonzero(good)), math.ceil(highest * pixels))

    def overlap(scores: np.ndarray) -> float:
        at_or_above = normal.size - np.searchsorted(normal, scores)
        rates = np.clip(at_or_above / pixels, lowest, highest)
        return float(np.mean(np.log(highest / rates) / np.log(highest / lowest)))

    return fmean(overlap(maps[image][defective[image]]) for image in shown)


def _highest(maps: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The ``count`` highest scores of all maps, ascending, or all where they are fewer; one map at
    a time is copied."""
    kept: list[np.ndarray] = []
    for score_map in maps:
        scores = np.concatenate([*kept, score_map.ravel()])
        if scores.size > count:
            scores = np.partition(scores, -count)[-count:]
        kept = [scores]
    return np.sort(kept[0])
