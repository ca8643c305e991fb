"""How sure a difference of AUROCs is: a paired bootstrap over test images, and Wilcoxon's test over
categories.

The interval is the percentile bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13). Images are resampled with replacement within the normal and within the defective
ones, so that every resample has both classes, and as many of each as the test set; both methods and
all seeds see the same resample.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from fader.errors import FaderError

RESAMPLES = 10_000
FEWEST = 6  # with five differences, all of one sign, the two-sided p is 2 / 2**5 = 0.0625
_BLOCK = 1_000  # resamples at a time, which bounds the memory and changes no number


class Bootstrap(NamedTuple):
    """A difference of AUROCs, in [−1, 1], on the test images and on every resample (R,) of them."""

    difference: float
    resampled: np.ndarray

    def interval(self) -> "Interval":
        """With the 2.5th and the 97.5th percentile of the resamples."""
        low, high = np.percentile(self.resampled, (2.5, 97.5))
        return Interval(self.difference, float(low), float(high))


class Interval(NamedTuple):
    """A difference of AUROCs and its 95 % interval."""

    difference: float
    low: float
    high: float


class SignedRank(NamedTuple):
    """Wilcoxon's test: non-zero differences, min(W+, W−) and the two-sided p, None below
    ``FEWEST``."""

    n: int
    statistic: float | None
    p: float | None


def bootstrap(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """AUROC(b) − AUROC(a), the mean over seeds, on the images and on stratified resamples of them.

    A resample in which normal image i occurs n_i times and defective image j m_j times has
    AUROC = nᵀ C m / (|n| |m|), with C_ij = [s_j > s_i] + ½ [s_j = s_i]. 2 (C_b − C_a), summed over
    seeds, is a matrix of small integers, so that every sum below is exact.

    Parameters
    ----------
    labels : (N,), 1 for a defective image, 0 for a normal one.
    scores_a, scores_b : image scores, (N,) of one training seed or (S, N) of several, higher is
        more anomalous; ties count one half.
    resamples : R.
    seed : of the resampling alone; the same labels and seed give the same resamples.

    Raises
    ------
    FaderError : labels other than 0 and 1, a class without images, shapes that differ, or scores
        that are not finite.
    """
    labels = np.asarray(labels)
    scores_a, scores_b = (np.atleast_2d(np.asarray(s, dtype=float)) for s in (scores_a, scores_b))
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise FaderError("bootstrap: labels must be 0 and 1, at least one image of each")
    if labels.ndim != 1 or scores_a.shape != scores_b.shape or scores_a.shape[1:] != labels.shape:
        raise FaderError(
            f"bootstrap: {labels.shape} labels, scores of shape {scores_a.shape} and"
            f" {scores_b.shape}; expected (N,) and twice (seeds, N)"
        )
    if not (np.isfinite(scores_a).all() and np.isfinite(scores_b).all()):
        raise FaderError("bootstrap: scores must be finite")
    order = sum(
        _order(b, labels) - _order(a, labels) for a, b in zip(scores_a, scores_b, strict=True)
    )
    normal, defective = order.shape
    scale = 2 * len(scores_a) * normal * defective
    of_normal, of_defective = np.random.default_rng(seed).spawn(2)
    parts = []
    for start in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - start)
        n = of_normal.multinomial(normal, np.full(normal, 1 / normal), count)
        m = of_defective.multinomial(defective, np.full(defective, 1 / defective), count)
        parts.append(((n @ order) * m).sum(axis=1) / scale)
    return Bootstrap(float(order.sum() / scale), np.concatenate(parts))


def _order(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """2 C − 1, (normal, defective): 1 where the defective image scores higher, 0 at a tie, or
    −1."""
    return np.sign(scores[labels == 1] - scores[labels == 0][:, None])  # type: ignore[no-any-return]


def average(parts: Sequence[Bootstrap]) -> Bootstrap:
    """Mean over categories, each resampled on its own and of equal weight, as the paper averages.

    Parameters
    ----------
    parts : at least one, all of the same number of resamples.
    """
    return Bootstrap(
        fmean(part.difference for part in parts),
        np.mean([part.resampled for part in parts], axis=0),
    )


def signed_rank(differences: Iterable[float]) -> SignedRank:
    """Wilcoxon's signed-rank test that differences are symmetric about 0: two-sided and exact.

    Zeros are dropped and ties get their average rank. The null distribution is the one of these
    ranks, so p is exact with ties too, where ``scipy.stats.wilcoxon`` turns to an approximation
    from 14 values on. Differences are taken at the six decimals to which AUROCs are stored.
    """
    values = np.round([float(value) for value in differences], 6)
    values = values[values != 0]
    n = len(values)
    if n < FEWEST:
        return SignedRank(n, None, None)
    doubled = (2 * rankdata(np.abs(values))).astype(int)
    null = np.zeros(doubled.sum() + 1)
    null[0] = 1  # null[k]: probability that the ranks of the positive differences sum to k / 2
    for rank in doubled:
        null = (null + np.roll(null, rank)) / 2  # what rolls over the end is 0
    least = min(doubled[values > 0].sum(), doubled[values < 0].sum())
    return SignedRank(n, float(least / 2), float(min(1, 2 * null[: least + 1].sum())))
