"""FADeR and its variants: the masks by hand, Φ and the training step against independent ones, and
what must not change: the frozen encoder, the outcome of a grid point, the bytes of a run."""

import copy
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from fader.config import PROPOSED, Config, Variant, parse
from fader.detectors import ear, fader
from fader.detectors.fader import (
    FrozenFeatures,
    Mlp,
    Point,
    Predictor,
    Vit,
    arrange,
    feature_mask,
    predictor,
    soft_mask,
)
from fader.errors import FaderError
from fader.pipeline import artifacts
from fader.runtime import Machine, generator
from fader.seeds import derive_seed
from fader.training import loop as training
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.losses import reconstruction_loss
from fader.vision.mosaic import obfuscate, patch_l2, tokens
from fader.vision.unet import LEAK, UNet

CI = Path(__file__).parents[2] / "presets/ci.yaml"
CPU = Machine(torch.device("cpu"), "fp32")
PATCH, COUNT, GRID = 8, 12, 4


def variant(**changes: str) -> Variant:
    """FADeR as proposed, but for ``changes``."""
    return Variant(role="ablation", grid="own", **PROPOSED | changes)


VARIANTS = {
    "soft": variant(),
    "hard": variant(mask="hard"),
    "shuffled": variant(mask="shuffled"),
    "constant": variant(mask="constant"),
    "none": variant(mask="none"),
    "sigmoid": variant(normalise="sigmoid"),
    "quantile": variant(normalise="quantile"),
    "twopass": variant(input="reconstruction"),
    "bilinear": variant(scaling="bilinear"),
    "vit": variant(predictor="vit"),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)
# One of every path through the code, where all of them would take long.
some_variants = pytest.mark.parametrize("name", ["soft", "none", "quantile", "twopass", "vit"])


PRESET = yaml.safe_load(CI.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """As the preset says: on images this small, more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(PRESET["runtime"]["threads"])
    yield
    torch.set_num_threads(threads)


def tiny(**changes) -> Config:
    """The ci preset at 32 × 32 pixels; ``changes`` go into its fader section."""
    values = copy.deepcopy(PRESET)
    values["image"]["size"] = 32
    values["unet"]["widths"] = [4, 8, 8]
    values["fader"] |= {"epochs": 2, "batch": 4, "hidden": 16, "lrs": [0.01, 0.001]} | changes
    return parse(values, "tiny")


def pixels() -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(COUNT, 3, 8, 8, generator=random)
    fine = torch.rand(COUNT, 3, 32, 32, generator=random)
    images = 0.8 * coarse.repeat_interleave(4, -1).repeat_interleave(4, -2) + 0.2 * fine
    return (images * 255).to(torch.uint8)


def masks() -> torch.Tensor:
    return torch.rand(COUNT, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.4


def seen() -> torch.Tensor:
    """I′ of the tiny images."""
    return obfuscate(CPU.images(pixels()), masks(), PATCH)


@cache
def _pretrained() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    network = ear.build(tiny(), CPU)
    for _ in range(5):
        network(CPU.images(pixels()))
    return network.state_dict()


def pretrained() -> UNet:
    """An EAR whose batch normalisation has seen images: running statistics are not the initial
    ones."""
    return ear.build(tiny(), CPU, _pretrained())


def untrained(name: str, config: Config | None = None) -> Predictor:
    torch.manual_seed(3)
    return predictor(config or tiny(), PATCH, VARIANTS[name]).eval()


def brightness(normalise: str) -> Predictor:
    """Φ that predicts the mean of a patch."""
    body = Mlp(PATCH, 1)
    nn.init.constant_(body[0].weight, 1 / (3 * PATCH**2))
    nn.init.zeros_(body[0].bias)
    nn.init.ones_(body[2].weight)
    nn.init.zeros_(body[2].bias)
    return Predictor(body, normalise).eval()


def patchwork(levels: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, 32, 32) of evenly grey patches from levels (B, 16)."""
    grid = levels.view(-1, 1, GRID, GRID).expand(-1, 3, -1, -1)
    return grid.repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)


def run_in(path) -> Run:
    """A training of seed 1 whose stages save themselves where ``path`` of their name says."""
    return Run(1, "fader tiny", lambda stage: Checkpoint(path(stage), "run"))


