"""Anomalies on whole batches: the noise is that of single images, the blend is worked by hand, the
augmentations are Pillow's and torchvision's, and nothing is drawn but from the generator."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from fader.data.defects import batches, perlin_noise
from fader.data.defects.batches import (
    AUGMENTATIONS,
    Batch,
    augment,
    blend,
    paint_textures,
    perlin_batch,
    perlin_masks,
    rotate,
    synthesise,
)
from fader.runtime import generator


def images(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Grain on slopes: (count, 3, height, width) uint8 of most levels."""
    noise = torch.rand(count, 3, height, width, generator=generator(seed))
    slope = torch.linspace(0, 150, width) + torch.linspace(0, 60, height).unsqueeze(1)
    return (slope + 45 * noise).to(torch.uint8)


class Given:
    """A numpy generator that draws the given angles."""

    def __init__(self, angles: Tensor) -> None:
        self.angles = angles.double().numpy()

    def uniform(self, low: float, high: float, shape: tuple[int, int]) -> np.ndarray:
        assert (low, high) == (0, 2 * np.pi)
        return self.angles[: shape[0], : shape[1]]


# Masks.


@pytest.mark.parametrize("shape", [(32, 32), (33, 20), (256, 256)])
def test_the_noise_is_that_of_single_images(shape):
    rows, columns = torch.tensor([0, 3, 5, 1]), torch.tensor([0, 2, 5, 4])
    angles = 2 * math.pi * torch.rand(4, 33, 33, generator=generator(0))
    found = perlin_batch(shape, rows, columns, angles)
    for noise, row, column, given in zip(found, rows, columns, angles, strict=True):
        expected = perlin_noise(shape, (2 ** int(row), 2 ** int(column)), Given(given))
        assert noise.allclose(torch.from_numpy(expected), atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (24, 60)])
def test_masks_are_of_any_shape_and_differ(shape):
    masks = perlin_masks(200, shape, generator(0))
    assert (masks.shape, masks.dtype) == ((200, *shape), torch.bool)
    areas = masks.float().mean((1, 2))
    assert 0.02 < areas.mean() < 0.08
    assert (areas == 0).float().mean() < 0.15  # by chance
    assert len(torch.unique(masks, dim=0)) > 170


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 11)])
@pytest.mark.parametrize("turns", [0, 1, -1, 2])
def test_rotations_are_clockwise_about_the_centre(height, width, turns):
    given = images(2, height, width).float()
    turned = rotate(given, torch.full((2,), 90.0 * turns))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
    assert turned[middle].allclose(torch.rot90(given[middle], -turns, (2, 3)), atol=1e-2)


def test_what_no_pixel_was_turned_to_is_black():
    assert rotate(torch.ones(1, 3, 32, 32), torch.tensor([45.0]))[..., 0, 0].eq(0).all()


# The blend.


