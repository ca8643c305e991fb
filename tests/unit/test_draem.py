"""DRAEM and what is built on it: layers counted by hand against the published sizes, losses and
scores against independent ones, fused anomalies and attention worked by hand."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, changed, normals, place, run_in
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from fader import detectors
from fader.config import load
from fader.data import textures
from fader.data.defects.batches import Batch, synthesise
from fader.detectors import Context
from fader.detectors.base import Images
from fader.detectors.draem import Draem, Reconstruction, plain
from fader.detectors.jnld import fuse, label, soften
from fader.detectors.omnial import ChannelAttention, Neck, SpatialAttention
from fader.evaluation.cost import META
from fader.maskers.dsr.networks import focal
from fader.runtime import generator
from fader.vision.jnd import jnd
from fader.vision.losses import ssim, ssim_map

PRESETS = Path(__file__).parents[2] / "presets"
NAMES = ("draem", "jnld", "omnial")
every = pytest.mark.parametrize("name", NAMES)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def published(name: str) -> Draem:
    """With the widths of the paper, without memory for its weights."""
    here = place()
    context = Context(META, 256, here.unet, here.loss, here.score)
    with torch.device("meta"):
        detector = detectors.create(load(PRESETS / "paper.yaml").detectors[name], context)
    assert isinstance(detector, Draem)
    return detector


# Sizes.


def conv(inputs: int, outputs: int, side: int = 3) -> int:
    """Convolution without bias, scale and shift of a normalisation."""
    return side**2 * inputs * outputs + 2 * outputs


def reconstruction(channels: int, w: int = 128, attention: bool = False) -> int:
    def extra(width: int) -> int:
        return 2 * width * (width // 16) + 2 * 49 if attention else 0

    widths = [channels, w, 2 * w, 4 * w, 8 * w, 8 * w]
    count = sum(conv(i, o) + conv(o, o) + extra(o) for i, o in pairwise(widths))
    for i, o in pairwise([8 * w, 4 * w, 2 * w, w, w]):
        count += conv(i, i) + conv(i, i) + conv(i, o) + extra(o)
    return count + 9 * w * channels + channels


def segmentation(channels: int, w: int = 64) -> int:
    widths = [w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w]
    count = sum(conv(i, o) + conv(o, o) for i, o in pairwise([channels, *widths]))
    below = 8 * w
    for o, skip in zip([8 * w, 4 * w, 2 * w, w, w], widths[-2::-1], strict=True):
        count += conv(below, o) + conv(o + skip, o) + conv(o, o)
        below = o
    return count + 9 * w * 2 + 2


def test_draems_networks_have_their_published_sizes():
    detector = published("draem")
    assert parameters(detector.reconstruction) == reconstruction(3)
    assert parameters(detector.segmentation) == segmentation(6)
    assert reconstruction(3) / 1e6 == pytest.approx(69.1, abs=0.1)  # without biases 69.04
    assert segmentation(6) / 1e6 == pytest.approx(28.4, abs=0.05)


def test_jnld_adds_a_channel_to_both():
    detector = published("jnld")
    assert parameters(detector.reconstruction) == reconstruction(4)
    assert parameters(detector.segmentation) == segmentation(8)


def test_omnial_adds_attention_and_necks():
    detector = published("omnial")
    assert parameters(detector.reconstruction) == reconstruction(4, attention=True)
    necks = sum(conv(2 * w, w, side=1) for w in (64, 128, 256, 512, 512, 512))
    assert parameters(detector.segmentation) == segmentation(4) + necks


@pytest.mark.parametrize("preset", ["paper", "gpu"])
@every
def test_the_settings_at_paper_scale(preset, name):
    found = load(PRESETS / f"{preset}.yaml").detectors[name]
    assert (found.width, found.segmentation) == (128, 64)
    assert (found.epochs, found.batch, found.lr) == (700, 8, 1e-4)
    assert found.trained_on == ("perlin",)
    if preset == "paper":
        assert (found.textures.source, found.textures.count) == ("dtd", 5640)


@every
def test_sizes_that_cannot_be_halved_five_times_are_refused(name):
    assert SETTINGS[name].misfit(64) is None
    assert SETTINGS[name].misfit(48).startswith("kind: image.size 48 is no multiple of 32")


def test_the_last_block_of_the_encoder_can_be_another():
    """Where SSPCAB goes."""
    seen: list[tuple[int, int, int]] = []

    def deepest(inputs: int, middle: int, outputs: int) -> nn.Module:
        seen.append((inputs, middle, outputs))
        return plain(inputs, middle, outputs).append(nn.Hardtanh())

    network = Reconstruction(3, 2, plain, deepest)
    assert seen == [(16, 16, 16)]
    assert isinstance(network.encoder.blocks[-1][-1], nn.Hardtanh)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


# Losses and scores.


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


def test_the_focal_loss_is_torchvisions_of_two_classes():
    logits, masks = 4 * drawn(3, 2, 8, 8) - 2, drawn(3, 8, 8, seed=1) < 0.3
    expected = sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], masks.float(), alpha=-1, gamma=2, reduction="mean"
    )
    assert focal(logits, masks).item() == pytest.approx(expected.item(), rel=1e-5)


@every
def test_the_loss_is_the_sum_of_its_parts_over_all_that_is_seen(name):
    detector = detectors.create(SETTINGS[name], place())
    batch = Batch(drawn(2, 3, 32, 32), drawn(2, 3, 32, 32, seed=1), drawn(2, 32, 32) < 0.1)
    losses = detector.losses(batch)
    made, logits = detector(batch.anomalous)
    whole = detector.seen(batch.normal)
    assert made.shape == whole.shape == (2, 3 if name == "draem" else 4, 32, 32)
    assert losses["l2"].item() == pytest.approx((made - whole).square().mean().item(), rel=1e-4)
    assert losses["ssim"].item() == pytest.approx(1 - ssim(made, whole).item(), rel=1e-3)
    assert losses["focal"].item() == pytest.approx(focal(logits, batch.masks).item(), rel=1e-4)
    parts = losses["l2"] + losses["ssim"] + losses["focal"]
    assert losses["loss"].item() == pytest.approx(parts.item(), rel=1e-5)


@every
def test_map_and_score_by_hand(name):
    detector = detectors.create(SETTINGS[name], place()).eval()
    images = drawn(2, 3, 32, 32)
    found = detector.scores(Images((255 * images).round().to(torch.uint8)))
    with torch.no_grad():
        _, logits = detector((255 * images).round() / 255)
        assert detector.reconstruct(images).shape == (2, 3, 32, 32)
    expected = logits.exp()[:, 1] / logits.exp().sum(1)
    assert found.maps.allclose(expected, atol=1e-5)
    # score.smooth is 5: the largest mean of 5 × 5 pixels, beyond the edge zeros.
    windows = F.pad(expected, [2] * 4).unfold(1, 5, 1).unfold(2, 5, 1)
    assert found.images.allclose(windows.mean((3, 4)).amax((1, 2)), atol=1e-5)


def test_it_overfits_four_images(tmp_path):
    detector = detectors.create(changed("draem", epochs=80, batch=4), place())
    history = detector.fit(Images(normals(4)), run_in(tmp_path))["synthesis"]
    first, last = history[0], history[-1]
    assert last["focal"] < 0.5 * first["focal"]
    assert last["l2"] < 0.3 * first["l2"]
    rates = [epoch["lr"] / SETTINGS["draem"].lr for epoch in history]
    assert rates == pytest.approx([1.0] * 64 + [0.2] * 8 + [0.04] * 8)
    images = detector.machine.images(normals(4))
    assert (detector.reconstruct(images) - images).abs().mean() < 0.15


# JNLD.


def test_the_fusion_by_hand():
    images, overlays = drawn(2, 3, 16, 16), drawn(2, 3, 16, 16, seed=1)
    alpha, floor = drawn(2, 16, 16, seed=2), torch.tensor([0.1, 0.6])
    found = fuse(images, overlays, alpha, floor)
    noticed = jnd(images)[1, 0]
    weight = 0.6 + 0.4 * noticed[3, 7] / noticed.max()
    change = alpha[1, 3, 7] * weight * (overlays[1, :, 3, 7] - images[1, :, 3, 7])
    assert found[1, :, 3, 7].allclose(images[1, :, 3, 7] + change, atol=1e-6)
    assert torch.equal(fuse(images, overlays, torch.zeros(2, 16, 16), floor), images)


def test_a_higher_level_is_more_noticeable():
    images, overlays = drawn(2, 3, 16, 16), drawn(2, 3, 16, 16, seed=1)
    whole = torch.ones(2, 16, 16)
    low, high = (fuse(images, overlays, whole, torch.full((2,), f)) - images for f in (0.1, 0.6))
    assert (high.abs() >= low.abs() - 1e-6).all()


@pytest.mark.parametrize("side", [1, 3, 5])
def test_masks_are_softened_by_a_mean(side):
    masks = torch.zeros(1, 9, 9, dtype=torch.bool)
    masks[0, 4, 4] = True
    soft = soften(masks, side)
    assert soft.sum().item() == pytest.approx(1)
    assert (soft > 0).sum() == side**2


def test_labels_are_changed_pixels_that_look_different():
    images = torch.full((1, 3, 40, 40), 0.5)
    anomalous = images.clone()
    anomalous[..., :8, :8] += 0.003  # not to be seen
    anomalous[..., 20:32, 20:32] = 1.0
    found = label(images, anomalous, 0.9)[0]
    assert found[22:30, 22:30].all()
    assert found.sum() == found[20:32, 20:32].sum()


def test_the_map_of_ssim_is_that_of_the_windows():
    one, other = drawn(2, 3, 24, 20), drawn(2, 3, 24, 20, seed=1)
    found = ssim_map(one, other)
    assert found.shape == (2, 24, 20)
    assert found[:, 5:-5, 5:-5].mean().item() == pytest.approx(ssim(one, other).item(), abs=1e-5)
    assert ssim_map(one, one).allclose(torch.ones(2, 24, 20), atol=1e-5)


# OmniAL.


def test_channel_attention_by_hand():
    layer = ChannelAttention(2, 2)
    with torch.no_grad():
        layer.mix[0].weight.copy_(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        layer.mix[2].weight.copy_(torch.tensor([0.5, -1.0]).view(2, 1, 1, 1))
        x = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])  # means 2, −½; maxima 3, 0
        mixed = max(2 - 1, 0) + max(3 + 0, 0)
        expected = x * torch.tensor([0.5 * mixed, -mixed]).sigmoid().view(1, 2, 1, 1)
        assert layer(x).allclose(expected)


def test_spatial_attention_by_hand():
    layer = SpatialAttention()
    with torch.no_grad():
        layer.look.weight.zero_()
        layer.look.weight[0, :, 3, 3] = torch.tensor([2.0, -1.0])  # the pixel itself
        x = torch.tensor([[[[1.0, 4.0]], [[3.0, -2.0]]]])
        weights = torch.tensor([2 * 2.0 - 3, 2 * 1.0 - 4]).sigmoid()
        assert layer(x).allclose(x * weights)


def test_the_neck_sees_features_and_their_absolute_difference():
    neck = Neck(1).eval()
    with torch.no_grad():
        neck.merge[0].weight.copy_(torch.tensor([1.0, 10.0]).view(1, 2, 1, 1))
        found = neck(torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[3.0, 1.0]]]]))
    assert found.flatten().tolist() == pytest.approx([12, 1], rel=1e-4)


# What is painted.


def painted(name: str, seed: int = 0) -> Batch:
    detector = detectors.create(SETTINGS[name], place())
    overlays = textures.generate(6, normals(), 1)
    return synthesise(normals(60), overlays, generator(seed), detector.paint)


@every
def test_half_of_the_images_stay_normal_and_labels_are_where_they_changed(name):
    batch = painted(name)
    change = (batch.anomalous != batch.normal).any(1)
    untouched = ~change.any((1, 2))
    assert 0.3 < untouched.float().mean() < 0.7
    assert batch.masks.any((1, 2)).float().mean() > 0.2
    if name != "draem":  # which labels its masks, seen or not
        assert not (batch.masks & ~change).any()
    assert 0 <= batch.anomalous.min() <= batch.anomalous.max() <= 1


def test_a_panel_has_more_anomalies_than_one_level():
    assert painted("omnial").masks.float().mean() > painted("jnld").masks.float().mean()
