"""Anomalies among codes by their definition, the losses by hand, the masker's contract."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fader import maskers
from fader.config import Codebook, Dsr
from fader.data.defects import perlin_noise
from fader.errors import FaderError
from fader.maskers import Context
from fader.maskers.dsr import anomalies, codebook, networks
from fader.runtime import Machine, generator
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.vqvae import VQVAE, look_up, nearest_first

CPU = Machine(torch.device("cpu"), "fp32")
CODEBOOK = Codebook(
    file=None, channels=16, codes=32, images=12, crop=48, epochs=40, batch=8, lr=2e-3
)
SETTINGS = Dsr(kind="dsr", input_size=64, width=8, epochs=3, upsampler=2 / 3, batch=4, lr=2e-3)


@pytest.fixture(autouse=True)
def _deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# ---- generated anomalies ----


def test_half_of_the_perlin_masks_are_empty_on_purpose_and_the_rest_are_thresholded_noise():
    masks = anomalies.perlin_masks(200, 32, generator(0))
    assert masks.shape == (200, 32, 32) and masks.dtype == torch.bool
    assert 0.2 < masks.flatten(1).any(1).float().mean() < 0.5  # noise may stay below the threshold
    assert torch.equal(masks, anomalies.perlin_masks(200, 32, generator(0)))
    assert not torch.equal(masks, anomalies.perlin_masks(200, 32, generator(1)))

    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator(0))))
    expected = np.zeros((32, 32), bool)
    if rng.random() >= 0.5:
        cells = 2 ** rng.integers(6, size=2)
        expected = perlin_noise((32, 32), tuple(cells), rng) > 0.5
    assert np.array_equal(masks[0].numpy(), expected)


@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]))
@settings(max_examples=20, deadline=None)
def test_a_cell_is_marked_when_any_of_its_pixels_is(seed, cell):
    masks = torch.rand(2, 16, 16, generator=generator(seed)) < 0.05
    cells = anomalies.pool(masks, cell)
    for b, i, j in np.ndindex(*cells.shape):
        window = masks[b, i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
        assert cells[b, i, j] == window.any()
    back = anomalies.unpool(cells, cell)
    assert torch.equal(anomalies.pool(back, cell), cells) and (back | ~masks).all()


@pytest.mark.parametrize(
    "strength, codes, first, end",
    [
        (0.2, 4096, 204, 820),
        (1.0, 4096, 204, 4095),
        (0.5, 100, 5, 51),
        (0.2, 4, 1, 2),
        (1, 2, 1, 2),
    ],
)
def test_the_range_of_ranks_by_hand(strength, codes, first, end):
    lowest, highest = anomalies.rank_range(torch.tensor([strength]), codes)
    assert (lowest, highest.tolist()) == (first, [end])


@given(st.integers(0, 10**6), st.integers(2, 60))
@settings(max_examples=25, deadline=None)
def test_only_masked_codes_are_replaced_and_only_from_the_allowed_ranks(seed, codes):
    random = generator(seed)
    table = torch.randn(codes, 3, generator=random)
    indices = torch.randint(codes, (3, 6, 6), generator=random)
    inside = torch.rand(3, 6, 6, generator=random) < 0.5
    strength = 0.2 + 0.8 * torch.rand(3, generator=random)
    replaced = anomalies.displace(indices, inside, nearest_first(table), strength, random)
    assert torch.equal(replaced[~inside], indices[~inside])
    distances = torch.cdist(
        table.double(), table.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    for b, i, j in inside.nonzero().tolist():
        old, new = int(indices[b, i, j]), int(replaced[b, i, j])
        rank = int((distances[old] < distances[old, new]).sum())
        limit = max(2, min(int(strength[b] * codes) + 1, codes - 1))
        assert max(1, int(0.05 * codes)) <= rank < limit


def test_every_allowed_rank_is_drawn():
    table = torch.arange(40.0)[:, None]
    indices = torch.zeros(1, 60, 60, dtype=torch.int64)
    replaced = anomalies.displace(
        indices,
        torch.ones(1, 60, 60, dtype=torch.bool),
        nearest_first(table),
        torch.tensor([0.5]),
        generator(0),
    )
    assert replaced.unique().tolist() == list(range(2, 21))


def random_autoencoder() -> VQVAE:
    model = codebook.initialised(CODEBOOK, 0).requires_grad_(False)
    images = torch.rand(8, 3, 64, 64, generator=generator(3))
    encoded = model.encoder_hi(images)
    for name in ("lo", "hi"):
        lo = model.lo(encoded)
        features = (lo if name == "lo" else model.hi(encoded, lo.codes)).features
        vectors = features.movedim(1, -1).flatten(0, 2)
        getattr(model, f"codebook_{name}").copy_(vectors[:: len(vectors) // 32][:32])
    return model


def test_anomalies_are_at_either_level_or_both_and_the_target_is_their_cells():
    model = random_autoencoder()
    rankings = {"hi": nearest_first(model.codebook_hi), "lo": nearest_first(model.codebook_lo)}
    images = torch.rand(1, 3, 64, 64, generator=generator(1)).expand(64, -1, -1, -1)
    encoded = model.encoder_hi(images)
    lo = model.lo(encoded)
    hi = model.hi(encoded, lo.codes).indices
    masks = torch.zeros(64, 64, 64, dtype=torch.bool)
    masks[:, 20:23, 41:50] = True
    masks[-1] = False
    new_hi, new_lo, target = anomalies.corrupt(
        model, rankings, encoded, hi, lo.indices, masks, generator(5)
    )
    at_lo, at_hi = (new_lo != lo.indices), (new_hi != hi)
    cells_lo, cells_hi = anomalies.pool(masks, 8), anomalies.pool(masks, 4)
    kinds = {"lo": 0, "hi": 0, "both": 0}
    for b in range(63):
        kind = (at_lo[b].any().item(), at_hi[b].any().item())
        assert any(kind)
        kinds[{(True, False): "lo", (False, True): "hi", (True, True): "both"}[kind]] += 1
        if kind[0]:
            assert torch.equal(at_lo[b], cells_lo[b])
            assert torch.equal(target[b], anomalies.unpool(cells_lo[None, b], 8)[0])
        else:
            assert torch.equal(at_hi[b], cells_hi[b])
            assert torch.equal(target[b], anomalies.unpool(cells_hi[None, b], 4)[0])
        if all(kind):
            # Outside the mask, hi codes follow from the anomalous lo codes.
            given_lo = look_up(new_lo[None, b], model.codebook_lo)
            dependent = model.hi(encoded[None, b], given_lo).indices[0]
            assert torch.equal(new_hi[b][~cells_hi[b]], dependent[~cells_hi[b]])
    assert kinds["both"] > 20 and kinds["lo"] > 6 and kinds["hi"] > 6
    assert not at_lo[-1].any() and not at_hi[-1].any() and not target[-1].any()


def test_a_smudge_is_one_colour_blended_in_inside_the_mask():
    images = torch.rand(16, 3, 8, 8, generator=generator(0))
    masks = torch.zeros(16, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 1:7] = True
    smudged = anomalies.smudge(images, masks, generator(1))
    outside = ~masks[:, None].expand_as(images)
    assert torch.equal(smudged[outside], images[outside])
    assert smudged.min() >= 0 and smudged.max() <= 1
    for before, after in zip(images[:, :, 2:5, 1:7], smudged[:, :, 2:5, 1:7], strict=True):
        x, y = before[0].flatten().double(), after[0].flatten().double()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        assert -1e-5 <= slope <= 0.8
        torch.testing.assert_close(y - y.mean(), slope * (x - x.mean()), atol=1e-5, rtol=0)


def test_the_focal_loss_by_hand():
    p = torch.tensor([[0.9, 0.2]])  # probability of anomalous
    logits = torch.stack([(1 - p).log(), p.log()], dim=1)[:, :, None]
    target = torch.tensor([[[True, False]]])
    expected = -(0.1**2 * math.log(0.9) + 0.2**2 * math.log(0.8)) / 2
    assert networks.focal(logits, target).item() == pytest.approx(expected)
    crossentropy = F.cross_entropy(logits, target.long())
    torch.testing.assert_close(networks.focal(logits, target, gamma=0), crossentropy)


# ---- networks ----


def test_the_networks_have_the_published_sizes():
    published = networks.Networks(channels=128, width=128)
    millions = {
        name: round(sum(p.numel() for p in module.parameters()) / 1e6, 1)
        for name, module in published.named_children()
    }
    assert millions == {
        "restrict_hi": 7.8,
        "restrict_lo": 7.8,
        "decoder": 9.4,
        "detector": 5.6,
        "upsampler": 5.6,
    }


def test_doubling_is_bilinear_with_aligned_corners():
    x = torch.randn(2, 3, 5, 7)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(networks.Double()(x), expected)


# ---- masker ----


def textured(count: int, seed: int) -> torch.Tensor:
    """Dim slow waves, all but aligned, uint8 (count, 3, 64, 64)."""
    shift = 4 * torch.rand(count, 1, 1, generator=generator(seed))
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    wave = 0.2 + 0.08 * torch.sin(0.2 * (x + shift)) + 0.06 * torch.sin(0.15 * (y + shift))
    tint = torch.tensor([1.0, 0.8, 0.6])[:, None, None]
    return (255 * wave[:, None] * tint).byte()


def blobs(images: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright disc of radius 7 on every image, and its mask."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    top, left = 10 + 44 * torch.rand(2, len(images), 1, 1, generator=generator(seed))
    masks = (y - top).square() + (x - left).square() < 49
    colour = torch.tensor([200, 190, 90], dtype=torch.uint8)[:, None, None]
    return torch.where(masks[:, None], colour, images), masks


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """State of a codebook pre-trained on the textured images."""
    folder = tmp_path_factory.mktemp("codebook")
    run = Run(1, "test", lambda stage: Checkpoint(folder / stage, "key"))
    return codebook.fit(textured(12, 0), CODEBOOK, CPU, run)[0]


def masker(table, **changes):
    return maskers.create(
        "dsr", SETTINGS.model_copy(update=changes), Context("bolt", CPU, codebook=table)
    )


def fitted(table, folder: Path, seed: int = 0, **changes):
    one = masker(table, **changes)
    history = one.fit(textured(12, 1), Run(seed, "test", lambda s: Checkpoint(folder / s, "key")))
    return one, history


def test_the_same_seed_gives_the_same_bytes_and_state_the_same_saliency(table, tmp_path):
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    one, history = fitted(table, tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    assert {stage: len(epochs) for stage, epochs in history.items()} == {
        "detection": 3,
        "upsampling": 2,
    }
    two, again = fitted(table, tmp_path / "b")
    assert history == again
    assert all(torch.equal(two.state()[k], v) for k, v in one.state().items())
    other, _ = fitted(table, tmp_path / "c", seed=1)
    assert any(not torch.equal(other.state()[k], v) for k, v in one.state().items())

    images = textured(3, 2).float().div(255)
    loaded = masker(table)
    loaded.load(one.state())
    saliency = one.saliency(images)
    assert torch.equal(loaded.saliency(images), saliency)
    assert saliency.shape == (3, 64, 64) and saliency.dtype == torch.float32
    assert saliency.min() >= 0 and saliency.max() <= 1


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [1, 4], ids=["detection", "upsampling"])
def test_a_killed_and_resumed_fit_makes_the_same_bytes(table, tmp_path, monkeypatch, kill_at):
    whole, history = fitted(table, tmp_path / "whole")
    monkeypatch.setattr("fader.training.loop.CHECKPOINT_SECONDS", -1.0)
    save, saved = Checkpoint.save, []

    def killing(self, *rest):
        save(self, *rest)
        saved.append(self.path.name)
        if len(saved) == kill_at:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", killing)
    with pytest.raises(Killed):
        fitted(table, tmp_path / "killed")
    resumed, again = fitted(table, tmp_path / "killed")
    assert saved == ["detection"] * 3 + ["upsampling"] * 2
    assert again == history
    assert all(torch.equal(resumed.state()[k], v) for k, v in whole.state().items())


def test_a_map_does_not_depend_on_the_images_beside_it_nor_on_their_size(table):
    one = masker(table)
    images = torch.rand(5, 3, 64, 64, generator=generator(4))
    together = one.saliency(images)
    for i in range(5):
        torch.testing.assert_close(
            one.saliency(images[i : i + 1])[0], together[i], atol=1e-3, rtol=0
        )
    assert one.saliency(torch.rand(1, 3, 100, 80)).shape == (1, 64, 64)


def test_only_the_restricted_features_learn_from_the_image_loss(table):
    # The detector compares images it must not change; the gradient passes both quantisers.
    one = masker(table)
    trained, model = one.networks, one.vqvae
    hi, lo = model.encode(textured(2, 0).float().div(255))
    image = trained.specific(model, trained.restrict_hi(hi.codes), trained.restrict_lo(lo.codes))
    image.square().mean().backward()
    touched = {name for name, p in trained.named_parameters() if p.grad is not None}
    assert {name.partition(".")[0] for name in touched} == {"restrict_hi", "restrict_lo", "decoder"}
    assert all(p.grad is None for p in model.parameters())
    assert sum(p.grad.abs().sum() for p in trained.restrict_lo.parameters()) > 0


def test_blobs_stand_out_on_textured_images(table, tmp_path):
    aurocs = []
    for seed in (0, 1):
        one, _ = fitted(table, tmp_path / str(seed), seed=seed, epochs=10, upsampler=2.5)
        images, masks = blobs(textured(6, 3), seed)
        scores = one.saliency(images.float().div(255))
        inside, outside = scores[masks], scores[~masks]
        ranks = torch.searchsorted(outside.sort().values, inside)
        aurocs.append((ranks / len(outside)).mean().item())
    assert np.mean(aurocs) > 0.8, aurocs


def test_what_does_not_fit_ends_in_one_line(table):
    for nothing in (None, {}):
        with pytest.raises(FaderError, match="masker 'dsr': no codebook was given"):
            masker(nothing)
    with pytest.raises(FaderError, match=r"codebook of masker 'dsr': tensor up\.bias is missing"):
        masker({k: v for k, v in table.items() if k != "up.bias"})
    one = masker(table)
    with pytest.raises(FaderError, match=r"weights of masker 'dsr': tensor decoder.*, not"):
        one.load(masker(table, width=16).state())


def test_the_codebook_is_frozen_and_recorded(table, tmp_path):
    before = {k: v.clone() for k, v in table.items()}
    one, _ = fitted(table, tmp_path)
    assert all(torch.equal(one.vqvae.state_dict()[k], v) for k, v in before.items())
    assert not any(name.startswith("codebook") for name in one.state())
    assert "digest" in one.weights and one.weights == masker(table).weights
    changed = before | {"codebook_hi": before["codebook_hi"] + 1}
    assert masker(changed).weights != one.weights
