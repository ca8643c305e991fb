"""FADeR: the soft mask by hand, the training step against an independent one, and what must not
change: the frozen encoder, the outcome of a grid point, the bytes of a run."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch.nn import functional as F

from fader import artifacts
from fader.config import Config, Variant, derive_seed, parse
from fader.detectors import ear, fader
from fader.detectors.fader import FrozenFeatures, Point, feature_mask, predictor, soft_mask
from fader.runtime import Machine, generator
from fader.training import Checkpoint
from fader.vision.losses import reconstruction_loss
from fader.vision.mosaic import obfuscate, patch_l2, tokens
from fader.vision.unet import LEAK, UNet

CI = Path(__file__).parents[2] / "presets/ci.yaml"
CPU = Machine(torch.device("cpu"), "fp32")
PATCH, COUNT, GRID = 8, 12, 4
VARIANTS = {
    mask: Variant(role="ablation", mask=mask, scaling="nearest", grid="own")
    for mask in ("soft", "hard", "none")
}


def tiny(**changes) -> Config:
    """The ci preset at 32 × 32 pixels; ``changes`` go into its fader section."""
    values = yaml.safe_load(CI.read_text(encoding="utf-8"))
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


def pretrained() -> UNet:
    """An EAR whose batch normalisation has seen images: running statistics are not the initial
    ones."""
    torch.manual_seed(7)
    network = ear.build(tiny(), CPU)
    for _ in range(5):
        network(CPU.images(pixels()))
    return ear.build(tiny(), CPU, network.state_dict())


@pytest.fixture
def fit(tmp_path):
    """``fader.fit`` on the tiny images, each call with checkpoints of its own."""
    runs = iter(range(1000))

    def run(config, *points, variant="soft", network=None, validate=None, hidden=None, shown=None):
        return fader.fit(
            config,
            CPU,
            network or pretrained(),
            pixels() if shown is None else shown,
            masks() if hidden is None else hidden,
            patch=PATCH,
            variant=VARIANTS[variant],
            points=points or [Point(0.01, "fixed")],
            validate=validate or (lambda reconstruct: {"value": 0.5}),
            seed=1,
            label="fader tiny",
            checkpoint=lambda point: Checkpoint(tmp_path / f"{next(runs)}.ckpt", "run"),
        )

    return run


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


# The mask


def test_soft_mask_by_hand():
    predicted = torch.tensor([[1.0, 3.0, 2.0, 5.0], [-4.0, -2.0, -3.0, -4.0]])
    # Row 1: (1, 3, 2, 5) → (0, 1/2, 1/4, 1) → flipped; row 2: (0, 1, 1/2, 0) → flipped.
    expected = torch.tensor([[1.0, 0.5, 0.75, 0.0], [1.0, 0.0, 0.5, 1.0]])
    assert soft_mask(predicted).allclose(expected)


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


def test_feature_mask_is_laid_out_like_the_patches():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 24:32] = 1  # row 1, column 3 of the grid
    brightness = torch.nn.Linear(3 * PATCH**2, 1)
    torch.nn.init.constant_(brightness.weight, 1)
    expected = torch.ones(1, GRID, GRID)
    expected[0, 1, 3] = 0
    assert feature_mask(brightness, images, PATCH, VARIANTS["soft"]).equal(expected)


def test_variants_of_the_mask():
    torch.manual_seed(0)
    phi, images = predictor(PATCH, 16), torch.rand(5, 3, 32, 32)
    soft, hard, none = (feature_mask(phi, images, PATCH, VARIANTS[m]) for m in VARIANTS)
    assert none is None
    assert set(hard.unique().tolist()) == {0, 1}
    assert hard.bool().equal(soft > 0.5)
    assert not soft.requires_grad


def test_predictor_is_two_linear_layers_on_raw_patches():
    phi = predictor(PATCH, 16)
    assert [tuple(p.shape) for p in phi.parameters()] == [(16, 192), (16,), (1, 16), (1,)]
    patches = torch.randn(2, 5, 192)
    first, second = phi[0], phi[2]
    hidden = patches @ first.weight.T + first.bias
    hidden = torch.where(hidden > 0, hidden, LEAK * hidden)
    assert phi(patches).allclose(hidden @ second.weight.T + second.bias, atol=1e-5)


# The training step


def reference(config: Config, network: UNet, lr: float, masked: bool):
    """FADeR's training written out: two optimisers, each on its own loss alone, so that neither
    loss can reach the other's weights."""
    settings = config.fader
    images = pixels().float() / 255
    seen = obfuscate(images, masks(), PATCH)
    torch.manual_seed(derive_seed(1, "phi"))
    phi, decoder = predictor(PATCH, settings.hidden), copy.deepcopy(network.decoder)
    decoder.train().requires_grad_(True)
    tuner = torch.optim.Adam(decoder.parameters(), 0.1 * lr, fused=True)
    ranker = torch.optim.Adam(phi.parameters(), lr, fused=True)
    losses = []
    for epoch in range(settings.epochs):
        random = generator(derive_seed(1, "epoch", str(epoch)))
        order = torch.randperm(COUNT, generator=random)
        for batch in order.split(settings.batch):
            first, second = torch.randperm(GRID**2, generator=random).view(2, -1)
            with torch.no_grad():
                skips, deepest = network.encoder(seen[batch])
            predicted = phi(tokens(seen[batch], PATCH)).squeeze(-1)
            mask = None
            if masked:
                p = predicted.detach()
                low, high = p.min(1, keepdim=True).values, p.max(1, keepdim=True).values
                mask = (1 - (p - low) / (high - low)).view(-1, GRID, GRID)
            output = decoder(skips, deepest, mask)
            parts = reconstruction_loss(images[batch], output, scales=config.loss.scales)
            tuner.zero_grad()
            parts["loss"].backward()
            tuner.step()
            error = (images[batch] - output.detach()).square().mean(1)
            error = F.avg_pool2d(error, PATCH).flatten(1)
            worse = torch.where(error[:, first] > error[:, second], 1.0, -1.0)
            rank = F.relu(settings.margin - worse * (predicted[:, first] - predicted[:, second]))
            if masked:
                ranker.zero_grad()
                rank.mean().backward()
                ranker.step()
            losses.append((parts["loss"].item(), rank.mean().item()))
    return decoder, phi, losses