def test_the_blend_by_hand():
    image = torch.tensor([0.2, 0.4]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    texture = torch.tensor([1.0, 0.9]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    masks = torch.tensor([[[True, False]]])
    found = blend(image, texture, masks, torch.tensor([0.75]))
    # Inside: 0.25 · 1.0 + 0.75 · 0.2.
    assert found[0, :, 0].allclose(torch.tensor([0.4, 0.4]))


def test_painted_pixels_are_those_of_the_mask_at_a_fifth_of_the_texture_or_more():
    normal, overlay = torch.zeros(60, 3, 32, 32), torch.ones(60, 3, 32, 32)
    anomalous, masks = paint_textures(normal, overlay, generator(0))
    inside = anomalous.masked_select(masks.unsqueeze(1))
    assert anomalous.masked_select(~masks.unsqueeze(1)).eq(0).all()
    assert 0.2 <= inside.min() < 0.3 < 0.9 < inside.max() <= 1  # 1 − β
    assert all(
        len(each[:, mask].unique()) <= 1 for each, mask in zip(anomalous, masks, strict=True)
    )


# Augmentations.


def pillow(change, image: Tensor) -> Tensor:
    made = change(Image.fromarray(image.permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.asarray(made).copy()).permute(2, 0, 1)


def far(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def drawn(*numbers: float) -> Tensor:
    return torch.tensor([[*numbers, 0.0, 0.0, 0.0][:3]] * 2)


def by_hand(change) -> Tensor:
    return change(images(2).float()).round().clamp(0, 255)


@pytest.mark.parametrize(
    ("kind", "draws", "expected"),
    [
        ("gamma", drawn(1.0, 1.0, 1.0), lambda x: 255 * (x / 255) ** 2),
        ("brightness", drawn(0.0, 1.0), lambda x: 0.8 * x + 30),
        ("solarize", drawn(0.0, 0.0, 0.5), lambda x: torch.where(x >= 80, 255 - x, x)),
        ("solarize", drawn(0.0, 0.9, 0.5), lambda x: torch.where(x < 80, 255 - x, x)),
        ("solarize", drawn(0.5, 0.0, 0.5), lambda x: x),
        ("posterize", drawn(0.0), lambda x: x),
        ("posterize", drawn(0.99), lambda x: 128.0 * (x >= 128)),
        ("invert", drawn(), lambda x: 255 - x),
        ("hue_and_saturation", drawn(0.5, 0.5), lambda x: x),
        ("sharpness", drawn(1 / 3), lambda x: x),
        ("turn", drawn(0.5), lambda x: x),
    ],
)
def test_augmentations_by_hand(kind, draws, expected):
    assert far(getattr(batches, kind)(images(2), draws), by_hand(expected)) <= 1


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_is_torchvisions(bits):
    found = batches.posterize(images(2), drawn((8 - bits + 0.5) / 8))
    assert far(found, reference.posterize(images(2), bits)) == 0


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5, 3.0])
def test_sharpness_is_pillows(factor):
    found = batches.sharpness(images(2), drawn(factor / 3))
    expected = pillow(lambda i: ImageEnhance.Sharpness(i).enhance(factor), images(2)[1])
    assert far(found[1], expected) <= 2  # it rounds in between


@pytest.mark.parametrize("cutoff", [0, 1, 10, 20])
def test_autocontrast_is_pillows(cutoff):
    found = batches.autocontrast(images(2), drawn((cutoff + 0.5) / 21))
    assert far(found[1], pillow(lambda i: ImageOps.autocontrast(i, cutoff), images(2)[1])) <= 1


@pytest.mark.parametrize("kind", ["equalize", "autocontrast"])
@pytest.mark.parametrize("flat", [0, 7, 255])
def test_a_flat_channel_stays(kind, flat):
    given = torch.full((2, 3, 16, 16), flat, dtype=torch.uint8)
    assert torch.equal(getattr(batches, kind)(given, drawn(0.9)), given)


def test_equalize_is_torchvisions():
    assert far(batches.equalize(images(2), drawn()), reference.equalize(images(2))) == 0


@pytest.mark.parametrize("move", [-50, -20, 30, 50])
def test_hue_is_torchvisions(move):
    found = batches.hue_and_saturation(images(2), drawn(0.5 + move / 100, 0.5))
    assert far(found, reference.adjust_hue(images(2), move / 255)) <= 1


@pytest.mark.parametrize("change", AUGMENTATIONS, ids=lambda change: change.__name__)
def test_an_image_is_changed_the_same_in_any_company(change):
    given, draws = images(5, 20, 24), torch.rand(5, 3, generator=generator(1))
    together = change(given, draws)
    assert (together.shape, together.dtype) == (given.shape, torch.uint8)
    for row in range(5):
        assert torch.equal(change(given[row : row + 1], draws[row : row + 1])[0], together[row])


def test_three_of_the_ten_are_applied_in_any_order(monkeypatch):
    calls: list[list[int]] = [[] for _ in range(400)]

    def recorder(kind: int):
        def change(given: Tensor, draws: Tensor) -> Tensor:
            for row in given[:, 0, 0, 0].tolist():
                calls[int(row)].append(kind)
            return given

        return change

    monkeypatch.setattr(batches, "AUGMENTATIONS", tuple(map(recorder, range(10))))
    rows = torch.arange(400).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    augment(rows, generator(0))
    assert {len(each) for each in calls} == {len(set(each)) for each in calls} == {3}
    assert {each[0] for each in calls} == {each[2] for each in calls} == set(range(10))


# Batches.


def made(count: int = 300, seed: int = 0) -> Batch:
    return synthesise(images(count), images(7, seed=9), generator(seed), paint_textures)


def test_half_of_the_images_stay_normal_and_three_in_ten_are_turned():
    batch = made(600)
    painted = batch.masks.any((1, 2))
    assert painted.float().mean() == pytest.approx(0.5 * 0.94, abs=0.06)  # some masks are empty
    assert torch.equal(batch.anomalous[~painted], batch.normal[~painted])
    whole = (batch.normal * 255 - images(600)).abs().amax((1, 2, 3)) < 0.01
    assert whole.float().mean() == pytest.approx(0.7, abs=0.06)
    outside = ~batch.masks.unsqueeze(1)
    assert torch.equal(batch.anomalous * outside, batch.normal * outside)
    assert 0 <= batch.anomalous.min() < batch.anomalous.max() <= 1


def test_everything_comes_from_the_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = made(20), made(20), made(20, seed=1)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first.anomalous, other.anomalous)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_given_is_left_alone():
    given, textures = images(8), images(3, seed=9)
    synthesise(given, textures, generator(0), paint_textures)
    assert torch.equal(given, images(8))
    assert torch.equal(textures, images(3, seed=9))
