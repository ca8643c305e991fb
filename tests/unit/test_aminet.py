"""AMI-Net's equations by hand and by independent loops; the masker keeps the contract of one that
learns."""

import math
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score
from torch import Tensor

from fader.config import AmiNet
from fader.errors import FaderError, MissingWeights
from fader.maskers import Context, aminet, create
from fader.maskers.aminet import (
    AmiNetMasker,
    InpaintingNetwork,
    cluster_distance,
    clustering_losses,
    inpainting_losses,
    jitter,
    outliers,
    patchify,
    random_mask,
    residual_map,
    unpatchify,
)
from fader.runtime import Machine, generator
from fader.training import loop as training
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run

BACKBONE = "test_resnet.r160_in1k"  # timm's smallest network; its weights are drawn here
SIZE = 64
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)


# --- the equations ---------------------------------------------------------------------------


def test_a_patch_is_four_by_four_cells_row_by_row():
    features = torch.rand(2, 3, 8, 8)
    patches = patchify(features)
    assert patches.shape == (2, 4, 48)
    assert torch.equal(patches[:, 1], features[:, :, 0:4, 4:8].flatten(1))
    assert torch.equal(patches[:, 2], features[:, :, 4:8, 0:4].flatten(1))


@few
@given(grid=st.integers(1, 5), channels=st.integers(1, 5), seed=seeds)
def test_unpatchify_undoes_patchify(grid, channels, seed):
    features = torch.rand(2, channels, 4 * grid, 4 * grid, generator=generator(seed))
    assert torch.equal(unpatchify(patchify(features)), features)


def test_distance_by_hand():
    tokens = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    centres = torch.tensor([[[4.0, 3.0], [6.0, 8.0], [-1.0, 0.0]]])
    # (3,4): cosines 24/25, 1, -3/5; lengths of the differences sqrt(2), 5, sqrt(16 + 16).
    # (0,2): cosines 3/5, 4/5, 0;    lengths sqrt(16 + 1), sqrt(36 + 36), sqrt(1 + 4).
    expected = [
        [math.sqrt(2) / 25, 0.0, math.sqrt(32) * 8 / 5],
        [math.sqrt(17) * 2 / 5, math.sqrt(72) / 5, math.sqrt(5)],
    ]
    torch.testing.assert_close(
        cluster_distance(tokens, centres), torch.tensor([expected]), atol=1e-5, rtol=1e-5
    )


@few
@given(seed=seeds)
def test_distance_is_non_negative_and_has_finite_gradients_at_a_centre(seed):
    tokens = torch.randn(2, 5, 6, generator=generator(seed))
    centres = tokens[:, :3].clone().requires_grad_()
    distances = cluster_distance(tokens, centres)
    assert (distances >= 0).all()
    distances.sum().backward()
    assert centres.grad.isfinite().all()


def test_adaptive_mask_by_hand():
    far = 100.0
    # Cluster 0: distances 1, 1, 1, 5, mean 2, unbiased std 2. Cluster 1: one token. 2: none.
    to_first = torch.tensor([1.0, 1.0, 1.0, 5.0, far])
    to_second = torch.tensor([far, far, far, far, 50.0])
    distances = torch.stack([to_first, to_second, torch.full((5,), far)], dim=1).unsqueeze(0)
    assert outliers(distances, 1.4).tolist() == [[False, False, False, True, False]]
    assert not outliers(distances, 1.6).any()


def outliers_by_loop(distances: Tensor, sigma: float) -> tuple[Tensor, bool]:
    """One image's mask, cluster by cluster in double precision; and whether no token is within
    rounding of its limit."""
    nearest, cluster = distances.double().min(dim=1)
    mask = torch.zeros(len(nearest), dtype=torch.bool)
    clear = True
    for k in range(distances.shape[1]):
        inside = torch.where(cluster == k)[0]
        if len(inside) > 1:
            limit = nearest[inside].mean() + sigma * nearest[inside].std()
            mask[inside] = nearest[inside] >= limit
            clear &= bool(((nearest[inside] - limit).abs() > 1e-4).all())
    return mask, clear


@few
@given(tokens=st.integers(1, 30), clusters=st.integers(1, 6), sigma=st.floats(-1, 2), seed=seeds)
def test_adaptive_mask_is_the_loops_and_follows_the_tokens(tokens, clusters, sigma, seed):
    random = generator(seed)
    distances = torch.rand(3, tokens, clusters, generator=random) * 3
    order = torch.randperm(tokens, generator=random)
    mask = outliers(distances, sigma)
    permuted = outliers(distances[:, order], sigma)
    for image in range(3):
        expected, clear = outliers_by_loop(distances[image], sigma)
        if clear:
            assert torch.equal(mask[image], expected)
            assert torch.equal(permuted[image], expected[order])


