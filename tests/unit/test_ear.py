"""EAR: what the network sees, what it learns from, and that the same run makes the same bytes."""

import tempfile
from pathlib import Path

import pytest
import torch
from tiny import COUNT, CPU, place, run_in, same, tiny

from fader.config import Config
from fader.detectors import Images
from fader.detectors.ear import Ear
from fader.detectors.reconstruction import anomaly_map
from fader.training import loop
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.mosaic import mosaic


def pixels() -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(COUNT, 3, 8, 8, generator=random)
    return (coarse.repeat_interleave(4, -1).repeat_interleave(4, -2) * 255).to(torch.uint8)


def masks(count: int = COUNT) -> torch.Tensor:
    """The middle of every image."""
    hidden = torch.zeros(count, 32, 32, dtype=torch.bool)
    hidden[:, 8:24, 8:24] = True
    return hidden


def noise() -> torch.Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.randint(256, (COUNT, 3, 32, 32), generator=random, dtype=torch.uint8)


def untrained(config: Config) -> Ear:
    return Ear(place(config), config.ear, 8)


@pytest.fixture
def fit(tmp_path):
    """An EAR fitted on the tiny images, each with a checkpoint of its own, and its losses."""

    def fitted(config, hidden=None, shown=None, run=None):
        detector = untrained(config)
        normal = Images(pixels() if shown is None else shown, masks() if hidden is None else hidden)
        histories = detector.fit(normal, run or run_in(Path(tempfile.mkdtemp(dir=tmp_path))))
        assert list(histories) == ["ear"]
        return detector, histories["ear"]

    return fitted


def test_the_same_run_makes_the_same_bytes(fit, tmp_path):
    first, losses = fit(tiny())
    torch.manual_seed(99)  # what ran before in the process does not matter
    second, again = fit(tiny())
    assert same(first.state(), second.state())
    assert losses == again
    other = Run(2, "ear tiny", lambda stage: Checkpoint(tmp_path / f"{stage}.ckpt", "run"))
    assert not same(first.state(), fit(tiny(), run=other)[0].state())


def test_a_second_fit_starts_anew(fit, tmp_path):
    first, losses = fit(tiny())
    again = first.fit(Images(pixels(), masks()), run_in(tmp_path))
    assert again == {"ear": losses}
    assert same(first.state(), fit(tiny())[0].state())


class Killed(Exception):
    pass


class Dying(Checkpoint):
    """Saves after the second epoch, and the process dies."""

    def save(self, epoch, *state):
        super().save(epoch, *state)
        if epoch == 2:
            raise Killed


def test_killed_and_resumed_is_a_run_that_was_not(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    config = tiny(ear={"epochs": 4})
    whole, losses = fit(config)
    dying = Run(1, "ear tiny", lambda stage: Dying(tmp_path / f"{stage}.ckpt", "run"))
    with pytest.raises(Killed):
        fit(config, run=dying)
    resumed, again = fit(config, run=run_in(tmp_path))
    assert again == losses
    assert same(resumed.state(), whole.state())


def test_losses_are_reported_and_fall(fit):
    _, losses = fit(tiny(ear={"epochs": 12, "lr": 0.01}))
    assert [row["epoch"] for row in losses] == list(range(1, 13))
    assert set(losses[0]) == {"epoch", "step", "lr", "loss", "l2", "ssim", "msgms"}
    for row in losses:
        assert row["loss"] == pytest.approx(row["l2"] + row["ssim"] + row["msgms"], rel=1e-5)
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]


@pytest.mark.parametrize(("schedule", "rates"), [("step", [1] * 5 + [0.1]), ("onecycle", None)])
def test_the_learning_rate_follows_the_schedule(fit, schedule, rates):
    _, losses = fit(tiny(ear={"epochs": 6, "schedule": schedule, "lr": 0.002}))
    found = [row["lr"] / 0.002 for row in losses]
    if rates:
        assert found == pytest.approx(rates)
    else:
        assert found[-1] < 0.1 < max(found) == pytest.approx(1, abs=0.1)


def test_the_scale_matters_only_behind_the_mask(fit):
    nothing = torch.zeros_like(masks())
    fine, coarse = tiny(ear={"scales": [4]}), tiny(ear={"scales": [8]})
    assert same(fit(fine, nothing)[0].state(), fit(coarse, nothing)[0].state())
    states = [fit(config, shown=noise())[0].state() for config in (fine, coarse)]
    assert not same(*states)


def test_reconstruction_sees_the_image_outside_the_mask_and_the_mosaic_inside(fit):
    detector, _ = fit(tiny())
    images = CPU.images(noise()[:2])
    for hidden in (torch.zeros(2, 32, 32), torch.ones(2, 32, 32), masks(2)):
        seen = images.clone()
        inside = hidden.bool().unsqueeze(1).expand_as(seen)
        seen[inside] = mosaic(images, 8)[inside]
        made = detector.reconstruct(images, hidden)
        assert made.allclose(detector.network(seen), atol=1e-6)
        assert made.shape == images.shape
        assert 0 <= made.min() <= made.max() <= 1
    # Two defects with the same cell means look the same behind the mask.
    shuffled = images.clone()
    shuffled[:, :, 8:16, 8:16] = images[:, :, 8:16, 8:16].flip(-1)
    first, second = (detector.reconstruct(x, masks(2)) for x in (images, shuffled))
    assert first.allclose(second, atol=1e-5)


def test_any_scale_may_be_set_after_training(fit):
    detector, _ = fit(tiny())
    images = Images(noise(), masks())
    for scale in (2, 4, 16):
        detector.scale = scale
        seen = CPU.images(noise()).where(~masks().unsqueeze(1), mosaic(CPU.images(noise()), scale))
        expected = anomaly_map(CPU.images(noise()), detector.network(seen), tiny().score)
        assert detector.scores(images).maps.allclose(expected, atol=1e-6)


def test_a_state_is_read_back_frozen(fit):
    detector, _ = fit(tiny())
    other = untrained(tiny())
    other.load(detector.state())
    assert same(other.state(), detector.state())
    for one in (detector, other):
        assert not any(module.training for module in one.modules())
        assert not any(parameter.requires_grad for parameter in one.parameters())
    images = Images(pixels(), masks())
    assert other.scores(images).maps.equal(detector.scores(images).maps)
