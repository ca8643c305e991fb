"""Just noticeable difference: how far a pixel may move before the eye sees it.

Luminance adaptation after Chou & Li (IEEE Transactions on Circuits and Systems for Video Technology
5(6), 1995), texture masking by directional gradients and their combination, the nonlinear
additivity model for masking (NAMM), after Yang et al. (Signal Processing: Image Communication
20(7), 2005), without that model's weight for edges and without its chroma.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
MASKING = 0.117  # texture masking per grey level of the gradient
OVERLAP = 0.3  # of luminance adaptation and texture masking

_BACKGROUND = (
    (1, 1, 1, 1, 1),
    (1, 2, 2, 2, 1),
    (1, 2, 0, 2, 1),
    (1, 2, 2, 2, 1),
    (1, 1, 1, 1, 1),
)  # ÷ 32
_GRADIENTS = (
    ((0, 0, 0, 0, 0), (1, 3, 8, 3, 1), (0, 0, 0, 0, 0), (-1, -3, -8, -3, -1), (0, 0, 0, 0, 0)),
    ((0, 0, 1, 0, 0), (0, 8, 3, 0, 0), (1, 3, 0, -3, -1), (0, 0, -3, -8, 0), (0, 0, -1, 0, 0)),
    ((0, 0, 1, 0, 0), (0, 0, 3, 8, 0), (-1, -3, 0, 3, 1), (0, -8, -3, 0, 0), (0, 0, -1, 0, 0)),
    ((0, 1, 0, -1, 0), (0, 3, 0, -3, 0), (0, 8, 0, -8, 0), (0, 3, 0, -3, 0), (0, 1, 0, -1, 0)),
)  # ÷ 16


@torch.no_grad()
def jnd(images: Tensor) -> Tensor:
    """Just noticeable difference of images (B, 3, H, W) in [0, 1]: (B, 1, H, W) float32, in the
    same unit; of a flat mid-grey image 3 of 255 levels. The outermost pixels are repeated beyond
    the edges. No gradient passes."""
    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    grey = 255 * (images.float() * luma).sum(1, keepdim=True)
    kernels = torch.tensor((_BACKGROUND, *_GRADIENTS), device=images.device).float().unsqueeze(1)
    background, *gradients = F.conv2d(F.pad(grey, [2] * 4, mode="replicate"), kernels).unbind(1)
    adaptation = luminance_adaptation(background / 32)
    masking = MASKING * torch.stack(gradients).abs().amax(0) / 16
    both = adaptation + masking - OVERLAP * torch.minimum(adaptation, masking)
    return both.unsqueeze(1) / 255


def luminance_adaptation(background: Tensor) -> Tensor:
    """Visibility threshold on a background of 0 … 255, in the same levels: 20 in the dark, 3 at
    127, 6 in the light."""
    dark = 17 * (1 - (background.clamp(0, 127) / 127).sqrt()) + 3
    light = 3 / 128 * (background - 127) + 3
    return torch.where(background <= 127, dark, light)