@pytest.fixture
def fit(tmp_path):
    """``fader.fit`` on the tiny images, each call with checkpoints of its own."""
    runs = iter(range(1000))

    def run(config, *points, name="soft", network=None, hidden=None, shown=None, **changes):
        settings = {
            "patch": PATCH,
            "variant": VARIANTS[name],
            "points": points or [Point(0.01, "fixed")],
            "validate": lambda reconstruct: {"value": 0.5},
            "watch": lambda reconstruct: [0.0],
            "run": run_in(lambda stage: tmp_path / f"{next(runs)}.ckpt"),
        }
        shown = pixels() if shown is None else shown
        hidden = masks() if hidden is None else hidden
        network = network or pretrained()
        return fader.fit(config, CPU, network, shown, hidden, **settings | changes)

    return run


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


# The mask


def test_soft_mask_by_hand():
    predicted = torch.tensor([[1.0, 3.0, 2.0, 5.0], [-4.0, -2.0, -3.0, -4.0]])
    # Row 1: (1, 3, 2, 5) → (0, 1/2, 1/4, 1) → flipped; row 2: (0, 1, 1/2, 0) → flipped.
    expected = torch.tensor([[1.0, 0.5, 0.75, 0.0], [1.0, 0.0, 0.5, 1.0]])
    assert soft_mask(predicted).allclose(expected)
    assert brightness("minmax").soft_mask(predicted).equal(soft_mask(predicted))


def test_nothing_is_attenuated_where_predictions_are_equal():
    level = torch.tensor([[2.0, 2.0, 2.0], [0.0, 1e-8, 0.0], [0.0, 1.0, 0.5]])
    assert soft_mask(level).tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0.5]]


@examples(max_examples=25, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.integers(1, 9))
def test_soft_mask_properties(values, scale):
    predicted = torch.tensor([values], dtype=torch.float32)
    mask = soft_mask(predicted)
    assert 0 <= mask.min() <= mask.max() == 1
    if len(set(values)) > 1:
        assert mask[0, predicted.argmax()] == 0
        assert mask[0, predicted.argmin()] == 1
    order = predicted[0].argsort(stable=True)
    assert (mask[0, order].diff() <= 0).all()
    # Φ's outputs are ranks: neither their unit nor their origin means anything.
    assert soft_mask(predicted * scale + 3).allclose(mask, atol=1e-5)


def test_sigmoid_mask_by_hand():
    predicted = torch.tensor([[0.0, math.log(3), -math.log(3)], [50.0, -50.0, 0.0]])
    # σ(ln 3) = 3 / (3 + 1).
    expected = torch.tensor([[0.5, 0.25, 0.75], [0.0, 1.0, 0.5]])
    assert brightness("sigmoid").soft_mask(predicted).allclose(expected)


def test_quantile_mask_by_hand():
    phi = brightness("quantile")
    # The 1 % and 99 % quantiles of 0, 1, …, 100 are 1 and 99: M_S = 1 and 0.
    phi.calibrate(torch.arange(101.0).view(1, -1))
    assert phi.range.tolist() == pytest.approx([1, 99])
    mask = phi.soft_mask(torch.tensor([[1.0, 99.0, 50.0, 25.5], [-7.0, 0.0, 100.0, 1e6]]))
    assert mask.allclose(torch.tensor([[1.0, 0.0, 0.5, 0.75], [1.0, 1.0, 0.0, 0.0]]))
    # While training, the batch stands for the normals and what was stored does not matter.
    batch = torch.arange(202.0).view(2, -1) / 2.01
    low, high = np.quantile(batch, [0.01, 0.99])
    expected = 1 - ((batch - low) / (high - low)).clamp(0, 1)
    assert phi.train().soft_mask(batch).allclose(expected.float(), atol=1e-6)
    assert phi.range.tolist() == pytest.approx([1, 99])


@pytest.mark.parametrize("normalise", ["minmax", "sigmoid", "quantile"])
def test_only_minmax_looks_at_the_images_other_patches(normalise):
    phi = brightness(normalise)
    levels = torch.linspace(0.3, 0.7, 16).view(1, -1)
    other = levels.clone()
    other[0, 5] = 0.9
    first, second = (
        feature_mask(pretrained(), phi, patchwork(x), variant(normalise=normalise), CPU).flatten()
        for x in (levels, other)
    )
    rest = torch.arange(16) != 5
    assert first[5] > second[5]
    assert first[rest].allclose(second[rest], atol=1e-6) == (normalise != "minmax")


