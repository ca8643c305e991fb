"""From a score to a verdict: the label-free threshold of a detector.

AUROC needs no threshold, but a false positive and a false negative do. It is chosen as everything
else is, on held-out training normals and synthetic defects painted on them, by Youden's index
(Youden, Index for rating diagnostic tests, 1950): where recall − false positive rate is largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


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
