"""Detection metrics of images and of pixels: AUROC, average precision, best F1 and AUPRO.

Every metric follows from the sorted scores of the normal and of the defective pixels (or images).
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

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from fader.errors import FaderError

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)
_SAMPLES_KEPT = 4


class _Sample(NamedTuple):
    """Ascending scores of one class; score i stands for counts[i] pixels around it in rank."""

    scores: np.ndarray
    counts: np.ndarray  # int64
    overlap: np.ndarray  # float64, sum of 1 / |component| over those pixels; 0 if normal


class _Curve(NamedTuple):
    """Cumulative counts at the distinct defective scores d, descending.

    Normal scores in between move the ROC along horizontal lines, so these points determine it.
    """

    true: np.ndarray  # defective pixels >= d
    overlap: np.ndarray  # their overlap
    false: np.ndarray  # normal pixels >= d
    false_above: np.ndarray  # normal pixels > d
    normal: int  # all normal pixels


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
        self._normal: list[_Sample] = []
        self._defective: list[_Sample] = []
        self._pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._filled = 0
        self._cached: _Curve | None = None

    def update(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Add pixels.

        Args:
            scores: anomaly scores, any shape, finite floats, higher is more anomalous. float16 is
                widened to float32; float32 and float64 are compared as they are.
            labels: same shape, 0 or 1 (or bool); 1 marks a defective pixel.

        Raises:
            FaderError: scores not floating, NaN or infinite, shapes that differ, other labels.
        """
        scores, labels = _checked(scores, labels)
        # NaN marks overlap that is unknown: it reaches aupro(), which refuses, and nothing else.
        self._add(scores.ravel(), labels.ravel(), np.full(np.count_nonzero(labels), np.nan))

    def update_map(self, score_map: np.ndarray, mask: np.ndarray) -> None:
        """Add one image, (H, W) scores and (H, W) mask: ``update`` with the regions AUPRO needs."""
        if np.ndim(score_map) != 2:
            raise FaderError(f"score map: expected shape (H, W), got {np.shape(score_map)}")
        scores, labels = _checked(score_map, mask)
        self._add(scores.ravel(), labels.ravel(), _overlap_weights(labels))

    def merge(self, other: PixelHistogram) -> None:
        """Add all pixels of another histogram, which is left as it is."""
        for normal, defective in tuple(zip(other._normal, other._defective, strict=True)):
            self._keep(normal, defective)
        for piece in tuple(other._pieces):
            self._add(*piece)

    def roc(self, max_points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """False and true positive rates, both ascending from (0, 0) to (1, 1).

        The curve is straight between its points. ``max_points`` (at least 2) thins it for a plot to
        points of the full curve.
        """
        curve = self._curve()
        return _thinned(*_rates(curve, curve.true), max_points)

    def precision_recall(self, max_points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall at every defective score, recall ascending; thinned as ``roc``."""
        true, _, false, _, _ = self._curve()
        return _thinned(true / (true + false), true / true[-1], max_points)

    def auroc(self) -> float:
        """Area under the ROC curve; raises FaderError if a class is absent, as all below do."""
        return _auroc(self._curve())

    def average_precision(self) -> float:
        """Step-wise sum of precision over recall, not the trapezoid, as in scikit-learn."""
        return _average_precision(self._curve())

    def f1_max(self) -> float:
        """Largest F1 over all thresholds; optimistic, since it is chosen on the test set."""
        return _f1_max(self._curve())

    def aupro(self, fpr_limit: float = 0.3) -> float:
        """Area under the region overlap up to ``fpr_limit``, in [0, 1]; needs ``update_map``."""
        return _aupro(self._curve(), fpr_limit)

    def _add(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        self._cached = None
        while scores.size:
            if self._filled == self._block_pixels:
                self._keep(*_sorted_samples(self._pieces, self._resolution))
                self._pieces, self._filled = [], 0
            n = min(self._block_pixels - self._filled, scores.size)
            defects = np.count_nonzero(labels[:n])
            self._pieces.append((scores[:n], labels[:n], weights[:defects]))
            self._filled += n
            scores, labels, weights = scores[n:], labels[n:], weights[defects:]
            if not scores.size:
                # The caller may reuse its arrays; every earlier piece has been sampled already.
                self._pieces[-1] = tuple(array.copy() for array in self._pieces[-1])

    def _keep(self, normal: _Sample, defective: _Sample) -> None:
        self._cached = None
        self._normal.append(normal)
        self._defective.append(defective)
        if len(self._normal) > _SAMPLES_KEPT:
            self._normal = [_thin(*_pool(self._normal), self._resolution)]
            self._defective = [_thin(*_pool(self._defective), self._resolution)]

    def _curve(self) -> _Curve:
        if self._cached is None:
            normal, defective = list(self._normal), list(self._defective)
            if self._pieces:
                resolution = self._resolution if normal else self._filled
                for samples, rest in zip(
                    (normal, defective), _sorted_samples(self._pieces, resolution), strict=True
                ):
                    samples.append(rest)
            self._cached = _curve(normal, defective)
        return self._cached


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact AUROC: the probability that a defective score exceeds a normal one, ties count half.

    ``scores`` real and finite, ``labels`` 0 or 1, same shape; FaderError otherwise, and if a class
    is absent.
    """
    return _auroc(_exact_curve(scores, labels))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact average precision, step-wise as scikit-learn's; arguments and errors as ``auroc``."""
    return _average_precision(_exact_curve(scores, labels))


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact largest F1 over the thresholds "score >= t"; arguments and errors as ``auroc``."""
    return _f1_max(_exact_curve(scores, labels))


def aupro(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray], fpr_limit: float = 0.3) -> float:
    """AUPRO of one class: its score maps, (H, W) each, and masks, good images included (mask 0).

    Raises FaderError as ``PixelHistogram.update``, if the numbers of maps and masks differ, or if
    there is no normal or no defective pixel.
    """
    return _histogram(maps, masks).aupro(fpr_limit)


def image_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``image_auroc``, ``image_ap`` and ``image_f1max`` of (N,) scores and labels of one class."""
    curve = _exact_curve(scores, labels)
    return {
        "image_auroc": _auroc(curve),
        "image_ap": _average_precision(curve),
        "image_f1max": _f1_max(curve),
    }


def mask_metrics(masks: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How much binary masks cover: the incomplete-mask problem (FADeR, section 1) in numbers.

    Args:
        masks: (N,H,W) bool, True = suspected. truth: (N,H,W) 0/1, defective pixels.

    Returns:
        ``mask_area``: masked share of all pixels; ``mask_area_good``, ``mask_area_defective``: of
        the normal and of the defective images' pixels; ``mask_recall``: share of the defective
        pixels that are masked; ``mask_precision``: share of the masked pixels of defective images
        that are defective (0 where nothing is masked); ``mask_complete``: share of the defective
        images whose defect is masked to the last pixel.
    """
    truth = truth.astype(bool)
    defective = truth.any(axis=(1, 2))
    hit = (masks & truth).sum(axis=(1, 2))
    suspected = masks[defective].sum()
    return {
        "mask_area": masks.mean(),
        "mask_area_good": masks[~defective].mean(),
        "mask_area_defective": masks[defective].mean(),
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


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.dtype.kind != "f":
        raise FaderError(f"scores: expected floating point, got {scores.dtype}")
    if scores.shape != labels.shape:
        raise FaderError(f"scores {scores.shape} and labels {labels.shape} differ in shape")
    if scores.size and not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise FaderError(f"scores: {scores.flat[bad]} at flat index {bad}; they must be finite")
    if labels.dtype != bool:
        defective = labels == 1
        if not (defective | (labels == 0)).all():
            raise FaderError("labels: values other than 0 and 1; binarise the masks first")
        labels = defective
    return scores.astype(np.result_type(scores, np.float32), copy=False), labels


def _overlap_weights(mask: np.ndarray) -> np.ndarray:
    """1 / |component| for every defective pixel of an (H, W) bool mask, in row-major order."""
    components, _ = ndimage.label(mask, EIGHT_CONNECTED)
    return (1.0 / np.maximum(np.bincount(components.ravel()), 1))[components[mask]]


def _exact_curve(scores: np.ndarray, labels: np.ndarray) -> _Curve:
    scores, labels = _checked(np.asarray(scores, dtype=np.float64), labels)
    if not scores.size:
        raise FaderError("metrics: no scores were given")
    weights = np.full(np.count_nonzero(labels), np.nan)
    normal, defective = _sorted_samples([(scores.ravel(), labels.ravel(), weights)], scores.size)
    return _curve([normal], [defective])


def _sorted_samples(
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]], resolution: int
) -> tuple[_Sample, _Sample]:
    """Normal and defective sample of a block; every score if it has at most ``resolution``."""
    scores, labels, weights = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    defective = scores[labels]
    # Cheaper than to extract the normal scores: all scores are finite, so these are sorted last.
    scores[labels] = np.inf
    scores.sort()
    normal = scores[: scores.size - defective.size]
    order = np.argsort(defective)
    return (
        _thin(normal, None, np.broadcast_to(0.0, normal.size), resolution),
        _thin(defective[order], None, weights[order], resolution),
    )


def _thin(
    scores: np.ndarray, counts: np.ndarray | None, overlap: np.ndarray, resolution: int
) -> _Sample:
    """Group ascending scores, which stand for ``counts`` pixels each (None: for one).

    The highest ``resolution`` // 2 pixels stay apart. The others fall into as many groups of one
    size, cut at both ends of every run of equal scores that spans two of their bounds, so that
    heavy ties keep their exact count. A group takes the score of its middle pixel.
    """
    up_to = None if counts is None else np.cumsum(counts)
    total = scores.size if up_to is None else int(up_to[-1])
    if scores.size <= resolution:
        return _Sample(scores, np.ones(total, np.int64) if counts is None else counts, overlap)
    shared = total - resolution // 2
    size = -(-shared // (resolution // 2))
    bounds = np.append(np.arange(0, shared, size), shared)
    at_bounds = scores[_entries(bounds, up_to)]
    tied = _distinct(at_bounds[1:][at_bounds[1:] == at_bounds[:-1]])
    ends = np.concatenate([np.searchsorted(scores, tied, side) for side in ("left", "right")])
    if up_to is not None:
        ends = np.append(0, up_to)[ends]
    starts = _distinct(np.sort(np.concatenate([bounds[:-1], ends[ends < shared]])))
    starts = np.concatenate([starts, np.arange(shared, total)])
    grouped = np.diff(starts, append=total)
    # Of the two middle pixels of an even group take either by turns, else the deviations add up.
    middle = starts + (grouped - np.arange(grouped.size) % 2) // 2
    if up_to is None:
        overlap = np.add.reduceat(overlap, starts)
    else:
        overlap_below = np.interp(starts, np.append(0, up_to), np.append(0, np.cumsum(overlap)))
        overlap = np.diff(overlap_below, append=overlap.sum())
    return _Sample(scores[_entries(middle, up_to)], grouped, overlap)


def _entries(ranks: np.ndarray, up_to: np.ndarray | None) -> np.ndarray:
    """Index of the entry that holds the pixel of each rank; ``up_to`` None: one pixel per entry."""
    return ranks if up_to is None else np.searchsorted(up_to, ranks, side="right")


def _distinct(ascending: np.ndarray) -> np.ndarray:
    return ascending[_run_starts(ascending)]


def _run_starts(ascending: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1])[: ascending.size])


def _pool(samples: list[_Sample]) -> _Sample:
    if len(samples) == 1:
        return samples[0]
    columns = [np.concatenate(arrays) for arrays in zip(*samples, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return _Sample(*(column[order] for column in columns))


def _curve(normal: list[_Sample], defective: list[_Sample]) -> _Curve:
    if not normal:
        raise FaderError("metrics: no scores were given")
    normal, defective = _pool(normal), _pool(defective)
    if not (normal.scores.size and defective.scores.size):
        present = "defective" if defective.scores.size else "normal"
        raise FaderError(f"labels: all are {present}; the metrics need both classes")
    starts = _run_starts(defective.scores)[::-1]
    distinct = defective.scores[starts]
    return _Curve(
        true=_at_or_above(defective.counts, starts),
        overlap=_at_or_above(defective.overlap, starts),
        false=_at_or_above(normal.counts, np.searchsorted(normal.scores, distinct)),
        false_above=_at_or_above(normal.counts, np.searchsorted(normal.scores, distinct, "right")),
        normal=int(normal.counts.sum()),
    )


def _at_or_above(counts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sums of counts[i:] for every i of ``index``, 0 <= i <= len(counts)."""
    return np.append(np.cumsum(counts[::-1])[::-1], 0)[index]


def _rates(curve: _Curve, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polyline of gain (true positives or overlap) over false positives, (0, 0) to (1, 1).

    Each defective score adds a horizontal step up to the normal pixels above it, then a line, which
    is oblique if it is tied with normal pixels.
    """
    false = np.stack([curve.false_above, curve.false], axis=1).ravel()
    before = np.concatenate([[0], gain[:-1]])
    gained = np.stack([before, gain], axis=1).ravel()
    fpr = np.concatenate([[0], false, [curve.normal]]) / curve.normal
    return fpr, np.concatenate([[0], gained, gain[-1:]]) / gain[-1]


def _thinned(x: np.ndarray, y: np.ndarray, max_points: int | None) -> tuple[np.ndarray, np.ndarray]:
    """At most ``max_points`` points of a polyline, evenly spread along it, both ends included."""
    if max_points is None:
        return x, y
    if max_points < 2:
        raise FaderError(f"max_points: must be at least 2, got {max_points}")
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.linspace(0, length[-1], max_points)[1:-1]
    kept = np.unique(np.concatenate([[0], np.searchsorted(length, wanted), [x.size - 1]]))
    return x[kept], y[kept]


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Integral of a polyline from 0 to ``limit``, divided by it; x ascends from 0 to 1."""
    inside = np.searchsorted(x, limit, side="right")
    at_limit = np.interp(limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1])
    area = np.trapezoid(np.append(y[:inside], at_limit), np.append(x[:inside], limit))
    return float(area / limit)


def _auroc(curve: _Curve) -> float:
    return _area(*_rates(curve, curve.true), 1.0)


def _average_precision(curve: _Curve) -> float:
    precision = curve.true / (curve.true + curve.false)
    return float(np.diff(curve.true, prepend=0) @ precision / curve.true[-1])


def _f1_max(curve: _Curve) -> float:
    return float((2 * curve.true / (curve.true + curve.false + curve.true[-1])).max())


def _aupro(curve: _Curve, fpr_limit: float) -> float:
    if not 0 < fpr_limit <= 1:
        raise FaderError(f"fpr_limit: must lie in (0, 1], got {fpr_limit}")
    if np.isnan(curve.overlap[-1]):
        raise FaderError("aupro: some defective pixels came without regions; use update_map")
    return _area(*_rates(curve, curve.overlap), fpr_limit)
