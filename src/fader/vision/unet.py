"""The U-Net that EAR and FADeR share (paper section 4.1; open points settled in ``UNet``'s
docstring).

The encoder and the decoder are separate modules, because FADeR freezes the first, fine-tunes the
second and attenuates the skip connections in between (equation 4).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.01


def conv_layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution 3×3 → batch normalisation → leaky ReLU, the paper's basic layer."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(LEAK, inplace=True),
    )


def scale_mask(mask: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Θ of equation 4: a patch mask (B, g, g) scaled to (B, 1, h, w).

    ``mode`` is ``nearest`` (the paper's choice) or ``bilinear`` (Table 3). Where the grid is finer
    than the feature map, nearest scaling decimates it.
    """
    mask = mask.unsqueeze(1)
    if mode == "nearest":
        return F.interpolate(mask, size=tuple(size), mode="nearest")
    return F.interpolate(mask, size=tuple(size), mode="bilinear", align_corners=False)


class Encoder(nn.Module):
    """Encoder of ``UNet``: skip features of all levels but the deepest, and its feature."""

    def __init__(self, widths: Sequence[int], channels: int = 3):
        super().__init__()
        inputs = [channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_layer(i, o), conv_layer(o, o))
            for i, o in zip(inputs, widths, strict=True)
        )
        self.down = nn.ModuleList(conv_layer(w, w, stride=2) for w in widths[:-1])

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images (B, 3, H, W) → the D−1 skip features, shallow first, and the deepest feature."""
        skips = []
        for block, down in zip(self.blocks[:-1], self.down, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        return skips, self.blocks[-1](x)


class Decoder(nn.Module):
    """Decoder of ``UNet``, whose skips take a mask (Equation 4)."""

    def __init__(self, widths: Sequence[int], output: str, channels: int = 3):
        super().__init__()
        self.up = nn.ModuleList(
            conv_layer(deep, shallow) for deep, shallow in zip(widths[1:], widths[:-1], strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_layer(2 * w, w), conv_layer(w, w)) for w in widths[:-1]
        )
        self.head = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.output = output

    def forward(
        self,
        skips: Sequence[Tensor],
        deepest: Tensor,
        mask: Tensor | None = None,
        scaling: str = "nearest",
    ) -> Tensor:
        """Equation 4: Dec^d(concat(Dec^{d+1}, Enc^d ⊙ Θ(M_S))) for every level but the deepest.

        ``mask`` is M_S as (B, g, g) in [0, 1], or None for the plain U-Net. Returns (B, 3, H, W) in
        [0, 1].
        """
        x = deepest
        for level in reversed(range(len(skips))):
            skip = skips[level]
            if mask is not None:
                skip = skip * scale_mask(mask, skip.shape[-2:], scaling).to(skip.dtype)
            x = self.up[level](F.interpolate(x, scale_factor=2, mode="nearest"))
            x = self.blocks[level](torch.cat([x, skip], dim=1))
        x = self.head(x).float()
        return x.sigmoid() if self.output == "sigmoid" else x.clamp(1e-12, 1 - 1e-12)


class UNet(nn.Module):
    """D-level U-Net, D = len(widths), of the EAR line of work.

    Encoder block: three conv layers, the third with stride 2; the skip is taken after the second,
    and the deepest block has two layers and no skip. Decoder level: nearest ×2 → conv layer →
    concatenation with the skip → two conv layers; a last convolution without normalisation makes
    the image. Skip point, widths and output are not given by the paper; widths (64, 128, 256, 512,
    512) give 25.86 M parameters.

    Parameters
    ----------
    widths : channels of each level, shallow first; the image side must be divisible by 2**(D−1).
    output : ``sigmoid`` or ``clamp`` (to [1e-12, 1−1e-12], whose gradient dies where it saturates).
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256, 512, 512), output: str = "sigmoid"):
        super().__init__()
        self.encoder = Encoder(widths)
        self.decoder = Decoder(widths, output)

    def forward(self, images: Tensor, mask: Tensor | None = None, scaling: str = "nearest"):
        """Images (B, 3, H, W) → (B, 3, H, W) in [0, 1]; the rest as for ``Decoder``."""
        skips, deepest = self.encoder(images)
        return self.decoder(skips, deepest, mask, scaling)
