"""FADeR's training step against two separate optimisers, and what it starts from and leaves
alone."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tiny import (
    COUNT,
    CPU,
    GRID,
    PATCH,
    VARIANTS,
    normals,
    patchwork,
    pixels,
    pretrained,
    run_in,
    same,
    search_in,
    seen,
    some_variants,
    tiny,
    trained,
)
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Config
from fader.detectors import Images
from fader.detectors.fader import Fader, Point
from fader.detectors.fader.predictor import Vit
from fader.detectors.fader.train import FrozenFeatures
from fader.errors import FaderError
from fader.runtime import generator
from fader.seeds import derive_seed
from fader.vision.losses import reconstruction_loss
from fader.vision.mosaic import patch_l2, tokens
from fader.vision.unet import LEAK, UNet


def as_drawn(name: str, config: Config | None = None) -> Fader:
    """The detector that the training starts from."""
    ear = pretrained()
    torch.manual_seed(derive_seed(1, "phi"))
    return Fader(ear, (config or tiny()).fader, VARIANTS[name])


# The step


def flipped(p: Tensor) -> Tensor:
    low, high = p.min(1, keepdim=True).values, p.max(1, keepdim=True).values
    return 1 - (p - low) / (high - low)


def attenuation(name: str, predicted: Tensor, random: torch.Generator) -> Tensor:
    """M_S (B, n) of predictions (B, n), written out."""
    if name == "sigmoid":
        return 1 - predicted.sigmoid()
    if name == "quantile":
        low, high = predicted.quantile(0.01), predicted.quantile(0.99)
        return 1 - ((predicted - low) / (high - low)).clip(0, 1)
    mask = flipped(predicted)
    if name == "hard":
        return (mask > 0.5).float()
    if name == "constant":
        return mask.mean(1, keepdim=True).repeat(1, GRID**2)
    if name == "shuffled":
        # The pairs of later steps must not notice: what is drawn here is put back.
        state = random.get_state()
        order = torch.randperm(GRID**2, generator=random)
        random.set_state(state)
        return mask[:, order]
    return mask


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
    scaling = "bilinear" if name == "bilinear" else "nearest"
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
                mask = attenuation(name, predicted.detach(), random).view(-1, GRID, GRID)
            output = decoder(skips, deepest, mask, scaling)
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


@pytest.mark.parametrize("name", VARIANTS)
def test_training_is_that_of_two_separate_optimisers(tmp_path, name):
    """It also says that all variants draw the same numbers: the order of the images, the pairs."""
    config = tiny(fader={"epochs": 3})
    decoder, phi, losses = reference(config, pretrained().network, 0.01, name)
    (outcome,) = search_in(tmp_path, Point(0.01, "fixed"), name=name, config=config)
    for prefix, module in (("decoder", decoder), ("phi.body", phi)):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(
                outcome.state[f"{prefix}.{key}"], value, atol=1e-6, rtol=1e-5
            )
    steps = len(losses) // 3
    for epoch, row in enumerate(outcome.history):
        parts = torch.tensor(losses[epoch * steps : (epoch + 1) * steps]).mean(0)
        assert row["loss"] == pytest.approx(parts.sum().item(), rel=1e-4)
        assert ("rank" in row) == (name != "none")
        if name != "none":
            assert row["rank"] == pytest.approx(parts[1].item(), rel=1e-3)


def test_a_fit_is_the_search_of_its_point(tmp_path):
    detector = as_drawn("soft")
    detector.point = Point(0.001, "warmup")
    history = detector.fit(normals(), run_in(tmp_path))
    (outcome,) = search_in(tmp_path, detector.point)
    assert history == {"fader": outcome.history}
    assert same(detector.state(), outcome.state)
    assert not any(module.training for module in detector.modules())


def test_without_a_mask_phi_stays_as_it_was_drawn(tmp_path):
    (outcome,) = search_in(tmp_path, name="none")
    for key, value in as_drawn("none").phi.state_dict().items():
        assert outcome.state[f"phi.{key}"].equal(value)


@pytest.mark.parametrize("name", ["soft", "twopass"])
def test_the_decoders_statistics_count_the_masked_pass_alone(tmp_path, name):
    key = "blocks.0.0.1.num_batches_tracked"
    start = int(pretrained().network.decoder.state_dict()[key])
    (outcome,) = search_in(tmp_path, name=name, config=tiny(fader={"epochs": 3}))
    assert int(outcome.state[f"decoder.{key}"]) == start + 3 * COUNT // 4


def test_phi_learns_to_rank_patches_by_their_error(tmp_path):
    # The image is seen whole, and a decoder that starts near grey errs by a patch's contrast to
    # grey, dark or bright: the error is a function of what Φ sees, not a linear one. The
    # decoder hardly moves, so the target stands still.
    random = torch.Generator().manual_seed(2)
    shown = (patchwork(torch.rand(COUNT, GRID**2, generator=random)) * 255).to(torch.uint8)
    nothing = torch.zeros(COUNT, 32, 32, dtype=torch.bool)
    images = CPU.images(shown)

    def correlation(detector: Fader, errors: Tensor) -> float:
        with torch.no_grad():
            predicted = detector.predict(images)
        pairs = zip(predicted, errors, strict=True)
        return sum(spearmanr(p, e).statistic for p, e in pairs) / COUNT

    config = tiny(fader={"epochs": 60, "decoder_ratio": 0.001})
    (outcome,) = search_in(tmp_path, config=config, normal=Images(shown, nothing))
    after = trained(outcome.state, "soft", config)
    with torch.no_grad():
        errors = patch_l2(images, after.reconstruct(images, nothing), PATCH)
    assert abs(correlation(as_drawn("soft"), errors)) < 0.3
    assert correlation(after, errors) > 0.8


def test_a_vit_with_tokens_of_its_own_is_trained_on_their_errors(tmp_path):
    vit = {"patch": 4, "width": 12, "depth": 1, "heads": 3, "backbone": None}
    config = tiny(fader={"vit": vit})
    (outcome,) = search_in(tmp_path, name="vit", config=config)
    assert all(math.isfinite(row["rank"]) for row in outcome.history)
    assert trained(outcome.state, "vit", config).predict(seen()).shape == (COUNT, 64)


def test_the_quantile_range_is_that_of_all_fitted_normals(tmp_path):
    (outcome,) = search_in(tmp_path, name="quantile")
    detector = trained(outcome.state, "quantile")
    with torch.no_grad():
        predicted = detector.predict(seen())
        expected = np.quantile(predicted.double().numpy(), [0.01, 0.99])
        assert detector.phi.range.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
        mask = detector.phi.soft_mask(predicted)
    # One percent of the normals' patches lies beyond each end: 12 · 16 · 1 % ≈ 2.
    assert [(mask == 0).sum(), (mask == 1).sum()] == [2, 2]


# What it shares with EAR


@some_variants
def test_ear_is_left_alone(tmp_path, name):
    ear = pretrained()
    before = copy.deepcopy(ear.state())
    (outcome,) = search_in(tmp_path, name=name, ear=ear)
    # Batch normalisation's running statistics are in the state too.
    assert any(key.endswith("running_mean") for key in before)
    assert same(before, ear.state())
    assert not any(module.training for module in ear.modules())
    for key in ("head.weight", "blocks.0.0.1.running_mean"):
        assert not outcome.state[f"decoder.{key}"].equal(before[f"network.decoder.{key}"])


def test_the_encoder_is_ears_and_the_decoder_a_copy():
    ear = pretrained()
    detector = Fader(ear, tiny().fader)
    assert detector.encoder is ear.network.encoder
    ears = dict(ear.network.decoder.named_parameters())
    for name, parameter in detector.decoder.named_parameters():
        assert parameter.equal(ears[name])
        assert parameter.data_ptr() != ears[name].data_ptr()
    assert {key.partition(".")[0] for key in detector.state()} == {"decoder", "phi"}
    assert detector.scale == ear.scale


def test_a_state_is_read_back_frozen_onto_the_same_ear(tmp_path):
    (outcome,) = search_in(tmp_path)
    detector = trained(outcome.state, "soft")
    assert same(detector.state(), outcome.state)
    assert not any(module.training for module in detector.modules())
    assert not any(parameter.requires_grad for parameter in detector.parameters())
    ears = pretrained().network.encoder.state_dict()
    assert same(detector.encoder.state_dict(), ears)


# The cache of the frozen encoder's features


@pytest.mark.parametrize("batch", [1, 4, 11, 16])  # 12 images: 11 would leave a batch of one
def test_cached_features_are_the_recomputed_ones(batch):
    encoder = pretrained().network.encoder
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


@pytest.mark.parametrize("name", ["soft", "twopass", "vit"])
def test_the_cache_changes_no_result(tmp_path, name):
    (cached,), (recomputed,) = (
        search_in(tmp_path, name=name, config=tiny(fader={"cache_gib": limit}))
        for limit in (4.0, 0.0)
    )
    assert same(cached.state, recomputed.state)
    assert cached.history == recomputed.history


# Pre-trained weights of the ViT


def backbone(width: int = 12, patch: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(123)
    return Vit(32, patch, width, depth=1, heads=3).body.state_dict()


SMALL = {"patch": 8, "width": 12, "depth": 1, "heads": 3, "backbone": None}


def test_a_vit_starts_from_the_weights_it_is_given(tmp_path):
    config, given = tiny(fader={"vit": SMALL}), backbone()
    # At a rate this small, training leaves the weights where they started.
    still = Point(1e-9, "fixed")
    (begun,) = search_in(tmp_path, still, name="vit", config=config, initial=given)
    (drawn,) = search_in(tmp_path, still, name="vit", config=config)
    for key, value in given.items():
        assert begun.state[f"phi.body.body.{key}"].allclose(value, atol=1e-6)
    moved = "phi.body.body.blocks.0.attn.qkv.weight"
    assert not drawn.state[moved].allclose(begun.state[moved], atol=1e-3)
    head = "phi.body.head.weight"
    assert drawn.state[head].allclose(begun.state[head], atol=1e-6)


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
def test_weights_that_do_not_fit_end_in_one_line(given):
    fit = r"^fader\.vit: its backbone's weights do not fit"
    with pytest.raises(FaderError, match=fit) as error:
        Fader(pretrained(), tiny(fader={"vit": SMALL}).fader, VARIANTS["vit"], initial=given)
    assert "\n" not in str(error.value)
    assert "set patch, width, depth and heads" in str(error.value)
