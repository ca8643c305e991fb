"""Curves from sorted scores, exact or thinned, and the areas under them.

Every metric follows from the sorted scores of the normal and of the defective pixels (or images):
how many of each are at or above every score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fader.errors import FaderError


class Sample(NamedTuple):
    """Ascending scores of one class; score i stands for counts[i] pixels around it in rank."""

    scores: np.ndarray
    counts: np.ndarray  # int64
    overlap: np.ndarray  # float64, sum of 1 / |component| over those pixels; 0 if normal


class Curve(NamedTuple):
    """Cumulative counts at the distinct defective scores d, descending.

    Normal scores in between move the ROC along horizontal lines, so these points determine it.
    """

    true: np.ndarray  # defective pixels >= d
    overlap: np.ndarray  # their overlap
    false: np.ndarray  # normal pixels >= d
    false_above: np.ndarray  # normal pixels > d
    normal: int  # all normal pixels

    def auroc(self) -> float:
        """Area under the ROC curve."""
        return _area(*_rates(self, self.true), 1.0)

    def average_precision(self) -> float:
        """Step-wise sum of precision over recall, not the trapezoid, as in scikit-learn."""
        precision = self.true / (self.true + self.false)
        return float(np.diff(self.true, prepend=0) @ precision / self.true[-1])

    def f1_max(self) -> float:
        """Largest F1 over all thresholds; optimistic, since it is chosen on the test set."""
        return float((2 * self.true / (self.true + self.false + self.true[-1])).max())

    def aupro(self, fpr_limit: float) -> float:
        """Area under the region overlap up to a false positive rate, divided by that."""
        if not 0 < fpr_limit <= 1:
            raise FaderError(f"fpr_limit: must lie in (0, 1], got {fpr_limit}")
        if np.isnan(self.overlap[-1]):
            raise FaderError("aupro: some defective pixels came without regions; use update_map")
        return _area(*_rates(self, self.overlap), fpr_limit)


def checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores, at least float32, and labels as bool; FaderError on what no metric can take."""
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


def exact_curve(scores: np.ndarray, labels: np.ndarray) -> Curve:
    """Curve of all scores (any shape) and labels 0 or 1, without regions."""
    scores, labels = checked(np.asarray(scores, dtype=np.float64), labels)
    if not scores.size:
        raise FaderError("metrics: no scores were given")
    weights = np.full(np.count_nonzero(labels), np.nan)
    normal, defective = sorted_samples([(scores.ravel(), labels.ravel(), weights)], scores.size)
    return curve_of([normal], [defective])


def sorted_samples(
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]], resolution: int
) -> tuple[Sample, Sample]:
    """Normal and defective sample of a block; every score if it has at most ``resolution``."""
    scores, labels, weights = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    defective = scores[labels]
    # Cheaper than to extract the normal scores: all scores are finite, so these are sorted last.
    scores[labels] = np.inf
    scores.sort()
    normal = scores[: scores.size - defective.size]
    order = np.argsort(defective)
    return (
        thin(normal, None, np.broadcast_to(0.0, normal.size), resolution),
        thin(defective[order], None, weights[order], resolution),
    )


def thin(
    scores: np.ndarray, counts: np.ndarray | None, overlap: np.ndarray, resolution: int
) -> Sample:
    """Group ascending scores, which stand for ``counts`` pixels each (None: for one).

    The highest ``resolution`` // 2 pixels stay apart. The others fall into as many groups of one
    size, cut at both ends of every run of equal scores that spans two of their bounds, so that
    heavy ties keep their exact count. A group takes the score of its middle pixel.
    """
    up_to = None if counts is None else np.cumsum(counts)
    total = scores.size if up_to is None else int(up_to[-1])
    if scores.size <= resolution:
        return Sample(scores, np.ones(total, np.int64) if counts is None else counts, overlap)
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
    return Sample(scores[_entries(middle, up_to)], grouped, overlap)


def _entries(ranks: np.ndarray, up_to: np.ndarray | None) -> np.ndarray:
    """Index of the entry that holds the pixel of each rank; ``up_to`` None: one pixel per entry."""
    return ranks if up_to is None else np.searchsorted(up_to, ranks, side="right")


def _distinct(ascending: np.ndarray) -> np.ndarray:
    return ascending[_run_starts(ascending)]


def _run_starts(ascending: np.ndarray) -> NDArray[np.intp]:
    return np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1])[: ascending.size])


def pool(samples: list[Sample]) -> Sample:
    """Several samples as one."""
    if len(samples) == 1:
        return samples[0]
    columns = [np.concatenate(arrays) for arrays in zip(*samples, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Sample(*(column[order] for column in columns))


def curve_of(normal: list[Sample], defective: list[Sample]) -> Curve:
    """Curve of the samples of both classes; FaderError when one is absent."""
    if not normal:
        raise FaderError("metrics: no scores were given")
    normal, defective = pool(normal), pool(defective)
    if not (normal.scores.size and defective.scores.size):
        present = "defective" if defective.scores.size else "normal"
        raise FaderError(f"labels: all are {present}; the metrics need both classes")
    starts = _run_starts(defective.scores)[::-1]
    distinct = defective.scores[starts]
    return Curve(
        true=_at_or_above(defective.counts, starts),
        overlap=_at_or_above(defective.overlap, starts),
        false=_at_or_above(normal.counts, np.searchsorted(normal.scores, distinct)),
        false_above=_at_or_above(normal.counts, np.searchsorted(normal.scores, distinct, "right")),
        normal=int(normal.counts.sum()),
    )


def _at_or_above(counts: np.ndarray, index: NDArray[np.intp]) -> np.ndarray:
    """Sums of counts[i:] for every i of ``index``, 0 <= i <= len(counts)."""
    return np.append(np.cumsum(counts[::-1])[::-1], 0)[index]


def _rates(curve: Curve, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polyline of gain (true positives or overlap) over false positives, (0, 0) to (1, 1).

    Each defective score adds a horizontal step up to the normal pixels above it, then a line, which
    is oblique if it is tied with normal pixels.
    """
    false = np.stack([curve.false_above, curve.false], axis=1).ravel()
    before = np.concatenate([[0], gain[:-1]])
    gained = np.stack([before, gain], axis=1).ravel()
    fpr = np.concatenate([[0], false, [curve.normal]]) / curve.normal
    return fpr, np.concatenate([[0], gained, gain[-1:]]) / gain[-1]


def _area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Integral of a polyline from 0 to ``limit``, divided by it; x ascends from 0 to 1."""
    inside = np.searchsorted(x, limit, side="right")
    at_limit = np.interp(limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1])
    area = np.trapezoid(np.append(y[:inside], at_limit), np.append(x[:inside], limit))
    return float(area / limit)
