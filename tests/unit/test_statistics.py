"""The gain of FADeR over EAR: resamples enumerated one by one, counts and ranks worked by hand."""

from decimal import Decimal
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from fader.errors import FaderError
from fader.report.paper import printed_values
from fader.report.statistics import (
    EITHER,
    Step,
    average,
    before_after,
    bootstrap,
    bootstrap_difference,
    gains,
    signed_rank,
    table,
    tally,
)

REFERENCE = Path(__file__).parents[2] / "reference"
BOLT, NUT = ("synthetic", "bolt"), ("synthetic", "nut")

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
    found = bootstrap_difference(labels, a, b, resamples=50)
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
        found = bootstrap_difference(labels, a, b, resamples=400, seed=trial)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 150 <= 0.99


@given(problems())
@settings(max_examples=25, deadline=None)
def test_exchanging_the_methods_turns_the_sign(problem):
    labels, a, b = problem
    forth = bootstrap_difference(labels, a, b, resamples=200, seed=7)
    back = bootstrap_difference(labels, b, a, resamples=200, seed=7)
    assert forth == pytest.approx((-back.difference, -back.high, -back.low), abs=1e-12)


@given(problems())
@settings(max_examples=25, deadline=None)
def test_only_the_order_of_scores_counts_and_a_repeated_seed_adds_nothing(problem):
    labels, a, b = problem
    once = bootstrap_difference(labels, a, b, resamples=200)
    assert once == bootstrap_difference(labels, np.exp(a), np.array(b) ** 3, resamples=200)
    assert once == bootstrap_difference(labels, a * 3, b * 3, resamples=200)
    assert bootstrap_difference(labels, a, a, resamples=200) == (0, 0, 0)


def test_both_methods_and_all_seeds_see_the_same_resample():
    """Seed 1 undoes what seed 0 gains, image by image: no resample can show a difference."""
    labels = [0, 0, 0, 1, 1, 1]
    better, worse = [1, 2, 3, 2, 4, 5], [3, 4, 1, 2, 1, 2]
    found = bootstrap_difference(labels, [better, worse], [worse, better], resamples=500)
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
        bootstrap_difference(labels, a, b)


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


def test_gains_are_those_of_the_printed_numbers():
    """0.9004 → 0.9006 prints 0.900 → 0.901; 0.8996 → 0.9004 prints 0.900 twice."""
    cells = [
        {"image": Step(0.9004, 0.9006), "pixel": Step(0.8, 0.7)},
        {"image": Step(0.8996, 0.9004), "pixel": Step(0.8, 0.7)},
        {"image": Step(0.9, 0.8), "pixel": Step(0.8, 0.7)},
    ]
    assert gains(cells, "image") == [Decimal("0.001"), 0, Decimal("-0.1")]
    assert tally(gains(cells, "image")) == (1, 1, 1)
    assert tally(gains(cells, "pixel")) == (0, 0, 3)
    assert tally(gains(cells, EITHER)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("number", "masker", "image", "pixel", "either"),
    [
        (2, "dino", (10, 3, 2), (14, 0, 1), (15, 0, 0)),
        (2, "vit", (13, 1, 1), (13, 0, 2), (15, 0, 0)),
        (2, "winclip", (8, 4, 3), (11, 0, 4), (13, 1, 1)),
        (4, "dsr", (9, 1, 5), (13, 0, 2), (14, 0, 1)),
        (4, "msflow", (10, 2, 3), (15, 0, 0), (15, 0, 0)),
        (4, "aminet", (8, 0, 7), (8, 0, 7), (11, 0, 4)),
    ],
)
def test_counts_of_the_paper_read_off_its_tables(number, masker, image, pixel, either):
    cells = before_after(printed_values(number, REFERENCE))[masker]
    assert len(cells) == 15
    found = [tally(gains(cells.values(), level)) for level in ("image", "pixel", EITHER)]
    assert found == [image, pixel, either]


