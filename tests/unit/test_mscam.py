"""MS-CAM: the attention worked by hand, layers counted by hand, what is erased, the losses."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, changed, defective, normals, place, run_in
from safetensors.torch import load_file
from torch import nn

from fader import detectors
from fader.config import load
from fader.detectors.base import Images
from fader.detectors.ganomaly import Encoder, Pass, initialise
from fader.detectors.mscam import DualAttention, Generator, erase, generator_losses, grey
from fader.runtime import generator
from fader.vision.losses import gradient_magnitude

PRESETS = Path(__file__).parents[2] / "presets"


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Attention.


def test_attention_weights_are_between_zero_and_one():
    layer = DualAttention(16, 4)
    initialise(layer, generator(0))
    channel, pixel = layer.weights(torch.randn(3, 16, 5, 7, generator=generator(1)))
    assert (channel.shape, pixel.shape) == ((3, 16, 5, 7), (3, 1, 5, 7))
    for weights in (channel, pixel):
        assert 0 < weights.min() < weights.max() < 1


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_attention_equation_by_hand():
    layer = DualAttention(2, 2).eval()  # statistics of fresh normalisations: nothing but 1 + ε
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0

    def set_to(squeeze: nn.Sequential, into: list[float], back: list[float]) -> None:
        squeeze[0].weight.copy_(torch.tensor(into).view(1, 2, 1, 1))
        squeeze[3].weight.copy_(torch.tensor(back).view(2, 1, 1, 1))

    with torch.no_grad():
        set_to(layer.local, [1.0, -1.0], [2.0, 1.0])
        set_to(layer.pooled, [1.0, 1.0], [-1.0, 3.0])
        layer.pixel.weight.copy_(torch.tensor([0.5, 1.0]).view(1, 2, 1, 1))
        layer.pixel.bias.fill_(-1.0)
        x = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])  # two channels of two pixels
        found = layer(x)
    # L: x₁ − x₂ = −1, 3, rectified to 0, 3, and back to (0, 6), (0, 3).
    # G: means 2 and 1 add up to 3, and back to −3, 9.
    # P: x₁ / 2 + x₂ − 1 = 1.5, 0.5.
    expected = [
        [1 * (sigmoid(0 - 3) + sigmoid(1.5)), 3 * (sigmoid(6 - 3) + sigmoid(0.5))],
        [2 * (sigmoid(0 + 9) + sigmoid(1.5)), 0.0],
    ]
    assert found.flatten(1).view(2, 2).allclose(torch.tensor(expected))


# Layers.


def attention_parameters(width: int, reduction: int) -> int:
    middle = width // reduction
    squeeze = 2 * width * middle + 2 * middle + 2 * width
    return 2 * squeeze + width + 1


def generator_parameters(widths: list[int], latent: int, side: int) -> int:
    kernels = sum(16 * i * o for i, o in pairwise([3, *widths]))
    head = side * side * widths[-1] * latent
    normal = sum(2 * width for width in widths)
    return 2 * (kernels + head + normal) + sum(attention_parameters(w, 4) for w in widths)


@pytest.mark.parametrize("size", [128, 256])
def test_parameters_counted_by_hand(size):
    widths, side = [64, 128, 256, 512], size // 16
    with torch.device("meta"):
        made, critic = Generator(widths, 100, side, 4), Encoder(widths, 1, side)
    assert parameters(made) == generator_parameters(widths, 100, side)
    kernels = sum(16 * i * o for i, o in pairwise([3, *widths]))
    assert parameters(critic) == kernels + 2 * (128 + 256 + 512) + 512 * side * side
    # The latent vector's two layers are most of it at 256²: 2 · 13.1 M.
    assert parameters(made) / 1e6 == pytest.approx({128: 12.4, 256: 32.1}[size], abs=0.05)


@pytest.mark.parametrize("size", [16, 48, 64])
def test_shapes_and_ranges(size):
    network = Generator([4, 8, 16, 32], 5, size // 16, 4)
    latent, decoded = network(2 * torch.rand(2, 3, size, size) - 1)
    assert (latent.shape, decoded.shape) == ((2, 5, 1, 1), (2, 3, size, size))
    assert -1 < decoded.min() < decoded.max() < 1
    stages = [type(layer).__name__ for layer in network.encoder]
    assert stages == ["Conv2d", "BatchNorm2d", "LeakyReLU", "DualAttention"] * 4 + ["Conv2d"]


@pytest.mark.parametrize("size, fits", [(16, True), (96, True), (24, False), (8, False)])
def test_sizes_that_do_not_fit_are_told(size, fits):
    found = SETTINGS["mscam"].misfit(size)
    assert found is None if fits else f"image.size {size}" in found


# Random Erasing.


def erased(**values) -> torch.Tensor:
    """Which pixels of 200 black images are noise: (200, 32, 32) bool."""
    images = torch.zeros(200, 3, 32, 32)
    made = erase(images, changed("mscam", **values), generator(0))
    assert 0 <= made.min() <= made.max() <= 1
    assert images.count_nonzero() == 0
    return (made > 0).any(1)


def test_rectangles_of_the_asked_area_are_erased():
    found = erased(erasing=1.0, erased=[0.1, 0.3])
    rows, columns = found.any(2), found.any(1)
    assert torch.equal(found, rows.unsqueeze(2) & columns.unsqueeze(1))
    for edges in (rows, columns):  # in one piece
        assert edges.int().diff().clamp(min=0).sum(1).max() <= 1
    shares = found.float().mean((1, 2))
    # To a pixel at each edge, and less where a rectangle is cut to the image.
    assert shares.min() > 0.05 and shares.max() < 0.36
    assert shares.mean().item() == pytest.approx(0.2, abs=0.03)
    aspects = rows.sum(1) / columns.sum(1)
    assert aspects.min() > 0.2 and aspects.max() < 5
    assert aspects.log().mean().abs() < 0.15  # as often lying as standing
    # Anywhere: every row and column is hit now and then, and none always.
    for often in (rows.float().mean(0), columns.float().mean(0)):
        assert 0 < often.min() < often.max() < 0.8


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_some_images_are_erased(share):
    hit = erased(erasing=share).any((1, 2)).float().mean().item()
    assert hit == pytest.approx(share, abs=0.1 if share == 0.5 else 0.0)


def test_erasing_draws_from_its_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert torch.equal(erased(), erased())
    assert torch.equal(torch.get_rng_state(), before)


# Losses.


def test_grey_is_the_luma():
    colours = torch.eye(3).view(3, 3, 1, 1)
    assert grey(colours).flatten().allclose(torch.tensor([0.299, 0.587, 0.114]))
    assert grey(torch.full((1, 3, 1, 1), 0.7)).item() == pytest.approx(0.7)


def test_the_generators_losses_by_hand():
    settings = changed("mscam", adversarial=2.0, contextual=50.0, consistency=3.0)
    images = torch.zeros(1, 3, 4, 4)
    decoded = torch.zeros(1, 3, 4, 4)
    decoded[:, 0] = 0.5  # red by a half everywhere
    made = Pass(images, torch.tensor([[0.0, 1.0]]), decoded, torch.tensor([[2.0, 1.0]]))
    real, matched = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 0.0])
    losses = generator_losses(settings, made, real, matched)
    assert losses["adversarial"].item() == pytest.approx(9 / 3)  # squares
    assert losses["contextual"].item() == pytest.approx(0.5 / 3)  # absolute values
    assert losses["grey"].item() == pytest.approx(0.299 * 0.5)
    slope = gradient_magnitude(torch.full((1, 1, 4, 4), 0.299 * 0.5)).mean().item()
    assert slope > 0  # at the border, beyond which is zero
    assert losses["gradient"].item() == pytest.approx(slope, abs=1e-5)
    assert losses["latent"].item() == pytest.approx(4 / 2)  # squares
    expected = 2 * 3 + 50 * 0.5 / 3 + 3 * (0.1495 + slope + 2)
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)


# Training.


def test_both_networks_move_and_only_the_generator_is_kept(tmp_path):
    detector = detectors.create(changed("mscam", epochs=1, batch=18, lr=1e-3), place())
    history = detector.fit(Images(normals()), run_in(tmp_path))["adversarial"]
    assert set(history[0]) >= {"loss", "grey", "gradient", "latent", "discriminator_loss"}
    after = load_file(tmp_path / "adversarial.ckpt")
    fresh = generator(run_in(tmp_path).stage("adversarial", "").seed)
    widths = [8, 16, 32, 64]
    networks = {"generator": Generator(widths, 8, 2, 4), "discriminator": Encoder(widths, 1, 2)}
    for name, network in networks.items():
        initialise(network, fresh)
        for key, before in network.named_parameters():
            moved = (after[f"module/{name}/{key}"] - before).abs().max().item()
            assert moved == pytest.approx(1e-3, rel=0.02)
    assert {key.partition(".")[0] for key in detector.state_dict()} == {"generator"}


def test_it_overfits_four_images(tmp_path):
    detector = detectors.create(changed("mscam", epochs=100, erasing=0.0), place())
    history = detector.fit(Images(normals(4)), run_in(tmp_path))["adversarial"]
    assert history[-1]["contextual"] < 0.3 * history[0]["contextual"]
    images = detector.machine.images(normals(4))
    assert (detector.reconstruct(images) - images).abs().mean() < 0.05


def test_score_and_map_by_hand(tmp_path):
    detector = detectors.create(SETTINGS["mscam"], place())
    detector.fit(Images(normals()), run_in(tmp_path))
    pixels = defective(3)[0]
    found = detector.scores(Images(pixels))
    with torch.no_grad():
        _, decoded = detector.generator(2 * (pixels / 255) - 1)
    residual = pixels / 255 - (decoded + 1) / 2
    expected = (0.299 * residual[:, 0] + 0.587 * residual[:, 1] + 0.114 * residual[:, 2]).abs()
    assert found.maps.allclose(expected, atol=1e-5)
    assert found.images.allclose(expected.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "gpu"])
def test_the_settings_at_paper_scale(preset):
    found = load(PRESETS / f"{preset}.yaml").detectors["mscam"]
    assert (found.width, found.latent, found.reduction) == (64, 100, 4)
    assert (found.epochs, found.batch, found.lr) == (300, 32, 2e-4)
    assert (found.adversarial, found.contextual) == (1, 50)