def test_arranged_masks_by_hand():
    mask = torch.tensor([[1.0, 0.5, 0.75, 0.0], [0.25, 1.0, 0.0, 0.75]])
    made = {name: arrange(mask, v, generator(5)) for name, v in VARIANTS.items()}
    assert made["soft"].equal(mask)
    assert made["hard"].tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    assert made["constant"].tolist() == [[0.5625] * 4, [0.5] * 4]
    order = torch.randperm(4, generator=torch.Generator().manual_seed(5))
    assert order.tolist() != [0, 1, 2, 3]
    assert made["shuffled"].equal(torch.stack([mask[0][order], mask[1][order]]))


@every_variant
def test_arranging_a_mask_draws_nothing_that_others_would_miss(name):
    random = generator(5)
    state = random.get_state()
    arrange(torch.rand(2, 16), VARIANTS[name], random)
    assert random.get_state().equal(state)


def test_feature_mask_is_laid_out_like_the_patches():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 24:32] = 1  # row 1, column 3 of the grid
    expected = torch.ones(1, GRID, GRID)
    expected[0, 1, 3] = 0
    mask = feature_mask(pretrained(), brightness("minmax"), images, VARIANTS["soft"], CPU)
    assert mask.equal(expected)


def test_variants_of_the_mask():
    network, phi, images = pretrained(), untrained("soft"), torch.rand(5, 3, 32, 32)
    made = {
        name: feature_mask(network, phi, images, VARIANTS[name], CPU)
        for name in ("soft", "hard", "shuffled", "constant", "none", "bilinear")
    }
    soft = made["soft"]
    assert soft.shape == (5, GRID, GRID)
    assert not soft.requires_grad
    assert made["none"] is None
    assert made["bilinear"].equal(soft)
    assert set(made["hard"].unique().tolist()) == {0, 1}
    assert made["hard"].bool().equal(soft > 0.5)
    mean = soft.mean((1, 2), keepdim=True)
    assert made["constant"].allclose(mean.expand(5, GRID, GRID))
    assert len(made["constant"].unique()) == 5


def test_shuffling_is_one_permutation_for_every_image_whatever_its_batch():
    network, phi, images = pretrained(), untrained("soft"), torch.rand(5, 3, 32, 32)
    soft, shuffled = (
        feature_mask(network, phi, images, VARIANTS[name], CPU) for name in ("soft", "shuffled")
    )
    assert shuffled.mean((1, 2)).allclose(soft.mean((1, 2)))
    # All values of the first image differ, so they tell where each patch went.
    before, after = soft.flatten(1), shuffled.flatten(1)
    order = (after[0][:, None] == before[0]).int().argmax(1)
    assert sorted(order.tolist()) == list(range(GRID**2))
    assert order.tolist() != sorted(order.tolist())
    assert after.equal(before[:, order])
    for part in (images[:1], images[3:]):
        alone = feature_mask(network, phi, part, VARIANTS["shuffled"], CPU).flatten(1)
        plain = feature_mask(network, phi, part, VARIANTS["soft"], CPU).flatten(1)
        assert alone.equal(plain[:, order])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "none"])
def test_the_mask_of_an_image_does_not_depend_on_its_batch_mates(name):
    network, phi, images = pretrained(), untrained(name), seen()
    together = feature_mask(network, phi, images, VARIANTS[name], CPU)
    alone = feature_mask(network, phi, images[4:5], VARIANTS[name], CPU)
    # Convolutions round differently in a batch of one.
    torch.testing.assert_close(together[4:5], alone, atol=1e-4, rtol=0)


# The second pass


def test_of_two_passes_the_first_is_unmasked_and_phi_reads_what_it_makes():
    network, phi, images = pretrained(), untrained("twopass"), seen()
    before = copy.deepcopy(network.state_dict())
    reconstruct = fader.reconstruct(network, phi, PATCH, VARIANTS["twopass"], CPU)
    with torch.no_grad():
        made = feature_mask(network, phi, images, VARIANTS["twopass"], CPU)
        first = network(images)
        expected = soft_mask(phi(first)).view(-1, GRID, GRID)
        assert made.allclose(expected, atol=1e-5)
        assert not made.allclose(feature_mask(network, phi, images, VARIANTS["soft"], CPU))
        again = reconstruct(CPU.images(pixels()), masks())
        assert again.allclose(network(images, expected), atol=1e-5)
    assert same(before, network.state_dict())


def test_two_passes_depend_on_the_decoder_and_one_does_not():
    phi, images, one, other = untrained("soft"), seen(), pretrained(), pretrained()
    with torch.no_grad():
        other.decoder.head.weight.mul_(-1)
    for name, alike in (("soft", True), ("twopass", False)):
        made = [feature_mask(n, phi, images, VARIANTS[name], CPU) for n in (one, other)]
        assert made[0].equal(made[1]) == alike


