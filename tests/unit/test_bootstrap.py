"""A difference of AUROCs: resamples enumerated one by one, ranks worked by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from fader.errors import FaderError
from fader.evaluation.bootstrap import average, bootstrap, signed_rank

scores = st.integers(0, 4).map(float)  # few values, so that ties abound


@st.composite
def problems(draw, seeds=1):
    """Labels with both classes and two sets of scores, (seeds, N) each."""
    size = draw(st.integers(2, 9))
    labels = [0, 1, *draw(st.lists(st.integers(0, 1), min_size=size - 2, max_size=size - 2))]
    rows = st.lists(st.lists(scores, min_size=size, max_size=size), min_size=seeds, max_size=seeds)
    return labels, draw(rows), draw(rows)


def auroc_difference(labels, a, b):
    return np.mean(
        [
            roc_auc_score(labels, y) - roc_auc_score(labels, x)
            for x, y in zip(np.atleast_2d(a), np.atleast_2d(b), strict=True)
        ]
    )


@given(problems(seeds=3))
@settings(max_examples=25, deadline=None)
def test_difference_is_that_of_the_aurocs_averaged_over_seeds_ties_included(problem):
    labels, a, b = problem
    found = bootstrap(labels, a, b, resamples=50).interval()
    assert found.difference == pytest.approx(auroc_difference(labels, a, b), abs=1e-12)
    assert -1 <= found.low <= found.high <= 1


def test_resamples_are_distributed_as_all_stratified_resamples_enumerated():
    """2 normal and 3 defective images: 2² · 3³ equally likely resamples, each by scikit-learn."""
    labels = np.array([0, 1, 0, 1, 1])
    a = np.array([[0.3, 0.2, 0.5, 0.5, 0.6], [0.1, 0.2, 0.3, 0.3, 0.0]])
    b = np.array([[0.3, 0.4, 0.1, 0.2, 0.9], [0.1, 0.1, 0.3, 0.4, 0.2]])
    exact = {}
    for picked in product(product((0, 2), repeat=2), product((1, 3, 4), repeat=3)):
        index = np.array([*picked[0], *picked[1]])
        value = round(auroc_difference(labels[index], a[:, index], b[:, index]), 9)
        exact[value] = exact.get(value, 0) + 1 / (2**2 * 3**3)
    found, count = np.unique(
        np.round(bootstrap(labels, a, b, 40_000, seed=1).resampled, 9), return_counts=True
    )
    assert set(found) == set(exact)
    frequency = dict(zip(found, count / 40_000, strict=True))
    assert all(abs(frequency[value] - p) < 0.012 for value, p in exact.items())  # > 4 σ


def test_interval_is_between_the_percentiles_of_the_resamples():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    a = rng.normal(size=60) + labels
    whole = bootstrap(labels, a, a + rng.normal(size=60), 2_000, seed=3)
    low, high = np.sort(whole.resampled)[[49, 1_949]]  # 2.5 % and 97.5 % of 2000
    assert whole.interval().low == pytest.approx(low, abs=2e-3)
    assert whole.interval().high == pytest.approx(high, abs=2e-3)
    assert whole.interval().low < whole.difference < whole.interval().high


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    """Two scorers of equal AUROC with shared noise, 150 test sets: 0.95 ± 0.018."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    covered = 0
    for trial in range(150):
        image = rng.normal(size=80) + labels
        a, b = image + rng.normal(size=(2, 80))
        found = bootstrap(labels, a, b, resamples=400, seed=trial).interval()
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 150 <= 0.99


@given(problems())
@settings(max_examples=25, deadline=None)
def test_exchanging_the_methods_turns_the_sign(problem):
    labels, a, b = problem
    forth = bootstrap(labels, a, b, resamples=200, seed=7).interval()
    back = bootstrap(labels, b, a, resamples=200, seed=7).interval()
    assert forth == pytest.approx((-back.difference, -back.high, -back.low), abs=1e-12)


