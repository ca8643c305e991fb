"""GANomaly: its layers counted by hand, its losses worked by hand, two networks that take turns."""

import math
from pathlib import Path

import pytest
import torch
from detectors_at_hand import SETTINGS, changed, defective, normals, place, run_in
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from fader import detectors
from fader.config import load
from fader.detectors import ganomaly
from fader.detectors.base import Images
from fader.detectors.ganomaly import (
    Encoder,
    Generator,
    Pass,
    channels,
    discriminator_loss,
    generator_losses,
    initialise,
)
from fader.runtime import generator
from fader.seeds import derive_seed
from fader.training import loop

PRESETS = Path(__file__).parents[2] / "presets"


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Layers.


def test_the_pyramid_ends_at_four_pixels_and_512_channels():
    assert channels(32, 64) == [64, 128, 256]
    assert channels(64, 64) == [64, 128, 256, 512]
    assert channels(256, 64) == [64, 128, 256, 512, 512, 512]
    for size in (32, 64, 128, 256, 512):
        widths = channels(size, 2)
        features, outputs = Encoder(widths, 7)(torch.zeros(2, 3, size, size))
        assert (features.shape, outputs.shape) == ((2, widths[-1], 4, 4), (2, 7))


def encoder_parameters(widths: list[int], outputs: int) -> int:
    kernels = sum(16 * i * o for i, o in zip([3, *widths], [*widths, outputs], strict=True))
    return kernels + sum(2 * width for width in widths[1:])  # no normalisation after the first


def decoder_parameters(widths: list[int], latent: int) -> int:
    kernels = sum(16 * i * o for i, o in zip([3, *widths], [*widths, latent], strict=True))
    return kernels + sum(2 * width for width in widths)


@pytest.mark.parametrize("size", [32, 256])
def test_parameters_counted_by_hand(size):
    widths = channels(size, 64)
    with torch.device("meta"):
        made, critic = Generator(widths, 100), Encoder(widths, 1)
    assert parameters(made) == 2 * encoder_parameters(widths, 100) + decoder_parameters(widths, 100)
    assert parameters(critic) == encoder_parameters(widths, 1)
    # At the size of the reference, number by number.
    if size == 32:
        assert parameters(critic) == 3072 + 131072 + 524288 + 4096 + 256 + 512


def test_without_the_limit_of_512_the_parameters_are_those_of_the_reference_at_256_pixels():
    doubling = [64 << level for level in range(6)]
    with torch.device("meta"):
        made, critic = Generator(doubling, 100), Encoder(doubling, 1)
    assert parameters(made) / 1e6 == pytest.approx(144, abs=0.5)
    assert parameters(critic) / 1e6 == pytest.approx(44.7, abs=0.05)


def test_fresh_weights_are_those_of_dcgan():
    network = Generator(channels(64, 64), 100)
    initialise(network, generator(0))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.bias is None
            assert module.weight.mean().item() == pytest.approx(0, abs=2e-3)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.bias.count_nonzero() == 0
    again = Generator(channels(64, 64), 100)
    initialise(again, generator(0))
    pairs = zip(network.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


# Losses.


def test_the_generators_losses_by_hand():
    settings = changed("ganomaly", adversarial=2.0, contextual=50.0, latent_weight=3.0)
    made = Pass(
        images=torch.tensor([1.0, -1.0]),
        latent=torch.tensor([[0.0, 1.0]]),
        decoded=torch.tensor([0.5, 0.0]),
        again=torch.tensor([[2.0, 1.0]]),
    )
    real, decoded = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 0.0])
    losses = generator_losses(settings, made, real, decoded)
    assert losses["adversarial"].item() == pytest.approx(9 / 3)  # squares
    assert losses["contextual"].item() == pytest.approx((0.5 + 1) / 2)  # absolute values
    assert losses["latent"].item() == pytest.approx(4 / 2)  # squares
    assert losses["loss"].item() == pytest.approx(2 * 3 + 50 * 0.75 + 3 * 2)


def test_the_discriminators_loss_by_hand():
    undecided = torch.zeros(3, 1)
    assert discriminator_loss(undecided, undecided).item() == pytest.approx(math.log(2))
    # σ(log 3) = 3/4: right about the real one by that, about the decoded one likewise.
    sure = torch.tensor([[math.log(3)]])
    assert discriminator_loss(sure, -sure).item() == pytest.approx(-math.log(3 / 4))
    assert discriminator_loss(-sure, -sure).item() == pytest.approx(
        -(math.log(1 / 4) + math.log(3 / 4)) / 2
    )


def test_both_ends_of_the_latent_loss_are_trained_and_the_discriminator_is_not():
    widths = channels(32, 4)
    network, critic = Generator(widths, 8), Encoder(widths, 1)
    seen = 2 * torch.rand(4, 3, 32, 32, generator=generator(0)) - 1
    made = Pass(seen, *network(seen))
    real, _ = critic(seen)
    losses = generator_losses(SETTINGS["ganomaly"], made, real, critic(made.decoded)[0])
    for part in ("latent", "adversarial"):
        reached = torch.autograd.grad(
            losses[part],
            [network.encoder.head.weight, network.decoder[0].weight],
            retain_graph=True,
        )
        assert all(gradient.abs().max() > 0 for gradient in reached)
    (second,) = torch.autograd.grad(losses["latent"], network.second.head.weight, retain_graph=True)
    assert second.abs().max() > 0
    # Matching moves the decoded image's features towards the real ones, never these.
    assert real.requires_grad
    assert torch.autograd.grad(losses["adversarial"], real, allow_unused=True) == (None,)