@pytest.mark.parametrize("name", ["soft", "twopass"])
def test_the_decoders_statistics_count_the_masked_pass_alone(fit, name):
    network = pretrained()
    key = "blocks.0.0.1.num_batches_tracked"
    start = int(network.decoder.state_dict()[key])
    (outcome,) = fit(tiny(epochs=3), name=name, network=network)
    assert int(outcome.weights[f"decoder.{key}"]) == start + 3 * COUNT // 4


def test_scaling_reaches_the_decoder():
    network, phi, images = pretrained(), untrained("soft"), CPU.images(pixels())
    with torch.no_grad():
        mask = feature_mask(network, phi, seen(), VARIANTS["soft"], CPU)
        made = {
            name: fader.reconstruct(network, phi, PATCH, VARIANTS[name], CPU)(images, masks())
            for name in ("soft", "bilinear")
        }
        assert made["soft"].allclose(network(seen(), mask, "nearest"), atol=1e-6)
        assert made["bilinear"].allclose(network(seen(), mask, "bilinear"), atol=1e-6)
    assert not made["soft"].allclose(made["bilinear"], atol=1e-4)


# The predictor


def test_mlp_is_two_linear_layers_on_raw_patches():
    phi, images = untrained("soft"), torch.randn(2, 3, 32, 32)
    assert [tuple(p.shape) for p in phi.parameters()] == [(16, 192), (16,), (1, 16), (1,)]
    first, second = phi.body[0], phi.body[2]
    hidden = tokens(images, PATCH) @ first.weight.T + first.bias
    hidden = torch.where(hidden > 0, hidden, LEAK * hidden)
    expected = (hidden @ second.weight.T + second.bias).squeeze(-1)
    assert phi(images).shape == (2, GRID**2)
    assert phi(images).allclose(expected, atol=1e-5)


