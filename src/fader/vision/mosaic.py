"""Mosaic obfuscation and patch tokens: what EAR shows the network instead of a suspected defect.

A mosaic of scale m replaces every m×m cell by its mean. I′ = K ⊙ I + (1 − K) ⊙ mosaic_m(I) with the
keep mask K = 1 − M_B (paper section 3.2, Figure 2(b)). FADeR cuts its tokens from the same cells,
so that one token sees either the image or one hint.
"""

from torch import Tensor
from torch.nn import functional as F


def mosaic(images: Tensor, scale: int) -> Tensor:
    """Mean of every ``scale``×``scale`` cell, grid at (0, 0); (B, C, H, W) → the same shape.

    ``scale`` must divide H and W: a ValueError otherwise.
    """
    height, width = images.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"mosaic scale {scale} does not divide the image size {height}×{width}")
    cells = F.avg_pool2d(images, scale)
    return F.interpolate(cells, size=(height, width), mode="nearest")


def obfuscate(images: Tensor, masks: Tensor, scale: int) -> Tensor:
    """I′ from images (B, C, H, W) in [0, 1] and binary masks M_B (B, H, W), True = suspected."""
    return images.where(~masks.bool().unsqueeze(1), mosaic(images, scale))


def tokens(images: Tensor, patch: int) -> Tensor:
    """Patches of (B, C, H, W) as vectors (B, n, C·patch²), row-major over the patch grid."""
    return F.unfold(images, patch, stride=patch).transpose(1, 2)


def patch_l2(a: Tensor, b: Tensor, patch: int) -> Tensor:
    """Equation 1: the mean squared difference of every patch, (B, n), row-major."""
    return F.avg_pool2d((a - b).square().mean(1, keepdim=True), patch).flatten(1)
