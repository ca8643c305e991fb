"""The label-free split: what is held out, and what is painted."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fader.config import Validation
from fader.data.split import FOLDS, Split, reduced, reduced_masks, sizes, split
from fader.errors import FaderError

KINDS = ["perlin", "cutpaste", "scar", "swap"]


def pictures(count: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """Distinct noisy gradients (N, 3, side, side) uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, side)[None, None, None]
    return (ramp + rng.uniform(-50, 50, (count, 3, side, side))).astype(np.uint8)


def validation(held=3, checked=2, most=0.5, per_image=2) -> Validation:
    told = {"held": held, "checked": checked, "most": most, "per_image": per_image}
    return Validation(**told, kinds=KINDS, criterion="mean", tie=0.05)


def parted(pixels: np.ndarray, settings: Validation, seed: int) -> Split:
    return split({32: pixels}, 32, settings, seed)


def same(a: Split, b: Split) -> bool:
    def arrays(each):
        yield each.fit
        for fold in each.folds.values():
            yield from (fold.normals, fold.masks, *fold.defects.values())

    return all(np.array_equal(*pair) for pair in zip(arrays(a), arrays(b), strict=True))


@examples(max_examples=8, deadline=None)
@given(st.integers(10, 24), st.integers(2, 9), st.integers(2, 9), st.integers(0, 2**62))
def test_fitted_and_held_out_are_disjoint_and_complete(count, held, checked, seed):
    settings = validation(held, checked)
    chosen = parted(pictures(count), settings, seed)
    parts = [chosen.fit, *(fold.normals for fold in chosen.folds.values())]
    assert list(chosen.folds) == list(FOLDS)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert all(part.tolist() == sorted(part) and part.dtype == np.int64 for part in parts)
    assert tuple(map(len, parts[1:])) == sizes(count, settings)
    assert len(parts[0]) >= 2
    for fold in chosen.folds.values():
        assert len(fold.defects[32]) == len(fold.masks) == len(fold.normals) * 2
        assert fold.defects[32].dtype == fold.masks.dtype == np.uint8
        assert fold.kinds == tuple(KINDS[row % 4] for row in range(len(fold.masks)))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (209, (20, 10)),  # as told
        (75, (20, 10)),
        (60, (16, 8)),  # .4 of 60 in the proportion 2 : 1
        (54, (14, 7)),
        (48, (13, 6)),
        (10, (3, 2)),  # .4 of 10 are four; two at least in each
        (6, (2, 2)),
    ],
)
def test_a_small_category_holds_out_a_part_of_it_in_proportion(count, expected):
    assert sizes(count, validation(20, 10, most=0.4)) == expected


def test_defects_are_painted_on_held_out_images_only_and_differ_between_folds():
    pixels = pictures(16)
    chosen = parted(pixels, validation(), 3)
    for fold in chosen.folds.values():
        assert set(np.unique(fold.masks)) == {0, 1}
        for row, (defect, mask) in enumerate(zip(fold.defects[32], fold.masks, strict=True)):
            # Noise makes images unlike each other, so a copy is near its own original only.
            distance = np.abs(pixels.astype(int) - defect)[:, :, mask == 0].mean((1, 2))
            assert np.argmin(distance) == fold.normals[row // 2]
            assert mask.any()
    held, checked = (chosen.folds[name].masks for name in FOLDS)
    assert not np.array_equal(held[:4], checked[:4])
    # A fitted image leaves no trace in anything else of the split.
    other = pixels.copy()
    other[chosen.fit] = 0
    assert same(chosen, parted(other, validation(), 3))


def test_every_side_carries_the_same_defects():
    """Painted at the largest side, reduced like an image from a file; no defect is lost."""
    large = pictures(12, side=96)
    chosen = split({32: reduced(large, 32), 96: large}, 32, validation(), 1)
    alone = split({96: large}, 96, validation(), 1)
    for name, fold in chosen.folds.items():
        assert np.array_equal(fold.normals, alone.folds[name].normals)
        assert np.array_equal(fold.defects[96], alone.folds[name].defects[96])
        assert np.array_equal(fold.defects[32], reduced(fold.defects[96], 32))
        assert np.array_equal(fold.masks, reduced_masks(alone.folds[name].masks, 32))
        assert fold.masks.any((1, 2)).all()


@pytest.mark.parametrize(("side", "small"), [(6, 3), (5, 2), (7, 4), (4, 4), (9, 2)])
def test_a_reduced_mask_marks_every_pixel_that_a_defective_one_lies_in(side, small):
    for row in range(side):
        for column in range(side):
            mask = np.zeros((1, side, side), np.uint8)
            mask[0, row, column] = 1
            found = np.argwhere(reduced_masks(mask, small)[0])
            assert len(found) == 1
            # The block that begins at floor(i · side / small) and ends where the next begins.
            edges = [i * side // small for i in range(small + 1)]
            for position, cell in zip((row, column), found[0], strict=True):
                assert edges[cell] <= position < edges[cell + 1]


def test_split_depends_on_its_arguments_and_on_nothing_else():
    pixels = pictures(12)
    first = parted(pixels, validation(), 5)
    # Another category's jobs would have moved the global generators.
    random.seed(1), np.random.seed(1)  # noqa: NPY002
    assert same(first, parted(pixels.copy(), validation(), 5))
    assert not same(first, parted(pixels, validation(), 6))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_too_few_images_to_fit(count):
    with pytest.raises(FaderError, match="fewer than 2 to fit; give at least 6 images"):
        parted(pictures(count), validation(), 0)
