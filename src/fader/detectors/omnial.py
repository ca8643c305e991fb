"""OmniAL: a unified CNN framework for unsupervised anomaly localisation (Zhao, CVPR 2023).

**Re-derived from what others say of it**: the paper's text was not at hand, and there is no code.
Known are JNLD's maps, losses and labels (``fader.detectors.jnld``), panels that guide the
synthesis, with anomalies of three difficulties in one image, whose masks are softened less the
easier they are, and may overlap; dilated channel and spatial attention (DCSA) in the blocks of the
reconstruction; and in the segmentation a neck of differences between features of image and
reconstruction (DiffNeck).

All else is ours. A texture shows through one Perlin mask a level, from the most difficult on, each
fused with what the former ones made. A DCSA block is DRAEM's block whose first convolution is
dilated, followed by CBAM's attention (Woo et al., ECCV 2018): of channels, then of pixels. The neck
is, at every scale, a 1 × 1 convolution of the features of what is seen and of the absolute
difference to those of its reconstruction, both of one encoder, and takes the skip connection's
place. One model is trained for each category.
"""

import torch
from torch import Tensor, nn

from fader.config import OmniAl as Settings
from fader.data.defects.batches import perlin_masks
from fader.detectors.base import Context
from fader.detectors.draem import Segmentation, layer
from fader.detectors.jnld import SeesJnd, fuse, label, soften

SPAN = 7  # pixels that the spatial attention looks at, as in CBAM


class ChannelAttention(nn.Module):
    """x ⊗ σ(M(mean x) + M(max x)), mean and maximum over all pixels, M two 1 × 1 convolutions."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(width, width // reduction, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // reduction, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The shape of ``x`` (B, C, H, W)."""
        mean, most = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * (self.mix(mean) + self.mix(most)).sigmoid()


class SpatialAttention(nn.Module):
    """x ⊗ σ(C[mean x, max x]), mean and maximum over the channels, C a 7 × 7 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(2, 1, SPAN, padding=SPAN // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The shape of ``x`` (B, C, H, W)."""
        about = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.look(about).sigmoid()


class Neck(nn.Module):
    """1 × 1 convolution of features and their absolute differences → normalisation → ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.merge = nn.Sequential(
            nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def forward(self, seen: Tensor, made: Tensor) -> Tensor:
        """Features (B, C, H, W) of one level each → likewise."""
        return self.merge(torch.cat([seen, (seen - made).abs()], dim=1))


class NeckedSegmentation(Segmentation):
    """One encoder reads what is seen and its reconstruction; necks join them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width)
        self.necks = nn.ModuleList(Neck(each) for each in self.widths)

    def inputs(self, channels: int) -> int:
        """As ``Segmentation.inputs``."""
        return channels

    def features(self, seen: Tensor, made: Tensor) -> list[Tensor]:
        """As ``Segmentation.features``."""
        both = self.encoder(torch.cat([seen, made]))
        pairs = [each.unflatten(0, (2, -1)).unbind() for each in both]
        return [neck(*pair) for neck, pair in zip(self.necks, pairs, strict=True)]


class OmniAl(SeesJnd):
    """DCSA in the reconstruction, necks in the segmentation, all levels in an image."""

    settings: Settings
    segmenter = NeckedSegmentation

    def block(self, inputs: int, middle: int, outputs: int) -> nn.Module:
        """DCSA."""
        return nn.Sequential(
            layer(inputs, middle, self.settings.dilation),
            layer(middle, outputs),
            ChannelAttention(outputs, self.settings.reduction),
            SpatialAttention(),
        )

    def paint(
        self, images: Tensor, overlays: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """As ``Draem.paint``."""
        count, _, height, width = images.shape
        anomalous = images
        for level, smooth in zip(self.settings.levels, self.settings.smooths, strict=True):
            alpha = soften(perlin_masks(count, (height, width), random), smooth)
            anomalous = fuse(anomalous, overlays, alpha, torch.full((count,), level))
        return anomalous, label(images, anomalous, self.settings.similar)


def create(settings: Settings, context: Context) -> OmniAl:
    """As ``fader.detectors.create``."""
    return OmniAl(context, settings).eval()
