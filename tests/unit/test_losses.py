"""Losses against independent implementations in float64, by hand, and by their identities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fader.vision import losses
from fader.vision.losses import (
    gms,
    gradient_magnitude,
    msgms_map,
    rank_loss,
    reconstruction_loss,
    ssim,
)

few = settings(max_examples=15, deadline=None)


def pair(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, generator=random)
    return a, (a + 0.3 * torch.randn(shape, generator=random)).clamp(0, 1)


def reference_ssim(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004 window by window: weighted means, variances and covariance in two passes."""
    x = np.arange(-5, 6)
    weights = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for one, other in zip(a.flatten(0, 1).double(), b.flatten(0, 1).double(), strict=True):
        for top in range(one.shape[0] - 10):
            for left in range(one.shape[1] - 10):
                p = one[top : top + 11, left : left + 11].numpy()
                q = other[top : top + 11, left : left + 11].numpy()
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                cov = (weights * (p - mp) * (q - mq)).sum()
                luminance = (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4)
                values.append(luminance * (2 * cov + 9e-4) / (vp + vq + 9e-4))
    return float(np.mean(values))


def reference_gms(a: Tensor, b: Tensor, c: float = 0.0026) -> Tensor:
    """Xue et al. 2014 with the Prewitt operator as a depth-wise convolution, in float64."""
    px = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=torch.float64) / 3
    kernels = torch.stack([px, px.T])[:, None]

    def magnitude(x: Tensor) -> Tensor:
        g = F.conv2d(x.double().flatten(0, 1)[:, None], kernels, padding=1)
        return (g.square().sum(1) + 1e-12).sqrt().view(x.shape)

    ga, gb = magnitude(a), magnitude(b)
    return (2 * ga * gb + c) / (ga**2 + gb**2 + c + 1e-12)


def reference_msgms(a: Tensor, b: Tensor, scales: int, c: float = 0.0026) -> Tensor:
    maps = []
    size = a.shape[-2:]
    a, b = a.double(), b.double()
    for scale in range(scales):
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        maps.append(
            F.interpolate(reference_gms(a, b, c), size=size, mode="bilinear", align_corners=False)
        )
    return (1 - torch.stack(maps).mean(0)).mean(1)


@pytest.mark.parametrize("seed", [0, 1])
def test_ssim_against_a_window_by_window_reference(seed):
    a, b = pair(seed, 2, 3, 14, 13)
    assert ssim(a, b).item() == pytest.approx(reference_ssim(a, b), abs=2e-5)


def test_ssim_of_constant_images_by_hand():
    # Without variance only the luminance term is left: (2·0.2·0.6 + 1e-4) / (0.04 + 0.36 + 1e-4).
    a, b = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6)
    assert ssim(a, b).item() == pytest.approx(0.2401 / 0.4001, abs=1e-4)


@given(seed=st.integers(0, 10**6))
@few
def test_ssim_identities(seed):
    a, b = pair(seed, 2, 3, 16, 12)
    assert ssim(a, a).item() == pytest.approx(1, abs=1e-6)
    assert ssim(a, b).item() == pytest.approx(ssim(b, a).item(), abs=1e-6)
    assert -1 <= ssim(a, b).item() < 1
    # An inverted texture is anti-correlated.
    assert ssim(a, 1 - a).item() < 0


def test_gradient_magnitude_by_hand():
    # At the centre of a vertical step gx = −(1 + 1 + 1)/3; of one bright corner gx = gy = 1/3.
    step = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]]).view(1, 1, 3, 3)
    corner = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]).view(1, 1, 3, 3)
    assert gradient_magnitude(step)[0, 0, 1, 1].item() == pytest.approx(1)
    assert gradient_magnitude(corner)[0, 0, 1, 1].item() == pytest.approx(math.sqrt(2) / 3)
    # Zero padding: a flat image has an edge at its border, and at a corner gx = gy = −2/3.
    flat = gradient_magnitude(torch.ones(1, 1, 3, 3))[0, 0]
    assert flat[1, 1].item() == pytest.approx(1e-6)
    assert flat[0, 0].item() == pytest.approx(math.sqrt(2) * 2 / 3)


def test_gms_by_hand():
    step = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]]).view(1, 1, 3, 3)
    # Magnitudes 1 and 1/2: (2·1/2 + 0.0026) / (1 + 1/4 + 0.0026).
    assert gms(step, step / 2)[0, 0, 1, 1].item() == pytest.approx(1.0026 / 1.2526)
    # Magnitudes 1 and (nearly) 0: 0.0026 / 1.0026.
    assert gms(step, 0 * step)[0, 0, 1, 1].item() == pytest.approx(0.0026 / 1.0026, abs=3e-6)


@pytest.mark.parametrize("c", [0.0026, 0.1])
def test_gms_against_a_convolution(c):
    a, b = pair(3, 2, 3, 9, 12)
    assert torch.allclose(gms(a, b, c).double(), reference_gms(a, b, c), atol=1e-5)


@pytest.mark.parametrize(
    ("scales", "height", "width"), [(1, 16, 16), (4, 32, 16), (3, 20, 36), (3, 17, 23)]
)
def test_msgms_map_against_convolution_and_interpolation(scales, height, width):
    a, b = pair(4, 2, 3, height, width)
    made = msgms_map(a, b, scales)
    assert made.shape == (2, height, width)
    assert torch.allclose(made.double(), reference_msgms(a, b, scales), atol=1e-5)