@given(problems())
@settings(max_examples=25, deadline=None)
def test_only_the_order_of_scores_counts_and_a_repeated_seed_adds_nothing(problem):
    labels, a, b = problem
    once = bootstrap(labels, a, b, resamples=200).interval()
    assert once == bootstrap(labels, np.exp(a), np.array(b) ** 3, resamples=200).interval()
    assert once == bootstrap(labels, a * 3, b * 3, resamples=200).interval()
    assert bootstrap(labels, a, a, resamples=200).interval() == (0, 0, 0)


def test_both_methods_and_all_seeds_see_the_same_resample():
    """Seed 1 undoes what seed 0 gains, image by image: no resample can show a difference."""
    labels = [0, 0, 0, 1, 1, 1]
    better, worse = [1, 2, 3, 2, 4, 5], [3, 4, 1, 2, 1, 2]
    found = bootstrap(labels, [better, worse], [worse, better], resamples=500).interval()
    assert found == (0, 0, 0)


def test_number_of_resamples_prolongs_the_same_stream():
    labels, a, b = [0, 0, 0, 1, 1, 1], [1, 2, 3, 2, 4, 5], [3, 4, 1, 2, 1, 2]
    short, long = (bootstrap(labels, a, b, count, seed=5) for count in (700, 2_300))
    assert (short.resampled == long.resampled[:700]).all()
    assert (bootstrap(labels, a, b, 700, seed=6).resampled != short.resampled).any()


def test_average_is_taken_resample_by_resample_with_equal_weight():
    few = bootstrap([0, 1, 1], [1, 2, 0], [0, 2, 1], 300, seed=0)
    many = bootstrap([0, 0, 0, 1, 1, 1], [1, 2, 3, 2, 4, 5], [3, 4, 1, 2, 1, 2], 300, seed=1)
    both = average([few, many])
    assert both.difference == pytest.approx((few.difference + many.difference) / 2)
    assert both.resampled == pytest.approx((few.resampled + many.resampled) / 2)
    assert average([few]).interval() == few.interval()


@pytest.mark.parametrize(
    ("labels", "a", "b", "message"),
    [
        ([0, 0], [1, 2], [1, 2], "at least one image of each"),
        ([0, 2], [1, 2], [1, 2], "labels must be 0 and 1"),
        ([0, 1], [1, 2], [1, 2, 3], "expected"),
        ([0, 1], [[1, 2]], [[1, 2], [1, 2]], "expected"),
        ([0, 1], [1, float("nan")], [1, 2], "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(labels, a, b, message):
    with pytest.raises(FaderError, match=message):
        bootstrap(labels, a, b)


def test_signed_rank_by_hand():
    """Ranks 1 … 6, the negative ones 1 and 3: W = 4. Sets of ranks with a sum of at most 4: ∅, 1,
    2, 3, 4, 1+2, 1+3: 7 of 2⁶ = 64, twice."""
    assert signed_rank([-0.01, 0.02, -0.03, 0.04, 0.05, 0.06]) == (6, 4, 14 / 64)


def test_signed_rank_drops_zeros_and_needs_six_differences():
    assert signed_rank([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) == (5, None, None)
    assert signed_rank([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == (6, 0, 2 / 64)
    assert signed_rank([]) == (0, None, None)


@given(st.lists(st.integers(-30, 30).filter(bool), min_size=6, max_size=20, unique_by=abs))
@settings(max_examples=25, deadline=None)
def test_signed_rank_without_ties_is_scipys(values):
    found, expected = signed_rank(v / 1000 for v in values), wilcoxon(values, method="exact")
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


@given(st.lists(st.sampled_from([-2, -1, 1, 2, 3]), min_size=6, max_size=9))
@settings(max_examples=15, deadline=None)
def test_signed_rank_with_ties_enumerates_all_signs_like_scipys_permutation_test(values):
    found, expected = signed_rank(v / 10 for v in values), wilcoxon(values)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_differences_equal_in_print_are_ties_whatever_their_last_bit():
    """0.3 − 0.2 and 0.2 − 0.1 differ as floats; six decimals do not."""
    values = [0.3 - 0.2, 0.2 - 0.1, 0.1, -(0.4 - 0.3), 0.7 - 0.6, 0.8]
    assert signed_rank(values) == signed_rank([0.1, 0.1, 0.1, -0.1, 0.1, 0.8])
