"""The label-free threshold against a search of all, and on scores worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.evaluation.decision import threshold

scores = st.lists(st.integers(0, 9), min_size=1, max_size=12)


def youden(limit: float, normal: list[float], defective: list[float]) -> float:
    """Recall − false positive rate, counted one by one."""
    recall = sum(score > limit for score in defective) / len(defective)
    return recall - sum(score > limit for score in normal) / len(normal)


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_no_other_threshold_is_better(normal, defective):
    found = threshold(np.array(normal), np.array(defective))
    best = youden(found.value, normal, defective)
    assert best == pytest.approx(found.recall - found.false_positives)
    assert best >= max(youden(k + 0.5, normal, defective) for k in range(-1, 10)) - 1e-12


@pytest.mark.parametrize(
    ("normal", "defective", "value", "recall", "false_positives"),
    [
        ([1, 2], [3, 4], 2.5, 1, 0),
        ([1, 3], [2, 4], 3.5, 0.5, 0),  # 1.5 is as good: the fewest false alarms
        ([3, 4], [1, 2], 4, 0, 0),  # upside down: no threshold is any good
        ([2], [2], 2, 0, 0),
        ([0, 0, 9], [9, 9], 4.5, 1, 1 / 3),
    ],
)
def test_worked_by_hand(normal, defective, value, recall, false_positives):
    found = threshold(np.array(normal), np.array(defective))
    assert (found.value, found.recall) == (value, recall)
    assert found.false_positives == pytest.approx(false_positives)
    assert (found.normal, found.defective) == (len(normal), len(defective))


def test_nine_digits_are_kept():
    found = threshold(np.array([0.1], np.float32), np.array([0.2], np.float32))
    assert np.float32(found.facts()["value"]) == np.float32(found.value)
