"""The five networks that DSR trains, and their focal loss."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.vision.vqvae import VQVAE, image_head, quantise

GAMMA = 2.0


def focal(logits: Tensor, target: Tensor, gamma: float = GAMMA) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) without class weights: mean of −(1 − p_t)^γ · log p_t.

    Parameters
    ----------
    logits : (B, 2, H, W), computed in float32; p_t is the softmax of the target's class.
    target : (B, H, W) bool.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    log_pt = torch.where(target, log_p[:, 1], log_p[:, 0])
    return -((1 - log_pt.exp()) ** gamma * log_pt).mean()


@cache
@torch.inference_mode(False)
def _doubling(size: int, device: torch.device) -> Tensor:
    """Matrix (2 size, size) of bilinear scaling with align_corners=True."""
    eye = torch.eye(size)[None]
    return F.interpolate(eye, size=2 * size, mode="linear", align_corners=True)[0].T.to(device)


class Double(nn.Module):
    """Bilinear × 2 (corners aligned) as two matrix products, which have a fast deterministic
    gradient on every device."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, 2h, 2w)."""
        rows, columns = (_doubling(size, x.device) for size in x.shape[-2:])
        return rows @ x @ columns.T


def layer(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution 3×3 → instance normalisation (nothing learnt, hence no bias before it) → ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.InstanceNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def restriction(channels: int, width: int) -> nn.Sequential:
    """Subspace restriction: features (B, channels, h, w) → likewise, h and w multiples of 4.

    The paper's U-Net has no skip connections in the authors' code: they would let anomalies by.
    """
    w = width
    return nn.Sequential(
        *(layer(channels, w), layer(w, w), nn.MaxPool2d(2)),
        *(layer(w, 2 * w), layer(2 * w, 2 * w), nn.MaxPool2d(2)),
        *(layer(2 * w, 4 * w), layer(4 * w, 4 * w)),
        *(Double(), layer(4 * w, 2 * w), layer(2 * w, 2 * w), layer(2 * w, 2 * w)),
        *(Double(), layer(2 * w, w), layer(w, w), layer(w, w)),
        nn.Conv2d(w, channels, 3, padding=1),
    )


def image_decoder(channels: int, width: int) -> nn.Sequential:
    """Object-specific decoder: joined codes (B, 2·channels, h, w) → image (B, 3, 4h, 4w)."""
    w, neck = width, width // 2
    return nn.Sequential(
        *(layer(2 * channels, 2 * w), layer(2 * w, 4 * w), nn.MaxPool2d(2)),
        *(layer(4 * w, 4 * w), layer(4 * w, 8 * w), nn.MaxPool2d(2)),
        nn.Conv2d(8 * w, neck, 1),
        *(nn.ConvTranspose2d(neck, neck, 4, 2, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(neck, neck, 4, 2, padding=1), nn.ReLU()),
        image_head(neck, w),
    )


class MaskUNet(nn.Module):
    """U-Net of four levels, widths w, 2w, 4w, 4w: (B, inputs, H, W) → logits (B, 2, H, W)."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(layer(i, o), layer(o, o))
            for i, o in zip([inputs, *widths[:-1]], widths, strict=True)
        )
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.up = nn.ModuleList(nn.Sequential(Double(), layer(deep, o)) for deep, o in pairs)
        self.merge = nn.ModuleList(nn.Sequential(layer(2 * o, o), layer(o, o)) for _, o in pairs)
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) → logits (B, 2, S, S)."""
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for level in reversed(range(len(skips))):
            x = self.merge[level](torch.cat([self.up[level](x), skips[level]], dim=1))
        return self.head(x)


class Networks(nn.Module):
    """All that DSR trains; at channels = width = 128 the published sizes: 2 × 7.8, 9.4, 5.6, 5.6 M
    parameters. None keeps statistics of batches, so train and eval modes do not differ."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.restrict_hi = restriction(channels, width)
        self.restrict_lo = restriction(channels, width)
        self.decoder = image_decoder(channels, width)
        self.detector = MaskUNet(6, width // 2)
        self.upsampler = MaskUNet(8, width // 2)
        for module in (*self.decoder.modules(), *self.detector.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)

    def specific(self, vqvae: VQVAE, features_hi: Tensor, features_lo: Tensor) -> Tensor:
        """Object-specific image (B, 3, S, S) of restricted features, quantised on the way."""
        codes_hi, _ = quantise(features_hi, vqvae.codebook_hi)
        codes_lo, _ = quantise(features_lo, vqvae.codebook_lo)
        return self.decoder(vqvae.join(codes_hi, codes_lo))