def test_random_mask_hides_a_uniform_share_of_each_image():
    mask = random_mask(4000, 16, generator(0))
    hidden = mask.sum(1)
    assert set(hidden.tolist()) == set(range(16))  # floor(16 u)
    assert stats.chisquare(torch.bincount(hidden, minlength=16).numpy()).pvalue > 1e-3
    per_token = mask.float().mean(0)  # E floor(16 u) / 16 = 15/32 at every position
    assert (per_token - 15 / 32).abs().max() < 0.03
    assert not torch.equal(mask[:8], random_mask(8, 16, generator(1)))


def test_jitter_by_hand():
    tokens = torch.zeros(2, 3, 4)
    tokens[0, 1] = torch.tensor([3.0, 0.0, 4.0, 0.0])  # norm 5, hence 20 * 5 / 4 = 25
    tokens[1, 2] = torch.tensor([0.0, 0.1, 0.0, 0.0])  # 20 * 0.1 / 4 = 0.5
    noise = torch.randn(2, 3, 4, generator=generator(7))
    scale = torch.zeros(2, 3, 1)
    scale[0, 1], scale[1, 2] = 25.0, 0.5
    torch.testing.assert_close(jitter(tokens, generator(7)), tokens + scale * noise)


def test_inpainting_losses_by_hand():
    prediction = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    target = torch.tensor([[[0.0, 2.0], [4.0, 3.0]]])
    losses = inpainting_losses(prediction, target)
    assert losses["cosine"].item() == pytest.approx((1 + 1 / 25) / 2)
    assert losses["mse"].item() == pytest.approx((1 + 4 + 1 + 1) / 4)


def test_clustering_losses_by_hand():
    centres = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]])
    tokens = torch.tensor([[[2.0, 0.0], [0.0, -1.0]]])
    losses = clustering_losses(tokens, centres)
    # (2,0) lies along the first centre; (0,-1) is sqrt(2), 3 * 2 and sqrt(10) from the three.
    assert losses["compactness"].item() == pytest.approx(math.sqrt(2) / 2)
    pairs = [math.sqrt(5), 4 * 2, math.sqrt(13)]
    assert losses["spread"].item() == pytest.approx(sum(pairs) / 3)


def test_map_is_scipys_smoothing_of_error_times_that_of_direction():
    random = generator(3)
    prediction, target = (torch.randn(2, 5, 16, 16, generator=random) for _ in range(2))
    maps = residual_map(patchify(prediction), patchify(target))
    assert maps.dtype == torch.float32 and (maps >= 0).all()
    for image, (p, t) in enumerate(zip(prediction, target, strict=True)):
        squared = ((p - t) ** 2).mean(0).numpy()
        cosine = (p * t).sum(0) / (p.norm(dim=0) * t.norm(dim=0))
        expected = ndimage.gaussian_filter(squared, 1.0) * ndimage.gaussian_filter(
            1 - cosine.numpy(), 1.0
        )
        torch.testing.assert_close(maps[image], torch.from_numpy(expected), atol=1e-5, rtol=1e-4)
    assert residual_map(patchify(target), patchify(target)).max() < 1e-12


# --- the network -----------------------------------------------------------------------------


def small_network() -> InpaintingNetwork:
    torch.manual_seed(0)
    return InpaintingNetwork(3, 3, width=16, depth=2, heads=2, clusters=4).eval()


@torch.no_grad()
def test_prediction_is_blind_to_hidden_tokens_and_sees_the_others():
    network = small_network()
    patches = torch.rand(2, 9, 48)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[:, [1, 5]] = True
    prediction = network.inpaint(patches, mask)
    changed = patches.clone()
    changed[:, [1, 5]] = torch.rand(2, 2, 48) * 100
    assert torch.equal(network.inpaint(changed, mask), prediction)
    changed = patches.clone()
    changed[:, 2] += 1
    assert ((network.inpaint(changed, mask) - prediction).abs().amax(dim=2) > 0).all()


@torch.no_grad()
def test_hidden_tokens_know_where_they_are():
    network = small_network()
    prediction = network.inpaint(torch.rand(1, 9, 48), torch.ones(1, 9, dtype=torch.bool))
    assert torch.unique(prediction[0], dim=0).shape[0] == 9


