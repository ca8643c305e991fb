"""Mosaic and tokens: means and orders by hand, and that tokens and hints coincide."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.vision.mosaic import mosaic, obfuscate, patch_l2, tokens

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10**6)


def images_of(seed: int, side: int = 16):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, side, side, generator=random), random


def test_cells_hold_their_mean():
    # Rows 0 1 2 3 / 4 5 6 7 / 8 … 15: cell means (0+1+4+5)/4 = 2.5, 4.5, 10.5 and 12.5.
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert mosaic(image, 2)[0, 0].tolist() == [
        [2.5, 2.5, 4.5, 4.5],
        [2.5, 2.5, 4.5, 4.5],
        [10.5, 10.5, 12.5, 12.5],
        [10.5, 10.5, 12.5, 12.5],
    ]
    assert torch.equal(mosaic(image, 1), image)
    assert mosaic(image, 4).unique().tolist() == [7.5]


@given(seed=seeds, scale=st.sampled_from([1, 2, 4, 8, 16]))
@few
def test_a_mosaic_is_its_own_mosaic_and_keeps_the_mean(seed, scale):
    images, _ = images_of(seed)
    once = mosaic(images, scale)
    assert torch.allclose(mosaic(once, scale), once, atol=1e-6)
    assert torch.allclose(once.mean((2, 3)), images.mean((2, 3)), atol=1e-6)


@given(seed=seeds, scale=st.sampled_from([2, 4, 8]))
@few
def test_obfuscation_keeps_the_unmasked_pixels_and_replaces_the_masked_ones(seed, scale):
    images, random = images_of(seed)
    masks = torch.rand(2, 16, 16, generator=random) > 0.5  # finer than the cells
    made = obfuscate(images, masks, scale)
    masked = masks[:, None].expand_as(images)
    assert torch.equal(made[~masked], images[~masked])
    assert torch.equal(made[masked], mosaic(images, scale)[masked])
    assert torch.equal(obfuscate(images, masks.to(torch.uint8), scale), made)
    assert torch.equal(obfuscate(images, torch.zeros_like(masks), scale), images)
    assert torch.equal(obfuscate(images, torch.ones_like(masks), scale), mosaic(images, scale))


@pytest.mark.parametrize(("height", "width"), [(10, 16), (16, 10)])
def test_a_scale_that_does_not_divide_the_image_is_refused(height, width):
    images, masks = torch.zeros(1, 3, height, width), torch.zeros(1, height, width)
    with pytest.raises(ValueError, match=f"mosaic scale 4 .* {height}×{width}"):
        mosaic(images, 4)
    with pytest.raises(ValueError, match="mosaic scale 4"):
        obfuscate(images, masks, 4)


def test_tokens_by_hand():
    # Two channels, 0…15 and 100…115: a token is channel by channel, row by row.
    image = torch.stack([torch.arange(16.0), torch.arange(100.0, 116)]).view(1, 2, 4, 4)
    assert tokens(image, 2)[0].int().tolist() == [
        [0, 1, 4, 5, 100, 101, 104, 105],
        [2, 3, 6, 7, 102, 103, 106, 107],
        [8, 9, 12, 13, 108, 109, 112, 113],
        [10, 11, 14, 15, 110, 111, 114, 115],
    ]


def test_tokens_of_a_wide_image_are_row_major():
    image = torch.arange(3.0).repeat_interleave(2).repeat(4, 1)  # columns 0 0 1 1 2 2
    image[2:] += 10
    assert tokens(image.view(1, 1, 4, 6), 2)[0, :, 0].tolist() == [0, 1, 2, 10, 11, 12]


@given(seed=seeds, patch=st.sampled_from([1, 2, 4, 8]))
@few
def test_patch_l2_is_the_mean_over_a_token(seed, patch):
    a, random = images_of(seed)
    b = torch.rand(a.shape, generator=random)
    expected = (tokens(a, patch) - tokens(b, patch)).square().mean(2)
    assert torch.allclose(patch_l2(a, b, patch), expected, atol=1e-6)
    assert patch_l2(a, a, patch).abs().max() == 0


def test_patch_l2_by_hand():
    a, b = torch.zeros(1, 3, 2, 4), torch.zeros(1, 3, 2, 4)
    b[0, 0, 0, 3] = 6.0  # 36 over 3 · 2 · 2 values of the second patch
    assert patch_l2(a, b, 2).tolist() == [[0.0, 3.0]]


@given(seed=seeds, patch=st.sampled_from([2, 4]), cells=st.sampled_from([1, 2]))
@few
def test_one_token_sees_either_the_image_or_one_hint(seed, patch, cells):
    images, random = images_of(seed)
    cell = patch * cells
    coarse = torch.rand(2, 16 // cell, 16 // cell, generator=random) > 0.5
    masks = coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    made = tokens(obfuscate(images, masks, patch), patch)
    hidden = masks[:, ::patch, ::patch].flatten(1)
    assert torch.equal(made[~hidden], tokens(images, patch)[~hidden])
    hints = made[hidden].unflatten(-1, (3, -1))
    assert torch.equal(hints, hints[..., :1].expand_as(hints))
    means = tokens(images, patch)[hidden].unflatten(-1, (3, -1)).mean(-1)
    assert torch.allclose(hints[..., 0], means, atol=1e-6)
