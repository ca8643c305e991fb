"""Convolutional networks, for their feature levels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fader.errors import FaderError
from fader.vision.backbones.readers import assemble, read
from fader.vision.backbones.weights import WeightsInfo, backbone
from fader.vision.registry import Backbone


class Pyramid(nn.Module):
    """Frozen feature levels of a pretrained convolutional network, images normalised inside.

    Parameters
    ----------
    network : timm's, with ``features_only``.
    entry : what its weights are and how images are normalised.
    info : the weights.

    Attributes
    ----------
    channels, strides : of each level; a stride is the pixels of the image per cell.
    """

    def __init__(self, network: Any, entry: Backbone, info: WeightsInfo) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.channels: list[int] = network.feature_info.channels()
        self.strides: list[int] = network.feature_info.reduction()
        self.info = info
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(entry.mean).view(3, 1, 1), persistent=False)
        self.std: Tensor
        self.register_buffer("std", torch.tensor(entry.std).view(3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Pyramid":
        """Stays in eval mode, also within a module that is trained."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [0, 1] → a tensor (N, channels[i], H/strides[i], W/strides[i])
        each level."""
        return self.network((images - self.mean) / self.std)


def load_pyramid(
    name: str, layers: Sequence[int], weights_dir: Path | None = None, *, random: bool = False
) -> Pyramid:
    """Load a pretrained convolutional network as a pyramid: fp32, on the CPU, no gradients.

    Parameters
    ----------
    name : a key of ``BACKBONES``, or a model of timm with its tag.
    layers : feature levels, ascending, as timm counts them (``out_indices``).
    weights_dir : local directory of weight files; None reads ``$FADER_WEIGHTS``.
    random : load nothing, but draw weights, on torch's current device: to measure cost.

    Raises
    ------
    MissingWeights, FaderError : as ``load``; also for levels that the network has not.
    """
    entry = backbone(name)
    if random:
        network = _levels(name, entry, layers)
        return Pyramid(network, entry, WeightsInfo.random(name, entry.label))
    state, path, info = read(name, entry, weights_dir)
    # A complete and strict load first: with features_only, timm leaves out what does not fit.
    whole = assemble(entry, state, path).state_dict()
    with torch.random.fork_rng(devices=[]):  # timm draws initial weights before it loads
        overlay = {"state_dict": whole}
        network = _levels(name, entry, layers, pretrained=True, pretrained_cfg_overlay=overlay)
    return Pyramid(network, entry, info)


def _levels(name: str, entry: Backbone, layers: Sequence[int], **options: Any) -> Any:
    """timm's network up to the last of some feature levels, which it gives."""
    try:
        return timm.create_model(
            entry.architecture,
            features_only=True,
            out_indices=tuple(layers),
            **entry.options,
            **options,
        )
    except (IndexError, AssertionError, ValueError, RuntimeError) as error:
        raise FaderError(
            f"backbone {name!r}: no feature levels {list(layers)}: {error!r}; fewer or others"
        ) from error
