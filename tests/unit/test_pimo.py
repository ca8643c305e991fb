"""AUPIMO against its definition by brute force, and worked by hand."""

from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fader.errors import FaderError
from fader.evaluation.pimo import BOUNDS, aupimo

FEW = settings(max_examples=60, deadline=None)
EVERYWHERE = st.sampled_from([BOUNDS, (0.01, 0.2), (0.1, 0.3), (0.3, 0.31), (0.05, 1.0)])


@st.composite
def measured_sets(draw):
    """Maps (N, H, W) of few distinct values, masks and labels: the first image is good, the second
    has a defective pixel, and others may be labelled defective without one."""
    shape = draw(st.tuples(st.integers(2, 5), st.integers(1, 5), st.integers(1, 5)))
    elements = st.one_of(st.integers(-4, 4), st.integers(-64, 64).map(lambda n: n / 16))
    maps = draw(hnp.arrays(np.float32, shape, elements=elements.map(float)))
    labels = draw(hnp.arrays(bool, shape[0]))
    labels[:2] = False, True
    masks = draw(hnp.arrays(bool, shape)) & labels[:, None, None]
    masks[1, 0, 0] = True
    return maps, masks, labels


def brute_aupimo(maps, masks, labels, bounds):
    """Every threshold "score >= t", the last of them above all scores; then the step function, from
    one attainable rate to the next."""
    lowest, highest = bounds
    thresholds = [*np.unique(maps), np.inf]
    fpr = [np.mean([(image >= t).mean() for image in maps[~labels]]) for t in thresholds]
    edges = sorted({lowest, highest, *(rate for rate in fpr if lowest < rate < highest)})
    areas = []
    for image, mask in zip(maps, masks, strict=True):
        if mask.any():
            area = 0.0
            for start, end in pairwise(edges):
                threshold = min(t for t, rate in zip(thresholds, fpr, strict=True) if rate <= start)
                area += (image[mask] >= threshold).mean() * (log(end) - log(start))
            areas.append(area / log(highest / lowest))
    return np.mean(areas)


