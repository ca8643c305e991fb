"""Vision transformers, for their attention."""

from pathlib import Path
from typing import Any

import timm
from torch import nn

from fader.errors import FaderError
from fader.vision.backbones.readers import assemble, read
from fader.vision.backbones.weights import WeightsInfo, backbone


def load(
    name: str, weights_dir: Path | None = None, *, random: bool = False
) -> tuple[nn.Module, WeightsInfo]:
    """Load a pretrained vision transformer: fp32, on the CPU, eval mode, no gradients, no head.

    It takes any input whose sides are multiples of the patch size (the position embedding is
    resampled). Loading draws no random number.

    Parameters
    ----------
    name : a key of ``BACKBONES``.
    weights_dir : local directory of weight files; None reads ``$FADER_WEIGHTS``.
    random : load nothing, but draw weights, on torch's current device: to measure cost.

    Raises
    ------
    MissingWeights : no source has the weights.
    FaderError : unknown name, a directory that does not exist, a file with the wrong digest or
        unfit for the architecture.
    """
    entry = backbone(name)
    if entry.patch_size is None:
        raise FaderError(f"backbone {name!r} is no vision transformer and has no attention")
    options: dict[str, Any] = {"dynamic_img_size": True}
    if random:
        model = timm.create_model(entry.architecture, num_classes=0, **entry.options, **options)
        return model.eval().requires_grad_(False), WeightsInfo.random(name, entry.label)
    state, path, info = read(name, entry, weights_dir)
    return assemble(entry, state, path, **options), info