@pytest.mark.parametrize("variant", ["soft", "none"])
def test_training_is_that_of_two_separate_optimisers(fit, variant):
    config = tiny(epochs=3)
    network = pretrained()
    decoder, phi, losses = reference(config, network, 0.01, masked=variant == "soft")
    (outcome,) = fit(config, Point(0.01, "fixed"), variant=variant, network=network)
    for name, module in (("decoder", decoder), ("phi", phi)):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(
                outcome.weights[f"{name}.{key}"], value, atol=1e-6, rtol=1e-5
            )
    steps = len(losses) // 3
    for epoch, row in enumerate(outcome.history):
        parts = torch.tensor(losses[epoch * steps : (epoch + 1) * steps]).mean(0)
        expected = parts.sum() if variant == "soft" else parts[0]
        assert row["loss"] == pytest.approx(expected.item(), rel=1e-4)
        assert ("rank" in row) == (variant == "soft")
        if variant == "soft":
            assert row["rank"] == pytest.approx(parts[1].item(), rel=1e-3)


def test_without_a_mask_phi_stays_as_it_was_drawn(fit):
    (outcome,) = fit(tiny(), variant="none")
    torch.manual_seed(derive_seed(1, "phi"))
    for key, value in predictor(PATCH, 16).state_dict().items():
        assert outcome.weights[f"phi.{key}"].equal(value)


