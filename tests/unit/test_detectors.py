"""What every baseline keeps: it tells a defect from a normal image, an image's scores are its own,
the same seed makes the same bytes, also after a kill, and its state is all there is of it."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, TRAINED, changed, defective, normals, place, run_in
from safetensors.torch import load, save

from fader import detectors
from fader.detectors.base import Images
from fader.detectors.reconstruction import build_unet
from fader.errors import FaderError
from fader.evaluation.metrics import auroc
from fader.training import loop
from fader.training.checkpoint import Checkpoint

# Enough to tell a chequered square from stripes.
LONGER = {
    "unet": {"epochs": 6},
    "riad": {"epochs": 6},
    "ganomaly": {"epochs": 120, "batch": 9, "lr": 0.0005},
    "memae": {"epochs": 20},
    "daad": {"epochs": 12},
    "scadn": {"epochs": 20},
    "mscam": {"epochs": 60, "batch": 9},
    "draem": {"epochs": 150, "batch": 6, "lr": 0.003},
    "jnld": {"epochs": 150, "batch": 6, "lr": 0.003},
    "omnial": {"epochs": 100, "batch": 6, "lr": 0.003},
    "pca": {},
}


@pytest.fixture(autouse=True)
def _every_epoch_is_saved_and_reported(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "interactive", lambda: False)


def fitted(name: str, folder: Path, *, seed: int = 1, precision: str = "fp32", **values):
    detector = detectors.create(changed(name, **values), place(precision))
    history = detector.fit(Images(normals()), run_in(folder, seed))
    return detector, history


def contents(detector: torch.nn.Module) -> bytes:
    return save({name: value.contiguous() for name, value in detector.state().items()})


# What they find.


@pytest.mark.parametrize("name", SETTINGS)
def test_a_painted_defect_scores_higher_than_normal_images(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", math.inf)  # it takes time
    detector, _ = fitted(name, tmp_path, **LONGER[name])
    bad, masks = defective()
    good = detector.scores(Images(normals(6, seed=2)))
    found = detector.scores(Images(bad))
    assert found.images.min() > good.images.max()
    assert auroc(found.maps.flatten().numpy(), masks.flatten().numpy()) > 0.9


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_float32_on_the_cpu_finite_and_of_every_image(name, tmp_path):
    detector, _ = fitted(name, tmp_path, precision="bf16")
    found = detector.scores(Images(normals(5)))
    assert (found.maps.shape, found.images.shape) == ((5, 32, 32), (5,))
    for values in (found.maps, found.images):
        assert values.dtype == torch.float32
        assert values.isfinite().all()
    # DAAD's score is standardised, SCADN says how far above the normals an image is.
    assert found.maps.min() >= 0 or name == "scadn"
    assert found.images.min() >= 0 or name in ("scadn", "daad")
    reconstruction = detector.reconstruct(detector.machine.images(normals(2)))
    assert reconstruction.shape == (2, 3, 32, 32)
    assert 0 <= reconstruction.min() <= reconstruction.max() <= 1


@pytest.mark.parametrize("name", SETTINGS)
def test_an_image_scores_the_same_in_any_company(name, tmp_path):
    detector, _ = fitted(name, tmp_path)
    pixels = torch.cat([normals(5, seed=3), defective(4)[0]])
    together = detector.scores(Images(pixels))
    order = torch.tensor([8, 0, 5, 3, 1, 7, 2, 6, 4])
    shuffled = detector.scores(Images(pixels[order]))
    for row in range(len(pixels)):
        alone = detector.scores(Images(pixels[row : row + 1]))
        assert alone.maps[0].allclose(together.maps[row], atol=1e-5)
        assert alone.images[0].allclose(together.images[row], rtol=1e-3, atol=1e-6)
    assert shuffled.maps.allclose(together.maps[order], atol=1e-5)


# Bytes.


# That it holds in bf16 as well follows from the resumed runs below.
@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_seed_makes_the_same_bytes_and_another_does_not(name, tmp_path):
    first, history = fitted(name, tmp_path / "1")
    torch.manual_seed(99)  # what ran before in the process does not matter
    before = torch.get_rng_state()
    detector = detectors.create(SETTINGS[name], place())
    after_create = torch.get_rng_state()
    again = detector.fit(Images(normals()), run_in(tmp_path / "2"))
    assert contents(detector) == contents(first)
    assert again == history
    # The generator of the process is drawn from by create only.
    assert name in ("ganomaly", "mscam") or torch.equal(torch.get_rng_state(), after_create)
    assert name != "pca" or torch.equal(before, after_create)
    other, _ = fitted(name, tmp_path / "3", seed=2)
    assert name == "pca" or contents(other) != contents(first)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_second_fit_starts_anew(name, tmp_path):
    once, _ = fitted(name, tmp_path / "1")
    twice, _ = fitted(name, tmp_path / "2", seed=5)
    twice.fit(Images(normals()), run_in(tmp_path / "3"))
    assert contents(twice) == contents(once)


class Killed(Exception):
    pass


class LastWords(Checkpoint):
    """Saves after the second epoch, and the process dies."""

    def save(self, epoch, *state):
        super().save(epoch, *state)
        if epoch == 2:
            raise Killed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", TRAINED)
def test_killed_and_resumed_makes_the_bytes_of_an_uninterrupted_run(name, precision, tmp_path):
    whole, history = fitted(name, tmp_path / "whole", precision=precision, epochs=4)
    settings = changed(name, epochs=4)
    killed = detectors.create(settings, place(precision))
    with pytest.raises(Killed):
        killed.fit(Images(normals()), run_in(tmp_path / "killed", checkpoint=LastWords))
    resumed = detectors.create(settings, place(precision))
    assert resumed.fit(Images(normals()), run_in(tmp_path / "killed")) == history
    assert contents(resumed) == contents(whole)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_state_is_all_there_is_of_a_detector(name, tmp_path):
    detector, _ = fitted(name, tmp_path)
    other = detectors.create(SETTINGS[name], place())
    other.load(load(contents(detector)))
    pixels = Images(defective(3)[0])
    assert not other.training
    assert torch.equal(other.scores(pixels).maps, detector.scores(pixels).maps)
    assert torch.equal(other.scores(pixels).images, detector.scores(pixels).images)


# Trainings.


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_has_one_stage_ends_in_evaluation_mode_and_its_loss_falls(name, tmp_path):
    detector, history = fitted(name, tmp_path, epochs=10)
    assert not any(module.training for module in detector.modules())
    ((stage, epochs),) = history.items()
    assert [path.name for path in tmp_path.iterdir()] == [f"{stage}.ckpt"]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 11))
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused_in_one_line(name, count, tmp_path):
    detector = detectors.create(SETTINGS[name], place())
    with pytest.raises(FaderError, match=rf"^tiny.*{count} training image\(s\)"):
        detector.fit(Images(normals()[:count]), run_in(tmp_path))


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_that_is_not_finite_says_which_key_to_lower(name, tmp_path):
    with pytest.raises(FaderError, match="not finite in epoch 1; lower the lr"):
        fitted(name, tmp_path, lr=math.inf)


# The plain U-Net.


def test_the_plain_u_net_sees_the_image_itself(tmp_path):
    detector, _ = fitted("unet", tmp_path)
    seen = detector.machine.images(normals(2))
    with torch.no_grad():
        expected = detector.network(seen)
        assert torch.equal(detector.reconstruct(seen), expected)
        # It has no masker: a mask changes nothing.
        hidden = torch.ones(2, 32, 32, dtype=torch.bool)
        assert torch.equal(detector.reconstruct(seen, hidden), expected)


@pytest.mark.parametrize("name", ["unet", "riad"])
def test_the_learning_rate_falls_to_a_tenth_at_five_sixths(name, tmp_path):
    values = {"schedule": "step"} if name == "unet" else {}
    _, history = fitted(name, tmp_path, epochs=6, **values)
    ((_, epochs),) = history.items()
    rates = [epoch["lr"] / SETTINGS[name].lr for epoch in epochs]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.1])


def test_the_plain_u_nets_other_schedule_rises_to_its_rate_and_falls_to_nothing(tmp_path):
    _, history = fitted("unet", tmp_path, epochs=6, schedule="onecycle")
    rates = [epoch["lr"] / SETTINGS["unet"].lr for epoch in history["reconstruction"]]
    assert rates[-1] < 0.1 < 0.9 < max(rates) <= 1
    assert rates[0] < max(rates)


def test_plain_u_net_and_riad_have_ears_network_of_25_86_million_parameters():
    widths = [64, 128, 256, 512, 512]

    def layer(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 2 * outputs  # 3×3 without bias, scale and shift

    levels = list(zip([3, *widths[:-1]], widths, strict=True))
    encoder = sum(layer(i, o) + layer(o, o) for i, o in levels)
    encoder += sum(layer(w, w) for w in widths[:-1])
    decoder = sum(layer(deep, w) for w, deep in pairwise(widths))
    decoder += sum(layer(2 * w, w) + layer(w, w) for w in widths[:-1])
    decoder += 9 * widths[0] * 3 + 3
    context = place()
    wide = type(context)(
        context.machine,
        256,
        context.unet.model_copy(update={"widths": widths}),
        context.loss,
        context.score,
    )
    for name in ("unet", "riad"):
        detector = detectors.create(SETTINGS[name], wide)
        count = sum(parameter.numel() for parameter in detector.parameters())
        assert count == encoder + decoder
        assert count / 1e6 == pytest.approx(25.86, abs=0.005)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_ears_network_is_drawn_from_its_seed_and_from_nothing_else():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_unet(place(), seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = build_unet(place(), seed=7), build_unet(place(), seed=8)
    assert same(first, second)
    assert not same(first, other)
