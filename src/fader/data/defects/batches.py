"""Anomalies on whole batches of normal images, for detectors that train on them.

After DRAEM (Zavrtanik, Kristan & Skočaj, ICCV 2021); facts beyond the paper from the authors' code
(VitjanZ/DRAEM, MIT): a texture, changed by three of ten augmentations, shows inside a thresholded
Perlin mask; half of the images stay normal, and three in ten are turned beforehand.

The ten are those of the authors' augmentation package with its defaults, less a few choices of
ours: brightness moves all channels alike, and 255 steps of hue are a full circle. All is computed
on the CPU, from the draws of one generator: the same bytes whatever the device.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fader.data.defects import _lattice_weights

OCTAVES = 6  # lattice cells per axis 2^0 … 2^5
THRESHOLD = 0.5
TURN = 90.0  # degrees, at most, of images and of noise
TURNED = 0.3  # share of the images
NORMAL = 0.5  # share of the images that stay without anomaly
TRANSPARENCY = 0.8  # β, at most
APPLIED = 3  # augmentations of a texture
_DRAWS = 3  # numbers that an augmentation may draw

# (images (n, 3, H, W), textures likewise, both float32 in [0, 1], generator) → the images with
# anomalies and the masks (n, H, W) bool of these.
Paint = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class Batch(NamedTuple):
    """Images and what was made of them.

    Parameters
    ----------
    normal, anomalous : (B, 3, H, W) float32 in [0, 1], alike where nothing was painted.
    masks : (B, H, W) bool, anomalous pixels.
    """

    normal: Tensor
    anomalous: Tensor
    masks: Tensor


def synthesise(images: Tensor, textures: Tensor, random: torch.Generator, paint: Paint) -> Batch:
    """Anomalies on some of the images, each with a texture of its own.

    Parameters
    ----------
    images, textures : (B, 3, H, W) and (N, 3, H, W) uint8 on the CPU.
    """
    count = len(images)
    turned, spoilt, degrees = torch.rand(3, count, generator=random)
    picked = torch.randint(len(textures), (count,), generator=random)
    normal = images.float() / 255
    rows = (turned < TURNED).nonzero().flatten()
    if len(rows):
        normal[rows] = rotate(normal[rows], TURN * (2 * degrees[rows] - 1))
    anomalous, masks = normal.clone(), torch.zeros(count, *images.shape[2:], dtype=torch.bool)
    rows = (spoilt >= NORMAL).nonzero().flatten()
    if len(rows):
        overlays = augment(textures[picked[rows]], random).float() / 255
        anomalous[rows], masks[rows] = paint(normal[rows], overlays, random)
    return Batch(normal, anomalous, masks)


def blend(images: Tensor, textures: Tensor, masks: Tensor, beta: Tensor) -> Tensor:
    """(1 − β)·A + β·I inside the masks (n, H, W) bool, I elsewhere, β (n,): textures A and images
    I, (n, 3, H, W)."""
    beta = beta.view(-1, 1, 1, 1)
    return torch.where(masks.unsqueeze(1), (1 - beta) * textures + beta * images, images)


def paint_textures(
    images: Tensor, textures: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """DRAEM's ``Paint``: a texture inside a Perlin mask, β ~ U(0, 0.8)."""
    height, width = images.shape[2:]
    masks = perlin_masks(len(images), (height, width), random)
    beta = TRANSPARENCY * torch.rand(len(images), generator=random)
    return blend(images, textures, masks, beta), masks


# Masks.


def perlin_masks(count: int, shape: tuple[int, int], random: torch.Generator) -> Tensor:
    """Thresholded Perlin noise (see ``perlin_noise``), (count, H, W) bool; empty by chance.

    The cells of each axis are drawn by themselves, and the noise is turned about the centre.
    """
    rows, columns = torch.randint(OCTAVES, (2, count), generator=random)
    lines = 2 ** (OCTAVES - 1) + 1
    gradients = 2 * math.pi * torch.rand(count, lines, lines, generator=random)
    degrees = TURN * (2 * torch.rand(count, generator=random) - 1)
    noise = perlin_batch(shape, rows, columns, gradients)
    return rotate(noise.unsqueeze(1), degrees).squeeze(1) > THRESHOLD


