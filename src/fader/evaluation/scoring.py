"""From an image and its reconstruction to an anomaly map and an image score (paper section 4.1).

The map is 1 − MSGMS, mean-filtered with zero padding; the image score is its maximum. The filter,
its size and the maximum are not given by the paper: they are RIAD's, and our choice.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fader.config import Score
from fader.runtime import Machine
from fader.vision.losses import msgms_map

Reconstruct = Callable[[Tensor, Tensor], Tensor]


def anomaly_map(images: Tensor, reconstructions: Tensor, score: Score) -> Tensor:
    """Smoothed 1 − MSGMS of images and reconstructions (B, 3, H, W) in [0, 1]: (B, H, W)."""
    raw = msgms_map(images, reconstructions, score.scales, score.c).unsqueeze(1)
    return F.avg_pool2d(raw, score.smooth, stride=1, padding=score.smooth // 2).squeeze(1)


def image_scores(maps: Tensor) -> Tensor:
    """Maximum of every map (N, H, W): (N,)."""
    return maps.flatten(1).amax(1)


def maps_of(
    reconstruct: Reconstruct, pixels: Tensor, masks: Tensor, score: Score, machine: Machine
) -> Tensor:
    """Anomaly maps of uint8 images (N, 3, H, W) with binary masks (N, H, W): (N, H, W) fp32 on the
    CPU."""
    maps = []
    with torch.inference_mode():
        for part, mask in zip(pixels.split(score.batch), masks.split(score.batch), strict=True):
            images = machine.images(part)
            maps.append(
                anomaly_map(images, reconstruct(images, mask.to(machine.device)), score).cpu()
            )
    return torch.cat(maps)
