"""What can be measured on which test sets, and why the rest cannot: a table of neighbours."""

import numpy as np
import pytest

from fader.evaluation import metrics
from fader.evaluation.pimo import aupimo
from fader.evaluation.truth import AUPIMO, COVERAGE, IMAGE, NO_DEFECTIVE, NO_GOOD, PIXEL, Truth

WITHOUT = "no masks (datasets.mine.masks: absent)"
VANISHED, FULL = "no defective pixel at 4 × 4", "no normal pixel in the test images"
AREAS = ("mask_area", "mask_area_good", "mask_area_defective")


def drawn(labels: list[int], masks: str) -> Truth:
    """Truth of images (N, 4, 4) whose defective ones have a spot, no pixel, or nothing but defect
    in their masks; or no masks at all."""
    found = np.zeros((len(labels), 4, 4), np.uint8)
    rows = np.array(labels) == 1
    if masks == "spot":
        found[rows, 1:3, 1:3] = 1
    if masks == "full":
        found[rows] = 1
    truth = np.array(labels, np.uint8)
    return Truth(truth, None, WITHOUT) if masks == "none" else Truth(truth, found)


CASES = [  # labels, masks; why there are no image or pixel metrics, no AUPIMO, no coverage
    ([0, 0, 1, 1], "spot", "", "", "", ""),
    ([0, 1], "spot", "", "", "", ""),
    ([0, 0, 1, 1], "none", "", WITHOUT, WITHOUT, WITHOUT),
    ([0, 0, 1, 1], "empty", "", VANISHED, VANISHED, VANISHED),
    ([0, 0, 1, 1], "full", "", "", "", ""),
    ([1, 1], "spot", NO_GOOD, "", NO_GOOD, ""),
    ([1], "spot", NO_GOOD, "", NO_GOOD, ""),
    ([1, 1], "none", NO_GOOD, WITHOUT, WITHOUT, WITHOUT),
    ([1, 1], "empty", NO_GOOD, VANISHED, VANISHED, VANISHED),
    ([1, 1], "full", NO_GOOD, FULL, FULL, ""),
    ([0, 0], "spot", NO_DEFECTIVE, NO_DEFECTIVE, NO_DEFECTIVE, NO_DEFECTIVE),
    ([0, 0], "none", NO_DEFECTIVE, NO_DEFECTIVE, NO_DEFECTIVE, NO_DEFECTIVE),
    ([0], "spot", NO_DEFECTIVE, NO_DEFECTIVE, NO_DEFECTIVE, NO_DEFECTIVE),
]


@pytest.mark.parametrize(("labels", "masks", "image", "pixel", "pimo", "coverage"), CASES)
def test_each_metric_is_measured_or_says_why_not(labels, masks, image, pixel, pimo, coverage):
    truth, random = drawn(labels, masks), np.random.default_rng(0)
    maps = random.random((len(labels), 4, 4), np.float32)
    suspected = maps > 0.5
    areas = {"mask_area_good": 0 in labels, "mask_area_defective": 1 in labels}
    for found, names, why in (
        (truth.of_scores(maps.max((1, 2))), IMAGE, image),
        (truth.of_maps(maps), PIXEL, pixel),
        (truth.of_maps(maps), (AUPIMO,), pimo),
        (truth.of_masks(suspected), COVERAGE, coverage),
    ):
        assert {name: found.unmeasured.get(name, "") for name in names} == dict.fromkeys(names, why)
        assert all(name in found.values for name in names) == (not why)
        assert not found.values.keys() & found.unmeasured.keys()
        assert np.isfinite(list(found.values.values())).all()
    found = truth.of_masks(suspected)
    assert found.values["mask_area"] == suspected.mean()
    assert {name: name in found.values for name in areas} == areas
    lacking = {"mask_area_good": NO_GOOD, "mask_area_defective": NO_DEFECTIVE}
    assert all(found.unmeasured[name] == lacking[name] for name in areas if not areas[name])


def test_what_is_measured_is_what_the_metrics_say():
    truth, random = drawn([0, 1, 1], "spot"), np.random.default_rng(0)
    maps = random.random((3, 4, 4), np.float32)
    scores = maps.max((1, 2))
    both = truth.of_scores(scores) | truth.of_maps(maps)
    assert both.unmeasured == {}
    expected = metrics.image_metrics(scores, truth.labels)
    expected |= metrics.pixel_metrics(maps, truth.masks)
    assert both.values == expected | {AUPIMO: aupimo(maps, truth.masks, truth.labels)}


def test_pixels_of_defective_images_alone_have_both_classes():
    truth = drawn([1, 1], "spot")
    maps = np.where(truth.masks == 1, 0.9, 0.1).astype(np.float32)
    assert truth.of_maps(maps).values["pixel_auroc"] == 1


# Four pixels an image: a good one with one masked, a defect half masked, one masked to the last
# pixel beside another pixel, and one that has vanished, masked whole.
MASKS = np.array([[[1, 0], [0, 0]], [[1, 0], [1, 0]], [[1, 1], [0, 0]], [[1, 1], [1, 1]]], bool)
DEFECTS = np.array([[[0, 0], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]])


def test_areas_by_hand_follow_the_labels():
    found = metrics.mask_areas(MASKS, np.array([0, 1, 1, 1]))
    assert found == {
        "mask_area": 9 / 16,
        "mask_area_good": 1 / 4,
        "mask_area_defective": 8 / 12,
    }


def test_coverage_by_hand_is_of_the_defects_that_are_there():
    found = metrics.mask_coverage(MASKS, DEFECTS)
    assert found == {"mask_recall": 2 / 3, "mask_precision": 2 / 4, "mask_complete": 1 / 2}
    assert metrics.mask_coverage(~MASKS & False, DEFECTS)["mask_precision"] == 0
