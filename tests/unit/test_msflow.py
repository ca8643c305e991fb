"""MSFlow: its flow is invertible with the log-determinant it claims; the masker keeps its
contract."""

import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from fader import maskers
from fader.config import MsFlow
from fader.errors import FaderError
from fader.maskers import Context, msflow
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.flows import (
    CLAMP,
    POSITION_CHANNELS,
    AffineBlock,
    MultiScaleCoupling,
    MultiScaleFlow,
    ParallelFlow,
    position_code,
)

BACKBONE = "test_resnet.r160_in1k"
CHANNELS, GRIDS = [4, 5], [(2, 2), (1, 1)]


def randomised(flow: nn.Module, seed: int = 0) -> nn.Module:
    """The flow with weights far from those it starts with, which are near the identity."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            spread = 2.0 / math.sqrt(parameter[0].numel()) if parameter.ndim == 4 else 1.0
            parameter += spread * torch.randn(parameter.shape, generator=random)
    return flow


def levels(channels, grids, count=2, seed=0, dtype=torch.float32) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, c, *grid, generator=random, dtype=dtype)
        for c, grid in zip(channels, grids, strict=True)
    ]


def jacobian_log_det(function, xs: list[Tensor]) -> float:
    """log|det| of a map of one sample's levels, from autograd's full Jacobian."""
    shapes = [x.shape for x in xs]

    def flat(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        zs = function([p.view(shape) for p, shape in zip(parts, shapes, strict=True)])
        return torch.cat([z.flatten() for z in zs])

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat([x.flatten() for x in xs]))
    return torch.linalg.slogdet(jacobian).logabsdet.item()


# --- the flow -------------------------------------------------------------------------------------


def test_position_code_is_the_sinusoid_of_column_and_row_and_tells_positions_apart():
    code = position_code(64, 64, 48)
    assert code.shape == (64, 64, 48)
    for k, row, column in [(0, 3, 5), (7, 63, 0), (15, 20, 47)]:
        frequency = 10000 ** (-k / 16)
        expected = [f(frequency * i) for i in (column, row) for f in (math.sin, math.cos)]
        got = code[[2 * k, 2 * k + 1, 32 + 2 * k, 33 + 2 * k], row, column]
        torch.testing.assert_close(got, torch.tensor(expected), atol=1e-4, rtol=0)
    distances = torch.cdist(*[code.flatten(1).T[None]] * 2)[0].fill_diagonal_(9)
    assert distances.min() > 0.5


@settings(max_examples=15, deadline=None)
@given(channels=st.integers(2, 9), side=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_block_is_invertible(channels, side, seed):
    torch.manual_seed(seed)
    block = randomised(AffineBlock(channels, 8), seed)
    (x,) = levels([channels], [(side, side + 1)], seed=seed)
    condition = position_code(8, side, side + 1)
    with torch.no_grad():
        z, _ = block(x, condition)
        assert (z - x).abs().max() > 0.05
        torch.testing.assert_close(block.inverse(z, condition), x, atol=1e-4, rtol=0)


@settings(max_examples=10, deadline=None)
@given(
    channels=st.lists(st.integers(2, 9), min_size=2, max_size=3),
    side=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_coupling_and_whole_flow_are_invertible(channels, side, seed):
    torch.manual_seed(seed)
    grids = [(math.ceil(side / 2**i),) * 2 for i in range(len(channels))]
    xs = levels(channels, grids, seed=seed)
    for flow in (MultiScaleCoupling(channels), MultiScaleFlow(channels, [1, 2, 3][: len(xs)])):
        with torch.no_grad():
            zs, log_det = randomised(flow, seed)(xs)
            assert log_det.shape == (2,)
            for x, back in zip(xs, flow.inverse(zs), strict=True):
                torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_log_determinants_equal_those_of_the_jacobian(seed):
    torch.manual_seed(seed)
    xs = levels(CHANNELS, GRIDS, count=1, seed=seed, dtype=torch.double)
    code = position_code(8, 2, 2)
    block = randomised(AffineBlock(4, 8)).double()
    parallel = randomised(ParallelFlow(4, 3)).double()
    coupling = randomised(MultiScaleCoupling(CHANNELS)).double()
    whole = randomised(MultiScaleFlow(CHANNELS, [2, 1])).double()
    for claimed, function, inputs in [
        (block(xs[0], code)[1], lambda x: [block(x[0], code)[0]], xs[:1]),
        (parallel(xs[0])[1], lambda x: [parallel(x[0])[0]], xs[:1]),
        (coupling(xs)[1], lambda x: coupling(x)[0], xs),
        (whole(xs)[1], lambda x: whole(x)[0], xs),
    ]:
        assert abs(claimed.item()) > 0.1
        assert claimed.item() == pytest.approx(jacobian_log_det(function, inputs), abs=1e-3)


def test_a_fresh_flow_is_near_a_permutation_of_its_input():
    torch.manual_seed(0)
    block = AffineBlock(12, POSITION_CHANNELS)
    (x,) = levels([12], [(4, 4)])
    with torch.no_grad():
        z, log_det = block(x, position_code(POSITION_CHANNELS, 4, 4))
    assert (z - x[:, block.permutation]).square().mean().sqrt() < 0.15
    assert log_det.abs().max() / x[0].numel() < 0.1


def test_log_scales_are_clamped():
    block = AffineBlock(6, 8)
    nn.init.constant_(block.subnet[-1].bias, 1e6)
    _, log_det = block(torch.randn(1, 6, 2, 2), position_code(8, 2, 2))
    assert log_det.item() == pytest.approx(3 * 4 * CLAMP)


def test_blocks_see_the_position_and_the_fusion_every_level():
    torch.manual_seed(0)
    flow = randomised(ParallelFlow(4, 1))
    with torch.no_grad():
        z, _ = flow(torch.zeros(1, 4, 9, 9))
    inner = z[0, :, 1:-1, 1:-1].flatten(1)  # no padding in view
    assert (inner.std(dim=1) > 1e-3).any()
    coupling = randomised(MultiScaleCoupling([4, 6, 8]))
    xs = [x.requires_grad_() for x in levels([4, 6, 8], [(4, 4), (2, 2), (1, 1)])]
    for z in coupling(xs)[0]:
        for gradient in torch.autograd.grad(z.square().sum(), xs, retain_graph=True):
            assert gradient.abs().max() > 0


def test_permutations_are_part_of_the_state_and_follow_the_seed():
    def permutations(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        state = MultiScaleFlow([16, 24], [1, 2]).state_dict()
        return [value for key, value in state.items() if "permutation" in key]

    first, again, other = permutations(1), permutations(1), permutations(2)
    assert len(first) == 3 + 2
    assert all(p.sort().values.equal(torch.arange(len(p))) for p in first)
    assert all(p.equal(q) for p, q in zip(first, again, strict=True))
    assert not any(p.equal(q) for p, q in zip(first, other, strict=True))


def test_parameters_at_paper_scale_are_the_published_ones():
    with torch.device("meta"):
        flow = MultiScaleFlow([256, 512, 1024], [2, 5, 8])
    parts = [*flow.parallel, flow.fusion]
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
    assert millions == pytest.approx([1.6, 12.0, 66.4, 19.6], abs=0.051)


# --- loss, schedule, saliency ---------------------------------------------------------------------


def test_loss_by_hand():
    latents = [torch.full((2, 3, 2, 2), 2.0), torch.ones(2, 4, 1, 1)]
    loss = msflow.negative_log_likelihood(latents, torch.tensor([1.0, 6.0]))
    # ½ (12 · 4 + 4 · 1) = 26 nats, over 4 + 1 positions
    torch.testing.assert_close(loss, torch.tensor([5.0, 4.0]))


def test_schedule():
    factor = msflow.schedule(1000)
    expected = {0: 0.1, 60: 0.55, 120: 1, 699: 1, 700: 0.33, 899: 0.33, 900: 0.1089, 999: 0.1089}
    assert {i: factor(i) for i in expected} == pytest.approx(expected)
    assert msflow.schedule(1)(0) == pytest.approx(0.1)


def test_suspicion_by_hand():
    reference = torch.tensor([-0.5, -0.4])
    maps = [torch.tensor([[[-0.5, 0.0]] * 2]), torch.full((1, 1, 1), -0.4 - math.log(2))]
    got = msflow.suspicion(maps, reference, 2)
    torch.testing.assert_close(got, torch.full((1, 2, 2), 0.5))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 0), min_size=2, max_size=2))
def test_suspicion_falls_as_the_likelihood_rises(values):
    low, high = sorted(values)
    reference = torch.tensor([-0.5])
    a, b = (msflow.suspicion([torch.full((1, 1, 1), v)], reference, 1).item() for v in (low, high))
    assert 0 <= b <= a < 1
    if high < -0.5 and high - low > 1e-3:
        assert b < a


# --- the masker -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A directory with random weights of a tiny network of timm."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(BACKBONE.partition(".")[0], num_classes=0)
    save_file(network.state_dict(), folder / f"{BACKBONE}.safetensors")
    return folder


def images(count: int, seed: int) -> Tensor:
    """Normal: fine diagonal stripes of random phase and some noise, uint8 (count, 3, 64, 64)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    phase = random.uniform(0, 2 * np.pi, (count, 1, 1, 1))
    stripes = 0.5 + 0.3 * np.sin((x + y) * 0.8 + phase) * np.ones((1, 3, 1, 1))
    noisy = stripes + random.normal(0, 0.03, (count, 3, 64, 64))
    return torch.from_numpy((noisy.clip(0, 1) * 255).astype(np.uint8))


