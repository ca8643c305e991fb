"""Metrics against scikit-learn, against their definitions by brute force, and worked by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn import metrics as oracle

from fader.errors import FaderError
from fader.evaluation import metrics
from fader.evaluation.pixels import PixelHistogram

FEW = settings(max_examples=25, deadline=None)

# Heavy ties and signs, neighbouring floats, and anything finite.
SCORES = st.one_of(
    st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0]),
    st.integers(0, 40).map(lambda n: 0.5 + n * 2.0**-23),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@st.composite
def scored(draw):
    """Scores (float32) and labels with both classes present."""
    n = draw(st.integers(2, 60))
    scores = draw(hnp.arrays(np.float32, n, elements=SCORES))
    labels = draw(hnp.arrays(bool, n))
    labels[:2] = False, True
    return scores, labels


@st.composite
def map_stacks(draw):
    """Maps (N, H, W) of few distinct values and masks with a defect and a normal pixel."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)))
    maps = draw(hnp.arrays(np.float32, shape, elements=st.integers(-4, 4).map(float)))
    masks = draw(hnp.arrays(bool, shape))
    masks[0, 0, :2] = False, True
    return maps, masks


def brute_auroc(scores, labels):
    """Fraction of (defective, normal) pairs in the right order, ties one half."""
    pairs = scores[labels].astype(float)[:, None] - scores[~labels].astype(float)[None, :]
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


def brute_f1(scores, labels):
    flagged = [scores >= t for t in np.unique(scores)]
    return max(2 * (f & labels).sum() / (f.sum() + labels.sum()) for f in flagged)


def brute_average_precision(scores, labels):
    area, recall = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        flagged = scores >= threshold
        true = (flagged & labels).sum()
        area += (true / labels.sum() - recall) * true / flagged.sum()
        recall = true / labels.sum()
    return area


