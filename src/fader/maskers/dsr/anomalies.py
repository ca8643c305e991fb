"""Anomalies for DSR's training: normal codes replaced by others, and smudged images."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fader.data.defects import perlin_noise
from fader.vision.vqvae import VQVAE, look_up

HI, LO = 4, 8  # pixels of the image per side of a cell
PERLIN_OCTAVES = 6  # lattice cells per axis 2^0 … 2^5
PERLIN_THRESHOLD = 0.5
NORMAL = 0.5  # probability that an image stays without anomaly
NEAREST_LEFT_OUT = 0.05  # of the codes, too alike to be an anomaly
STRENGTH = (0.2, 1.0)
SMUDGE_TRANSPARENCY = 0.8  # at most


def perlin_masks(count: int, size: int, random: torch.Generator) -> Tensor:
    """Thresholded Perlin noise, (count, size, size) bool; half of the masks are empty on purpose,
    others may be by chance."""
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=random)))
    masks = np.zeros((count, size, size), bool)
    for mask in masks:
        if rng.random() >= NORMAL:
            cells = tuple(2 ** rng.integers(PERLIN_OCTAVES, size=2))
            mask[:] = perlin_noise((size, size), cells, rng) > PERLIN_THRESHOLD
    return torch.from_numpy(masks)


def pool(masks: Tensor, cell: int) -> Tensor:
    """Masks (B, S, S) bool → (B, S/cell, S/cell) bool: a cell is marked when any pixel of it is."""
    return F.max_pool2d(masks.float(), cell).bool()


def unpool(masks: Tensor, cell: int) -> Tensor:
    """Every element of (B, h, w) as a block of cell × cell."""
    return masks.repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def rank_range(strength: Tensor, codes: int) -> tuple[int, Tensor]:
    """Ranks [first, end) of the codes that may replace one, by distance from it, itself rank 0.

    ``end`` (B,) int64 grows with the strength (B,): int(strength · codes) + 1, at most codes − 1.
    The nearest 5 % are left out, and always the code itself; at least one rank remains.
    """
    first = max(1, int(NEAREST_LEFT_OUT * codes))
    end = ((strength * codes).long() + 1).clamp(max=codes - 1)
    return first, end.clamp(min=first + 1)


def displace(
    indices: Tensor, inside: Tensor, ranking: Tensor, strength: Tensor, random: torch.Generator
) -> Tensor:
    """Replace the codes inside a mask by random ones of their allowed neighbours.

    Parameters
    ----------
    indices : (B, h, w) int64, codes of an image.
    inside : (B, h, w) bool, where to replace.
    ranking : (K, K), row k = all codes by distance from code k.
    strength : (B,) in (0, 1] on the CPU, see ``rank_range``.
    """
    first, end = rank_range(strength, len(ranking))
    drawn = torch.rand(indices.shape, generator=random)
    ranks = first + (drawn * (end - first)[:, None, None]).long()
    replacement = ranking[indices, ranks.to(indices.device)].long()
    return torch.where(inside, replacement, indices)


def corrupt(
    vqvae: VQVAE,
    rankings: Mapping[str, Tensor],
    encoded: Tensor,
    hi: Tensor,
    lo: Tensor,
    masks: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Anomalous codes of normal images, at the hi level, the lo level or both.

    Both with probability ½, else either. In an image with both, the hi features are computed anew
    from the anomalous lo codes before their codes are replaced in turn.

    Parameters
    ----------
    rankings : of each codebook, ``hi`` and ``lo``.
    encoded : (B, C, S/4, S/4) float32, output of ``vqvae.encoder_hi``.
    hi, lo : codes of the normal images, (B, S/4, S/4) and (B, S/8, S/8) int64.
    masks : (B, S, S) bool.

    Returns
    -------
    hi and lo codes as given, replaced where the masks touch their cells; and the mask (B, S, S)
    bool of these cells, the coarser ones where both levels are anomalous.
    """
    count, device = len(masks), masks.device
    both, only_lo = (torch.rand(2, count, 1, 1, generator=random) < 0.5).to(device)
    in_lo, in_hi = both | only_lo, both | ~only_lo
    strength = torch.empty(2, count).uniform_(*STRENGTH, generator=random)
    cells_hi, cells_lo = pool(masks, HI), pool(masks, LO)

    new_lo = displace(lo, cells_lo & in_lo, rankings["lo"], strength[0], random)
    dependent = vqvae.hi(encoded, look_up(new_lo, vqvae.codebook_lo)).indices
    new_hi = torch.where(both, dependent, hi)
    new_hi = displace(new_hi, cells_hi & in_hi, rankings["hi"], strength[1], random)
    return new_hi, new_lo, torch.where(in_lo, unpool(cells_lo, LO), unpool(cells_hi, HI))


def smudge(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) with one colour blended in inside the masks (B, S, S) bool; its opacity
    is 1 − β, β ~ U(0, 0.8)."""
    colour = torch.rand(len(images), 3, 1, 1, generator=random).to(images.device)
    beta = torch.rand(len(images), 1, 1, 1, generator=random).to(images.device)
    beta = SMUDGE_TRANSPARENCY * beta
    return torch.where(masks[:, None], (1 - beta) * colour + beta * images, images)
