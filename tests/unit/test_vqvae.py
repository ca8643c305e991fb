"""The quantiser by hand and by brute force, DSR's layers written out, pre-training, the authors'
file."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from fader.config import Codebook
from fader.errors import FaderError, MissingWeights
from fader.maskers.dsr import codebook
from fader.runtime import Machine, generator
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision import vqvae
from fader.vision.vqvae import (
    COMMITMENT,
    DECAY,
    VQVAE,
    Level,
    MovingAverage,
    commitment,
    nearest,
    nearest_first,
    perplexity,
    quantise,
)

CPU = Machine(torch.device("cpu"), "fp32")
SMALL = Codebook(file=None, channels=32, codes=16, images=8, crop=32, epochs=60, batch=4, lr=1e-3)


def small_model(seed: int = 0) -> VQVAE:
    return codebook.initialised(SMALL, seed).eval()


# ---- quantiser ----


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 20), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_the_nearest_code_is_that_of_a_search_by_brute_force(seed, count, codes, channels):
    random = generator(seed)
    vectors = torch.randn(count, channels, generator=random)
    table = torch.randn(codes, channels, generator=random)
    expected = (vectors[:, None] - table[None]).square().sum(2).argmin(1)
    assert torch.equal(nearest(vectors, table), expected)


def test_the_search_in_blocks_is_the_search_at_once(monkeypatch):
    vectors, table = torch.randn(50, 4), torch.randn(10, 4)
    whole = nearest(vectors, table)
    monkeypatch.setattr(vqvae, "DISTANCES", 70)  # 7 rows a block
    assert torch.equal(nearest(vectors, table), whole)


def test_codes_are_ranked_by_their_distance_from_each_itself_first():
    table = torch.tensor([[0.0], [1.0], [3.0], [1.0]])
    # From 1 (a duplicate of 3) the nearest is itself, then its duplicate, then 0 before 3.
    assert nearest_first(table).tolist() == [[0, 1, 3, 2], [1, 3, 0, 2], [2, 1, 3, 0], [3, 1, 0, 2]]


def test_the_gradient_goes_straight_through_and_the_commitment_is_added():
    random = generator(0)
    features = torch.randn(2, 3, 4, 4, generator=random, requires_grad=True)
    table = torch.randn(5, 3, generator=random)
    weight = torch.randn(2, 3, 4, 4, generator=random)

    codes, indices = quantise(features, table)
    assert torch.equal(codes.detach(), table[indices].permute(0, 3, 1, 2))
    codes.retain_grad()
    ((codes * weight).sin().sum()).backward()
    assert torch.equal(features.grad, codes.grad)
    through = features.grad.clone()

    features.grad = None
    level = Level(features, *quantise(features, table))
    ((level.codes * weight).sin().sum() + COMMITMENT * commitment(level)).backward()
    pull = COMMITMENT * 2 * (features - level.codes).detach() / features.numel()
    torch.testing.assert_close(features.grad, through + pull)


def test_distances_are_in_fp32_under_autocast():
    # In bfloat16 1.001 and 1 are one number, and the first code would win.
    table = torch.tensor([[1.0], [1.001]])
    with torch.autocast("cpu", torch.bfloat16):
        _, indices = quantise(torch.full((1, 1, 1, 1), 1.002), table)
    assert indices.item() == 1


def test_the_moving_average_by_hand():
    average, table = MovingAverage(2, 1), torch.tensor([[0.0], [10.0]])
    average.count.copy_(torch.tensor([2.0, 2.0]))
    average.total.copy_(torch.tensor([[0.0], [20.0]]))
    vectors, indices = torch.tensor([[1.0], [2.0], [8.0]]), torch.tensor([0, 0, 1])
    average.update(table, vectors, indices, generator(0))
    counts = [DECAY * 2 + (1 - DECAY) * 2, DECAY * 2 + (1 - DECAY) * 1]
    totals = [DECAY * 0 + (1 - DECAY) * 3, DECAY * 20 + (1 - DECAY) * 8]
    torch.testing.assert_close(average.count, torch.tensor(counts))
    torch.testing.assert_close(average.total.flatten(), torch.tensor(totals))
    torch.testing.assert_close(
        table.flatten(), torch.tensor([totals[0] / counts[0], totals[1] / counts[1]])
    )


def test_a_code_without_vectors_restarts_at_one_of_the_batch_and_lives_ten_steps():
    average, table = MovingAverage(2, 1), torch.zeros(2, 1)
    average.start(table, torch.tensor([[0.0], [100.0]]), generator(0))
    far = int(table.argmax())
    ages = []
    for step in range(400):
        vectors = 1 + torch.rand(50, 1, generator=generator(step))
        before = table[far].clone()
        average.update(table, vectors, torch.full((50,), 1 - far), generator(step))
        if not torch.allclose(table[far], before):
            assert torch.isclose(vectors, table[far]).any()
            ages.append(step)
    assert set(torch.tensor(ages[-10:]).diff().tolist()) <= {9, 10, 11}


def test_perplexity_by_hand():
    assert perplexity(torch.tensor([[[0, 0], [3, 3]]]), 8).item() == pytest.approx(2.0)
    assert perplexity(torch.tensor([1, 1, 1]), 4).item() == pytest.approx(1.0)
    assert perplexity(torch.arange(6), 6).item() == pytest.approx(6.0)


# ---- model ----


def authors_state(model: VQVAE) -> dict[str, torch.Tensor]:
    """The model's tensors under the names of the published file, moving averages included."""
    ours = model.state_dict()
    names = {"_pre_vq_conv_bot": "project_hi", "_pre_vq_conv_top": "project_lo"}
    names |= {"upsample_t": "up"}
    convolutions = {
        "_encoder_b": ("encoder_hi", {"_conv_1": 0, "_conv_2": 2, "_conv_3": 4}, 5),
        "_encoder_t": ("encoder_lo", {"_conv_1": 0, "_conv_2": 2}, 4),
        "_decoder_b": ("decoder", {"_conv_1": 0, "_conv_trans_1": 4, "_conv_trans_2": 6}, 1),
    }
    state = {}
    for theirs, (part, layers, residual) in convolutions.items():
        names |= {f"{theirs}.{name}": f"{part}.{index}" for name, index in layers.items()}
        for block in (0, 1):
            prefix = f"{theirs}._residual_stack._layers.{block}._block"
            state[f"{prefix}.1.weight"] = ours[f"{part}.{residual + block}.squeeze.weight"]
            state[f"{prefix}.3.weight"] = ours[f"{part}.{residual + block}.expand.weight"]
    for theirs, name in names.items():
        state |= {f"{theirs}.{kind}": ours[f"{name}.{kind}"] for kind in ("weight", "bias")}
    for theirs, level in {"_vq_vae_bot": "hi", "_vq_vae_top": "lo"}.items():
        state[f"{theirs}._embedding.weight"] = ours[f"codebook_{level}"]
        state[f"{theirs}._ema_w"] = torch.randn_like(ours[f"codebook_{level}"])
        state[f"{theirs}._ema_cluster_size"] = torch.rand(SMALL.codes)
    return state


