"""WinCLIP masker (Jeong et al., CVPR 2023, arXiv 2303.14814), zero-shot: CLIP's image embeddings of
windows against its text embeddings of normal and anomalous prompts.

A window is a square of neighbouring patches: only its tokens and the CLS token, taken after the
image encoder's first layer norm, pass the transformer (section 4.2). Its anomaly score is the
softmax over {normal, anomalous} of its cosines to the two means of prompt embeddings. A patch
takes the harmonic mean of the scores of all windows that cover it; the map is the harmonic mean of
the maps of 2×2 and 3×3 patches and of the score of the whole image. So a patch scores high only
where every scale does, and maps of different images are comparable.

Prompts are the paper's (figure 6): 7 normal and 4 anomalous states in 22 templates, 154 and 88
sentences. A list of 21 templates that circulates in public code lacks two of them and has "a jpeg
corrupted photo of the {}." twice.

The model is open_clip's ViT-B-16-plus-240, trained on LAION-400M (tag laion400m_e31).
Transformers of open_clip >= 3 take (batch, tokens, width). Code for earlier versions, which took
(tokens, batch, width), gives the same embedding for every window there, without an error.
"""

import pickle
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import WinClip
from fader.errors import FaderError
from fader.files import file_sha256
from fader.maskers import Context
from fader.vision.backbones import WeightsInfo
from fader.vision.backbones.readers import read_safetensors
from fader.vision.registry import CLIP
from fader.vision.sources import locate_clip, weights_directory

NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = (
    "a cropped photo of the {}.",
    "a cropped photo of a {}.",
    "a close-up photo of a {}.",
    "a close-up photo of the {}.",
    "a bright photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of the {}.",
    "a dark photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a blurry photo of the {}.",
    "a blurry photo of a {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of a small {}.",
    "a photo of the small {}.",
    "a photo of a large {}.",
    "a photo of the large {}.",
    "a photo of the {} for visual inspection.",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a photo of a {} for anomaly detection.",
)
WINDOW_SIDES = (2, 3)  # patches
TEMPERATURE = 0.07  # CLIP's initial one, as WinCLIP's public implementations have it

ARCHITECTURE = open_clip.get_model_config("ViT-B-16-plus-240")

Autocast = Callable[[], AbstractContextManager]


def category_words(name: str, category: str, names: dict[str, str]) -> str:
    """What the prompts call a category: ``names[category]`` if given, else the folder's name
    without separators and trailing digits ("metal_nut" → "metal nut", "macaroni2" → "macaroni").

    FaderError, which names masker ``name``, when nothing is left.
    """
    words = names.get(category, re.sub(r"[_-]+", " ", category).rstrip(" 0123456789")).strip()
    if not words:
        raise FaderError(
            f"masks.maskers.{name}.names: category {category!r} gives no words for the prompts; "
            "add an entry for it"
        )
    return words


def prompts(words: str) -> tuple[list[str], list[str]]:
    """The compositional prompt ensemble: (154 normal sentences, 88 anomalous sentences)."""

    def sentences(states: tuple[str, ...]) -> list[str]:
        return [template.format(state.format(words)) for state in states for template in TEMPLATES]

    return sentences(NORMAL_STATES), sentences(ANOMALOUS_STATES)


def text_features(clip: Any, sentences: list[str]) -> Tensor:
    """Unit embeddings (sentences, D) of CLIP's text encoder, fp32.

    Equal to ``clip.encode_text`` without the padding behind the longest sentence, which causal
    attention hides from the token that is read out: with prompts, a fifth of the work.

    Raises
    ------
    FaderError : a sentence longer than the encoder takes.
    """
    # One token more than it takes: the tokenizer truncates without a word.
    tokens = open_clip.tokenize(sentences, context_length=clip.context_length + 1)
    end = tokens.argmax(dim=1)  # the end token has the highest number
    length = int(end.max()) + 1
    if length > clip.context_length:
        raise FaderError(
            f"prompt {sentences[int(end.argmax())][:60]!r}... is longer than the "
            f"{clip.context_length} tokens CLIP takes; use fewer words for the category"
        )
    tokens, end = (x.to(clip.text_projection.device) for x in (tokens[:, :length], end))
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x[torch.arange(len(x), device=x.device), end]) @ clip.text_projection
    return F.normalize(x, dim=-1)