@torch.no_grad()
def test_jitter_moves_the_centres_but_not_the_tokens_they_are_compared_with():
    network = small_network()
    patches = torch.rand(1, 9, 48)
    tokens, centres = network.cluster(patches)
    jittered_tokens, jittered_centres = network.cluster(patches, generator(0))
    assert tokens.shape == (1, 9, 16) and centres.shape == (1, 4, 16)
    assert torch.equal(jittered_tokens, tokens)
    assert not torch.allclose(jittered_centres, centres)
    bare = network.auxiliary_embed(patches)
    torch.testing.assert_close(tokens - bare, network.positions.expand(1, -1, -1))
    _, centres_elsewhere = network.cluster(patches.flip(1))
    assert not torch.allclose(centres_elsewhere, centres, atol=1e-5)


@torch.no_grad()
def test_jitter_reaches_the_main_stream():
    network = small_network()
    patches, mask = torch.rand(1, 9, 48), torch.zeros(1, 9, dtype=torch.bool)
    plain = network.inpaint(patches, mask)
    jittered = [network.inpaint(patches, mask, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(jittered[0], jittered[1])
    assert not torch.allclose(jittered[0], plain)
    assert not torch.allclose(jittered[0], jittered[2])


# --- the masker ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(BACKBONE, pretrained=False)
    save_file(network.state_dict(), folder / f"{BACKBONE}.safetensors")
    return folder


def make(weights_dir: Path | None, precision: str = "fp32", **changes) -> AmiNetMasker:
    values = dict(
        kind="aminet",
        backbone=BACKBONE,
        layers=[1, 2],
        input_size=SIZE,
        width=32,
        depth=1,
        heads=2,
        clusters=4,
        sigma=0.5,
        epochs=2,
        batch=4,
        lr=1e-3,
    )
    machine = Machine(torch.device("cpu"), precision)
    context = Context(category="bolt", machine=machine, weights_dir=weights_dir)
    return create("aminet", AmiNet(**values | changes), context)


def run_in(folder: Path, seed: int = 0, checkpoint: type[Checkpoint] = Checkpoint) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(seed, "bolt", lambda stage: checkpoint(folder / f"{stage}.safetensors", "key"))


def textured(count: int, seed: int) -> Tensor:
    """Smooth stripes of random phase with a little noise: (count,3,SIZE,SIZE) in [0,1]."""
    random = generator(seed)
    phase = torch.rand(count, 1, 1, 1, generator=random) * 2 * math.pi
    x = torch.arange(SIZE) / SIZE * 6 * math.pi
    stripes = 0.5 + 0.2 * torch.sin(x.view(1, 1, 1, -1) + phase).expand(-1, 3, SIZE, -1)
    return (stripes + 0.02 * torch.randn(stripes.shape, generator=random)).clamp(0, 1)


def uint8(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def with_blobs(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A disc of another colour in every image, and its mask (N,SIZE,SIZE)."""
    random = generator(seed)
    centre = SIZE * (0.25 + 0.5 * torch.rand(2, len(images), 1, 1, generator=random))
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    mask = (y - centre[0]).square() + (x - centre[1]).square() < 8**2
    colour = torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1)
    return torch.where(mask.unsqueeze(1), colour, images), mask


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_seed_is_a_result_and_leaves_the_global_generator_alone(weights_dir, tmp_path, precision):
    normal = uint8(textured(6, 0))
    states, histories = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        masker = make(weights_dir, precision)
        before = torch.get_rng_state()
        histories.append(masker.fit(normal, run_in(tmp_path / name, seed)))
        assert torch.equal(torch.get_rng_state(), before)
        states.append(masker.state())
    assert equal(states[0], states[1]) and histories[0] == histories[1]
    assert not equal(states[0], states[2])
    for epoch in histories[0]["inpainting"]:
        whole = 5 * epoch["cosine"] + epoch["mse"] + epoch["compactness"] - 0.1 * epoch["spread"]
        assert epoch["loss"] == pytest.approx(whole, rel=1e-4)


class Killed(Exception):
    pass


class KilledAfterSaving(Checkpoint):
    def save(self, *arguments) -> None:
        super().save(*arguments)
        raise Killed


def test_a_killed_fit_is_resumed_to_the_same_bytes(weights_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    normal = uint8(textured(6, 0))
    whole, killed, resumed = (make(weights_dir, epochs=3) for _ in range(3))
    history = whole.fit(normal, run_in(tmp_path / "whole"))
    with pytest.raises(Killed):
        killed.fit(normal, run_in(tmp_path / "parts", checkpoint=KilledAfterSaving))
    assert resumed.fit(normal, run_in(tmp_path / "parts")) == history
    assert equal(resumed.state(), whole.state())


def test_features_are_the_same_from_memory_and_recomputed(weights_dir, tmp_path, monkeypatch):
    normal = uint8(textured(6, 0))
    kept, recomputed = make(weights_dir), make(weights_dir)
    kept.fit(normal, run_in(tmp_path / "kept"))
    monkeypatch.setattr(aminet, "CACHE_BYTES", 0)
    recomputed.fit(normal, run_in(tmp_path / "recomputed"))
    for key, value in kept.state().items():
        torch.testing.assert_close(recomputed.state()[key], value, atol=1e-3, rtol=1e-2)


def test_frozen_features_are_levels_at_a_quarter_averaged_and_joined(weights_dir):
    masker = make(weights_dir, layers=[1, 3])
    images = torch.rand(2, 3, SIZE, SIZE)
    features = unpatchify(masker._patches(images))
    fine, coarse = masker.pyramid(images)  # strides 4 and 16: already there, and times 4
    channels = fine.shape[1]
    assert features.shape == (2, channels + coarse.shape[1], SIZE // 4, SIZE // 4)
    window = fine[:, :, 4:7, 8:11].mean(dim=(2, 3))
    torch.testing.assert_close(features[:, :channels, 5, 9], window, atol=1e-5, rtol=1e-4)
    corner = fine[:, :, :2, :2].sum(dim=(2, 3)) / 9  # zeros outside count
    torch.testing.assert_close(features[:, :channels, 0, 0], corner, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def trained(weights_dir, tmp_path_factory) -> AmiNetMasker:
    masker = make(weights_dir)
    masker.fit(uint8(textured(8, 0)), run_in(tmp_path_factory.mktemp("trained")))
    return masker


def test_state_and_load_give_the_same_maps(trained, weights_dir):
    images = textured(3, 5)
    other = make(weights_dir)
    other.load(trained.state())
    assert torch.equal(other.saliency(images), trained.saliency(images))
    maps = trained.saliency(images)
    assert torch.equal(other.native(images, maps), trained.native(images, maps))


def test_maps_keep_the_contract(trained):
    images = torch.rand(5, 3, 80, 48)
    maps = trained.saliency(images)
    masks = trained.native(images, maps)
    assert maps.shape == (5, SIZE // 4, SIZE // 4) and maps.dtype == torch.float32
    assert (maps >= 0).all() and (maps.amax(dim=(1, 2)) > 0).all()
    assert masks.shape == (5, SIZE // 16, SIZE // 16) and masks.dtype == torch.bool
    assert masks.any() and not masks.all()
    assert BACKBONE in trained.weights and "sha256" in trained.weights


def test_a_map_does_not_depend_on_its_batch_mates(trained):
    images = textured(6, 6)
    together = trained.saliency(images)
    mates = torch.cat([images[:1], torch.rand(3, 3, SIZE, SIZE)])
    torch.testing.assert_close(trained.saliency(mates)[0], together[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(trained.saliency(images[4:5])[0], together[4], rtol=1e-3, atol=1e-6)


def test_a_blob_stands_out(weights_dir, tmp_path):
    scores = []
    for seed in range(2):
        masker = make(weights_dir, depth=2, epochs=30, lr=2e-3)
        masker.fit(uint8(textured(16, seed)), run_in(tmp_path / str(seed), seed))
        images, mask = with_blobs(textured(6, 100 + seed), seed)
        maps = torch.nn.functional.interpolate(masker.saliency(images)[:, None], SIZE)[:, 0]
        scores.append(roc_auc_score(mask.flatten().numpy(), maps.flatten().numpy()))
    assert sum(scores) / len(scores) > 0.8, scores


def test_what_cannot_be_had_is_said_in_a_line(trained, weights_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match=BACKBONE):
        make(tmp_path)
    with pytest.raises(FaderError, match="'aminet' has not learnt anything"):
        make(weights_dir).saliency(torch.rand(1, 3, SIZE, SIZE))
    with pytest.raises(FaderError, match=r"'aminet': weights are not of these settings"):
        make(weights_dir, clusters=5).load(trained.state())