@given(seed=st.integers(0, 10**6), scales=st.integers(1, 4))
@few
def test_msgms_map_range_symmetry_and_zero_for_equal_images(seed, scales):
    a, b = pair(seed, 1, 3, 16, 16)
    made = msgms_map(a, b, scales)
    assert made.min() >= 0
    assert made.max() < 1
    assert torch.equal(made, msgms_map(b, a, scales))
    assert torch.equal(msgms_map(a, a, scales), torch.zeros(1, 16, 16))


def test_reconstruction_loss_is_the_weighted_sum_of_its_parts():
    image, made = pair(5, 2, 3, 16, 16)
    parts = reconstruction_loss(image, made, l2=2, ssim_weight=3, msgms=5, scales=2)
    assert parts.keys() == {"loss", "l2", "ssim", "msgms"}
    assert parts["l2"].item() == pytest.approx((image - made).square().mean().item())
    assert parts["ssim"].item() == pytest.approx(1 - reference_ssim(image, made), abs=2e-5)
    assert parts["msgms"].item() == pytest.approx(
        reference_msgms(image, made, 2).mean().item(), abs=1e-5
    )
    expected = 2 * parts["l2"] + 3 * parts["ssim"] + 5 * parts["msgms"]
    assert parts["loss"].item() == pytest.approx(expected.item())
    equal = reconstruction_loss(image, image)
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in equal.values())


@pytest.mark.parametrize("seed", [6, 7])
def test_gradients_equal_finite_differences_of_the_references(seed):
    image, made = pair(seed, 1, 1, 12, 13)
    made.requires_grad_()
    direction = torch.randn(made.shape, generator=torch.Generator().manual_seed(seed)).double()

    def slope(f) -> float:
        h = 1e-5
        centre = made.detach().double()
        return float(f(centre + h * direction) - f(centre - h * direction)) / (2 * h)

    parts = reconstruction_loss(image, made, scales=3)
    for name, f in (
        ("l2", lambda x: (image.double() - x).square().mean()),
        ("ssim", lambda x: 1 - reference_ssim(image, x)),
        ("msgms", lambda x: reference_msgms(image, x, 3).mean()),
    ):
        (gradient,) = torch.autograd.grad(parts[name], made, retain_graph=True)
        assert (gradient.double() * direction).sum().item() == pytest.approx(
            slope(f), rel=2e-3, abs=2e-5
        )


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_gradients_are_finite_where_images_are_flat_or_equal(value):
    image = torch.full((1, 3, 16, 16), value)
    for made in (image.clone(), torch.zeros_like(image), torch.rand_like(image)):
        made.requires_grad_()
        reconstruction_loss(image, made)["loss"].backward()
        assert made.grad.isfinite().all()


def test_scoring_first_does_not_spoil_training_in_the_same_process():
    losses._gaussian_window.cache_clear()
    losses._bilinear.cache_clear()
    image, made = pair(8, 1, 3, 16, 16)
    with torch.inference_mode():
        before = reconstruction_loss(image, made)["loss"].item()
    made.requires_grad_()
    after = reconstruction_loss(image, made)["loss"]
    after.backward()
    assert after.item() == before


def test_rank_loss_by_hand():
    predicted = torch.tensor([[3.0, 1.0, 0.5, 2.0]], requires_grad=True)
    target = torch.tensor([[9.0, 4.0, 5.0, 5.0]], requires_grad=True)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])
    # (0, 1): +1, 1 − (3 − 1) < 0 → 0.  (1, 2): −1, 1 + (1 − 0.5) = 1.5.
    # (2, 3): a tie counts as −1, 1 + (0.5 − 2) < 0 → 0.
    loss = rank_loss(predicted, target, first, second, margin=1.0)
    assert loss.item() == pytest.approx(1.5 / 3)
    loss.backward()
    assert torch.allclose(predicted.grad, torch.tensor([[0, 1 / 3, -1 / 3, 0]]))
    assert target.grad is None


def test_rank_loss_counts_a_tie_as_minus_one():
    predicted, target = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    one, two = torch.tensor([0]), torch.tensor([1])
    assert rank_loss(predicted, target, one, two, 0.5).item() == 2.5
    assert rank_loss(predicted, target, two, one, 0.5).item() == 0


@given(seed=st.integers(0, 10**6), margin=st.sampled_from([0.1, 1.0]))
@few
def test_rank_loss_against_loops(seed, margin):
    random = torch.Generator().manual_seed(seed)
    predicted = torch.randn(3, 6, generator=random)
    target = torch.randint(3, (3, 6), generator=random).float()  # with ties
    first, second = torch.randperm(6, generator=random).view(2, 3)
    terms = []
    for p, t in zip(predicted.tolist(), target.tolist(), strict=True):
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            sign = 1 if t[i] > t[j] else -1
            terms.append(max(0, -sign * (p[i] - p[j]) + margin))
    made = rank_loss(predicted, target, first, second, margin).item()
    assert made == pytest.approx(sum(terms) / len(terms), rel=1e-5, abs=1e-6)
