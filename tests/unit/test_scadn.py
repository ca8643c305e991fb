"""SCADN: the published stripes, layers counted by hand, losses worked by hand, scores by scale."""

import math
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, changed, defective, normals, place, run_in
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from fader import detectors
from fader.config import Scadn, load
from fader.detectors.base import Images
from fader.detectors.scadn import (
    Block,
    Discriminator,
    Generator,
    Reflect,
    generator_losses,
    stripes,
)
from fader.training import loop

PRESETS = Path(__file__).parents[2] / "presets"


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Masks.


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [32, 256])
def test_the_masks_of_a_scale_are_two_pairs_of_complementary_stripes(size, bands):
    masks = stripes(size, bands)
    assert (masks.shape, masks.dtype) == ((4, size, size), torch.bool)
    assert masks.sum((1, 2)).tolist() == [size * size // 2] * 4  # half of the image each
    lying, other_lying, standing, other_standing = masks
    assert torch.equal(lying, ~other_lying)
    assert torch.equal(standing, ~other_standing)
    assert torch.equal(standing, lying.T)
    across = lying[:, 0]
    assert torch.equal(lying, across.view(-1, 1).expand(size, size))  # all columns are alike
    assert across[0] and not across[-1]
    # Hidden, seen, hidden, …: twice as many stripes as bands, all as wide.
    edges = across.int().diff().nonzero().flatten() + 1
    assert edges.tolist() == [size // (2 * bands) * i for i in range(1, 2 * bands)]


def test_four_scales_make_the_sixteen_published_masks():
    masks = torch.cat([stripes(32, bands) for bands in (1, 2, 4, 8)])
    assert len({mask.numpy().tobytes() for mask in masks}) == 16


@pytest.mark.parametrize(
    "size, values, reason",
    [
        (64, {"bands": [3]}, "bands: 3 "),
        (40, {"bands": [2, 8]}, "bands: 8 "),
        (20, {"bands": [1]}, "no multiple of 8"),
        (16, {"bands": [2]}, "from 24 on"),
        (24, {"bands": [1, 2]}, None),
        (96, {"bands": [8]}, None),
    ],
)
def test_sizes_that_do_not_fit_are_told(size, values, reason):
    found = changed("scadn", **values).misfit(size)
    assert found is None if reason is None else reason in found


# Layers.


def generator_parameters(width: int, blocks: int) -> int:
    deepest = 8 * width
    ends = 7 * 7 * 3 * width * 2 + 3
    pairs = [(width << level) * (width << level + 1) for level in range(3)]
    return ends + (4 * 4 + 3 * 3) * sum(pairs) + blocks * 2 * 3 * 3 * deepest**2


def discriminator_parameters(width: int) -> int:
    return 4 * 4 * (3 * width + (2 + 8 + 32) * width**2 + 8 * width)


def test_parameters_are_the_cards_42_and_2_8_million():
    with torch.device("meta"):
        made = Generator(64, 8)
    critic = Discriminator(64)
    assert parameters(made) == generator_parameters(64, 8)
    assert parameters(critic) == discriminator_parameters(64)
    assert parameters(made) / 1e6 == pytest.approx(42.1, abs=0.05)
    assert parameters(critic) / 1e6 == pytest.approx(2.76, abs=0.005)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_shapes_and_ranges(size):
    images = torch.rand(2, 3, size, size)
    made = Generator(4, 1)(images)
    assert made.shape == images.shape
    assert 0 < made.min() < made.max() < 1
    assert Discriminator(4)(images).shape == (2, 1, size // 8 - 2, size // 8 - 2)


def test_the_generators_layers_are_those_of_the_card():
    with torch.device("meta"):
        network = Generator(64, 8)
    kinds = [type(layer) for layer in network]
    down = [layer for layer in network if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in down] == [
        (64, 128, (4, 4)),
        (128, 256, (4, 4)),
        (256, 512, (4, 4)),
    ]
    assert kinds.count(Block) == 8
    assert kinds.count(nn.Upsample) == 3
    assert all(layer.mode == "nearest" for layer in network if isinstance(layer, nn.Upsample))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    block = network[kinds.index(Block)]
    first, second = (layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    assert (first.dilation, second.dilation) == ((2, 2), (1, 1))


@pytest.mark.parametrize("edge", [1, 2, 3])
def test_reflection_is_torchs(edge):
    x = torch.rand(2, 3, 5, 7, requires_grad=True)
    found, expected = Reflect(edge)(x), F.pad(x, (edge,) * 4, mode="reflect")
    assert torch.equal(found, expected)
    weights = torch.rand(found.shape)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    assert gradients[0].allclose(gradients[1])


def test_the_discriminators_weights_have_unit_norm():
    torch.manual_seed(0)
    network = Discriminator(8).train()
    with torch.no_grad():
        for _ in range(30):
            network(torch.rand(2, 3, 32, 32))
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 5
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=0.05)


# Losses.


def test_the_generators_losses_by_hand():
    settings = changed("scadn", hidden=4.0, adversarial=0.5)
    images = torch.zeros(1, 3, 1, 4)
    made = torch.tensor([1.0, 2.0, 3.0, 0.0]).expand(1, 3, 1, 4)
    hidden = torch.tensor([True, False, False, False]).view(1, 1, 1, 4)
    judged = torch.tensor([[[[0.0]]], [[[math.log(3)]]]])
    losses = generator_losses(settings, images, made, hidden, judged)
    assert losses["hidden"].item() == pytest.approx(1 / 4)
    assert losses["seen"].item() == pytest.approx((4 + 9) / 4)
    # −log σ(0) = log 2, −log σ(log 3) = log 4/3.
    adversarial = (math.log(2) + math.log(4 / 3)) / 2
    assert losses["adversarial"].item() == pytest.approx(adversarial)
    expected = (13 / 4 + 4 / 4) / (1 / 4) + 0.5 * adversarial
    assert losses["loss"].item() == pytest.approx(expected)


# Training.


def test_only_the_generator_and_the_normal_errors_are_kept(tmp_path):
    detector = detectors.create(SETTINGS["scadn"], place())
    detector.fit(Images(normals()), run_in(tmp_path))
    assert {key.partition(".")[0] for key in detector.state_dict()} == {"generator", "normal"}


def test_both_networks_move_each_at_its_rate_and_so_do_the_norms(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    states = []
    for epochs in (1, 2):  # the second resumes from the first
        settings = changed("scadn", epochs=epochs, batch=18, lr=1e-3, discriminator_lr=1e-4)
        detectors.create(settings, place()).fit(Images(normals()), run_in(tmp_path))
        states.append(load_file(tmp_path / "adversarial.ckpt"))
    before, after = states
    moved = {key: (after[key] - before[key]).abs().max().item() for key in before}
    for network, rate in (("generator", 1e-3), ("discriminator", 1e-4)):
        weights = [v for k, v in moved.items() if f"/{network}/" in k and k.endswith(("ht", "al0"))]
        assert all(0 < value < 10 * rate for value in weights)
    vectors = [key for key in before if key.endswith(("_u", "_v"))]
    assert len(vectors) == 2 * 5
    # That of one output is ±1.
    assert all(moved[key] > 0 for key in vectors if before[key].numel() > 1)


def test_it_overfits_four_images(tmp_path):
    settings = changed("scadn", epochs=80)
    detector = detectors.create(settings, place())
    history = detector.fit(Images(normals(4)), run_in(tmp_path))["adversarial"]
    last = sum(epoch["hidden"] for epoch in history[-10:]) / 10
    assert last < 0.2 * history[0]["hidden"]


# Scores.


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    settings = changed("scadn", epochs=8)
    detector = detectors.create(settings, place())
    detector.fit(Images(normals()), run_in(tmp_path_factory.mktemp("scadn")))
    return detector


def errors_written_out(detector, pixels: torch.Tensor) -> torch.Tensor:
    """(N, scales, 32, 32): of each image and scale the largest error behind the four masks."""
    images = pixels / 255
    found = torch.zeros(len(images), len(detector.settings.bands), 32, 32)
    for scale, bands in enumerate(detector.settings.bands):
        for mask in stripes(32, bands):
            seen = images.clone()
            seen[:, :, mask] = 1
            with torch.no_grad():
                errors = ((detector.generator(seen) - images) ** 2).mean(1)
            errors[:, ~mask] = 0
            found[:, scale] = torch.maximum(found[:, scale], errors)
    return found


def test_the_normal_errors_are_those_of_the_fitted_normals_alone(fitted):
    expected = errors_written_out(fitted, normals()).mean((0, 2, 3))
    assert fitted.normal.allclose(expected, rtol=1e-3)
    before = fitted.normal.clone()
    fitted.scores(Images(defective()[0]))
    assert torch.equal(fitted.normal, before)


def test_score_and_map_by_hand(fitted):
    pixels = torch.cat([defective(3)[0], normals(3, seed=4)])
    found = fitted.scores(Images(pixels))
    excess = errors_written_out(fitted, pixels) - fitted.normal.view(-1, 1, 1)
    of_scales = excess.mean((2, 3))
    assert found.images.allclose(of_scales.amax(1), atol=1e-6)
    for row, scale in enumerate(of_scales.argmax(1)):
        assert found.maps[row].allclose(excess[row, scale], atol=1e-5)


def test_every_pixel_of_the_reconstruction_comes_from_passes_that_did_not_see_it(fitted):
    images = fitted.machine.images(normals(1))
    made = []
    for masks in fitted.masks:
        for hidden in masks:
            completed = fitted.complete(images, hidden[None, None])
            # What was hidden changes nothing.
            other = torch.where(hidden, 1 - images, images)
            assert torch.equal(fitted.complete(other, hidden[None, None]), completed)
            made.append(torch.where(hidden, completed, torch.nan))
    assert fitted.reconstruct(images).allclose(torch.stack(made).nanmean(0), atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "gpu"])
def test_the_published_settings(preset):
    found = load(PRESETS / f"{preset}.yaml").detectors["scadn"]
    assert isinstance(found, Scadn)
    assert (found.bands, found.width, found.blocks) == ([2, 4, 8], 64, 8)
    assert (found.epochs, found.batch, found.lr, found.discriminator_lr) == (200, 4, 1e-4, 1e-5)
    assert (found.hidden, found.adversarial) == (4, 0.001)
