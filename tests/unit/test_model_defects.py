"""Defective images of one's own and their masks: which belong together, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from folders import line_of, move, remove, save

from fader.model.defects import read

SIZE = 16


def spot(*rows, height=24, width=20):
    mask = np.zeros((height, width), np.uint8)
    mask[list(rows), 5:9] = 255
    return mask


def image(seed, height=24, width=20):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def place(tmp_path):
    """Three defective images, one in a folder, and masks of the first and the last."""
    for number, name in enumerate(("0.png", "1.png", "deep/0.JPG")):
        save(tmp_path / "bad" / name, image(number))
    save(tmp_path / "masks/0_mask.png", spot(3, 4))
    save(tmp_path / "masks/deep/0_mask.png", spot(9, 10, 11))
    return tmp_path


def found(place, **options):
    options = {"defects": place / "bad", "masks": place / "masks"} | options
    return read(options["defects"], options["masks"], [SIZE], [SIZE], None)


def assert_read(defects, rows=(0, 2)):
    assert len(defects) == 3 and defects.masked.tolist() == list(rows)
    heights = [np.flatnonzero(each.any(1)).tolist() for each in defects.truth[SIZE].numpy()]
    assert heights == [[2], [6, 7]]  # of 24 rows, 16


@pytest.mark.parametrize("name", ["0.png", "0_mask.png", "0_GT.bmp", "0_seg.tif", "0_label.PNG"])
def test_a_mask_is_called_as_in_mvtecs_layout(name, place):
    move(place / "masks", "0_mask.png", "other.png")
    mask = spot(3, 4)
    (place / "masks/other.png").unlink()
    save(place / "masks" / name, mask)
    assert_read(found(place))


def test_a_mask_lies_at_its_images_place_or_directly_in_the_folder(place):
    assert_read(found(place))
    move(place, "bad/deep/0.JPG", "bad/deep/2.JPG")
    move(place, "masks/deep/0_mask.png", "masks/2.png")
    assert_read(found(place))


def test_masks_may_lie_among_the_images(place):
    (place / "masks").rename(place / "bad/masks")
    assert_read(found(place, masks=place / "bad/masks"))


def test_arrays_have_arrays(place):
    images = [image(number) for number in range(3)]
    for masks in ([spot(3, 4), None, spot(9, 10, 11)], [spot(3, 4) > 0, None, spot(9, 10, 11)]):
        assert_read(found(place, defects=images, masks=masks))
    every = found(place, defects=images, masks=np.stack([spot(3, 4)] * 3))
    assert every.masked.tolist() == [0, 1, 2]


def test_without_masks_there_is_no_truth(place):
    defects = found(place, masks=None)
    assert len(defects) == 3 and not len(defects.masked) and not len(defects.truth[SIZE])


def without_image(place):
    save(place / "masks/7_mask.png", spot(3))


def two_masks(place):
    save(place / "masks/0_gt.png", spot(3))


def one_for_two(place):
    remove(place / "masks/deep", "*")
    (place / "masks/deep").rmdir()


def another_size(place):
    save(place / "masks/0_mask.png", spot(3, height=20))


def grey(place):
    mask = spot(3, 4, 5)
    mask[12:18] = 120
    save(place / "masks/0_mask.png", mask)


def nothing_marked(place):
    save(place / "masks/0_mask.png", spot())


def the_other_way_round(place):
    save(place / "masks/0_mask.png", 255 - spot(3))


def no_image(place):
    (place / "masks/0_mask.png").write_bytes(b"")


def none_at_all(place):
    remove(place / "masks", "**/*.png")


WRONG = {
    without_image: "7_mask.png: mask without an image among the defects",
    two_masks: "0.png: two masks, ",
    one_for_two: "0_mask.png: one mask for two images, 0.png and deep/0.JPG",
    another_size: "0_mask.png: mask of 20 x 20 pixels, but ",
    grey: "0_mask.png: not a mask of two levels",
    nothing_marked: "0_mask.png: no defect pixel, but ",
    the_other_way_round: "0_mask.png: marks 99% of the image; ",
    no_image: "0_mask.png: unreadable image",
    none_at_all: "masks: no image in it",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_what_is_wrong_is_named(change, place):
    change(place)
    assert WRONG[change] in line_of(found, place)


ARRAYS = {
    "too few": ([spot(3)], "1 for 3 defects"),
    "with channels": ([image(0)] * 3, "number 0 is no array (H, W), bool or uint8"),
    "floats": ([None, spot(3) / 255, None], "number 1 is no array (H, W), bool or uint8"),
    "a path": ([None, spot(3), Path("1.png")], "number 2 is no array (H, W), bool or uint8"),
    "another size": ([spot(3, height=9), None, None], "mask of 20 x 9 pixels"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_masks_are_named(case, place):
    masks, words = ARRAYS[case]
    assert words in line_of(found, place, defects=[image(i) for i in range(3)], masks=masks)


def test_masks_among_the_images_are_not_taken_for_images(place):
    move(place, "masks/0_mask.png", "bad/0_mask.png")
    assert "0_mask.png: called as a mask of 0.png beside it" in line_of(found, place, masks=None)
    line = line_of(found, place, masks=place / "bad")
    assert "all of them are masks" in line


def test_masks_of_which_nothing_is_left_are_refused(tmp_path):
    dot = np.zeros((240, 200), np.uint8)
    dot[0, 0] = 255
    images = [image(0, 240, 200)]
    assert "raise --size" in line_of(found, tmp_path, defects=images, masks=[dot])