def brute_aupro(maps, masks, limit):
    """All thresholds, a loop over components, then the polyline clipped at the limit."""
    regions = []
    for image, mask in enumerate(masks):
        found, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(image, found == k) for k in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        flagged = maps >= threshold
        fpr = flagged[~masks].mean()
        points.append((fpr, np.mean([flagged[image][region].mean() for image, region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def histogram(scores, labels, **kwargs):
    result = PixelHistogram(**kwargs)
    result.update(scores, labels)
    return result


def skewed(n, seed=0):
    """Softmax-like scores over many octaves, about 3 % defective."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.03
    logits = rng.normal(-6, 2, n) + 2 * labels
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


@FEW
@given(scored())
def test_image_metrics_equal_scikit_learn_and_the_definitions(data):
    scores, labels = data
    found = metrics.image_metrics(scores, labels)
    assert found["image_auroc"] == metrics.auroc(scores, labels)
    assert found["image_auroc"] == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-9)
    assert found["image_auroc"] == pytest.approx(brute_auroc(scores, labels), abs=1e-9)
    assert found["image_ap"] == metrics.average_precision(scores, labels)
    expected = oracle.average_precision_score(labels, scores)
    assert found["image_ap"] == pytest.approx(expected, abs=1e-9)
    assert found["image_ap"] == pytest.approx(brute_average_precision(scores, labels), abs=1e-9)
    assert found["image_f1max"] == metrics.f1_max(scores, labels)
    assert found["image_f1max"] == pytest.approx(brute_f1(scores, labels), abs=1e-9)


@FEW
@given(scored())
def test_a_single_block_is_exact(data):
    scores, labels = data
    found = histogram(scores, labels)
    assert found.auroc() == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-9)
    expected = oracle.average_precision_score(labels, scores)
    assert found.average_precision() == pytest.approx(expected, abs=1e-9)
    assert found.f1_max() == pytest.approx(brute_f1(scores, labels), abs=1e-9)


def test_worked_by_hand():
    # Descending: defective 4, normal 3, a tie of one each at 2, normal 1.
    scores, labels = np.array([4.0, 3.0, 2.0, 2.0, 1.0]), np.array([1, 0, 1, 0, 0])
    # Pairs won: 4 beats three; 2 loses to 3, ties 2, beats 1.
    assert metrics.auroc(scores, labels) == pytest.approx((3 + 0 + 0.5 + 1) / 6)
    # Recall 1/2 at precision 1, then recall 1 at precision 2/4.
    assert metrics.average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    # F1 = 2 TP / (flagged + 2): 2/3 at 4, 2/4 at 3, 4/6 at 2, 4/7 at 1.
    assert metrics.f1_max(scores, labels) == pytest.approx(2 / 3)


@FEW
@given(map_stacks(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_aupro_equals_its_definition(data, limit):
    maps, masks = data
    assert metrics.aupro(maps, masks, limit) == pytest.approx(
        brute_aupro(maps, masks, limit), abs=1e-9
    )


def test_aupro_worked_by_hand():
    # Five normal pixels (one in a good image), two components: one pixel, and two diagonal pixels.
    first = np.array([[9.0, 5.0, 0.0], [1.0, 3.0, 7.0]])
    mask = np.array([[1, 0, 1], [0, 0, 0]])
    second = np.array([[8.0, 2.0], [0.0, 4.0]])
    diagonal = np.array([[1, 0], [0, 1]])
    maps, masks = [first, second], [mask, diagonal]
    # Components {9}, {0} and {8, 4}; normal 7, 5, 3, 2, 1, 0 (six). (FPR, PRO) as thresholds fall:
    # 9 (0, 1/3), 8 (0, 1/2), 7 (1/6, 1/2), 5 (2/6, 1/2), ...; 0.3 lies on the flat between 7 and 5.
    assert metrics.aupro(maps, masks, 0.3) == pytest.approx(0.5)
    # 4 raises PRO to 2/3 at FPR 2/6, then flat to 5/6, and the tie at 0 leads to (1, 1).
    expected = 2 / 6 * 1 / 2 + 3 / 6 * 2 / 3 + 1 / 6 * (2 / 3 + 1) / 2
    assert metrics.aupro(maps, masks, 1.0) == pytest.approx(expected)


def test_aupro_interpolates_at_the_limit():
    # One defective and four normal pixels, all tied but two normal ones: (0, 0) -> (1/2, 1) -> ...
    score_map, mask = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]]), np.array([[1, 0, 0, 0, 0]])
    # The line reaches PRO 0.6 at FPR 0.3: a triangle of 0.3 * 0.6 / 2, over 0.3.
    assert metrics.aupro([score_map], [mask], 0.3) == pytest.approx(0.3)


def test_pixels_that_touch_at_a_corner_are_one_component():
    # Joined, the three defective pixels form one region: 9 alone detects a third of it. Apart by a
    # column, they are three regions of which 9 detects one of {9}, {1, 1}.
    score_map = np.array([[9.0, 0.0, 5.0, 5.0], [0.0, 1.0, 1.0, 5.0]])
    joined = np.array([[1, 0, 0, 0], [0, 1, 1, 0]])
    apart = np.array([[1, 0, 0, 0], [0, 0, 1, 1]])
    # Up to FPR 0.3 nothing but 9 and half of the tie of three normal pixels at 5 is flagged.
    assert metrics.aupro([score_map], [joined]) == pytest.approx(1 / 3)
    # Component {1, 5} tied with two normal fives of five: PRO rises from 1/2 to 3/4 at FPR 2/5.
    assert metrics.aupro([score_map], [apart]) == pytest.approx(1 / 2 + 1 / 4 * 0.3 / 0.4 / 2)


def test_components_weigh_the_same_whatever_their_size_and_image():
    large = np.zeros((10, 10), bool)
    large[:9, :9] = True
    small = np.zeros((10, 10), bool)
    small[0, 0] = True
    maps = np.stack([large, np.zeros((10, 10))]).astype(np.float32)
    # The large component is found, the small one is tied with every normal pixel.
    found = metrics.aupro(maps, np.stack([large, small]))
    assert found == pytest.approx(1 / 2 + 1 / 2 * 0.3 / 2)


def test_pixel_metrics_gather_all_four():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 16, 16)).astype(np.float32)
    masks = np.zeros((4, 16, 16), np.uint8)
    masks[1:, 3:8, 4:9] = 1
    maps += masks
    found = metrics.pixel_metrics(maps, masks)
    flat = masks.ravel(), maps.ravel()
    assert found == {
        "pixel_auroc": pytest.approx(oracle.roc_auc_score(*flat), abs=1e-9),
        "pixel_ap": pytest.approx(oracle.average_precision_score(*flat), abs=1e-9),
        "pixel_f1max": pytest.approx(brute_f1(maps, masks == 1), abs=1e-9),
        "aupro": pytest.approx(brute_aupro(maps, masks == 1, 0.3), abs=1e-9),
    }
    assert metrics.aupro(maps, masks) == found["aupro"]


@FEW
@given(map_stacks())
def test_strictly_increasing_transforms_change_nothing(data):
    maps, masks = data
    transformed = np.exp(maps.astype(np.float64) / 3) - 7
    assert metrics.pixel_metrics(maps, masks) == metrics.pixel_metrics(transformed, masks)
    image = maps.ravel(), masks.ravel()
    assert metrics.image_metrics(*image) == metrics.image_metrics(transformed.ravel(), image[1])


@FEW
@given(st.lists(st.integers(0, 2000), max_size=6).map(sorted))
def test_results_do_not_depend_on_how_the_stream_is_cut(cuts):
    scores, labels = skewed(2000)
    knobs = {"block_pixels": 256, "resolution": 16}
    whole, cut = histogram(scores, labels, **knobs), PixelHistogram(**knobs)
    for start, stop in zip([0, *cuts], [*cuts, 2000], strict=True):
        piece = scores[start:stop].copy()
        cut.update(piece, labels[start:stop])
        piece[:] = 0  # the caller may reuse its memory
    assert cut.auroc() == whole.auroc()
    assert cut.average_precision() == whole.average_precision()
    assert cut.f1_max() == whole.f1_max()


def adversarial(name, n):
    rng = np.random.default_rng(3)
    labels = rng.random(n) < 0.05
    noise = rng.normal(size=n) + labels
    scores = {
        "narrow": 0.5 + 1e-4 * noise,
        "narrow with outliers": np.where(np.arange(n) % 997 == 0, 1e6 * noise, 0.5 + 1e-4 * noise),
        "saturated": 1 / (1 + np.exp(-9 - 4 * noise)),
        "heavily tied": np.round(noise),
        "mostly zero": np.maximum(noise - 1.5, 0),
        "drifting": noise + np.arange(n) / n * 20,
        "sorted": np.sort(noise),
        "separable": noise + 100 * labels,
    }[name]
    return scores.astype(np.float32), labels


@pytest.mark.parametrize(
    "name",
    [
        "narrow",
        "narrow with outliers",
        "saturated",
        "heavily tied",
        "mostly zero",
        "drifting",
        "sorted",
        "separable",
    ],
)
def test_thinned_blocks_keep_to_the_stated_bound(name):
    n, block, resolution = 200_000, 2**14, 2**12
    scores, labels = adversarial(name, n)
    found = histogram(scores, labels, block_pixels=block, resolution=resolution)
    # Once for the blocks, once for each time that five samples become one, for either class.
    bound = 2 * 2 * (1 + n // (4 * block)) / resolution
    if name == "heavily tied":
        bound = 1e-12
    assert abs(found.auroc() - oracle.roc_auc_score(labels, scores)) <= bound
    curve = found._curve()
    assert curve.normal == np.count_nonzero(~labels)
    assert curve.true[-1] == np.count_nonzero(labels)


@pytest.mark.parametrize("drift", [0.0, 20.0])
def test_every_count_keeps_to_the_stated_bound(drift):
    rng = np.random.default_rng(4)
    n, block, resolution = 100_000, 2**13, 2**10
    scores = (rng.normal(size=n).round(4) + drift * np.arange(n) / n).astype(np.float32)
    labels = np.zeros(n, bool)
    labels[rng.choice(n, 500, replace=False)] = True  # fewer than the resolution: all are kept
    curve = histogram(scores, labels, block_pixels=block, resolution=resolution)._curve()
    distinct, normal = np.unique(scores[labels])[::-1], scores[~labels]
    bound = 2 * (1 + n // (4 * block)) / resolution * normal.size
    assert np.abs([np.sum(normal >= d) for d in distinct] - curve.false).max() <= bound
    assert np.abs([np.sum(normal > d) for d in distinct] - curve.false_above).max() <= bound
    np.testing.assert_array_equal([np.sum(scores[labels] >= d) for d in distinct], curve.true)


def test_regions_survive_the_thinning():
    maps = np.random.default_rng(5).normal(size=(12, 64, 64)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[:8, 5:20, 5:25] = masks[4:, 40:44, 50:60] = True
    maps += 1.5 * masks
    found = PixelHistogram(block_pixels=2**12, resolution=2**10)
    for score_map, mask in zip(maps, masks, strict=True):
        found.update_map(score_map, mask)
    assert found.aupro() == pytest.approx(metrics.aupro(maps, masks), abs=1e-4)


def test_ten_blocks_agree_with_scikit_learn_to_a_millionth():
    scores, labels = skewed(1_500_000)
    found = histogram(scores, labels, block_pixels=150_000, resolution=50_000)
    assert abs(found.auroc() - oracle.roc_auc_score(labels, scores)) <= 1e-6
    expected = oracle.average_precision_score(labels, scores)
    assert abs(found.average_precision() - expected) <= 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_keep_their_precision(dtype):
    # Neighbours in each format: collapsing them would turn the order into a tie.
    scores = np.array([1.0, 1.0 + np.finfo(dtype).eps], dtype)
    assert histogram(scores, np.array([0, 1])).auroc() == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(bad):
    scores = np.array([0.1, bad, 0.3], np.float32)
    with pytest.raises(FaderError, match="at flat index 1"):
        metrics.auroc(scores, np.array([0, 1, 1]))
    with pytest.raises(FaderError, match=r"image 0: scores: .* at flat index 1"):
        metrics.pixel_metrics([scores[None]], [np.array([[0, 1, 1]])])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.auroc([0.1, 0.2], [0, 0]), "all are normal"),
        (lambda: metrics.average_precision([0.1, 0.2], [1, 1]), "all are defective"),
        (lambda: metrics.aupro(np.zeros((1, 2, 2)), np.zeros((1, 2, 2))), "all are normal"),
        (lambda: metrics.f1_max([0.1, 0.2], [0, 255]), "binarise the masks"),
        (lambda: metrics.auroc([0.1, 0.2], [0, 1, 1]), "differ in shape"),
        (lambda: PixelHistogram(resolution=1), "resolution"),
        (lambda: metrics.auroc([], []), "no scores"),
        (lambda: PixelHistogram().auroc(), "no scores"),
        (lambda: histogram(np.array([1, 2]), np.array([0, 1])), "expected floating point"),
        (lambda: metrics.aupro(np.zeros((2, 2, 2)), np.ones((1, 2, 2))), "item 1"),
        (lambda: metrics.aupro(np.zeros((1, 2)), np.ones((1, 2))), r"expected shape \(H, W\)"),
        (lambda: metrics.aupro(np.zeros((1, 1, 2)), [[[0, 1]]], 0.0), "fpr_limit"),
        (lambda: histogram(np.array([0.1, 0.2]), np.array([0, 1])).aupro(), "use update_map"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(FaderError, match=message):
        call()