LABELS = [0, 0, 1, 1]
GOOD, TIED, BAD = [0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.3, 0.4], [0.3, 0.4, 0.1, 0.2]
AUROC = {tuple(GOOD): 1.0, tuple(TIED): 0.875, tuple(BAD): 0.0}


def ok(pair, method, scores, seed=0, pixel=0.8, **other):
    return {
        "kind": "metrics",
        "run": "demo",
        "dataset": pair[0],
        "category": pair[1],
        "seed": seed,
        "method": method,
        "status": "ok",
        "metrics": {"image_auroc": AUROC[tuple(scores)], "pixel_auroc": pixel},
        "scores": scores,
        "labels": LABELS,
        "data": {"synthetic": True, "paper_dataset": None, "size": 128},
    } | other


def missing(pair, method, reason, seed=0):
    record = ok(pair, method, GOOD, seed) | {"status": "missing", "reason": reason}
    return {key: value for key, value in record.items() if key not in ("metrics", "scores", "data")}


RECORDS = [
    ok(BOLT, "ear-dinov2", TIED),
    ok(BOLT, "fader-dinov2", GOOD, pixel=0.8004),
    ok(NUT, "ear-dinov2", GOOD),
    ok(NUT, "fader-dinov2", GOOD, pixel=0.7),
]


def statistics(records, categories=(BOLT, NUT), maskers=("dinov2",), **other):
    return table(records, categories, maskers=maskers, reference=REFERENCE, resamples=500, **other)


def row(frame, **where):
    for name, value in where.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_rows_of_the_table_are_the_bootstrap_of_each_category_and_their_average():
    found = statistics(RECORDS).intervals
    assert list(found.category) == ["bolt", "nut", "average"]
    bolt = row(found, category="bolt")
    assert (bolt.seeds, bolt.normal, bolt.defective) == (1, 2, 2)
    assert (bolt.difference, bolt.low) == (0.125, 0)
    assert 0.25 <= bolt.high <= 0.5  # both tied images twice: probability 1/16, C_b − C_a = 1/2
    nut = row(found, category="nut")
    assert (nut.difference, nut.low, nut.high) == (0, 0, 0)
    mean = row(found, category="average")
    assert (mean.difference, mean.high) == (0.0625, bolt.high / 2)


def test_counts_of_the_table_compare_printed_aurocs():
    """Bolt gains 0.125 / 0.0004 (prints as equal), nut 0 / −0.1: neither falls in both."""
    counts = statistics(RECORDS).counts
    image, pixel, either = (
        row(counts, source="ours", level=level) for level in ("image", "pixel", EITHER)
    )
    assert (image.up, image.equal, image.down, image.n) == (1, 1, 0, 1)
    assert (pixel.up, pixel.equal, pixel.down, pixel.n) == (0, 1, 1, 2)
    assert (either.up, either.equal, either.down) == (1, 1, 0)
    assert np.isnan(image.p)
    assert "too few categories" in statistics(RECORDS).markdown


def test_the_papers_count_and_the_recount():
    """The text says 44 of 45: 43 gain in either, and 44 do not lose in both."""
    counts = statistics(RECORDS).counts
    two, four = (row(counts, source=f"Table {n}", masker="all", level=EITHER) for n in (2, 4))
    assert (two.up, two.equal, two.down) == (43, 1, 1)
    assert (four.up, four.equal, four.down) == (40, 0, 5)
    fallen = row(counts, source="Table 4", masker="all", level="image")
    assert (fallen.up, fallen.equal, fallen.down) == (27, 3, 15)


def test_the_papers_signed_ranks_by_hand():
    """Table 2, DINO, image (pill corrected): twelve gains, those of hazelnut and transistor
    negative. In thousandths, sorted: 1, 9−, 11, 14−, 17, 24, 32, 32, 38, 54, 72, 77. W = 2 + 4.
    Sets of the ranks 1 2 3 4 5 6 7½ 7½ 9 … with a sum of at most 6: of 0 to 6, the partitions into
    distinct parts: 1 + 1 + 1 + 2 + 2 + 3 + 4 = 14, twice, of 2¹²."""
    found = row(statistics(RECORDS).counts, source="Table 2", masker="dino", level="image")
    assert (found.n, found.w, found.p) == (12, 6, 28 / 4096)


