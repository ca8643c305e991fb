"""FADeR's mask: M_S by hand, its variants, Φ against independent ones, and the second pass."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tiny import (
    COUNT,
    CPU,
    GRID,
    PATCH,
    VARIANTS,
    masks,
    patchwork,
    pixels,
    pretrained,
    seen,
    tiny,
    untrained,
)
from torch import nn
from torch.nn import functional as F

from fader.detectors.fader import Fader
from fader.detectors.fader.predictor import Mlp, Predictor, Vit, soft_mask
from fader.runtime import Machine, generator
from fader.vision.mosaic import tokens
from fader.vision.unet import LEAK

BF16 = Machine(torch.device("cpu"), "bf16")
every_variant = pytest.mark.parametrize("name", VARIANTS)
masked_variants = pytest.mark.parametrize("name", [name for name in VARIANTS if name != "none"])


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def brightness(normalise: str) -> Predictor:
    """Φ that predicts the mean of a patch."""
    body = Mlp(PATCH, 1)
    nn.init.constant_(body[0].weight, 1 / (3 * PATCH**2))
    nn.init.zeros_(body[0].bias)
    nn.init.ones_(body[2].weight)
    nn.init.zeros_(body[2].bias)
    return Predictor(body, normalise).eval()


def of_brightness(name: str = "soft") -> Fader:
    detector = untrained(name)
    detector.phi = brightness(VARIANTS[name].normalise)
    return detector


# M_S of predictions


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


# The mask on the skips


@pytest.mark.parametrize("name", ["soft", "sigmoid", "quantile"])
def test_only_minmax_looks_at_the_images_other_patches(name):
    detector = of_brightness(name)
    levels = torch.linspace(0.3, 0.7, 16).view(1, -1)
    other = levels.clone()
    other[0, 5] = 0.9
    first, second = (detector.feature_mask(patchwork(x)).flatten() for x in (levels, other))
    rest = torch.arange(16) != 5
    assert first[5] > second[5]
    assert first[rest].allclose(second[rest], atol=1e-6) == (name != "soft")


def test_arranged_masks_by_hand():
    mask = torch.linspace(0, 1, 2 * GRID**2).view(2, -1)
    mask[0, 3] = 1  # each image has its own mean
    made = {name: untrained(name).arrange(mask, generator(5)) for name in VARIANTS}
    assert all(arranged.shape == (2, GRID, GRID) for arranged in made.values())
    made = {name: arranged.flatten(1) for name, arranged in made.items()}
    assert made["soft"].equal(mask)
    assert made["hard"].tolist() == [[float(v > 0.5) for v in row] for row in mask.tolist()]
    means = [sum(row) / len(row) for row in mask.tolist()]
    assert made["constant"].allclose(torch.tensor(means).view(2, 1).expand_as(mask))
    order = torch.randperm(GRID**2, generator=torch.Generator().manual_seed(5))
    assert order.tolist() != list(range(GRID**2))
    assert made["shuffled"].equal(torch.stack([mask[0][order], mask[1][order]]))


@every_variant
def test_arranging_a_mask_draws_nothing_that_others_would_miss(name):
    random = generator(5)
    state = random.get_state()
    untrained(name).arrange(torch.rand(2, GRID**2), random)
    assert random.get_state().equal(state)


def test_feature_mask_is_laid_out_like_the_patches():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 24:32] = 1  # row 1, column 3 of the grid
    expected = torch.ones(1, GRID, GRID)
    expected[0, 1, 3] = 0
    assert of_brightness().feature_mask(images).equal(expected)


def test_variants_of_the_mask():
    images = torch.rand(5, 3, 32, 32)
    names = ("soft", "hard", "shuffled", "constant", "none", "bilinear")
    made = {name: untrained(name).feature_mask(images) for name in names}
    soft = made["soft"]
    assert soft.shape == (5, GRID, GRID)
    assert made["none"] is None
    assert made["bilinear"].equal(soft)
    assert set(made["hard"].unique().tolist()) == {0, 1}
    assert made["hard"].bool().equal(soft > 0.5)
    mean = soft.mean((1, 2), keepdim=True)
    assert made["constant"].allclose(mean.expand(5, GRID, GRID))
    assert len(made["constant"].unique()) == 5


@masked_variants
def test_the_mask_carries_no_gradient(name):
    with torch.enable_grad():
        assert not untrained(name).feature_mask(seen()).requires_grad


def test_shuffling_is_one_permutation_for_every_image_whatever_its_batch():
    images = torch.rand(5, 3, 32, 32)
    plain, mixed = untrained("soft"), untrained("shuffled")
    before, after = (d.feature_mask(images).flatten(1) for d in (plain, mixed))
    # All values of the first image differ, so they tell where each patch went.
    order = (after[0][:, None] == before[0]).int().argmax(1)
    assert sorted(order.tolist()) == list(range(GRID**2))
    assert order.tolist() != sorted(order.tolist())
    assert after.equal(before[:, order])
    for part in (images[:1], images[3:]):
        alone = mixed.feature_mask(part).flatten(1)
        assert alone.equal(plain.feature_mask(part).flatten(1)[:, order])


@masked_variants
def test_the_mask_of_an_image_does_not_depend_on_its_batch_mates(name):
    detector, images = untrained(name), seen()
    together, alone = detector.feature_mask(images), detector.feature_mask(images[4:5])
    # Convolutions round differently in a batch of one.
    torch.testing.assert_close(together[4:5], alone, atol=1e-4, rtol=0)


@every_variant
def test_figures_show_the_mask_that_was_on_the_skips(name):
    detector = untrained(name)
    shown = detector.explain(CPU.images(pixels()), masks())["soft_mask"]
    expected = torch.ones(COUNT, GRID, GRID) if name == "none" else detector.feature_mask(seen())
    assert shown.equal(expected)


# The second pass


def test_of_two_passes_the_first_is_unmasked_and_phi_reads_what_it_makes():
    detector, network, images = untrained("twopass"), pretrained().network, seen()
    before = copy.deepcopy(detector.state_dict())
    made = detector.feature_mask(images)
    expected = soft_mask(detector.phi(network(images))).view(-1, GRID, GRID)
    assert made.allclose(expected, atol=1e-5)
    assert not made.allclose(untrained("soft").feature_mask(images))
    again = detector.reconstruct(CPU.images(pixels()), masks())
    assert again.allclose(network(images, expected), atol=1e-5)
    after = detector.state_dict()
    assert all(value.equal(after[key]) for key, value in before.items())


@pytest.mark.parametrize(("name", "alike"), [("soft", True), ("twopass", False)])
def test_two_passes_depend_on_the_decoder_and_one_does_not(name, alike):
    detector, images = untrained(name), seen()
    first = detector.feature_mask(images)
    detector.decoder.head.weight.mul_(-1)
    assert first.equal(detector.feature_mask(images)) == alike


def test_scaling_reaches_the_decoder():
    network, images = pretrained().network, CPU.images(pixels())
    made = {name: untrained(name).reconstruct(images, masks()) for name in ("soft", "bilinear")}
    mask = untrained("soft").feature_mask(seen())
    assert made["soft"].allclose(network(seen(), mask, "nearest"), atol=1e-6)
    assert made["bilinear"].allclose(network(seen(), mask, "bilinear"), atol=1e-6)
    assert not made["soft"].allclose(made["bilinear"], atol=1e-4)


def test_without_a_mask_an_untrained_fader_is_ear():
    images = CPU.images(pixels())
    made, ears = (d.reconstruct(images, masks()) for d in (untrained("none"), pretrained()))
    assert made.allclose(ears, atol=1e-6)


# Φ


def test_mlp_is_two_linear_layers_on_raw_patches():
    phi, images = untrained("soft").phi, torch.randn(2, 3, 32, 32)
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
    for parameter in vit.parameters():  # fresh ones have no bias and hardly any attention
        parameter.add_(0.2 * torch.randn_like(parameter))
    made = vit(images)
    expected = transformer(vit.state_dict(), images, patch, heads=3)
    assert made.shape == (2, (32 // patch) ** 2)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "others"), [("soft", False), ("vit", True)])
def test_patches_see_each_other_in_the_vit_only(name, others):
    phi, images = untrained(name).phi, torch.rand(2, 3, 32, 32)
    changed = images.clone()
    changed[0, :, 8:16, 16:24] = 0  # patch 1 × 4 + 2
    before, after = phi(images), phi(changed)
    assert before.shape == (2, GRID**2)
    assert before[1].allclose(after[1], atol=1e-6)
    moved = (before[0] - after[0]).abs() > 1e-6
    assert moved[6]
    assert int(moved.sum()) == (GRID**2 if others else 1)


@pytest.mark.parametrize(("patch", "expected"), [(4, 4), (16, 16), (None, PATCH)])
def test_a_vits_tokens_are_its_own_or_the_mosaics(patch, expected):
    vit = {"patch": patch, "width": 12, "depth": 1, "heads": 3, "backbone": None}
    detector = untrained("vit", tiny(fader={"vit": vit}))
    assert detector.phi.patch == expected
    mask = detector.feature_mask(seen())
    assert mask.shape == (COUNT, 32 // expected, 32 // expected)


@pytest.mark.parametrize(("name", "coarse"), [("soft", False), ("vit", True)])
def test_a_vit_predicts_in_the_precision_of_the_convolutions_and_the_mlp_does_not(name, coarse):
    full, half = untrained(name), untrained(name, machine=BF16)
    predicted = half.predict(seen())
    assert predicted.dtype == torch.float32
    assert predicted.equal(full.predict(seen())) != coarse
    assert predicted.allclose(full.predict(seen()), atol=0.05)
    with BF16.autocast():
        assert predicted.equal(half.phi(seen())) == coarse
    # In use, too.
    assert half.feature_mask(seen()).flatten(1).equal(soft_mask(predicted))
