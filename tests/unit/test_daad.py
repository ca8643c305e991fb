"""DAAD: its layers counted by hand, links that are cut, two networks that take turns, and a score
standardised on the fitted normals."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, changed, defective, normals, place, run_in
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from fader import detectors
from fader.config import Daad, load
from fader.detectors.base import Images
from fader.detectors.daad import Network, distance, generator_losses

PRESETS = Path(__file__).parents[2] / "presets"


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def fitted(folder: Path, **values):
    detector = detectors.create(changed("daad", **values), place())
    history = detector.fit(Images(normals()), run_in(folder))
    return detector, history["adversarial"]


# Layers.


def test_parameters_counted_by_hand():
    settings = load(PRESETS / "paper.yaml").detectors["daad"]
    with torch.device("meta"):
        network = Network(settings, 256)
    widths = [64, 128, 256, 512]
    assert settings.widths == widths

    def layer(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 2 * outputs  # 3×3 without bias, scale and shift

    links = list(zip([3, *widths[:-1]], widths, strict=True))
    encoder = sum(layer(i, o) + layer(o, o) for i, o in links)
    encoder += sum(layer(w, w) for w in widths[:-1])
    decoder = sum(layer(deep, w) for w, deep in pairwise(widths))
    decoder += sum(layer(2 * w, w) + layer(w, w) for w in widths[:-1])
    decoder += 9 * widths[0] * 3 + 3
    assert parameters(network.unet) == encoder + decoder
    sides = [256, 128, 64, 32]
    rates = zip(widths, sides, settings.sides, settings.groups, strict=True)
    values = [width * (side // cut) ** 2 // groups for width, side, cut, groups in rates]
    assert parameters(network.memories) == 500 * sum(values)
    # What the card expects of all of it.
    assert 15 <= parameters(network) / 1e6 <= 25


def test_every_level_is_read_from_a_memory_of_its_own():
    settings = changed("daad", sides=[8, 4, 1], groups=[1, 2, 4])
    network = Network(settings, 32)
    decoded, weights = network(torch.rand(2, 3, 32, 32))
    assert decoded.shape == (2, 3, 32, 32)
    assert [len(level) for level in weights] == [2 * 64, 2 * 2 * 16, 2 * 4]
    items = [memory.memory.items for memory in network.memories]
    assert [tuple(level.shape) for level in items] == [
        (12, 8 * 4 * 4),
        (12, 8 * 4 * 4),
        (12, 4 * 8 * 8),
    ]


def test_no_link_passes_by_the_memories():
    detector = detectors.create(SETTINGS["daad"], place())
    images = detector.machine.images(torch.cat([normals(3), defective(3)[0]]))
    with torch.no_grad():
        for memory in detector.network.memories:
            memory.memory.items.copy_(memory.memory.items[:1].expand_as(memory.memory.items))
        first, *others = detector.reconstruct(images)
    assert all(first.allclose(other, atol=1e-6) for other in others)


# Losses.


def test_the_losses_by_hand():
    settings = changed("daad", adversarial=2.0, latent=3.0)
    images, decoded = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [0.0]])
    real, made = torch.ones(2, 2, 1, 1, requires_grad=True), torch.zeros(2, 2, 1, 1)
    made[0] = 3.0
    found = generator_losses(settings, images, decoded, real, made, torch.zeros(2, 1))
    assert found["reconstruction"].item() == pytest.approx(0.125)
    assert found["adversarial"].item() == pytest.approx(math.log(2))
    assert found["latent"].item() == pytest.approx((4 + 1) / 2)
    assert found["loss"].item() == pytest.approx(0.125 + 2 * math.log(2) + 3 * 2.5)
    assert not found["loss"].requires_grad  # features of x are a target
    assert distance(real, made).tolist() == [4, 1]


def test_both_networks_move_and_all_memories(tmp_path):
    detector, history = fitted(tmp_path / "1", epochs=1, lr=1e-3)
    fitted(tmp_path / "2", epochs=2, lr=1e-3)
    before, after = (load_file(tmp_path / number / "adversarial.ckpt") for number in "12")
    moved = {
        key
        for key, value in before.items()
        if key.startswith("module/") and not torch.equal(value, after[key])
    }
    weights = [key for key in moved if key.endswith(("weight", "items"))]
    expected = [
        f"module/{name}/{key}"
        for name, network in (("network", detector.network), ("discriminator", detector.critic))
        for key, _ in network.named_parameters()
        if key.endswith(("weight", "items"))
    ]
    assert sorted(weights) == sorted(expected)
    assert 3 <= history[0]["active"] <= 3 * 12
    assert history[0]["discriminator_loss"] > 0


def test_it_overfits_four_images(tmp_path):
    detector = detectors.create(changed("daad", epochs=80), place())
    history = detector.fit(Images(defective(4)[0]), run_in(tmp_path))["adversarial"]
    assert history[-1]["reconstruction"] < 0.1 * history[0]["reconstruction"]
    assert history[-1]["reconstruction"] < 0.01


def test_finer_blocks_let_the_network_reconstruct_a_defect_better(tmp_path):
    errors = []
    for side in (1, 2, 4):
        detector, _ = fitted(tmp_path / str(side), epochs=8, sides=[side] * 3)
        errors.append(detector.scores(Images(defective()[0])).maps.mean().item())
    assert errors[0] > errors[1] > errors[2]


# Scores.


def test_map_and_score_by_hand_standardised_on_the_fitted_normals(tmp_path):
    detector, _ = fitted(tmp_path)

    def both(pixels: torch.Tensor) -> torch.Tensor:
        seen = pixels / 255
        with torch.no_grad():
            decoded = detector.network(seen)[0]
            real, made = (detector.critic.features(images) for images in (seen, decoded))
        squares = (seen - decoded).square().flatten(1).mean(1)
        return torch.stack([squares, (real - made).square().flatten(1).mean(1)], 1)

    of_normals, pixels = both(normals()), defective(3)[0]
    mean, deviation = of_normals.mean(0), of_normals.std(0, correction=0)
    assert detector.centre.allclose(mean, rtol=1e-3)
    assert detector.spread.allclose(deviation, rtol=1e-2)
    found = detector.scores(Images(pixels))
    expected = ((both(pixels) - mean) / deviation).sum(1)
    assert found.images.allclose(expected, rtol=1e-2)
    # On what it was fitted to, the score is the sum of two that have mean 0.
    assert detector.scores(Images(normals())).images.mean().abs() < 1e-2


def test_scoring_changes_nothing(tmp_path):
    detector, _ = fitted(tmp_path)
    before = {key: value.clone() for key, value in detector.state().items()}
    detector.scores(Images(defective()[0]))
    assert all(torch.equal(value, before[key]) for key, value in detector.state().items())


def test_distances_that_never_differ_do_not_divide_by_zero(tmp_path):
    detector = detectors.create(changed("daad", epochs=2), place())
    detector.fit(Images(normals(1).expand(6, -1, -1, -1)), run_in(tmp_path))
    assert detector.scores(Images(defective(2)[0])).images.isfinite().all()


# Settings.


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sides": [4, 4]}, "sides: give one per level"),
        ({"groups": [2, 2, 2, 2]}, "groups: give one per level"),
        ({"groups": [2, 3, 2]}, "groups: 3 does not divide the width 16"),
    ],
)
def test_a_rate_for_every_level(values, reason):
    with pytest.raises(ValidationError, match=reason):
        Daad(**{**SETTINGS["daad"].model_dump(), **values})


@pytest.mark.parametrize(
    ("values", "size", "reason"),
    [
        ({}, 32, None),
        ({}, 96, None),
        ({}, 36, "widths: image.size 36 cannot be halved 3 times"),
        ({}, 16, "widths: image.size 16 cannot be halved 3 times, to 4 at least"),
        ({"sides": [4, 16, 8]}, 32, None),
        ({"sides": [4, 5, 8]}, 32, "sides: 5 does not divide the 16 pixels"),
        ({"sides": [4, 4, 16]}, 32, "sides: 16 does not divide the 8 pixels"),
    ],
)
def test_images_that_do_not_fit(values, size, reason):
    found = changed("daad", **values).misfit(size)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("preset", ["paper", "gpu"])
def test_the_published_settings(preset):
    found = load(PRESETS / f"{preset}.yaml").detectors["daad"]
    assert (found.slots, found.epochs, found.lr, found.shrinkage) == (500, 200, 1e-4, 1)
    assert 8 <= found.batch <= 16
