"""Just noticeable differences: the textbook's formula on flat fields and on ramps."""

import math

import pytest
import torch

from fader.vision.jnd import jnd, luminance_adaptation


def grey(levels: torch.Tensor) -> torch.Tensor:
    """Levels (H, W) of 0 … 255 as an image (1, 3, H, W) in [0, 1]."""
    return (levels / 255).expand(1, 3, *levels.shape)


@pytest.mark.parametrize(
    ("level", "threshold"),
    [(0, 20), (127, 3), (255, 6), (31.75, 17 * (1 - 0.5) + 3), (191, 3 + 3 * 64 / 128)],
)
def test_a_flat_field_is_luminance_adaptation_alone(level, threshold):
    found = 255 * jnd(grey(torch.full((9, 12), float(level))))
    assert found.shape == (1, 1, 9, 12)
    assert found.allclose(torch.tensor(float(threshold)), atol=1e-3)
    assert luminance_adaptation(torch.tensor(float(level))).item() == pytest.approx(threshold)


@pytest.mark.parametrize("slope", [0.5, 4.0, 20.0])
@pytest.mark.parametrize("across", [True, False])
def test_a_ramp_by_hand(slope, across):
    ramp = slope * torch.arange(13.0).expand(13, 13)
    found = 255 * jnd(grey(ramp if across else ramp.T))[0, 0, 6, 6]
    # The background's kernel is symmetric; the strongest gradient, along the ramp, has weights
    # 1 + 3 + 8 + 3 + 1 = 16 on pixels two apart.
    background, gradient = 6 * slope, 2 * slope
    if background <= 127:
        adaptation = 17 * (1 - math.sqrt(background / 127)) + 3
    else:
        adaptation = 3 / 128 * (background - 127) + 3
    masking = 0.117 * gradient
    expected = adaptation + masking - 0.3 * min(adaptation, masking)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_colour_counts_by_its_luma():
    colours = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.3, 0.8]])
    luma = colours @ torch.tensor([0.299, 0.587, 0.114])
    image = colours.view(2, 3, 1, 1).expand(2, 3, 6, 6)
    expected = luminance_adaptation(255 * luma) / 255
    assert jnd(image)[:, 0, 3, 3].allclose(expected, atol=1e-5)


def test_the_map_of_an_image_is_its_own_and_no_gradient_passes():
    given = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    together = jnd(given)
    assert not together.requires_grad
    assert all(jnd(given[i : i + 1])[0].allclose(together[i], atol=1e-6) for i in range(3))