def transformer(weights: dict[str, torch.Tensor], images, patch: int, heads: int):
    """A pre-norm vision transformer without class token, written out (Dosovitskiy et al. 2021)."""

    def linear(name: str, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    embedding = weights["body.patch_embed.proj.weight"].flatten(1)
    x = tokens(2 * images - 1, patch) @ embedding.T + weights["body.patch_embed.proj.bias"]
    x = x + weights["body.pos_embed"]
    batch, count, width = x.shape
    depth = sum(key.endswith("norm1.weight") for key in weights)
    for block in (f"body.blocks.{i}" for i in range(depth)):
        q, k, v = (
            part.view(batch, count, heads, width // heads).transpose(1, 2)
            for part in linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
        )
        attention = (q @ k.transpose(-1, -2) / math.sqrt(width // heads)).softmax(-1)
        mixed = (attention @ v).transpose(1, 2).reshape(batch, count, width)
        x = x + linear(f"{block}.attn.proj", mixed)
        hidden = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + linear(f"{block}.mlp.fc2", hidden)
    return linear("head", norm("body.norm", x)).squeeze(-1)


@pytest.mark.parametrize("patch", [4, 8])
def test_vit_is_a_plain_vision_transformer_over_the_patches(patch):
    torch.manual_seed(0)
    vit, images = Vit(size=32, patch=patch, width=12, depth=2, heads=3), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for parameter in vit.parameters():  # fresh ones have no bias and hardly any attention
            parameter.add_(0.2 * torch.randn_like(parameter))
        made = vit(images)
        expected = transformer(vit.state_dict(), images, patch, heads=3)
    assert made.shape == (2, (32 // patch) ** 2)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "others"), [("soft", False), ("vit", True)])
def test_patches_see_each_other_in_the_vit_only(name, others):
    phi, images = untrained(name), torch.rand(2, 3, 32, 32)
    changed = images.clone()
    changed[0, :, 8:16, 16:24] = 0  # patch 1 × 4 + 2
    with torch.no_grad():
        before, after = phi(images), phi(changed)
    assert before.shape == (2, GRID**2)
    assert before[1].allclose(after[1], atol=1e-6)
    moved = (before[0] - after[0]).abs() > 1e-6
    assert moved[6]
    assert int(moved.sum()) == (GRID**2 if others else 1)


def test_a_vits_tokens_are_its_own_or_the_mosaics():
    vit = {"width": 12, "depth": 1, "heads": 3, "backbone": None}
    for patch, expected in ((4, 4), (16, 16), (None, PATCH)):
        phi = untrained("vit", tiny(vit=vit | {"patch": patch}))
        assert phi.patch == expected
        mask = feature_mask(pretrained(), phi, seen(), VARIANTS["vit"], CPU)
        assert mask.shape == (COUNT, 32 // expected, 32 // expected)


# The training step


def flipped(p: torch.Tensor) -> torch.Tensor:
    low, high = p.min(1, keepdim=True).values, p.max(1, keepdim=True).values
    return 1 - (p - low) / (high - low)


def between_quantiles(p: torch.Tensor) -> torch.Tensor:
    low, high = p.quantile(0.01), p.quantile(0.99)
    return 1 - ((p - low) / (high - low)).clip(0, 1)


def shuffled(p: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    # The pairs of later steps must not notice: what is drawn here is put back.
    state = random.get_state()
    order = torch.randperm(GRID**2, generator=random)
    random.set_state(state)
    return flipped(p)[:, order]


# Predictions (B, n) and the generator to M_S (B, n), written out.
ATTENUATION = {
    "soft": lambda p, random: flipped(p),
    "hard": lambda p, random: (flipped(p) > 0.5).float(),
    "shuffled": shuffled,
    "constant": lambda p, random: flipped(p).mean(1, keepdim=True).repeat(1, GRID**2),
    "sigmoid": lambda p, random: 1 - p.sigmoid(),
    "quantile": lambda p, random: between_quantiles(p),
    "twopass": lambda p, random: flipped(p),
    "vit": lambda p, random: flipped(p),
}


def plain_phi(config: Config, name: str):
    """(modules drawn as Φ's are, Φ as a function of images)."""
    torch.manual_seed(derive_seed(1, "phi"))
    if name == "vit":
        settings = config.fader.vit
        vit = Vit(32, settings.patch, settings.width, settings.depth, settings.heads)
        return vit, vit
    hidden = config.fader.hidden
    mlp = nn.Sequential(nn.Linear(3 * PATCH**2, hidden), nn.LeakyReLU(LEAK), nn.Linear(hidden, 1))
    return mlp, lambda images: mlp(tokens(images, PATCH)).squeeze(-1)


def reference(config: Config, network: UNet, lr: float, name: str):
    """FADeR's training written out: two optimisers, each on its own loss alone, so that neither
    loss can reach the other's weights."""
    settings = config.fader
    images, obfuscated = pixels().float() / 255, seen()
    module, phi = plain_phi(config, name)
    decoder = copy.deepcopy(network.decoder)
    decoder.train().requires_grad_(True)
    tuner = torch.optim.Adam(decoder.parameters(), 0.1 * lr, fused=True)
    ranker = torch.optim.Adam(module.parameters(), lr, fused=True)
    losses = []
    for epoch in range(settings.epochs):
        random = generator(derive_seed(1, "epoch", str(epoch)))
        order = torch.randperm(COUNT, generator=random)
        for batch in order.split(settings.batch):
            first, second = torch.randperm(GRID**2, generator=random).view(2, -1)
            with torch.no_grad():
                skips, deepest = network.encoder(obfuscated[batch])
                read = obfuscated[batch]
                if name == "twopass":
                    read = copy.deepcopy(decoder).eval()(skips, deepest)
            mask = None
            if name != "none":
                predicted = phi(read)
                mask = ATTENUATION[name](predicted.detach(), random).view(-1, GRID, GRID)
            output = decoder(skips, deepest, mask)
            parts = reconstruction_loss(images[batch], output, scales=config.loss.scales)
            tuner.zero_grad()
            parts["loss"].backward()
            tuner.step()
            row = [parts["loss"].item()]
            if name != "none":
                error = (images[batch] - output.detach()).square().mean(1)
                error = F.avg_pool2d(error, PATCH).flatten(1)
                worse = torch.where(error[:, first] > error[:, second], 1.0, -1.0)
                apart = worse * (predicted[:, first] - predicted[:, second])
                rank = F.relu(settings.margin - apart).mean()
                ranker.zero_grad()
                rank.backward()
                ranker.step()
                row.append(rank.item())
            losses.append(row)
    return decoder, module, losses


@pytest.mark.parametrize("name", ["none", *ATTENUATION])
def test_training_is_that_of_two_separate_optimisers(fit, name):
    config = tiny(epochs=3)
    network = pretrained()
    decoder, phi, losses = reference(config, network, 0.01, name)
    (outcome,) = fit(config, Point(0.01, "fixed"), name=name, network=network)
    for prefix, module in (("decoder", decoder), ("phi.body", phi)):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(
                outcome.weights[f"{prefix}.{key}"], value, atol=1e-6, rtol=1e-5
            )
    steps = len(losses) // 3
    for epoch, row in enumerate(outcome.history):
        parts = torch.tensor(losses[epoch * steps : (epoch + 1) * steps]).mean(0)
        assert row["loss"] == pytest.approx(parts.sum().item(), rel=1e-4)
        assert ("rank" in row) == (name != "none")
        if name != "none":
            assert row["rank"] == pytest.approx(parts[1].item(), rel=1e-3)


def test_all_variants_see_the_same_order_and_draw_the_same_numbers(fit, monkeypatch):
    train, drawn = training.train, {}

    def recorded(stage, **settings):
        step, rows = settings["step"], drawn.setdefault(name, [])

        def recording(indices, random, update):
            step(indices, random, update)
            rows.append((indices.tolist(), random.get_state().tolist()))

        return train(stage, **settings | {"step": recording})

    monkeypatch.setattr(fader, "train", recorded)
    for name in VARIANTS:  # the ViT's grid is the mosaic's here
        fit(tiny(), name=name)
    assert len(drawn["soft"]) == 2 * COUNT // 4
    assert all(rows == drawn["soft"] for rows in drawn.values())


def test_without_a_mask_phi_stays_as_it_was_drawn(fit):
    (outcome,) = fit(tiny(), name="none")
    torch.manual_seed(derive_seed(1, "phi"))
    for key, value in predictor(tiny(), PATCH, VARIANTS["none"]).state_dict().items():
        assert outcome.weights[f"phi.{key}"].equal(value)


def test_phi_learns_to_rank_patches_by_their_error(fit):
    # The image is seen whole, and a decoder that starts near grey errs by a patch's contrast to
    # grey, dark or bright: the error is a function of what Φ sees, not a linear one. The
    # decoder hardly moves, so the target stands still.
    random = torch.Generator().manual_seed(2)
    shown = (patchwork(torch.rand(COUNT, GRID**2, generator=random)) * 255).to(torch.uint8)
    nothing = torch.zeros(COUNT, 32, 32, dtype=torch.bool)
    images, found = CPU.images(shown), []

    def validate(reconstruct):
        with torch.no_grad():
            found.append(patch_l2(images, reconstruct(images, nothing), PATCH))
        return {"value": 0.5}

    def correlation(phi) -> float:
        with torch.no_grad():
            predicted = phi(images)
        return (
            sum(spearmanr(p, e).statistic for p, e in zip(predicted, found[-1], strict=True)) / 12
        )

    config = tiny(epochs=60, decoder_ratio=0.001)
    (outcome,) = fit(config, validate=validate, shown=shown, hidden=nothing)
    torch.manual_seed(derive_seed(1, "phi"))
    before = correlation(predictor(config, PATCH, VARIANTS["soft"]))
    trained = fader.load(pretrained(), outcome.weights, PATCH, VARIANTS["soft"], config, CPU)
    assert abs(before) < 0.3
    assert correlation(trained) > 0.8


def test_a_vit_with_tokens_of_its_own_is_trained_on_their_errors(fit):
    config = tiny(vit={"patch": 4, "width": 12, "depth": 1, "heads": 3, "backbone": None})
    (outcome,) = fit(config, name="vit")
    assert all(math.isfinite(row["rank"]) for row in outcome.history)
    phi = fader.load(pretrained(), outcome.weights, PATCH, VARIANTS["vit"], config, CPU)
    assert phi(seen()).shape == (COUNT, 64)


def test_the_quantile_range_is_that_of_all_fitted_normals(fit):
    (outcome,) = fit(tiny(), name="quantile")
    phi = fader.load(pretrained(), outcome.weights, PATCH, VARIANTS["quantile"], tiny(), CPU)
    with torch.no_grad():
        expected = np.quantile(phi(seen()).double().numpy(), [0.01, 0.99])
        assert phi.range.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
        mask = phi.soft_mask(phi(seen()))
    # One percent of the normals' patches lies beyond each end: 12 · 16 · 1 % ≈ 2.
    assert [(mask == 0).sum(), (mask == 1).sum()] == [2, 2]


# Pre-trained weights of the ViT


def backbone(width: int = 12, patch: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(123)
    return Vit(32, patch, width, depth=1, heads=3).body.state_dict()


SMALL = {"patch": 8, "width": 12, "depth": 1, "heads": 3, "backbone": None}


def test_a_vit_starts_from_the_weights_it_is_given(fit):
    config, given = tiny(vit=SMALL), backbone()
    # At a rate this small, training leaves the weights where they started.
    still = Point(1e-9, "fixed")
    (begun,) = fit(config, still, name="vit", initial=given)
    (drawn,) = fit(config, still, name="vit")
    for key, value in given.items():
        assert begun.weights[f"phi.body.body.{key}"].allclose(value, atol=1e-6)
    moved = "phi.body.body.blocks.0.attn.qkv.weight"
    assert not drawn.weights[moved].allclose(begun.weights[moved], atol=1e-3)
    head = "phi.body.head.weight"
    assert drawn.weights[head].allclose(begun.weights[head], atol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        backbone(width=24),
        backbone(patch=4),
        {key: value for key, value in backbone().items() if key != "pos_embed"},
        backbone() | {"blocks.1.norm1.weight": torch.ones(12)},
    ],
    ids=["width", "patch", "missing", "deeper"],
)
def test_weights_that_do_not_fit_end_in_one_line(fit, given):
    with pytest.raises(
        FaderError, match=r"^fader\.vit: its backbone's weights do not fit"
    ) as error:
        fit(tiny(vit=SMALL), name="vit", initial=given)
    assert "\n" not in str(error.value)
    assert "set patch, width, depth and heads" in str(error.value)


# What is watched


def probe(reconstruct) -> list[float]:
    """The mean of the first three reconstructions."""
    with torch.no_grad():
        return reconstruct(CPU.images(pixels()[:3]), masks()[:3]).mean((1, 2, 3)).tolist()


@some_variants
def test_what_is_watched_is_recorded_after_every_epoch(fit, name):
    calls, last = [], []

    def watch(reconstruct):
        calls.append(probe(reconstruct))
        return calls[-1]

    def validate(reconstruct):
        last.append(probe(reconstruct))
        return {"value": 0.5}

    (outcome,) = fit(tiny(epochs=3), name=name, watch=watch, validate=validate)
    assert len(calls) == 3
    assert outcome.watched.shape == (3, 3)
    assert outcome.watched.equal(torch.tensor(calls))
    assert len({tuple(row) for row in calls}) == 3
    # What is validated is the system of the last epoch.
    assert calls[-1] == last[0]
    expected = {"epoch", "lr", "loss", "l2", "ssim", "msgms"} | (
        {"rank"} if name != "none" else set()
    )
    assert [set(row) for row in outcome.history] == [expected] * 3
    assert training.history_csv(outcome.history).count("\n") == 4


@some_variants
def test_watching_decides_nothing(fit, name):
    (watched,) = fit(tiny(), name=name, watch=probe)
    (blind,) = fit(tiny(), name=name, watch=lambda reconstruct: [])
    assert same(watched.weights, blind.weights)
    assert watched.history == blind.history
    assert blind.watched.shape == (2, 0)


class Killed(Exception):
    pass


@every_variant
def test_killed_and_resumed_is_a_run_that_was_not(fit, tmp_path, monkeypatch, name):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    config = tiny()
    (whole,) = fit(config, name=name, watch=probe)
    kept, calls = run_in(lambda stage: tmp_path / "killed.ckpt"), []

    def watch(reconstruct):
        calls.append(probe(reconstruct))
        if len(calls) == 2:
            raise Killed
        return calls[-1]

    with pytest.raises(Killed):
        fit(config, name=name, watch=watch, run=kept)
    (resumed,) = fit(config, name=name, watch=watch, run=kept)
    assert len(calls) == 2 + 1  # only epoch 2 is done again
    assert resumed.watched.equal(whole.watched)
    assert resumed.history == whole.history
    assert same(resumed.weights, whole.weights)
    (finished,) = fit(config, name=name, watch=watch, run=kept)
    assert len(calls) == 3
    assert finished.watched.equal(whole.watched)
    assert same(finished.weights, whole.weights)


# What must not change


@every_variant
def test_the_same_run_makes_the_same_bytes_and_load_gives_back_what_was_validated(
    fit, tmp_path, name
):
    images, given = CPU.images(pixels()), []

    def validate(reconstruct):
        with torch.no_grad():
            given.append(reconstruct(images, masks()))
        return {"value": 0.5}

    (first,) = fit(tiny(epochs=1), name=name, validate=validate)
    torch.manual_seed(99)
    (second,) = fit(tiny(epochs=1), name=name, validate=validate)
    assert same(first.weights, second.weights)
    assert first.history == second.history
    assert all(math.isfinite(value) for value in first.history[0].values())
    assert given[0].equal(given[1])
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for path, outcome in zip(paths, (first, second), strict=True):
        artifacts.write_tensors(path, outcome.weights, artifacts.Header("fader", {}, {}, {}))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    network = pretrained()
    phi = fader.load(network, artifacts.read_tensors(paths[0]), PATCH, VARIANTS[name], tiny(), CPU)
    modules = [*network.modules(), *phi.modules()]
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad for module in modules for p in module.parameters())
    with torch.no_grad():
        again = fader.reconstruct(network, phi, PATCH, VARIANTS[name], CPU)(images, masks())
    assert again.equal(given[0])


def test_every_variant_ends_elsewhere(fit):
    made = {name: fit(tiny(epochs=1), name=name)[0].weights for name in VARIANTS}
    heads = {name: tuple(w["decoder.head.weight"].flatten().tolist()) for name, w in made.items()}
    assert len(set(heads.values())) == len(VARIANTS)


@some_variants
def test_the_pretrained_network_is_left_alone(fit, name):
    network = pretrained()
    before = copy.deepcopy(network.state_dict())
    (outcome,) = fit(tiny(), name=name, network=network)
    # Batch normalisation's running statistics are in the state too.
    assert any(key.endswith("running_mean") for key in before)
    assert same(before, network.state_dict())
    tuned = outcome.weights["decoder.head.weight"]
    assert not tuned.equal(before["decoder.head.weight"])
    moved = "decoder.blocks.0.0.1.running_mean"
    assert not outcome.weights[moved].equal(before[moved])


@pytest.mark.parametrize("batch", [1, 4, 11, 16])  # 12 images: 11 would leave a batch of one
def test_cached_features_are_the_recomputed_ones(batch):
    encoder = pretrained().encoder
    cached = FrozenFeatures(encoder, seen(), CPU, batch=batch, limit=2**30)
    recomputed = FrozenFeatures(encoder, seen(), CPU, batch=batch, limit=0)
    assert cached.cached is not None
    assert recomputed.cached is None
    for indices in (torch.tensor([3, 4]), torch.tensor([11, 0, 5]), torch.randperm(COUNT)):
        (skips, deepest), (again, deepest_again) = cached[indices], recomputed[indices]
        assert len(skips) == len(again) == 2
        for a, b in zip([*skips, deepest], [*again, deepest_again], strict=True):
            assert a.equal(b)
            assert not a.requires_grad


def test_cache_limit_counts_every_feature():
    # Widths 4, 8, 8 at 32², 16², 8², four bytes each.
    size = COUNT * 4 * (4 * 32**2 + 8 * 16**2 + 8 * 8**2)
    encoder = pretrained().encoder
    for limit, kept in ((size, True), (size - 1, False)):
        features = FrozenFeatures(encoder, seen(), CPU, batch=4, limit=limit)
        assert (features.cached is not None) == kept


@pytest.mark.parametrize("name", ["soft", "twopass", "vit"])
def test_the_cache_changes_no_result(fit, name):
    (cached,), (recomputed,) = fit(tiny(), name=name), fit(tiny(cache_gib=0.0), name=name)
    assert same(cached.weights, recomputed.weights)
    assert cached.history == recomputed.history


def test_grid_order():
    settings = tiny(lrs=[0.01, 0.001], schedules=["fixed", "sgdr"]).fader
    assert fader.grid(settings) == [
        *(Point(0.01, "fixed"), Point(0.01, "sgdr")),
        *(Point(0.001, "fixed"), Point(0.001, "sgdr")),
    ]


def test_outcomes_do_not_depend_on_the_other_points(fit):
    points = fader.grid(tiny(schedules=["fixed", "warmup"], warmup_epochs=2).fader)
    config = tiny(warmup_epochs=2)
    together = {outcome.point: outcome for outcome in fit(config, *points)}
    backwards = {outcome.point: outcome for outcome in fit(config, *reversed(points))}
    assert list(together) == points
    for point in points:
        (alone,) = fit(config, point)
        for other in (together[point], backwards[point]):
            assert same(alone.weights, other.weights)
            assert alone.history == other.history
    assert len({outcome.history[-1]["loss"] for outcome in together.values()}) == len(points)


def test_every_point_is_validated_with_its_own_network(fit):
    images, values = CPU.images(pixels()), iter([0.25, 0.75])
    given = []

    def validate(reconstruct):
        with torch.no_grad():
            given.append(reconstruct(images, masks()))
        return {"value": next(values)}

    first, second = fit(tiny(), Point(0.01, "fixed"), Point(0.001, "fixed"), validate=validate)
    assert (first.validation, second.validation) == ({"value": 0.25}, {"value": 0.75})
    assert not given[0].equal(given[1])
