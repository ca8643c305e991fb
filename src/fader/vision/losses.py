"""Losses and similarity maps: L2, SSIM, (multi-scale) gradient magnitude similarity, rank loss.

Images are (B, C, H, W) in [0, 1], computed in float32 channel by channel. The constants are those
of the reconstruction-by-inpainting line: SSIM of Wang et al. 2004 (11×11 Gaussian window, σ = 1.5),
GMS of Xue et al. 2014 as RIAD uses it (Prewitt ÷ 3, c = 0.0026 on [0, 1] images).

Windows are separable, so they are applied as two small dense matrix products. That is faster than a
depth-wise convolution on a CPU and, unlike bilinear interpolation, deterministic on a GPU.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

GMS_C = 0.0026
EPS = 1e-12


def _banded(taps: Tensor, size: int) -> Tensor:
    """Matrix (size − k + 1, size) that slides ``taps`` (k,) over a signal: a valid correlation."""
    rows = size - taps.numel() + 1
    matrix = torch.zeros(rows, size)
    for offset, tap in enumerate(taps.tolist()):
        matrix.diagonal(offset)[:rows] = tap
    return matrix


# The matrices are kept for the whole process, so they must be usable in training even when scoring,
# under inference mode, was the first to ask for them.
@cache
@torch.inference_mode(False)
def _gaussian_window(size: int, window: int, sigma: float, device: torch.device) -> Tensor:
    x = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    taps = torch.exp(-(x**2) / (2 * sigma**2))
    return _banded((taps / taps.sum()).float(), size).to(device)


@cache
@torch.inference_mode(False)
def _bilinear(size: int, target: int, device: torch.device) -> Tensor:
    """Matrix (target, size) of bilinear resizing with align_corners=False."""
    eye = torch.eye(size)[None]
    return F.interpolate(eye, size=target, mode="linear", align_corners=False)[0].T.to(device)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows @ x @ columns.T


def ssim(a: Tensor, b: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Mean structural similarity over valid windows and channels, a scalar in [−1, 1]."""
    c1, c2 = 0.01**2, 0.03**2
    rows = _gaussian_window(a.shape[-2], window, sigma, a.device)
    columns = _gaussian_window(a.shape[-1], window, sigma, a.device)
    moments = _separable(torch.stack([a, b, a * a, b * b, a * b]), rows, columns)
    mean_a, mean_b, aa, bb, ab = moments.unbind()
    mean_ab, mean_aa, mean_bb = mean_a * mean_b, mean_a**2, mean_b**2
    covariance, variance_a, variance_b = ab - mean_ab, aa - mean_aa, bb - mean_bb
    luminance = (2 * mean_ab + c1) / (mean_aa + mean_bb + c1)
    return (luminance * (2 * covariance + c2) / (variance_a + variance_b + c2)).mean()


def ssim_map(a: Tensor, b: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity around every pixel, mean over channels: (B, H, W) in [−1, 1].

    As ``ssim``, but of all windows that are centred on a pixel: images are mirrored beyond their
    edges.
    """
    c1, c2, reach = 0.01**2, 0.03**2, window // 2
    a, b = (F.pad(image, [reach] * 4, mode="reflect") for image in (a, b))
    rows = _gaussian_window(a.shape[-2], window, sigma, a.device)
    columns = _gaussian_window(a.shape[-1], window, sigma, a.device)
    moments = _separable(torch.stack([a, b, a * a, b * b, a * b]), rows, columns)
    mean_a, mean_b, aa, bb, ab = moments.unbind()
    covariance, variances = ab - mean_a * mean_b, aa + bb - mean_a**2 - mean_b**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean(1)


def gradient_magnitude(x: Tensor) -> Tensor:
    """sqrt(g_x² + g_y² + 1e−12) with the 3×3 Prewitt operator ÷ 3, zero padding; the shape of
    ``x``."""
    x = F.pad(x, (1, 1, 1, 1))
    columns = (x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]) / 3
    rows = (x[..., :-2] + x[..., 1:-1] + x[..., 2:]) / 3
    gx = columns[..., :-2] - columns[..., 2:]
    gy = rows[..., :-2, :] - rows[..., 2:, :]
    return (gx * gx + gy * gy + EPS).sqrt()


def gms(a: Tensor, b: Tensor, c: float = GMS_C) -> Tensor:
    """Gradient magnitude similarity map in (0, 1], the shape of the inputs."""
    ga, gb = gradient_magnitude(a), gradient_magnitude(b)
    return (2 * ga * gb + c) / (ga * ga + gb * gb + c + EPS)


def msgms_map(a: Tensor, b: Tensor, scales: int = 4, c: float = GMS_C) -> Tensor:
    """1 − mean over ``scales`` of GMS, averaged over channels: (B, H, W) in [0, 1).

    Before each scale after the first both images are averaged over 2×2 blocks; every map is scaled
    back bilinearly.
    """
    height, width = a.shape[-2:]
    total = gms(a, b, c).mean(1)
    for _ in range(scales - 1):
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        similarity = gms(a, b, c).mean(1)
        rows = _bilinear(similarity.shape[-2], height, a.device)
        columns = _bilinear(similarity.shape[-1], width, a.device)
        total = total + _separable(similarity, rows, columns)
    return 1 - total / scales


def reconstruction_loss(
    image: Tensor,
    reconstruction: Tensor,
    *,
    l2: float = 1.0,
    ssim_weight: float = 1.0,
    msgms: float = 1.0,
    scales: int = 4,
    c: float = GMS_C,
) -> dict[str, Tensor]:
    """Weighted L2 + (1 − SSIM) + mean MSGMS map, and its three parts, as scalars."""
    parts = {
        "l2": F.mse_loss(reconstruction, image),
        "ssim": 1 - ssim(image, reconstruction),
        "msgms": msgms_map(image, reconstruction, scales, c).mean(),
    }
    total = l2 * parts["l2"] + ssim_weight * parts["ssim"] + msgms * parts["msgms"]
    return {"loss": total, **parts}


def rank_loss(
    predicted: Tensor, target: Tensor, first: Tensor, second: Tensor, margin: float
) -> Tensor:
    """Equation 3, mean over pairs: max(0, −𝟙(l_i, l_j)·(l̂_i − l̂_j) + ξ).

    Parameters
    ----------
    predicted : (B, n) raw predictions l̂.
    target : (B, n) patch losses l; detached here. Ties count as −1, as printed.
    first, second : (p,) patch indices i and j of the pairs, the same for every image of the batch.
    margin : ξ.
    """
    sign = torch.where(target[:, first] > target[:, second], 1.0, -1.0).detach()
    difference = predicted[:, first] - predicted[:, second]
    return (margin - sign * difference).clamp_min(0).mean()