def published_model(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Reconstruction by functional calls on the published names, in the order of DSR's code."""

    def conv(x, name, stride=1, padding=1):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)

    def up(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1)

    def stack(x, part):
        for block in (0, 1):
            prefix = f"{part}._residual_stack._layers.{block}._block"
            x.relu_()  # what nn.ReLU(inplace=True) does to the skip
            x = x + conv(conv(x, f"{prefix}.1").relu(), f"{prefix}.3", padding=0)
        return x.relu()

    def quantised(x, name):
        table = state[f"{name}._embedding.weight"]
        distances = torch.cdist(x.permute(0, 2, 3, 1).flatten(0, 2), table)
        return table[distances.argmin(1)].view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)

    x = conv(images, "_encoder_b._conv_1", 2).relu()
    x = conv(x, "_encoder_b._conv_2", 2).relu()
    bottom = stack(conv(x, "_encoder_b._conv_3"), "_encoder_b")
    x = conv(bottom, "_encoder_t._conv_1", 2).relu()
    x = stack(conv(x, "_encoder_t._conv_2").relu(), "_encoder_t")
    top = up(quantised(conv(x, "_pre_vq_conv_top", padding=0), "_vq_vae_top"), "upsample_t")
    x = conv(torch.cat([bottom, top], 1), "_pre_vq_conv_bot", padding=0)
    x = torch.cat([top, quantised(x, "_vq_vae_bot")], 1)
    x = stack(conv(x, "_decoder_b._conv_1"), "_decoder_b")
    return up(up(x, "_decoder_b._conv_trans_1").relu(), "_decoder_b._conv_trans_2")


def test_the_model_is_the_published_one():
    model = small_model()
    images = torch.rand(2, 3, 32, 48)
    hi, lo = model.encode(images)
    assert hi.codes.shape == (2, 32, 8, 12) and lo.codes.shape == (2, 32, 4, 6)
    with torch.no_grad():
        ours = model.decode(hi.codes, lo.codes)
        torch.testing.assert_close(ours, published_model(authors_state(model), images))


def test_the_size_of_the_published_file():
    model = VQVAE()
    averaged = sum(t.numel() for t in (model.codebook_hi, model.codebook_lo)) + 2 * 4096
    bytes_ = 4 * (sum(t.numel() for t in model.state_dict().values()) + averaged)
    assert bytes_ == pytest.approx(16e6, rel=0.02)


# ---- files ----