def defective(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same with a flat red square of side 20, and its mask."""
    pixels, random = images(count, seed), np.random.default_rng(seed)
    mask = torch.zeros(count, 64, 64, dtype=torch.bool)
    for hidden, (y, x) in zip(mask, random.integers(2, 42, (count, 2)), strict=True):
        hidden[y : y + 20, x : x + 20] = True
    red = torch.tensor([230, 30, 30], dtype=torch.uint8).view(3, 1, 1)
    return torch.where(mask[:, None], red, pixels), mask


def tiny(weights: Path, precision: str = "fp32", **changes) -> msflow.MsFlowMasker:
    values = {"layers": [1, 2], "blocks": [1, 2], "input_size": 64, "epochs": 2, "batch": 4}
    section = MsFlow(kind="msflow", backbone=BACKBONE, **{**values, "lr": 0.001, **changes})
    machine = Machine(torch.device("cpu"), precision)
    return maskers.create("msflow", section, Context("bolt", machine, weights))


@pytest.fixture
def run(tmp_path):
    """A ``Run`` whose checkpoints are in a folder of this name."""

    def make(folder: str, seed: int = 1) -> Run:
        return Run(seed, "bolt", lambda stage: Checkpoint(tmp_path / folder / stage, "key"))

    return make


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(value.equal(b[key]) for key, value in a.items())


def test_the_same_seed_makes_the_same_bytes(weights, run):
    masker, again, other = tiny(weights), tiny(weights), tiny(weights)
    history = masker.fit(images(9, 0), run("a"))
    torch.manual_seed(99)  # what ran before in the process does not matter
    before = torch.random.get_rng_state()
    assert history == again.fit(images(9, 0), run("b"))
    assert before.equal(torch.random.get_rng_state())
    assert same(masker.state(), again.state())
    other.fit(images(9, 0), run("c", seed=2))
    assert not same(masker.state(), other.state())
    assert list(history) == ["flow"]
    assert [set(row) for row in history["flow"]] == [{"epoch", "step", "lr", "loss"}] * 2
    assert BACKBONE in masker.weights


def test_a_killed_fit_resumes_to_the_same_bytes(weights, run, tmp_path, monkeypatch):
    unbroken = tiny(weights, epochs=3)
    unbroken.fit(images(8, 0), run("unbroken"))

    class Killed(Exception):
        pass

    save = Checkpoint.save

    def save_and_die(self, epoch, *rest):
        save(self, epoch, *rest)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("fader.training.loop.CHECKPOINT_SECONDS", -1.0)  # save after every epoch
        patch.setattr(Checkpoint, "save", save_and_die)
        tiny(weights, epochs=3).fit(images(8, 0), run("killed"))
    resumed = tiny(weights, epochs=3)
    history = resumed.fit(images(8, 0), run("killed"))
    assert [row["epoch"] for row in history["flow"]] == [1, 2, 3]
    assert same(unbroken.state(), resumed.state())


@pytest.fixture(scope="module")
def trained(weights, tmp_path_factory) -> list[msflow.MsFlowMasker]:
    """Maskers of two seeds, trained long enough to see the defect."""
    folder = tmp_path_factory.mktemp("trained")
    found = []
    for seed in (0, 1):
        masker = tiny(weights, epochs=12, lr=0.003)
        checkpoint = Checkpoint(folder / str(seed), "key")
        masker.fit(images(24, seed), Run(seed, "bolt", lambda stage, c=checkpoint: c))
        found.append(masker)
    return found


def test_state_and_load(weights, trained):
    shown = images(3, 7).float() / 255
    fresh = tiny(weights)
    fresh.load(trained[0].state())
    assert fresh.saliency(shown).equal(trained[0].saliency(shown))
    for other in (tiny(weights, blocks=[2, 2]), tiny(weights, layers=[1, 3])):
        with pytest.raises(FaderError, match=r"msflow.*train it again"):
            other.load(trained[0].state())


def test_the_reference_is_the_median_of_the_fitted_normals(trained):
    features = trained[0]._features(images(24, 0).float() / 255)
    for maps, reference in zip(trained[0]._maps(features), trained[0].reference, strict=True):
        assert (maps < reference).float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_saliency_keeps_its_contract(trained):
    shown, _ = defective(6, 5)
    shown = shown.float() / 255
    maps = trained[0].saliency(shown)
    assert maps.shape == (6, 16, 16)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    assert maps.max() <= 2
    alone = torch.cat([trained[0].saliency(image[None]) for image in shown])
    torch.testing.assert_close(alone, maps, atol=1e-3, rtol=0)
    larger = F.interpolate(shown, (96, 80), mode="bilinear")
    assert trained[0].saliency(larger).shape == (6, 16, 16)


def test_saliency_finds_the_defect_and_is_comparable_between_images(trained):
    aurocs = []
    for seed, masker in enumerate(trained):
        shown, mask = defective(8, 50 + seed)
        maps = masker.saliency(shown.float() / 255)
        inside = F.avg_pool2d(mask[:, None].float(), 4)[:, 0] > 0.5
        aurocs.append(roc_auc_score(inside.flatten(), maps.flatten()))
        normal = masker.saliency(images(8, 60 + seed).float() / 255)
        assert maps[inside].mean() > 2 * normal.mean()
    assert np.mean(aurocs) > 0.75


def test_features_beyond_the_cache_are_computed_alike(trained, monkeypatch):
    normal, chosen = images(6, 3), torch.tensor([4, 0, 5])
    cached = trained[0]._training_features(normal)(chosen)
    monkeypatch.setattr(msflow, "CACHE_BYTES", 0)
    for a, b in zip(cached, trained[0]._training_features(normal)(chosen), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=2e-3)


def test_bf16_trains_and_agrees(weights, trained, run):
    masker = tiny(weights, precision="bf16")
    history = masker.fit(images(8, 0), run("bf16"))
    assert all(math.isfinite(row["loss"]) for row in history["flow"])
    masker.load(trained[0].state())
    shown = defective(4, 5)[0].float() / 255
    torch.testing.assert_close(masker.saliency(shown), trained[0].saliency(shown), atol=0.1, rtol=0)