def class_embeddings(clip: Any, words: str) -> Tensor:
    """Unit embeddings (2, D) of "normal" and "anomalous": means of the unit embeddings of their
    prompts."""
    means = [text_features(clip, sentences).mean(dim=0) for sentences in prompts(words)]
    return F.normalize(torch.stack(means), dim=-1)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] → (N, 3, *size) in [0, 1], bicubic with antialiasing as CLIP's
    own preprocessing does with Pillow, which clips what overshoots."""
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def patch_tokens(visual: Any, images: Tensor) -> Tensor:
    """Normalised images (N, 3, H, W) → tokens (N, 1 + g², width) that enter the transformer, CLS
    first, patches by rows."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(images), 1, -1)
    return visual.ln_pre(torch.cat([cls, patches], dim=1) + visual.positional_embedding)


def encode(visual: Any, tokens: Tensor, autocast: Autocast = nullcontext) -> Tensor:
    """Sequences of tokens (B, L, width), CLS first → embeddings (B, D) fp32.

    Sequences do not see each other. ``autocast`` is the precision context of the transformer.
    """
    with autocast():
        cls = visual.transformer(tokens)[:, 0]
    return visual.ln_post(cls.float()) @ visual.proj


def window_patches(grid: int, side: int) -> Tensor:
    """Patches (windows, side²) of every window of side × side patches, stride 1, on a grid × grid
    of patches; windows and patches by rows."""
    index = torch.arange(grid * grid).view(grid, grid)
    return index.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def window_embeddings(
    visual: Any, tokens: Tensor, side: int, batch: int, autocast: Autocast = nullcontext
) -> Tensor:
    """Embeddings (N, windows, D) of the windows of one size.

    Parameters
    ----------
    tokens : as ``patch_tokens`` gives them.
    side : of a window, patches.
    batch : windows per forward pass, of one or more images.
    autocast : as for ``encode``.
    """
    patches = window_patches(visual.grid_size[0], side).to(tokens.device)
    members = F.pad(patches + 1, (1, 0))  # the CLS token, number 0, comes first
    windows = tokens[:, members].flatten(0, 1)  # (N * windows, 1 + side², width)
    parts = [encode(visual, part, autocast) for part in windows.split(batch)]
    return torch.cat(parts).unflatten(0, (len(tokens), len(members)))


def anomaly_score(embeddings: Tensor, classes: Tensor) -> Tensor:
    """Embeddings (..., D) against ``class_embeddings`` (2, D) → probability (...) in (0, 1] of
    "anomalous"."""
    cosines = F.normalize(embeddings, dim=-1) @ classes.T
    return (cosines / TEMPERATURE).softmax(dim=-1)[..., 1]


def patch_scores(scores: Tensor, grid: int, side: int) -> Tensor:
    """Scores (N, windows) → (N, grid, grid): harmonic mean over the windows covering a patch."""
    across = grid - side + 1
    inverse = scores.reciprocal().view(-1, 1, across, across)

    def sum_over_covering(x: Tensor) -> Tensor:
        x = F.pad(x, (side - 1,) * 4)
        return F.avg_pool2d(x, side, stride=1, divisor_override=1)

    count = sum_over_covering(torch.ones_like(inverse[:1]))
    return (count / sum_over_covering(inverse))[:, 0]