def test_the_authors_file_and_ours_are_the_same_model(tmp_path):
    model = small_model(3)
    torch.save(authors_state(model), tmp_path / "published.pckl")
    save_file(model.state_dict(), tmp_path / "ours.safetensors")
    for name in ("published.pckl", "ours.safetensors"):
        state = codebook.read(tmp_path / name, SMALL)
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_file_that_does_not_fit_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = authors_state(small_model())
    missing = {k: v for k, v in state.items() if k != "upsample_t.bias"}
    cases = {
        "tensor up.bias is missing": missing,
        "unknown tensor _decoder_t.weight": state | {"_decoder_t.weight": torch.zeros(1)},
        r"tensor up.bias is \(9,\), not \(32,\)": state | {"upsample_t.bias": torch.zeros(9)},
        "something else than named tensors": [torch.zeros(1)],
        "not a file of tensors": {"upsample_t.bias": Payload()},
    }
    for message, content in cases.items():
        torch.save(content, "file.pckl")
        with pytest.raises(FaderError, match=message) as raised:
            codebook.read(Path("file.pckl"), SMALL)
        assert "\n" not in str(raised.value)
    assert not Path("executed").exists()
    for name in ("noise.pckl", "noise.safetensors"):
        Path(name).write_bytes(b"no weights at all" * 9)
        with pytest.raises(FaderError, match=f"{name}: ") as raised:
            codebook.read(Path(name), SMALL)
        assert "\n" not in str(raised.value)
    with pytest.raises(MissingWeights, match=r"codebook\.file.*https://"):
        codebook.read(Path("none.pckl"), SMALL)
    torch.save(state, "file.pckl")
    with pytest.raises(FaderError, match=r"codebook\.codes 32"):
        codebook.read(Path("file.pckl"), SMALL.model_copy(update={"codes": 32}))


# ---- pre-training ----


def pictures(count: int = 8, size: int = 40) -> torch.Tensor:
    """Smooth waves of random direction, period and colours, uint8."""
    random = generator(7)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    a, b, phase = torch.rand(3, count, 1, 1, generator=random)
    waves = (0.5 + 0.5 * torch.sin(0.8 * a * x + 0.8 * b * y + 6 * phase))[:, None]
    first, second = torch.rand(2, count, 3, 1, 1, generator=random)
    return ((first + (second - first) * waves) * 255).byte()


def test_pre_training_starts_as_if_images_were_standardised():
    images = pictures()
    mean, variance = codebook._moments(images)
    scaled = images.double() / 255
    torch.testing.assert_close(mean, scaled.mean((0, 2, 3)).float())
    assert variance == pytest.approx(scaled.var(correction=0).item())
    plain, model = small_model().encoder_hi[0], small_model()
    codebook._standardise(model, mean, variance**0.5)
    standard = (scaled.float() - mean[:, None, None]) / variance**0.5
    inside = (..., slice(1, -1), slice(1, -1))  # zero padding is another colour
    torch.testing.assert_close(
        model.encoder_hi[0](scaled.float())[inside], plain(standard)[inside], atol=1e-4, rtol=1e-4
    )


class Killed(Exception):
    pass


def pre_train(folder: Path, settings: Codebook = SMALL):
    run = Run(5, "test", lambda stage: Checkpoint(folder / stage, "key"))
    return codebook.fit(pictures(), settings, CPU, run)


@pytest.fixture(scope="module")
def pre_trained(tmp_path_factory):
    return pre_train(tmp_path_factory.mktemp("whole"))


def test_pre_training_reconstructs_with_many_codes(pre_trained):
    state, histories = pre_trained
    history = histories["codebook"]
    assert history[-1]["reconstruction"] < 0.6 * history[0]["reconstruction"]
    model = VQVAE(SMALL.channels, SMALL.codes)
    model.load_state_dict(state)
    images = pictures().float().div(255)
    with torch.no_grad():
        hi, lo = model.encode(images)
        error = F.mse_loss(model.decode(hi.codes, lo.codes), images)
    assert error < 0.6 * images.var()
    assert len(hi.indices.unique()) > 0.5 * SMALL.codes
    assert len(lo.indices.unique()) > 0.25 * SMALL.codes


def test_pre_training_is_deterministic_and_leaves_the_global_generator_alone(pre_trained, tmp_path):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    state, histories = pre_train(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert histories == pre_trained[1]
    assert all(torch.equal(state[k], v) for k, v in pre_trained[0].items())


def test_a_killed_and_resumed_pre_training_makes_the_same_bytes(pre_trained, tmp_path, monkeypatch):
    monkeypatch.setattr("fader.training.loop.CHECKPOINT_SECONDS", -1.0)
    save, saved = Checkpoint.save, []

    def killing(self, epoch, *rest):
        save(self, epoch, *rest)
        saved.append(epoch)
        if len(saved) == 25:  # past the epochs whose codes are drawn from batches
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", killing)
    with pytest.raises(Killed):
        pre_train(tmp_path)
    state, histories = pre_train(tmp_path)
    assert saved[25] == 26 and histories == pre_trained[1]
    assert all(torch.equal(state[k], v) for k, v in pre_trained[0].items())


def test_images_smaller_than_the_crop_end_in_one_line(tmp_path):
    with pytest.raises(FaderError, match=r"codebook\.crop: 48 pixels.*\(40, 40\)"):
        pre_train(tmp_path, SMALL.model_copy(update={"crop": 48}))
