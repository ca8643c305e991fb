"""MemAE: its layers counted by hand, its losses worked by hand, and what it makes of an image."""

import math
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, changed, defective, normals, place, run_in
from torch import nn

from fader import detectors
from fader.config import load
from fader.detectors.base import Images
from fader.detectors.memae import AutoEncoder, losses

PRESETS = Path(__file__).parents[2] / "presets"
PUBLISHED = changed("memae", widths=[96, 128, 256, 256], slots=2000)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Layers.


def test_parameters_counted_by_hand():
    network = AutoEncoder(PUBLISHED)
    links = [(3, 96), (96, 128), (128, 256), (256, 256)]
    kernels = sum(9 * i * o for i, o in links)
    normalised = 96 + 128 + 256 + 256  # bias, scale and shift each
    assert parameters(network.encoder) == kernels + 3 * normalised == 1_000_128
    normalised = 256 + 128 + 96
    assert parameters(network.decoder) == kernels + 3 * (256 + normalised) + 3 - 3 * 256
    assert parameters(network.memory) == 2000 * 256
    assert parameters(network) / 1e6 == pytest.approx(2.5, abs=0.05)


@pytest.mark.parametrize("size", [16, 64, 128])
def test_a_feature_stands_for_sixteen_pixels(size):
    network, images = AutoEncoder(PUBLISHED), torch.zeros(2, 3, size, size)
    assert network.encoder(images).shape == (2, 256, size // 16, size // 16)
    decoded, weights = network(images)
    assert decoded.shape == images.shape
    assert weights.shape == (2 * (size // 16) ** 2, 2000)


def test_fresh_weights_are_those_of_the_public_code():
    torch.manual_seed(0)
    for module in AutoEncoder(PUBLISHED).modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.weight.mean().item() == pytest.approx(0, abs=2e-3)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.bias.count_nonzero() == 0


def test_the_decoder_sees_nothing_but_the_memory():
    detector = detectors.create(changed("memae", slots=3, shrinkage=3.0), place())
    images = detector.machine.images(torch.cat([normals(3), defective(3)[0]]))
    with torch.no_grad():
        detector.network.memory.items.fill_(0.3)  # the same whatever is read
        first, *others = detector.reconstruct(images)
    assert all(torch.equal(first, other) for other in others)


# Losses.


def test_the_losses_by_hand():
    images, decoded = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.0])
    weights = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    found = losses(images, decoded, weights, share=0.1)
    assert found["reconstruction"].item() == pytest.approx((0.25 + 1) / 2)
    assert found["entropy"].item() == pytest.approx(math.log(2) / 2)
    assert found["active"].item() == 2
    assert found["loss"].item() == pytest.approx(0.625 + 0.05 * math.log(2))


def test_the_memory_is_trained_and_its_use_is_recorded(tmp_path):
    settings = changed("memae", epochs=4)
    detector = detectors.create(settings, place())
    history = detector.fit(Images(normals()), run_in(tmp_path))["reconstruction"]
    for epoch in history:
        assert 1 <= epoch["active"] <= settings.slots
        assert 0 <= epoch["entropy"] <= math.log(settings.slots)
        expected = epoch["reconstruction"] + settings.entropy * epoch["entropy"]
        assert epoch["loss"] == pytest.approx(expected, rel=1e-5)
    bound = 16**-0.5
    assert (detector.network.memory.items.abs() > bound).any()  # it left where it began


@pytest.mark.parametrize("addressing", ["dot", "cosine"])
def test_it_overfits_four_images(addressing, tmp_path):
    temperature = {"dot": 1.0, "cosine": 0.1}[addressing]
    settings = changed("memae", addressing=addressing, temperature=temperature, epochs=120)
    detector = detectors.create(settings, place())
    pixels = defective(4)[0]  # four that differ
    history = detector.fit(Images(pixels), run_in(tmp_path))["reconstruction"]
    assert history[-1]["reconstruction"] < 0.1 * history[0]["reconstruction"]
    assert history[-1]["reconstruction"] < 0.04  # in [−1, 1]


# Scores.


def test_map_score_and_reconstruction_by_hand(tmp_path):
    detector = detectors.create(SETTINGS["memae"], place())
    detector.fit(Images(normals()), run_in(tmp_path))
    pixels = defective(3)[0]
    found = detector.scores(Images(pixels))
    seen = 2 * (pixels / 255) - 1
    with torch.no_grad():
        decoded, _ = detector.network(seen)
        reconstructed = detector.reconstruct(detector.machine.images(pixels))
    squares = (seen - decoded) ** 2
    assert found.maps.allclose(squares.mean(1), atol=1e-5)
    assert found.images.allclose(squares.mean((1, 2, 3)), rtol=1e-4)
    assert reconstructed.allclose((decoded.clamp(-1, 1) + 1) / 2, atol=1e-5)


# Settings.


def test_an_image_that_cannot_be_halved_as_often_is_refused():
    assert PUBLISHED.misfit(48) is None
    assert "cannot be halved 4 times" in PUBLISHED.misfit(40)


@pytest.mark.parametrize("preset", ["paper", "gpu"])
def test_the_published_settings(preset):
    found = load(PRESETS / f"{preset}.yaml").detectors["memae"]
    assert (found.widths, found.slots) == ([96, 128, 256, 256], 2000)
    assert (found.shrinkage, found.entropy) == (1, 2e-4)
    assert (found.epochs, found.batch, found.lr) == (100, 14, 1e-4)
