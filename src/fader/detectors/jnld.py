"""JNLD: just noticeable learning for unsupervised anomaly localisation and detection (Zhao, ICME
2022).

**Re-derived from what others say of it**: the paper's text was not at hand, and there is no code.
Known are DRAEM's two networks, maps of just noticeable differences (JND) that both of them learn
from, anomalies of several degrees of noticeability, fused with the image by weights from these
maps, and labels corrected where image and anomalous image are alike.

All else is ours. Both networks see the image and its map (``fader.vision.jnd``), four channels, and
both are reconstructed, with one loss over all channels. A texture T shows on an image I as
A = I + α·(β + (1 − β)·J / max J)·(T − I), α a Perlin mask softened by a mean filter, J the map and
β one of three levels, drawn for each image: where the eye notices little, much of the texture
shows. Changed pixels are labelled as anomalous where the SSIM of I and A is below a threshold.
Networks, augmentations, losses, schedule and scores are DRAEM's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fader.config import Jnld as Settings
from fader.data.defects.batches import perlin_masks
from fader.detectors.base import Context
from fader.detectors.draem import Draem
from fader.vision.jnd import jnd
from fader.vision.losses import ssim_map


def fuse(images: Tensor, overlays: Tensor, alpha: Tensor, floor: Tensor) -> Tensor:
    """I + α·(β + (1 − β)·J / max J)·(T − I).

    Parameters
    ----------
    images, overlays : I and T, (n, 3, H, W) in [0, 1].
    alpha : (n, H, W) in [0, 1].
    floor : β of each image, (n,) in [0, 1].
    """
    noticed = jnd(images)
    tolerance = noticed / noticed.amax((1, 2, 3), keepdim=True)
    beta = floor.view(-1, 1, 1, 1)
    return images + alpha.unsqueeze(1) * (beta + (1 - beta) * tolerance) * (overlays - images)


def soften(masks: Tensor, side: int) -> Tensor:
    """Mean of masks (n, H, W) bool over squares of an odd ``side``, in [0, 1]."""
    return F.avg_pool2d(masks.float(), side, 1, side // 2)


def label(images: Tensor, anomalous: Tensor, similar: float) -> Tensor:
    """Pixels (n, H, W) bool that changed, and around which the SSIM of the images (n, 3, H, W) is
    below ``similar``."""
    return (images != anomalous).any(1) & (ssim_map(images, anomalous) < similar)


class SeesJnd(Draem):
    """A detector of DRAEM's line whose networks see images with their JND."""

    channels = 4

    def seen(self, images: Tensor) -> Tensor:
        """As ``Draem.seen``: the image, and its JND."""
        return torch.cat([images, jnd(images)], dim=1)


class Jnld(SeesJnd):
    """DRAEM's networks, one level of noticeability in an image."""

    settings: Settings

    def paint(
        self, images: Tensor, overlays: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """As ``Draem.paint``."""
        count, _, height, width = images.shape
        levels = torch.tensor(self.settings.levels)
        alpha = soften(perlin_masks(count, (height, width), random), self.settings.smooth)
        drawn = torch.randint(len(levels), (count,), generator=random)
        anomalous = fuse(images, overlays, alpha, levels[drawn])
        return anomalous, label(images, anomalous, self.settings.similar)


def create(settings: Settings, context: Context) -> Jnld:
    """As ``fader.detectors.create``."""
    return Jnld(context, settings).eval()