class WinClipMasker:
    """Zero-shot masker from CLIP. ``weights`` says which file was loaded, with its digest.

    Parameters
    ----------
    name : the masker, for messages.
    settings : ``batch`` windows per forward pass; ``names`` as for ``category_words``.
    context : as in ``fader.maskers.create``.

    Raises
    ------
    MissingWeights : no source has the weights.
    FaderError : a file that is not this model's weights, or a category without words.
    """

    def __init__(self, name: str, settings: WinClip, context: Context) -> None:
        words = category_words(name, context.category, settings.names)
        self.machine, self.windows = context.machine, settings.batch
        device = self.machine.device
        clip: Any
        if context.random:
            clip, info = open_clip.CLIP(**ARCHITECTURE).eval(), WeightsInfo.random(name, CLIP.label)
            clip = clip.to(device)
            self.classes = F.normalize(
                torch.randn(2, clip.visual.output_dim, device=device), dim=-1
            )
        else:
            clip, info = load(name, context.weights_dir)
            clip = clip.to(device)
            with torch.no_grad():
                self.classes = class_embeddings(clip, words)
        self.weights = str(info)
        self.visual = clip.visual
        windows = len(window_patches(self.visual.grid_size[0], min(WINDOW_SIDES)))
        self.batch = max(1, self.windows // windows)
        self.trained = ()
        self.mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(open_clip.OPENAI_DATASET_STD, device=device).view(3, 1, 1)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """CLIP whole, without its values: the text encoder is let go once it has read the
        prompts."""
        with torch.device("meta"):
            return (open_clip.CLIP(**ARCHITECTURE),)

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] → (N, 15, 15) fp32 in (0, 1], same device; one value a
        patch of 16 pixels of the image resized to 240 (bicubic, antialiased)."""
        return torch.cat([self._maps(p).to(images.device) for p in images.split(self.batch)])

    def _maps(self, images: Tensor) -> Tensor:
        images = images.to(self.mean.device, torch.float32)
        images = resize(images, self.visual.image_size)
        tokens = patch_tokens(self.visual, (images - self.mean) / self.std)
        autocast, grid = self.machine.autocast, self.visual.grid_size[0]
        whole = anomaly_score(encode(self.visual, tokens, autocast), self.classes)
        maps = [whole.view(-1, 1, 1).expand(-1, grid, grid)]
        for side in WINDOW_SIDES:
            embeddings = window_embeddings(self.visual, tokens, side, self.windows, autocast)
            maps.append(patch_scores(anomaly_score(embeddings, self.classes), grid, side))
        return torch.stack(maps).reciprocal().mean(dim=0).reciprocal()


def load(name: str, weights_dir: Path | None = None) -> tuple[Any, WeightsInfo]:
    """Load CLIP: fp32, on the CPU, eval mode, no gradients; draws no random number.

    Its weights are looked for in the local directory, as safetensors or as open_clip
    released them (``CLIP.files``; of the latter nothing but tensors is read), then on the model
    hub.

    Parameters
    ----------
    name : the masker, for messages.
    weights_dir : local directory of weight files; None reads ``$FADER_WEIGHTS``.

    Raises
    ------
    MissingWeights : no source has the weights.
    FaderError : a directory that does not exist, or a file that is not this model's weights.
    """
    path, source = locate_clip(name, weights_directory(weights_dir))
    state = _read_release(path) if path.suffix == ".pt" else read_safetensors(path)
    # Built on the meta device: no memory and no random initialisation to be overwritten.
    with torch.device("meta"):
        clip = open_clip.CLIP(**ARCHITECTURE)
    try:
        clip.load_state_dict({k: v.float() for k, v in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise FaderError(
            f"{path} does not fit {CLIP.label}: {detail[:300]}; replace the file"
        ) from error
    # The one buffer that no file holds.
    clip.attn_mask = nn.Transformer.generate_square_subsequent_mask(clip.context_length)
    info = WeightsInfo(name=name, label=CLIP.label, source=source, sha256=file_sha256(path))
    return clip.eval().requires_grad_(False), info


def _read_release(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "empty"
        raise FaderError(
            f"{path} holds no state dict ({reason}); fetch {CLIP.release_url}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FaderError(f"{path} holds no state dict; fetch {CLIP.release_url}")
    return state


def create(name: str, settings: WinClip, context: Context) -> WinClipMasker:
    """As ``fader.maskers.create``."""
    return WinClipMasker(name, settings, context)