def test_seeds_count_where_both_methods_ran():
    records = [
        *RECORDS,
        ok(BOLT, "ear-dinov2", BAD, seed=1),
        ok(BOLT, "fader-dinov2", GOOD, seed=1),
        ok(NUT, "ear-dinov2", BAD, seed=1),
        missing(NUT, "fader-dinov2", "out of memory.", seed=1),
    ]
    found = statistics(records)
    bolt, nut = (row(found.intervals, category=name) for name in ("bolt", "nut"))
    assert (bolt.seeds, bolt.difference) == (2, (0.125 + 1) / 2)
    assert (nut.seeds, nut.difference) == (1, 0)
    assert "synthetic/nut (seed 1): out of memory." in found.markdown
    assert row(found.intervals, category="average").isna().seeds  # one and two


def test_what_did_not_run_is_left_out_with_its_reason():
    records = [
        *RECORDS,
        missing(BOLT, "ear-vit", "no weights <vit>"),
        missing(BOLT, "fader-vit", "no weights <vit>"),
    ]
    found = statistics(records, maskers=("dinov2", "vit"))
    assert found.intervals[found.intervals.masker == "vit"].difference.isna().all()
    assert r"- Left out, vit, synthetic/bolt: no weights \<vit>." in found.markdown
    assert "- Left out, vit, synthetic/nut: no record." in found.markdown
    together = row(found.counts, source="ours", masker="all", level="image")
    assert (together.up, together.equal, together.down) == (1, 1, 0)


def test_adding_a_category_or_a_masker_changes_no_other_interval():
    alone = row(statistics(RECORDS, [BOLT]).intervals, category="bolt")
    records = RECORDS + [r | {"method": r["method"].replace("dinov2", "dsr")} for r in RECORDS]
    both = statistics(records, [NUT, BOLT], ["dsr", "dinov2"]).intervals
    for masker in ("dsr", "dinov2"):
        same = row(both, category="bolt", masker=masker)
        assert (same.difference, same.low, same.high) == (alone.difference, alone.low, alone.high)


def test_equal_records_give_equal_bytes_in_any_order():
    one, two = statistics(RECORDS), statistics(RECORDS[::-1])
    assert one.intervals_csv() == two.intervals_csv()
    assert one.counts_csv() == two.counts_csv()
    assert one.markdown == two.markdown
    assert one.intervals_csv().splitlines()[:2] == [
        "masker,dataset,category,seeds,normal,defective,difference,low,high",
        f"dinov2,synthetic,bolt,1,2,2,0.125000,0.000000,{one.intervals.high[0]:.6f}",
    ]
    assert one.counts_csv().splitlines()[1] == "ours,dinov2,image,1,1,0,1,,"


def test_the_page_says_what_the_data_are():
    page = statistics(RECORDS).markdown
    assert "synthetic inspection images generated by this repository" in page
    assert "500 resamples" in page
    real = [r | {"data": {"synthetic": False, "paper_dataset": "mvtec_ad"}} for r in RECORDS]
    assert statistics(real).markdown.startswith("Data: MVTec AD. ")


def test_bad_records_are_named():
    with pytest.raises(FaderError, match="no metrics record of ear-vit, fader-vit"):
        statistics(RECORDS, maskers=("vit",))
    with pytest.raises(FaderError, match="bolt/ear-dinov2/seed0: given twice"):
        statistics([*RECORDS, RECORDS[0]])
    bare = {key: value for key, value in RECORDS[0].items() if key != "labels"}
    with pytest.raises(FaderError, match="bolt/ear-dinov2/seed0: no labels"):
        statistics([bare, *RECORDS[1:]])
    other = RECORDS[1] | {"labels": [1, 1, 0, 0]}
    with pytest.raises(FaderError, match="bolt/fader-dinov2/seed0: its labels differ"):
        statistics([RECORDS[0], other, *RECORDS[2:]])
