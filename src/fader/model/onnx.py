"""A fitted detector, with its attention masker, as one ONNX graph: from RGB images to scores and
maps.

The graph takes uint8 images of any size, so that nothing is left to do between a decoder and the
model. It resizes them itself, as the model's images were resized (``fader.data.pack.resized``:
Pillow's bicubic filter, whose coefficients, rounding and clipping are repeated here in whole
numbers), with one reservation: rows are resized before columns, as Pillow did for every image
before its version 13, which takes tall ones the other way round; there a pixel may differ by a few
of its 255 steps. An image that already has the model's side passes unchanged.

The graph computes in fp32. A model that predicts in bf16 differs from it by the rounding of bf16;
what equals it is the same model on a machine of precision fp32. A mask is binary, so a cell of the
saliency that lies on the threshold to within fp32's rounding may fall on either side.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader import __version__
from fader.detectors.base import Detector
from fader.detectors.ear import Ear
from fader.detectors.fader import Fader
from fader.detectors.patchcore import PatchCore
from fader.errors import FaderError
from fader.files import replacing, shown
from fader.maskers import Masker
from fader.maskers.attention import AttentionMasker, cls_attention
from fader.maskers.threshold import check, masked
from fader.runtime import Machine

OPSET = 20
SUFFIX = ".onnx"
UNIT = 1 << 22  # what Pillow's filter coefficients are whole multiples of: 1 / UNIT
FP32 = Machine(torch.device("cpu"), "fp32")


def coefficients(length: int, side: int) -> Tensor:
    """Pillow's bicubic filter from ``length`` pixels to ``side``: whole numbers (side, length)
    float64, in units of 1 / ``UNIT``."""
    pixels = torch.arange(length, dtype=torch.float64)
    scale = (pixels[-1] + 1) / side  # a tensor: lengths are not known while a graph is traced
    centres = (torch.arange(side, dtype=torch.float64).unsqueeze(1) + 0.5) * scale
    x = ((pixels + 0.5 - centres) / scale.clamp_min(1)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    weights = weights / weights.sum(1, keepdim=True) * UNIT
    return weights.sign() * (weights.abs() + 0.5).floor()


def resize(images: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) uint8 → (B, C, side, side) float32, whole numbers from 0 to 255."""

    def rounded(sums: Tensor) -> Tensor:
        return ((sums + UNIT // 2) / UNIT).floor().clamp(0, 255)

    height, width = images.shape[-2:]
    # Products of whole numbers below 2^53: float64 is exact, whatever the order of the sum.
    rows = rounded(images.double() @ coefficients(width, side).T)
    return rounded(coefficients(height, side) @ rows).float()


def _fitted(vit: Any, side: int) -> Any:
    """A copy of a transformer on the CPU whose position embedding is that of images of one side, so
    that resampling it is no part of a graph."""
    vit = copy.deepcopy(vit).cpu().float()
    vit.set_input_size(img_size=(side, side))
    return vit


class Masking(nn.Module):
    """Images (B, 3, H, W) uint8 → binary masks (B, S, S) bool, True = suspected defect.

    Parameters
    ----------
    masker : its network is copied, its position embedding resampled once.
    size : S, working side of the detector, pixels.
    rule, level : as in ``fader.maskers.threshold.binarise``.
    """

    def __init__(self, masker: AttentionMasker, size: int, rule: str, level: float) -> None:
        super().__init__()
        check(rule, level)
        self.rule, self.level = rule, level
        side, self.block = masker.input_size, masker.block
        self.side = max(size, side)  # of what the masker is given
        self.vit = _fitted(masker.model, side)
        self.mean: Tensor
        self.register_buffer("mean", masker.mean.cpu())
        self.std: Tensor
        self.register_buffer("std", masker.std.cpu())
        eye = torch.eye(self.side)[None, None]
        scaled = F.interpolate(eye, (side, self.side), mode="bilinear", antialias=True)
        self.scaling: Tensor
        self.register_buffer("scaling", scaled[0, 0])
        self.cells: Tensor
        grid = torch.arange(side // self.vit.patch_embed.patch_size[0])
        cells = F.interpolate(grid[None, None].float(), size, mode="nearest")
        self.register_buffer("cells", cells[0, 0].long())

    def saliency(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 → (B, g, g) fp32, as ``AttentionMasker.saliency``."""
        pixels = resize(images, self.side) / 255
        if len(self.scaling) != self.side:
            pixels = self.scaling @ pixels @ self.scaling.T
        return cls_attention(self.vit, (pixels - self.mean) / self.std, block=self.block)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 → masks (B, S, S) bool."""
        masks = masked(self.saliency(images), self.rule, self.level)
        return masks[:, self.cells][:, :, self.cells]


class Network(nn.Module):
    """Images (B, 3, H, W) uint8 and masks (B, S, S) bool, if the detector takes any → scores (B,)
    and maps (B, S, S), float32, higher = more anomalous.

    Parameters
    ----------
    detector : fitted; it is copied, to the CPU and to fp32.
    size : S, its working side, pixels.
    """

    def __init__(self, detector: Detector, size: int) -> None:
        super().__init__()
        self.size = size
        self.detector = copy.deepcopy(detector).cpu().eval()
        self.detector.context = replace(detector.context, machine=FP32)
        if isinstance(self.detector, PatchCore):
            side = self.detector.settings.input_size
            self.detector.backbone = _fitted(self.detector.backbone, side)

    def forward(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores (B,) and maps (B, S, S)."""
        pixels = resize(images, self.size) / 255
        maps, scores = self.detector.judge(pixels, masks)
        return scores.float(), maps.float()


class Graph(nn.Module):
    """From images to scores and maps: what ``export`` writes, in PyTorch.

    Parameters
    ----------
    masker : the attention masker whose masks the detector takes; None where it takes none.
    detector, size, rule, level : as for ``Network`` and ``Masking``.

    Raises
    ------
    FaderError : a detector that takes masks has no masker, a masker that is no attention masker, a
        rule that does not exist, or a level outside its range.
    """

    def __init__(
        self,
        masker: Masker | None,
        detector: Detector,
        *,
        size: int,
        rule: str,
        level: float,
    ) -> None:
        super().__init__()
        name = type(detector).__name__
        if masker is None and isinstance(detector, (Ear, Fader)):
            raise FaderError(f"{name} works on masks: export it with its masker")
        if masker is not None and not isinstance(masker, AttentionMasker):
            raise FaderError(
                f"{name}: its masker, {type(masker).__name__}, cannot be exported; attention"
                " maskers can"
            )
        self.masking = None if masker is None else Masking(masker, size, rule, level)
        self.network = Network(detector, size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) uint8, RGB → scores (B,) and maps (B, S, S), float32, higher = more
        anomalous."""
        return self.network(images, None if self.masking is None else self.masking(images))


def export(
    masker: Masker | None,
    detector: Detector,
    path: str | Path,
    *,
    size: int,
    rule: str,
    level: float,
    parts: bool = False,
    facts: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a fitted detector as an ONNX file of opset ``OPSET``.

    Input ``images`` (batch, 3, height, width) uint8, RGB, of any number and size; outputs ``score``
    (batch,) and ``map`` (batch, S, S) float32, higher = more anomalous.

    Parameters
    ----------
    masker, detector, size, rule, level : as for ``Graph``.
    path : of the file, ``NAME.onnx``; one that is there is replaced.
    parts : write also ``NAME.masker.onnx``, from ``images`` to ``mask`` (batch, S, S) bool, True =
        suspected defect; and ``NAME.network.onnx``, from ``images`` and ``mask`` to the same
        outputs. Run one after the other, they are the whole.
    facts : what else the file's metadata holds, such as threshold and licence of the weights.

    Returns
    -------
    The files written, the whole first. Each is written whole or not at all.

    Raises
    ------
    FaderError : as for ``Graph``; another suffix; parts of a detector without a masker; a detector
        that has no graph, for its computation depends on values or on the number of images; or a
        file that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise FaderError(f"{shown(path)}: no name of an ONNX file; call it NAME{SUFFIX}")
    if parts and masker is None:
        raise FaderError(f"{shown(path)}: no parts, for the model has no masker; leave them out")
    graph = Graph(masker, detector, size=size, rule=rule, level=level).eval().requires_grad_(False)
    known = {"fader": __version__, "detector": type(detector).__name__, "size": str(size)}
    if masker is not None:
        known |= {"masker": masker.weights, "rule": f"{rule} {level:g}"}
    known |= facts or {}
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, size + 2, size + 5), generator=random, dtype=torch.uint8)
    batch, *sides = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    of_images = {0: batch, 2: sides[0], 3: sides[1]}
    whole = _File(path, graph, {"images": images}, ("score", "map"), [of_images])
    files = [whole]
    if parts:
        assert graph.masking is not None
        with torch.no_grad():
            seen = {"images": images, "mask": graph.masking(images)}
        shapes = [of_images, {0: batch}]
        files += [
            _File(_part(path, "masker"), graph.masking, {"images": images}, ("mask",), [of_images]),
            _File(_part(path, "network"), graph.network, seen, ("score", "map"), shapes),
        ]
    for file in files:
        file.write(known)
    return [file.path for file in files]


def _part(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}{SUFFIX}")


class _File:
    """A graph to be written: its module, inputs of two images, names of its outputs, and the
    dimensions of its inputs that are free."""

    def __init__(
        self,
        path: Path,
        module: nn.Module,
        inputs: Mapping[str, Tensor],
        outputs: Sequence[str],
        free: Sequence[Mapping[int, Any]],
    ) -> None:
        self.path, self.module, self.inputs = path, module, inputs
        self.outputs, self.free = outputs, free

    def write(self, facts: Mapping[str, str]) -> None:
        program = self._program()
        # Where a node comes from in the code means nothing elsewhere, and names the machine.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        program.model.graph.metadata_props.clear()
        program.model.metadata_props.clear()
        program.model.metadata_props.update(facts)
        with replacing(self.path) as temporary:
            program.save(str(temporary), include_initializers=True, external_data=False)

    def _program(self) -> Any:
        arguments = tuple(self.inputs.values())
        with torch.no_grad():
            self.module(*arguments)  # fills the caches of constants, which are not to be traced
            try:
                program = torch.onnx.export(
                    self.module,
                    arguments,
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=list(self.inputs),
                    output_names=list(self.outputs),
                    dynamic_shapes=tuple(self.free),
                    custom_translation_table={torch.ops.aten.sort.stable: _sorted},
                    verbose=False,
                )
            except torch.onnx.errors.OnnxExporterError as error:
                raise self._refused(_reason(error)) from error
        found = [value.shape[0] for value in program.model.graph.inputs]  # type: ignore[union-attr, index]  # dynamo gives one, with shapes
        if any(isinstance(size, int) for size in found):
            raise self._refused("its computation depends on the number of images")
        return program

    def _refused(self, reason: str) -> FaderError:
        return FaderError(f"{shown(self.path)}: this model has no ONNX graph: {reason}")


def _sorted(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """Stable sorting, of which the exporter knows nothing: of equal values ONNX's TopK gives the
    one with the lower index first."""
    from onnxscript import opset20

    length = opset20.Gather(  # type: ignore[type-var]  # of whole numbers
        opset20.Shape(values), opset20.Constant(value_ints=[dim])
    )
    return opset20.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


def _reason(error: BaseException) -> str:
    """What the exporter says at the bottom of its report, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
