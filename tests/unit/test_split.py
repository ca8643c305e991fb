"""The label-free split: what is held out, and what is painted."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fader.config import Validation
from fader.data.split import split
from fader.errors import FaderError

KINDS = ["perlin", "cutpaste", "scar", "swap"]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Distinct noisy gradients (N, 3, 32, 32) uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, 32)[None, None, None]
    return (ramp + rng.uniform(-50, 50, (count, 3, 32, 32))).astype(np.uint8)


def validation(fraction: float = 0.25, per_image: int = 2) -> Validation:
    return Validation(fraction=fraction, per_image=per_image, kinds=KINDS)


def same(a, b) -> bool:
    return a.kinds == b.kinds and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("fit", "held", "defects", "defect_masks")
    )


@examples(max_examples=8, deadline=None)
@given(st.integers(4, 24), st.floats(0.01, 0.5), st.integers(1, 2), st.integers(0, 2**62))
def test_fitted_and_held_out_are_disjoint_and_complete(count, fraction, per_image, seed):
    chosen = split(pictures(count), validation(fraction, per_image), seed)
    fit, held = chosen.fit.tolist(), chosen.held.tolist()
    assert sorted(fit + held) == list(range(count))
    assert fit == sorted(fit)
    assert held == sorted(held)
    assert len(held) == max(2, round(fraction * count))
    assert len(fit) >= 2
    assert chosen.fit.dtype == chosen.held.dtype == np.int64
    assert chosen.defects.dtype == chosen.defect_masks.dtype == np.uint8
    assert len(chosen.defects) == len(chosen.defect_masks) == len(held) * per_image
    assert chosen.kinds == tuple(KINDS[row % 4] for row in range(len(held) * per_image))


def test_defects_are_painted_on_held_out_images_only():
    pixels = pictures(16)
    chosen = split(pixels, validation(), 3)
    assert set(np.unique(chosen.defect_masks)) == {0, 1}
    for row, (defect, mask) in enumerate(zip(chosen.defects, chosen.defect_masks, strict=True)):
        # Noise makes images unlike each other, so a copy is near its own original only.
        distance = np.abs(pixels.astype(int) - defect)[:, :, mask == 0].mean((1, 2))
        assert np.argmin(distance) == chosen.held[row // 2]
        assert mask.any()
    # A fitted image leaves no trace in anything else of the split.
    other = pixels.copy()
    other[chosen.fit] = 0
    assert same(chosen, split(other, validation(), 3))


def test_split_depends_on_its_arguments_and_on_nothing_else():
    pixels = pictures(12)
    first = split(pixels, validation(), 5)
    # Another category's jobs would have moved the global generators.
    random.seed(1), np.random.seed(1)  # noqa: NPY002
    assert same(first, split(pixels.copy(), validation(), 5))
    assert not same(first, split(pixels, validation(), 6))


@pytest.mark.parametrize(("count", "fraction"), [(3, 0.1), (2, 0.5), (20, 0.99)])
def test_too_few_images_to_fit(count, fraction):
    with pytest.raises(FaderError, match=r"fewer than 2 to fit; lower validation\.fraction"):
        split(pictures(count), validation(fraction), 0)