def test_phi_learns_to_rank_patches_by_their_error(fit):
    # The image is seen whole, and a decoder that starts near grey errs by a patch's contrast to
    # grey, dark or bright: the error is a function of what Φ sees, not a linear one. The
    # decoder hardly moves, so the target stands still.
    random = torch.Generator().manual_seed(2)
    levels = torch.rand(COUNT, 1, GRID, GRID, generator=random) * 255
    shown = levels.expand(-1, 3, -1, -1).to(torch.uint8)
    shown = shown.repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
    nothing = torch.zeros(COUNT, 32, 32, dtype=torch.bool)
    images, found = CPU.images(shown), []

    def validate(reconstruct):
        with torch.no_grad():
            found.append(patch_l2(images, reconstruct(images, nothing), PATCH))
        return {"value": 0.5}

    def correlation(phi) -> float:
        with torch.no_grad():
            predicted = phi(tokens(images, PATCH)).squeeze(-1)
        return (
            sum(spearmanr(p, e).statistic for p, e in zip(predicted, found[-1], strict=True)) / 12
        )

    (outcome,) = fit(
        tiny(epochs=60, decoder_ratio=0.001), validate=validate, shown=shown, hidden=nothing
    )
    torch.manual_seed(derive_seed(1, "phi"))
    untrained = correlation(predictor(PATCH, 16))
    trained = correlation(fader.load(pretrained(), outcome.weights, PATCH, 16, CPU))
    assert abs(untrained) < 0.3
    assert trained > 0.8


# What must not change


@pytest.mark.parametrize("variant", ["soft", "hard", "none"])
def test_the_same_run_makes_the_same_bytes(fit, variant):
    (first,) = fit(tiny(), variant=variant)
    torch.manual_seed(99)
    (second,) = fit(tiny(), variant=variant)
    assert same(first.weights, second.weights)
    assert first.history == second.history


def test_the_pretrained_network_is_left_alone(fit):
    network = pretrained()
    before = copy.deepcopy(network.state_dict())
    (outcome,) = fit(tiny(), network=network)
    # Batch normalisation's running statistics are in the state too.
    assert any(key.endswith("running_mean") for key in before)
    assert same(before, network.state_dict())
    tuned = outcome.weights["decoder.head.weight"]
    assert not tuned.equal(before["decoder.head.weight"])
    moved = "decoder.blocks.0.0.1.running_mean"
    assert not outcome.weights[moved].equal(before[moved])


@pytest.mark.parametrize("batch", [1, 4, 11, 16])  # 12 images: 11 would leave a batch of one
def test_cached_features_are_the_recomputed_ones(batch):
    seen = obfuscate(CPU.images(pixels()), masks(), PATCH)
    encoder = pretrained().encoder
    cached = FrozenFeatures(encoder, seen, CPU, batch=batch, limit=2**30)
    recomputed = FrozenFeatures(encoder, seen, CPU, batch=batch, limit=0)
    assert cached.cached is not None
    assert recomputed.cached is None
    for indices in (torch.tensor([3, 4]), torch.tensor([11, 0, 5]), torch.randperm(COUNT)):
        (skips, deepest), (again, deepest_again) = cached[indices], recomputed[indices]
        assert len(skips) == len(again) == 2
        for a, b in zip([*skips, deepest], [*again, deepest_again], strict=True):
            assert a.equal(b)
            assert not a.requires_grad


def test_cache_limit_counts_every_feature():
    seen = CPU.images(pixels())
    # Widths 4, 8, 8 at 32², 16², 8², four bytes each.
    size = COUNT * 4 * (4 * 32**2 + 8 * 16**2 + 8 * 8**2)
    encoder = pretrained().encoder
    for limit, kept in ((size, True), (size - 1, False)):
        features = FrozenFeatures(encoder, seen, CPU, batch=4, limit=limit)
        assert (features.cached is not None) == kept


def test_the_cache_changes_no_result(fit):
    (cached,), (recomputed,) = fit(tiny()), fit(tiny(cache_gib=0.0))
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


@pytest.mark.parametrize("variant", ["soft", "hard", "none"])
def test_load_gives_back_exactly_what_was_validated(fit, tmp_path, variant):
    images, given = CPU.images(pixels()), []

    def validate(reconstruct):
        with torch.no_grad():
            given.append(reconstruct(images, masks()))
        return {"value": 0.5}

    (outcome,) = fit(tiny(), variant=variant, validate=validate)
    path = tmp_path / "fader.safetensors"
    artifacts.write_tensors(path, outcome.weights, artifacts.Header("fader", {}, {}, {}))
    network = pretrained()
    phi = fader.load(network, artifacts.read_tensors(path), PATCH, 16, CPU)
    modules = [*network.modules(), *phi.modules()]
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad for module in modules for p in module.parameters())
    with torch.no_grad():
        again = fader.reconstruct(network, phi, PATCH, VARIANTS[variant], CPU)(images, masks())
    assert again.equal(given[0])