@FEW
@given(measured_sets(), EVERYWHERE)
def test_it_equals_its_definition(data, bounds):
    assert aupimo(*data, bounds) == pytest.approx(brute_aupimo(*data, bounds), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_its_definition_between_the_papers_bounds(seed):
    """Two good images of 100 × 200 pixels: rates are multiples of 1 / 40000, and four of them lie
    between the bounds. The highest scores are tied."""
    random = np.random.default_rng(seed)
    maps = random.normal(size=(4, 100, 200)).round(1).astype(np.float32)
    labels = np.array([0, 1, 0, 1], bool)
    masks = np.zeros(maps.shape, bool)
    masks[labels, 10:14, 20:25] = True
    maps[masks] = random.uniform(3, 5, masks.sum()).round(1)
    found = aupimo(maps, masks, labels)
    assert found == pytest.approx(brute_aupimo(maps, masks, labels, BOUNDS), abs=1e-12)
    assert 0 < found < 1


# Ten pixels in two good images, in descending order 9, 7, 7, 4, 0 …: the rates are 0 above 9, .1
# down to above 7, .3 down to above 4, .4 and so on.
GOOD = [[[9.0, 0.0, 0.0, 0.0, 4.0]], [[7.0, 7.0, 0.0, 0.0, 0.0]]]
# A defective pixel at 10 is flagged at every rate, at 9 from .1 on, at 8 too, at 7 and at 5 from
# .3 on, at 4 from .4 on.
WORKED = [  # defective scores, bounds, AUPIMO
    ([10.0], (0.1, 0.3), 1.0),
    ([10.0], BOUNDS, 1.0),
    ([9.0], BOUNDS, 0.0),
    ([9.0], (0.1, 0.3), 1.0),
    ([8.0], (0.1, 0.3), 1.0),
    ([7.0], (0.1, 0.3), 0.0),
    ([7.0], (0.1, 0.6), log(0.6 / 0.3) / log(0.6 / 0.1)),
    ([5.0], (0.1, 0.6), log(0.6 / 0.3) / log(0.6 / 0.1)),
    ([4.0], (0.2, 0.8), log(0.8 / 0.4) / log(0.8 / 0.2)),
    ([9.0], (0.05, 0.2), log(0.2 / 0.1) / log(0.2 / 0.05)),
    ([10.0, 4.0], (0.2, 0.8), (1 + 1 / 2) / 2),
    ([10.0, 9.0, 7.0, -1.0], (0.05, 0.2), (1 + 1 / 2 + 0 + 0) / 4),
]


@pytest.mark.parametrize(("scores", "bounds", "expected"), WORKED)
def test_worked_by_hand(scores, bounds, expected):
    maps = np.array([*GOOD, [[*scores, *[99.0] * (5 - len(scores))]]])
    masks = np.zeros(maps.shape, np.uint8)
    masks[2, 0, : len(scores)] = 1  # the normal pixels beside them, at 99, are in no rate
    assert aupimo(maps, masks, np.array([0, 0, 1]), bounds) == pytest.approx(expected, abs=1e-12)


def test_images_weigh_the_same_whatever_the_size_of_their_defects():
    defective = [[[10.0, 10.0, 10.0, 10.0, 10.0]], [[-1.0, 10.0, 10.0, 10.0, 10.0]]]
    vanished = [[[50.0] * 5]]
    maps = np.array([*GOOD, *defective, *vanished])
    masks = np.zeros(maps.shape, bool)
    masks[2], masks[3, 0, 0] = True, True
    # A defective image without a defective pixel is in no mean and in no rate.
    assert aupimo(maps, masks, np.array([0, 0, 1, 1, 1])) == 1 / 2


@FEW
@given(measured_sets(), EVERYWHERE)
def test_strictly_increasing_transforms_change_nothing(data, bounds):
    maps, masks, labels = data
    transformed = np.exp(maps.astype(np.float64) / 3) - 7
    assert aupimo(transformed, masks, labels, bounds) == aupimo(maps, masks, labels, bounds)


@FEW
@given(measured_sets(), EVERYWHERE, st.randoms(use_true_random=False))
def test_it_lies_between_none_and_all_whatever_the_order_of_images(data, bounds, shuffler):
    maps, masks, labels = data
    found = aupimo(maps, masks, labels, bounds)
    assert 0 <= found <= 1
    order = list(range(len(maps)))
    shuffler.shuffle(order)
    assert aupimo(maps[order], masks[order], labels[order], bounds) == found
    above = np.where(masks, 5, maps)
    assert aupimo(above, masks, labels, bounds) == 1
    assert aupimo(np.where(masks, -5, maps), masks, labels, (1e-5, 0.5 / maps[0].size)) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_keep_their_precision(dtype):
    # Neighbours in each format: collapsing them would tie the defect with the good image.
    maps = np.array([[[1.0]], [[1.0 + np.finfo(dtype).eps]]], dtype)
    assert aupimo(maps, np.array([[[0]], [[1]]]), np.array([0, 1])) == 1


ONES = np.ones((2, 1, 1), np.float32)
DEFECT = np.array([[[0]], [[1]]])


@pytest.mark.parametrize(
    ("maps", "masks", "labels", "bounds", "message"),
    [
        (ONES, DEFECT, [1, 1], BOUNDS, "no good image"),
        (ONES, 0 * DEFECT, [0, 1], BOUNDS, "no defective pixel"),
        (ONES, DEFECT, [0, 0], BOUNDS, "no defective pixel"),
        (ONES, DEFECT, [0, 1, 1], BOUNDS, r"expected maps \(N, H, W\) and labels \(N,\)"),
        (ONES[0], DEFECT[1], [0], BOUNDS, r"expected maps \(N, H, W\)"),
        (ONES[:0], DEFECT[:0], [], BOUNDS, "no good image"),
        (ONES, DEFECT[:1], [0, 1], BOUNDS, "differ in shape"),
        (ONES, 255 * DEFECT, [0, 1], BOUNDS, "binarise the masks"),
        (ONES * np.nan, DEFECT, [0, 1], BOUNDS, "must be finite"),
        (ONES.astype(int), DEFECT, [0, 1], BOUNDS, "expected floating point"),
        (ONES, DEFECT, [0, 1], (0.0, 0.1), "bounds"),
        (ONES, DEFECT, [0, 1], (0.1, 0.1), "bounds"),
        (ONES, DEFECT, [0, 1], (0.2, 0.1), "bounds"),
        (ONES, DEFECT, [0, 1], (0.5, 1.5), "bounds"),
        (ONES, DEFECT, [0, 1], (np.nan, 0.1), "bounds"),
    ],
)
def test_errors_name_what_is_wrong(maps, masks, labels, bounds, message):
    with pytest.raises(FaderError, match=message):
        aupimo(maps, masks, np.array(labels), bounds)
