"""EAR: what the network sees, what it learns from, and that the same run makes the same bytes."""

import copy
from pathlib import Path

import pytest
import torch
import yaml

from fader.config import Config, parse
from fader.detectors import ear
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Stage
from fader.vision.mosaic import mosaic

CI = Path(__file__).parents[2] / "presets/ci.yaml"
CPU = Machine(torch.device("cpu"), "fp32")


def tiny(**changes) -> Config:
    """The ci preset at 32 × 32 pixels; ``changes`` go into its ear section."""
    values = yaml.safe_load(CI.read_text(encoding="utf-8"))
    values["image"]["size"] = 32
    values["unet"]["widths"] = [4, 8, 8]
    values["ear"] |= {"epochs": 2, "batch": 4, "scales": [4, 8]} | changes
    return parse(values, "tiny")


def pixels(count: int = 12) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=random)
    return (coarse.repeat_interleave(4, -1).repeat_interleave(4, -2) * 255).to(torch.uint8)


def masks(count: int = 12) -> torch.Tensor:
    hidden = torch.zeros(count, 32, 32, dtype=torch.bool)
    hidden[:, 8:24, 8:24] = True
    return hidden


@pytest.fixture
def fit(tmp_path):
    """``ear.fit`` on the tiny images, each call with a checkpoint of its own."""
    runs = iter(range(100))

    def run(config, hidden=None, seed=1, shown=None):
        checkpoint = Checkpoint(tmp_path / f"{next(runs)}.ckpt", "run")
        return ear.fit(
            config,
            CPU,
            pixels() if shown is None else shown,
            masks() if hidden is None else hidden,
            stage=Stage("ear tiny", seed, checkpoint, "lower ear.lr"),
        )

    return run


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(x.equal(b.state_dict()[name]) for name, x in a.state_dict().items())


def test_the_same_run_makes_the_same_bytes(fit):
    first, losses = fit(tiny())
    torch.manual_seed(99)  # what ran before in the process does not matter
    second, again = fit(tiny())
    assert same_weights(first, second)
    assert losses == again
    assert not same_weights(first, fit(tiny(), seed=2)[0])


def test_losses_are_reported_and_fall(fit):
    network, losses = fit(tiny(epochs=12, lr=0.01))
    assert network.training
    assert [row["epoch"] for row in losses] == list(range(1, 13))
    assert set(losses[0]) == {"epoch", "lr", "loss", "l2", "ssim", "msgms"}
    for row in losses:
        assert row["loss"] == pytest.approx(row["l2"] + row["ssim"] + row["msgms"], rel=1e-5)
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]


def test_the_scale_matters_only_behind_the_mask(fit):
    nothing = torch.zeros_like(masks())
    fine, coarse = tiny(scales=[4]), tiny(scales=[8])
    assert same_weights(fit(fine, nothing)[0], fit(coarse, nothing)[0])
    shown = torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(3))
    shown = shown.to(torch.uint8)
    assert not same_weights(fit(fine, shown=shown)[0], fit(coarse, shown=shown)[0])


def test_reconstruction_sees_the_image_outside_the_mask_and_the_mosaic_inside(fit):
    trained, _ = fit(tiny())
    network = ear.build(tiny(), CPU, trained.state_dict())
    images = CPU.images(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    with torch.no_grad():
        for hidden in (torch.zeros(2, 32, 32), torch.ones(2, 32, 32), masks(2)):
            seen = images.clone()
            inside = hidden.bool().unsqueeze(1).expand_as(seen)
            seen[inside] = mosaic(images, 8)[inside]
            given = ear.reconstruct(network, 8, CPU)(images, hidden)
            assert given.allclose(network(seen), atol=1e-6)
            assert given.shape == images.shape
            assert 0 <= given.min() <= given.max() <= 1
        # Two defects with the same cell means look the same behind the mask.
        shuffled = images.clone()
        shuffled[:, :, 8:16, 8:16] = images[:, :, 8:16, 8:16].flip(-1)
        first, second = (ear.reconstruct(network, 8, CPU)(x, masks(2)) for x in (images, shuffled))
        assert first.allclose(second, atol=1e-5)


def test_build_gives_back_what_was_trained_frozen(fit):
    trained, _ = fit(tiny())
    state = copy.deepcopy(trained.state_dict())
    network = ear.build(tiny(), CPU, state)
    assert same_weights(network, trained)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    images = CPU.images(pixels(2))
    with torch.no_grad():
        assert network(images).allclose(trained.eval()(images), atol=1e-6)