# Training.


def one_step(folder: Path, **values) -> tuple[dict, dict[str, torch.Tensor]]:
    """Losses and final weights of a training of one step on eight images."""
    detector = detectors.create(changed("ganomaly", epochs=1, batch=8, **values), place())
    history = detector.fit(Images(normals(8)), run_in(folder))
    return history["adversarial"][0], load_file(folder / "adversarial.ckpt")


def at_the_start() -> tuple[Generator, Encoder, torch.Tensor, torch.Generator]:
    """The two networks of that training before its step, its batch, and its generator after the
    order was drawn."""
    stage = derive_seed(run_in(Path()).seed, "adversarial")
    widths, fresh = channels(32, 8), generator(stage)
    network, critic = Generator(widths, 8).train(), Encoder(widths, 1).train()
    initialise(network, fresh)
    initialise(critic, fresh)
    random = generator(derive_seed(stage, "epoch", "0"))
    order = torch.randperm(8, generator=random)
    return network, critic, 2 * (normals(8)[order] / 255) - 1, random


def test_a_steps_losses_are_those_of_the_networks_written_out(tmp_path):
    losses, _ = one_step(tmp_path)
    network, critic, seen, _ = at_the_start()
    z = network.encoder.head(network.encoder.features(seen))
    decoded = network.decoder(z)
    again = network.second.head(network.second.features(decoded))
    features = critic.features(seen), critic.features(decoded)
    adversarial = (features[0] - features[1]).square().mean().item()
    contextual = (seen - decoded).abs().mean().item()
    latent = (z - again).square().mean().item()
    assert losses["adversarial"] == pytest.approx(adversarial, rel=1e-3)
    assert losses["contextual"] == pytest.approx(contextual, rel=1e-4)
    assert losses["latent"] == pytest.approx(latent, rel=1e-3)
    assert losses["loss"] == pytest.approx(adversarial + 50 * contextual + latent, rel=1e-4)
    real, false = critic.head(features[0]).sigmoid(), critic.head(features[1]).sigmoid()
    crossed = F.binary_cross_entropy(real, torch.ones_like(real))
    crossed = crossed + F.binary_cross_entropy(false, torch.zeros_like(false))
    assert losses["discriminator_loss"] == pytest.approx(crossed.item() / 2, rel=1e-3)


def test_both_networks_move_and_at_the_same_rate(tmp_path):
    _, after = one_step(tmp_path, lr=1e-3)
    network, critic, *_ = at_the_start()
    for name, module in (("generator", network), ("discriminator", critic)):
        for key, before in module.named_parameters():
            moved = (after[f"module/{name}/{key}"] - before).abs()
            # The first step of Adam is as long as the rate, whatever the gradient.
            assert moved.max().item() == pytest.approx(1e-3, rel=0.02)


def test_only_the_generator_is_kept(tmp_path):
    detector = detectors.create(SETTINGS["ganomaly"], place())
    detector.fit(Images(normals()), run_in(tmp_path))
    assert {key.partition(".")[0] for key in detector.state_dict()} == {"generator"}


def test_a_discriminator_that_has_won_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(ganomaly, "RESTART", 100.0)  # any loss is below: it has won
    _, restarted = one_step(tmp_path / "restarted")
    monkeypatch.setattr(ganomaly, "RESTART", 0.0)
    _, went_on = one_step(tmp_path / "went on")
    network, critic, _, random = at_the_start()
    initialise(critic, random)
    for key, fresh in critic.named_parameters():
        assert torch.equal(restarted[f"module/discriminator/{key}"], fresh)
        assert not torch.equal(went_on[f"module/discriminator/{key}"], fresh)
    for key, _ in network.named_parameters():
        name = f"module/generator/{key}"
        assert torch.equal(restarted[name], went_on[name])


def test_restarts_are_the_same_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(ganomaly, "RESTART", 0.69)  # some steps, not all
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    runs = []
    for epochs in ((4,), (2, 4)):
        folder = tmp_path / str(len(epochs))
        for count in epochs:
            detector = detectors.create(changed("ganomaly", epochs=count), place())
            detector.fit(Images(normals()), run_in(folder))
        runs.append(load_file(folder / "adversarial.ckpt"))
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(value, runs[1][key]) for key, value in runs[0].items())


# Scores.


def test_score_and_map_by_hand(tmp_path):
    detector = detectors.create(SETTINGS["ganomaly"], place())
    detector.fit(Images(normals()), run_in(tmp_path))
    pixels = defective(3)[0]
    found = detector.scores(Images(pixels))
    with torch.no_grad():
        z, decoded, again = detector.generator(2 * (pixels / 255) - 1)
    assert found.images.allclose(((z - again) ** 2).mean(1), rtol=1e-3)
    expected = (pixels / 255 - (decoded + 1) / 2).abs().mean(1)
    assert found.maps.allclose(expected, atol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "gpu"])
def test_the_published_settings(preset):
    found = load(PRESETS / f"{preset}.yaml").detectors["ganomaly"]
    assert (found.latent, found.width, found.epochs, found.batch) == (100, 64, 15, 64)
    assert (found.lr, found.adversarial, found.contextual, found.latent_weight) == (2e-4, 1, 50, 1)