def perlin_batch(
    shape: tuple[int, int], rows: Tensor, columns: Tensor, gradients: Tensor
) -> Tensor:
    """``perlin_noise`` on 2^rows × 2^columns lattice cells each, (count, H, W) float32.

    Parameters
    ----------
    rows, columns : (count,) int64, below ``OCTAVES``.
    gradients : (count, 33, 33) angles; cells that a lattice does not have are not looked at.
    """
    weight_y, offset_y = (each[rows] for each in _lattices(shape[0]))
    weight_x, offset_x = (each[columns].mT for each in _lattices(shape[1]))
    noise = offset_y @ gradients.sin() @ weight_x + weight_y @ gradients.cos() @ offset_x
    return math.sqrt(2) * noise


@cache
def _lattices(pixels: int) -> tuple[Tensor, Tensor]:
    """Weights and weighted distances of ``_lattice_weights`` for 1 … 32 cells, (OCTAVES, pixels,
    33) each; zero for lines that a lattice does not have."""
    both = torch.zeros(2, OCTAVES, pixels, 2 ** (OCTAVES - 1) + 1)
    for octave in range(OCTAVES):
        for kept, values in zip(both, _lattice_weights(pixels, 2**octave), strict=True):
            kept[octave, :, : 2**octave + 1] = torch.from_numpy(values)
    weights, offsets = both
    return weights, offsets


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Images (n, C, H, W) float32, each turned clockwise about its centre by its ``degrees`` (n,),
    bilinear; zero where they were not."""
    height, width = images.shape[2:]
    angles = torch.deg2rad(degrees)
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrices = torch.stack(
        [cos, sin * height / width, none, -sin * width / height, cos, none], dim=1
    )
    grid = F.affine_grid(matrices.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


# Textures.


def augment(textures: Tensor, random: torch.Generator) -> Tensor:
    """Textures (n, 3, H, W) uint8, each changed by three of ``AUGMENTATIONS`` in any order."""
    count = len(textures)
    order = torch.rand(count, len(AUGMENTATIONS), generator=random).argsort(1)
    draws = torch.rand(APPLIED, count, _DRAWS, generator=random)
    textures = textures.clone()
    for turn, numbers in enumerate(draws):
        for kind, change in enumerate(AUGMENTATIONS):
            rows = (order[:, turn] == kind).nonzero().flatten()
            if len(rows):
                textures[rows] = change(textures[rows], numbers[rows])
    return textures


# Each takes images (n, 3, H, W) uint8 and draws (n, 3) from U(0, 1), and gives images likewise.


def gamma(images: Tensor, draws: Tensor) -> Tensor:
    """v^γ, γ ~ U(0.5, 2) for each channel."""
    exponents = (0.5 + 1.5 * draws).unsqueeze(2)
    return _looked_up(images, 255 * (_LEVELS / 255) ** exponents)


def brightness(images: Tensor, draws: Tensor) -> Tensor:
    """a·v + b, a ~ U(0.8, 1.2), b ~ U(−30, 30)."""
    factor, shift = (draws[:, i].view(-1, 1, 1) for i in (0, 1))
    return _looked_up(images, (0.8 + 0.4 * factor) * _LEVELS + 60 * shift - 30)


def sharpness(images: Tensor, draws: Tensor) -> Tensor:
    """Pillow's enhancer: s + f·(v − s), s smoothed (3 × 3, the centre five times), f ~ U(0, 3); the
    outermost pixels stay."""
    v = images.float()
    around = v[..., :-2] + v[..., 1:-1] + v[..., 2:]
    around = around[..., :-2, :] + around[..., 1:-1, :] + around[..., 2:, :]
    inner = v[..., 1:-1, 1:-1]
    smooth = ((around + 4 * inner) / 13).round()
    v[..., 1:-1, 1:-1] = smooth + 3 * draws[:, 0].view(-1, 1, 1, 1) * (inner - smooth)
    return _bytes(v)


def hue_and_saturation(images: Tensor, draws: Tensor) -> Tensor:
    """Hue and saturation of HSV each moved by U(−50, 50) of 255."""
    moves = (100 * draws - 50) / 255
    red, green, blue = (images.float() / 255).unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp_min(1e-6)
    sixths = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    sixths = torch.where(value == red, (green - blue) / divisor, sixths)
    hue = sixths + 6 * moves[:, 0].view(-1, 1, 1)
    saturation = chroma / value.clamp_min(1e-6) + moves[:, 1].view(-1, 1, 1)
    k = (torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1) + hue.unsqueeze(1)) % 6
    lack = torch.minimum(k, 4 - k).clamp(0, 1) * saturation.clamp(0, 1).unsqueeze(1)
    return _bytes(255 * value.unsqueeze(1) * (1 - lack))


def solarize(images: Tensor, draws: Tensor) -> Tensor:
    """In half of the images, 255 − v on one side, drawn, of a threshold ~ U(32, 128)."""
    done, side, share = (draws[:, i].view(-1, 1, 1) for i in (0, 1, 2))
    beyond = (32 + 96 * share <= _LEVELS) == (side < 0.5)
    return _looked_up(images, torch.where(beyond & (done < 0.5), 255 - _LEVELS, _LEVELS))


def posterize(images: Tensor, draws: Tensor) -> Tensor:
    """The upper 1 to 8 bits, drawn."""
    steps = 2 ** (8 * draws[:, 0]).floor().view(-1, 1, 1)  # of the lower 0 to 7
    return _looked_up(images, (_LEVELS / steps).floor() * steps)


def invert(images: Tensor, draws: Tensor) -> Tensor:
    """255 − v."""
    return 255 - images


def autocontrast(images: Tensor, draws: Tensor) -> Tensor:
    """Pillow's, of each channel: the levels left when 0 to 20 %, drawn, of the pixels are cut off
    at either end are stretched to all; a channel of one level stays."""
    histograms = _histograms(images)
    cut = images[0, 0].numel() * (21 * draws[:, :1]).floor().div(100).unsqueeze(2)
    low = (histograms.cumsum(2) <= cut).sum(2, keepdim=True)
    high = 255 - (histograms.flip(2).cumsum(2) <= cut).sum(2, keepdim=True)
    stretched = ((_LEVELS - low) * (255 / (high - low))).floor()
    return _looked_up(images, torch.where(high > low, stretched, _LEVELS))


def equalize(images: Tensor, draws: Tensor) -> Tensor:
    """Pillow's, of each channel: levels spread so that as many pixels have each; a channel of one
    level stays."""
    histograms = _histograms(images)
    total = histograms.cumsum(2)
    last = (histograms * (total == total[..., -1:])).amax(2, keepdim=True)
    step = (total[..., -1:] - last) // 255
    spread = (step // 2 + total - histograms) // step.clamp_min(1)
    return _looked_up(images, torch.where(step > 0, spread, _LEVELS))


def turn(images: Tensor, draws: Tensor) -> Tensor:
    """Rotation by U(−45°, 45°)."""
    return _bytes(rotate(images.float(), 90 * draws[:, 0] - 45))


AUGMENTATIONS = (
    *(gamma, brightness, sharpness, hue_and_saturation, solarize),
    *(posterize, invert, autocontrast, equalize, turn),
)

_LEVELS = torch.arange(256.0)


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _looked_up(images: Tensor, tables: Tensor) -> Tensor:
    """Every pixel's entry in the table (n, 3 or 1, 256) of its image and channel."""
    entries = _bytes(tables).expand(-1, 3, -1)
    return entries.gather(2, images.flatten(2).long()).view(images.shape)


def _histograms(images: Tensor) -> Tensor:
    """Pixels (n, 3, 256) int64 of each level."""
    channels = 256 * torch.arange(3 * len(images)).view(-1, 3, 1)
    places = images.flatten(2) + channels
    return torch.bincount(places.flatten(), minlength=channels.numel() * 256).view(-1, 3, 256)
