"""The label-free threshold against a search of all, and on scores worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.evaluation.decision import alarm_limit, threshold

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


@pytest.mark.parametrize(
    ("normal", "rate", "value", "above"),
    [
        ([3, 1, 4, 2], 0.25, 3, 1),  # one of four may be above
        ([3, 1, 4, 2], 0.49, 3, 1),
        ([3, 1, 4, 2], 0.5, 2, 2),
        ([1, 2, 4, 4], 0.25, 4, 0),  # ties at the limit are not above it
        (range(100), 0.29, 70, 29),  # 0.29 · 100 is less than 29 in floats
        (range(100), 0.01, 98, 1),
    ],
)
def test_alarms_are_at_most_as_many_as_asked_for(normal, rate, value, above):
    found = alarm_limit(np.array(normal), np.array([value, value + 1]), rate)
    assert found.value == value
    assert found.false_positives == pytest.approx(above / len(normal))
    assert (found.recall, found.defective, found.extrapolated) == (0.5, 2, False)


def test_beyond_what_so_few_can_show_their_spread_decides():
    # Mean 2, s = 1, n = 3: t of 2 degrees of freedom is 9.924843 at 0.995 (tables).
    found = alarm_limit(np.array([1.0, 2.0, 3.0]), np.array([]), 0.005)
    assert found.value == pytest.approx(2 + 9.924843 * np.sqrt(4 / 3), rel=1e-6)
    assert found.extrapolated
    assert (found.false_positives, found.recall) == (0, 0)


def test_it_is_never_below_a_score_that_was_seen():
    # At a rate just under 1/n the bound can lie below the largest of skewed scores.
    normal = np.array([0.0] * 19 + [100.0])
    found = alarm_limit(normal, normal, 0.049)
    assert (found.value, found.extrapolated) == (100, True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_no_smaller_score_would_do(normal, rate):
    scores = np.array(normal)
    found = alarm_limit(scores, scores, rate)
    assert (scores > found.value).mean() <= rate + 1e-9
    smaller = [score for score in normal if score < found.value]
    if not found.extrapolated and smaller:
        assert (scores > max(smaller)).mean() > rate - 1e-9
