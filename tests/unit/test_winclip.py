"""WinCLIP: windows, prompts and aggregation against slow and plain versions; where weights come
from.

The model is CLIP as open_clip builds it, of the real input size and patch grid, but narrow and with
random weights.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fader import maskers
from fader.config import WinClip
from fader.errors import FaderError, MissingWeights
from fader.maskers import Context, winclip
from fader.runtime import Machine
from fader.vision.registry import CLIP

NARROW = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 240,
        "patch_size": 16,
        "width": 64,
        "head_width": 32,
        "layers": 2,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
GRID = 15


@pytest.fixture(autouse=True)
def no_outside_weights(monkeypatch, tmp_path):
    """No directory of the environment, an empty hub cache, and a hub that refuses connections."""
    monkeypatch.delenv("FADER_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def clip() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**NARROW)
        # Fresh weights attend almost uniformly, which would hide a mistake.
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "resblocks" in name:
                nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(clip, tmp_path_factory) -> Path:
    """A directory that holds the model as the masker's safetensors file."""
    directory = tmp_path_factory.mktemp("weights")
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, directory / CLIP.files[0])
    return directory


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(winclip, "ARCHITECTURE", NARROW)


def context(weights_dir: Path | None, category: str = "metal_nut") -> Context:
    return Context(category, Machine(torch.device("cpu"), "fp32"), weights_dir)


def settings(batch: int = 300, **names: str) -> WinClip:
    return WinClip(kind="winclip", names=names, batch=batch)


def images(count: int, seed: int = 0, size: int = 240) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def attend(block: nn.Module, tokens: Tensor) -> Tensor:
    """Multi-head self-attention of one sequence (L, width), a head and a query at a time."""
    attention = block.attn
    heads = attention.num_heads
    query, key, value = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, 1)
    size = query.shape[1] // heads
    out = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(tokens)):
            weight = torch.exp(key[:, part] @ query[i, part] / math.sqrt(size))
            out[i, part] = (weight / weight.sum()) @ value[:, part]
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def one_sequence(visual: nn.Module, tokens: Tensor) -> Tensor:
    """Embedding of one sequence (L, width) by the equations of a pre-norm transformer."""
    for block in visual.transformer.resblocks:
        tokens = tokens + attend(block, block.ln_1(tokens))
        hidden = F.gelu(block.ln_2(tokens) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias)
        tokens = tokens + hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias
    return visual.ln_post(tokens[0]) @ visual.proj


