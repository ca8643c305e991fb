"""From a score to a verdict: the label-free threshold of a detector.

AUROC needs no threshold, but a false positive and a false negative do. It is chosen as everything
else is, on held-out training normals and synthetic defects painted on them, by Youden's index
(Youden, Index for rating diagnostic tests, 1950): where recall − false positive rate is largest.

Who runs a line asks for something else: how many good parts may be thrown away. ``alarm_limit`` is
the threshold of a stated false-alarm rate, on held-out normals alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Threshold:
    """Above which score an image counts as defective.

    Parameters
    ----------
    value : midway between two scores that it was chosen on; the highest of them, so that nothing
        is above it, where no other is better than that.
    recall, false_positives : shares in [0, 1] of the defective and of the normal images above it.
    normal, defective : numbers of these images.
    """

    value: float
    recall: float
    false_positives: float
    normal: int
    defective: int

    def facts(self) -> dict[str, Any]:
        """As kept, nine digits of the value: they tell any two float32 numbers apart."""
        rates = {"recall": round(self.recall, 6), "false_positives": round(self.false_positives, 6)}
        counts = {"normal": self.normal, "defective": self.defective}
        return {"value": float(f"{self.value:.9g}"), **rates, **counts}


def threshold(normal: np.ndarray, defective: np.ndarray) -> Threshold:
    """Where recall − false positive rate is largest; of equal ones the highest, which raises the
    fewest false alarms.

    Parameters
    ----------
    normal, defective : image scores (n,) and (d,), n and d > 0, higher = more anomalous.
    """
    values = np.unique(np.concatenate([normal, defective]).astype(np.float64))
    candidates = np.append((values[1:] + values[:-1]) / 2, values[-1])
    recall, false_positives = (
        (scores[None] > candidates[:, None]).mean(1) for scores in (defective, normal)
    )
    index = recall - false_positives
    best = np.flatnonzero(index == index.max())[-1]
    return Threshold(
        value=float(candidates[best]),
        recall=float(recall[best]),
        false_positives=float(false_positives[best]),
        normal=len(normal),
        defective=len(defective),
    )


@dataclass(frozen=True)
class AlarmLimit:
    """Above which score an image raises an alarm.

    Parameters
    ----------
    value : the limit.
    asked : share in (0, 1) of normal images that may be above it.
    false_positives, recall : shares in [0, 1] of the normal and of the defective images above it.
    normal, defective : numbers of these images.
    extrapolated : whether the limit is beyond what so few normal images can show: a rate below
        1 / ``normal`` is an assumption about their distribution, no measurement.
    """

    value: float
    asked: float
    false_positives: float
    recall: float
    normal: int
    defective: int
    extrapolated: bool


def alarm_limit(normal: np.ndarray, defective: np.ndarray, rate: float) -> AlarmLimit:
    """The smallest score that at most a share ``rate`` of the normal images exceeds.

    With fewer than 1 / ``rate`` normal images that is the largest of their scores, which the next
    one exceeds with probability 1 / (n + 1), more than was asked for. Then the limit is that score
    or, if higher, the upper bound that one further score of a normal distribution exceeds with
    probability ``rate``: mean + t · s · √(1 + 1 / n), with s the sample standard deviation and t
    the 1 − rate quantile of Student's t with n − 1 degrees of freedom (Hahn and Meeker, Statistical
    Intervals, 1991, section 4.7).

    Parameters
    ----------
    normal, defective : image scores (n,) and (d,), n ≥ 2, d ≥ 0, higher = more anomalous.
    rate : in (0, 1).
    """
    ordered = np.sort(normal.astype(np.float64))
    count = len(ordered)
    above = int(rate * count + 1e-9)  # 0.29 · 100 is less than 29
    limit = float(ordered[count - 1 - above])
    if not above:
        quantile = float(special.stdtrit(count - 1, 1 - rate))
        bound = ordered.mean() + quantile * ordered.std(ddof=1) * np.sqrt(1 + 1 / count)
        limit = max(limit, float(bound))
    return AlarmLimit(
        value=limit,
        asked=rate,
        false_positives=float((ordered > limit).mean()),
        recall=float((defective > limit).mean()) if len(defective) else 0.0,
        normal=count,
        defective=len(defective),
        extrapolated=not above,
    )