def window_tokens(visual: nn.Module, image: Tensor, top: int, left: int, side: int) -> Tensor:
    """Tokens of one window from its own pixels: patches embedded one at a time."""
    kernel = visual.conv1.weight.flatten(1)
    rows = [visual.class_embedding + visual.positional_embedding[0]]
    for y in range(top, top + side):
        for x in range(left, left + side):
            patch = image[:, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
            position = visual.positional_embedding[1 + GRID * y + x]
            rows.append(kernel @ patch.flatten() + position)
    return visual.ln_pre(torch.stack(rows))


@pytest.mark.parametrize("side", [2, 3])
def test_window_embeddings_equal_one_window_at_a_time(clip, side):
    batch = images(2)
    tokens = winclip.patch_tokens(clip.visual, batch)
    found = winclip.window_embeddings(clip.visual, tokens, side, batch=100)
    across = GRID - side + 1
    assert found.shape == (2, across**2, 32)
    for n, top, left in [(0, 0, 0), (0, 3, 7), (1, 0, across - 1), (1, across - 1, 0), (1, 6, 6)]:
        expected = one_sequence(clip.visual, window_tokens(clip.visual, batch[n], top, left, side))
        torch.testing.assert_close(found[n, top * across + left], expected, atol=1e-4, rtol=1e-4)


def test_the_whole_image_is_encoded_as_clip_does(clip):
    batch = images(2)
    found = winclip.encode(clip.visual, winclip.patch_tokens(clip.visual, batch))
    torch.testing.assert_close(found, clip.encode_image(batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [2, 3])
def test_windows_differ_and_do_not_see_each_other(clip, side):
    # With attention over the wrong axis every window of an image has the same embedding.
    tokens = winclip.patch_tokens(clip.visual, images(3))
    together = winclip.window_embeddings(clip.visual, tokens, side, batch=1000)
    assert (together.std(dim=1) > 1e-2).all()
    alone = winclip.window_embeddings(clip.visual, tokens[1:2], side, batch=1)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)

    changed = tokens.clone()
    changed[1, 1 + GRID * 7 + 4] += 1  # the patch in row 7, column 4
    touched = winclip.window_embeddings(clip.visual, changed, side, batch=1000) != together
    across = GRID - side + 1
    expected = torch.zeros(3, across, across, dtype=torch.bool)
    expected[1, 7 - side + 1 : 8, 4 - side + 1 : 5] = True
    assert torch.equal(touched.any(dim=-1).view_as(expected), expected)


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_a_patch_takes_the_harmonic_mean_of_its_windows(grid, side, seed):
    side = min(side, grid)
    across = grid - side + 1
    scores = torch.rand(2, across**2, generator=torch.Generator().manual_seed(seed)) * 0.98 + 0.01
    found = winclip.patch_scores(scores, grid, side)
    assert found.shape == (2, grid, grid)
    for n in range(2):
        for y in range(grid):
            for x in range(grid):
                covering = [
                    scores[n, top * across + left].item()
                    for top in range(across)
                    for left in range(across)
                    if top <= y < top + side and left <= x < left + side
                ]
                expected = len(covering) / sum(1 / score for score in covering)
                assert found[n, y, x].item() == pytest.approx(expected, rel=1e-5)


def test_score_is_the_softmax_of_cosines_at_temperature_007():
    normal, anomalous = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    embedding = torch.tensor([[5.0, 0.0], [0.0, 3.0]])  # cosines (1, 0.6) and (0, 0.8)
    found = winclip.anomaly_score(embedding, torch.stack([normal, anomalous]))
    expected = [
        math.exp(0.6 / 0.07) / (math.exp(1 / 0.07) + math.exp(0.6 / 0.07)),
        math.exp(0.8 / 0.07) / (math.exp(0 / 0.07) + math.exp(0.8 / 0.07)),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_prompts_are_every_state_in_every_template():
    normal, anomalous = winclip.prompts("metal nut")
    assert (len(normal), len(anomalous)) == (7 * 22, 4 * 22)
    assert len(set(normal + anomalous)) == 11 * 22
    assert normal[0] == "a cropped photo of the metal nut."
    assert "a close-up photo of a flawless metal nut." in normal
    assert "a photo of the metal nut without damage for visual inspection." in normal
    assert anomalous[0] == "a cropped photo of the damaged metal nut."
    assert "a photo of a metal nut with flaw for anomaly detection." in anomalous
    # Every template comes with either article; a list with one twice and its twin lost does not.
    assert len({t.replace(" the ", " a ") for t in winclip.TEMPLATES}) == 11


def test_class_embedding_is_the_mean_of_unit_prompt_embeddings(clip):
    found = winclip.class_embeddings(clip, "bottle")
    for embedding, sentences in zip(found, winclip.prompts("bottle"), strict=True):
        total = torch.zeros(32)
        for start in range(0, len(sentences), 20):
            tokens = open_clip.tokenize(sentences[start : start + 20])
            for row in clip.encode_text(tokens):
                total += row / row.norm()
        torch.testing.assert_close(embedding, total / total.norm(), atol=1e-5, rtol=1e-4)
    assert (found[0] - found[1]).norm() > 1e-4


def test_sentences_of_any_length_are_encoded_as_clip_does(clip):
    sentences = ["wow !?! nut", "a photo of the metal nut without flaw for visual inspection."]
    expected = clip.encode_text(open_clip.tokenize(sentences), normalize=True)
    found = winclip.text_features(clip, sentences)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    winclip.text_features(clip, ["nut " * 75])
    with pytest.raises(FaderError, match="longer than the 77 tokens"):
        winclip.text_features(clip, ["nut " * 76])


@pytest.mark.parametrize(
    ("category", "words"),
    [
        ("bottle", "bottle"),
        ("metal_nut", "metal nut"),
        ("pipe-fryum", "pipe fryum"),
        ("macaroni2", "macaroni"),
        ("part_12", "part"),
        ("pcb1", "printed circuit board"),
    ],
)
def test_words_of_a_category(category, words):
    names = {"pcb1": "printed circuit board"}
    assert winclip.category_words("winclip", category, names) == words


def test_a_category_without_words_is_said():
    with pytest.raises(FaderError, match=r"masks\.maskers\.clip\.names: category '01'"):
        winclip.category_words("clip", "01", {})


@pytest.mark.usefixtures("narrow")
def test_the_map_is_the_harmonic_mean_of_three_scales(clip, weights):
    masker = maskers.create("winclip", settings(), context(weights))
    batch = images(2, seed=1)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    normalised = (batch - mean) / std
    classes = winclip.class_embeddings(clip, "metal nut")
    whole = winclip.anomaly_score(clip.encode_image(normalised), classes)
    tokens = winclip.patch_tokens(clip.visual, normalised)
    small, middle = (
        winclip.patch_scores(
            winclip.anomaly_score(winclip.window_embeddings(clip.visual, tokens, k, 50), classes),
            GRID,
            k,
        )
        for k in (2, 3)
    )
    expected = 3 / (1 / whole.view(2, 1, 1) + 1 / small + 1 / middle)
    torch.testing.assert_close(masker.saliency(batch), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [60, 480])
def test_images_are_resized_as_pillow_does_bicubic(size):
    grey = (64 + 128 * images(1, size=size)[0]).to(torch.uint8)  # far from where it would clip
    picture = Image.fromarray(grey.permute(1, 2, 0).numpy())
    expected = torch.from_numpy(np.array(picture.resize((240, 240), Image.Resampling.BICUBIC)))
    found = winclip.resize(grey[None] / 255, (240, 240))[0].permute(1, 2, 0) * 255
    torch.testing.assert_close(found, expected.float(), atol=1.5, rtol=0)
    overshooting = winclip.resize(images(1, size=size).round(), (240, 240))
    assert overshooting.min() >= 0 and overshooting.max() <= 1


@pytest.mark.usefixtures("narrow")
def test_saliency_contract_and_batch_independence(weights):
    masker = winclip.create("winclip", settings(batch=500), context(weights))
    batch = images(5, size=64)
    together = masker.saliency(batch)
    assert together.shape == (5, GRID, GRID) and together.dtype == torch.float32
    assert ((together > 0) & (together < 1)).all() and not together.requires_grad
    assert not together.is_inference()
    assert (together.flatten(1).std(dim=1) > 0).all()
    small = winclip.create("winclip", settings(batch=7), context(weights))
    alone = torch.cat([small.saliency(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("narrow")
def test_bf16_gives_nearly_the_same_map_in_fp32(weights):
    half = Context("metal_nut", Machine(torch.device("cpu"), "bf16"), weights)
    batch = images(1)
    found = winclip.create("winclip", settings(), half).saliency(batch)
    expected = winclip.create("winclip", settings(), context(weights)).saliency(batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


@pytest.mark.usefixtures("narrow")
def test_the_category_s_words_reach_the_prompts(weights):
    made = {
        words: winclip.create("winclip", settings(pcb1=words), context(weights, "pcb1")).classes
        for words in ("printed circuit board", "pcb")
    }
    plain = winclip.create("winclip", settings(), context(weights, "pcb1")).classes
    assert torch.equal(plain, made["pcb"])
    assert not torch.allclose(plain, made["printed circuit board"], atol=1e-4)


@pytest.mark.usefixtures("narrow")
def test_local_safetensors_file_is_loaded_and_its_digest_recorded(clip, weights, monkeypatch):
    before = torch.get_rng_state()
    model, info = winclip.load("winclip", weights)
    assert torch.equal(before, torch.get_rng_state())
    stored, state = clip.state_dict(), model.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[key], stored[key]) for key in stored)
    assert torch.equal(model.attn_mask, clip.attn_mask)
    assert not model.training and not any(p.requires_grad for p in model.parameters())

    digest = hashlib.sha256((weights / CLIP.files[0]).read_bytes()).hexdigest()
    monkeypatch.setenv("FADER_WEIGHTS", str(weights))
    masker = winclip.create("winclip", settings(), context(None))
    source = f"local file {CLIP.files[0]}"
    assert masker.weights == str(info) == f"{CLIP.label}, {source}, sha256 {digest}"


@pytest.mark.usefixtures("narrow")
def test_release_file_is_read_as_a_state_dict_in_half_precision_too(clip, tmp_path):
    state = {key: value.half() for key, value in clip.state_dict().items()}
    torch.save(state, tmp_path / CLIP.files[1])
    model, info = winclip.load("winclip", tmp_path)
    assert info.source == f"local file {CLIP.files[1]}"
    assert all(torch.equal(v, state[key].float()) for key, v in model.state_dict().items())


class Unwanted:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was executed')",))


def scripted(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"weight": Unwanted()}, path),
        lambda path: torch.save({"epoch": 3, "state_dict": {}}, path),
        lambda path: torch.save([torch.zeros(1)], path),
        lambda path: path.write_bytes(b"not weights"),
        lambda path: path.write_bytes(b""),
        scripted,
    ],
    ids=["object", "checkpoint", "list", "text", "empty", "torchscript"],
)
@pytest.mark.filterwarnings("ignore:.*(torch.jit|TorchScript)")
def test_a_release_file_that_is_no_state_dict_is_one_line(write, tmp_path):
    write(tmp_path / CLIP.files[1])
    with pytest.raises(FaderError, match=r"8fb26589\.pt holds no state dict") as caught:
        winclip.load("winclip", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("narrow")
def test_a_file_of_another_network_is_one_line(tmp_path):
    path = tmp_path / CLIP.files[0]
    save_file({"visual.proj": torch.zeros(4, 4)}, path)
    with pytest.raises(FaderError, match=r"does not fit CLIP ViT-B/16\+ 240 .* Missing") as caught:
        winclip.load("winclip", tmp_path)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"not weights")
    with pytest.raises(FaderError, match="is not a safetensors file"):
        winclip.load("winclip", tmp_path)
    with pytest.raises(FaderError, match="is not a directory"):
        winclip.load("winclip", tmp_path / "nowhere")


def test_missing_weights_are_one_line_that_says_what_to_do(tmp_path):
    with pytest.raises(MissingWeights) as caught:
        maskers.create("winclip", settings(), context(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("masker 'winclip': vit_b_16_plus_240-laion400m_e31.safetensors")
    assert (
        "https://huggingface.co/timm/vit_base_patch16_plus_clip_240.laion400m_e31/resolve/main/"
        "open_clip_model.safetensors" in message
    )
    assert (
        "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
        "vit_b_16_plus_240-laion400m_e31-8fb26589.pt" in message
    )
    assert "weights_dir or $FADER_WEIGHTS" in message


def test_registered_model_agrees_with_open_clip():
    registered = open_clip.get_pretrained_cfg("ViT-B-16-plus-240", "laion400m_e31")
    assert registered["url"] == CLIP.release_url
    assert registered["hf_hub"].rstrip("/") == CLIP.hub
    assert registered["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert registered["std"] == open_clip.OPENAI_DATASET_STD
    assert registered["interpolation"] == "bicubic" and not registered.get("quick_gelu")
    assert winclip.ARCHITECTURE["vision_cfg"]["image_size"] // 16 == GRID
