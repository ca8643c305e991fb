"""VQ-VAE-2: an autoencoder whose features are quantised at two scales, hi (1/4) and lo (1/8).

After Razavi et al., "Generating Diverse High-Fidelity Images with VQ-VAE-2" (NeurIPS 2019), in the
layers of DSR (Zavrtanik et al., ECCV 2022; VitjanZ/DSR_anomaly_detection), whose pre-trained file
fits this model name by name (``fader.maskers.dsr.codebook``). Codebooks are not trained by
gradients: they follow the exponential moving average of the vectors assigned to them (van den Oord
et al., "Neural Discrete Representation Learning", NeurIPS 2017, appendix A.1), and a code that
nothing is assigned to any more restarts at a vector of the batch (Dhariwal et al., "Jukebox",
2020).

Distances are always in float32: in bfloat16 the nearest code of close ones would be arbitrary.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COMMITMENT = 0.25
DECAY = 0.99
# Restarts, as fractions of an even share of the assigned vectors: a code dies below the first, and
# starts anew at the second, from where it dies again in ln 1.1 / 0.01 ≈ 10 steps without vectors.
DEAD, REVIVED = 0.05, 0.055
DISTANCES = 2**24  # of one block of the nearest-code search: 64 MiB


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index (N,) of the code (K, C) nearest to each vector (N, C); the first of equally near ones.

    argmin ‖x − e‖² = argmin ½‖e‖² − x·e: one matrix product a block of rows.
    """
    half_norms = codebook.square().sum(1) / 2
    rows = max(1, DISTANCES // len(codebook))
    return torch.cat(
        [
            torch.addmm(half_norms, block, codebook.T, alpha=-1).argmin(1)
            for block in vectors.split(rows)
        ]
    )


def nearest_first(codebook: Tensor) -> Tensor:
    """All codes by their distance from each: (K, K) int32, row k begins with k; ties by index."""
    half_norms = codebook.square().sum(1) / 2
    distances = torch.addmm(half_norms, codebook, codebook.T, alpha=-1)
    # Rounding, or a duplicate of it, must not put another code before the code itself.
    distances.fill_diagonal_(-torch.inf)
    return distances.argsort(dim=1, stable=True).int()


def look_up(indices: Tensor, codebook: Tensor) -> Tensor:
    """Codes (B, C, h, w) at indices (B, h, w) of a codebook (K, C)."""
    return codebook[indices].movedim(-1, 1).contiguous()


def quantise(features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Replace every feature by its nearest code, with the straight-through gradient.

    Parameters
    ----------
    features : (B, C, h, w), float32 or an autocast type.
    codebook : (K, C) float32.

    Returns
    -------
    Codes (B, C, h, w) float32, whose gradient goes to ``features`` unchanged, and their indices
    (B, h, w) int64.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        with torch.no_grad():
            vectors = features.movedim(1, -1)
            indices = nearest(vectors.flatten(0, 2), codebook).view(vectors.shape[:3])
            codes = look_up(indices, codebook)
        # The difference is zero, exactly, but it carries the gradient.
        return codes + (features - features.detach()), indices


def perplexity(indices: Tensor, codes: int) -> Tensor:
    """exp of the entropy of the indices' histogram, a scalar in [1, codes]."""
    share = indices.flatten().bincount(minlength=codes) / indices.numel()
    return torch.special.entr(share).sum().exp()


class MovingAverage(nn.Module):
    """EMA of the vectors assigned to each code, which the codebook follows.

    Attributes
    ----------
    count : (K,), moving average of the number of vectors of a code in a step.
    total : (K, C), moving average of their sum; the code is total / count.
    steps : of ``start`` and ``update``.
    """

    def __init__(self, codes: int, channels: int):
        super().__init__()
        self.count: Tensor
        self.register_buffer("count", torch.zeros(codes))
        self.total: Tensor
        self.register_buffer("total", torch.zeros(codes, channels))
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def start(self, codebook: Tensor, vectors: Tensor, random: torch.Generator) -> None:
        """Set the codebook, in place, to vectors (N, C) of the data, each at most once if N ≥ K."""
        order = torch.cat(
            [
                torch.randperm(len(vectors), generator=random)
                for _ in range(-(-len(codebook) // len(vectors)))
            ]
        )
        codebook.copy_(vectors[order[: len(codebook)].to(vectors.device)])
        self.steps.add_(1)
        self.count.fill_(len(vectors) / len(codebook))
        self.total.copy_(codebook * self.count[:, None])

    @torch.no_grad()
    def update(
        self, codebook: Tensor, vectors: Tensor, indices: Tensor, random: torch.Generator
    ) -> None:
        """One step: codebook ← average of the vectors (N, C) that had ``indices`` (N,), in place.

        No Laplace smoothing of the counts is needed, since restarts keep them above zero.
        """
        number = indices.bincount(minlength=len(codebook)).to(self.count.dtype)
        sums = torch.zeros_like(self.total).index_add_(0, indices, vectors)
        self.steps.add_(1)
        self.count.mul_(DECAY).add_(number, alpha=1 - DECAY)
        self.total.mul_(DECAY).add_(sums, alpha=1 - DECAY)

        share = self.count.mean()
        drawn = torch.randint(len(vectors), (len(codebook),), generator=random)
        dead = self.count < DEAD * share
        self.count.copy_(torch.where(dead, REVIVED * share, self.count))
        fresh = vectors[drawn.to(vectors.device)] * self.count[:, None]
        self.total.copy_(torch.where(dead[:, None], fresh, self.total))
        codebook.copy_(self.total / self.count[:, None])


class Residual(nn.Module):
    """ReLU(x) + conv1×1(ReLU(conv3×3(ReLU(x)))).

    The skip is rectified too, because DSR's published layer rectifies its input in place; its
    weights are wrong for a plain skip.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
        self.expand = nn.Conv2d(channels // 2, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → the same shape."""
        x = F.relu(x)
        return x + self.expand(F.relu(self.squeeze(x)))


def image_head(inputs: int, channels: int) -> nn.Sequential:
    """Features (B, inputs, h, w) → image (B, 3, 4h, 4w), not bounded; DSR's decoders end in it."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, padding=1),
        Residual(channels),
        Residual(channels),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, channels // 2, 4, 2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(channels // 2, 3, 4, 2, padding=1),
    )


class Level(NamedTuple):
    """One scale of an encoded image: features before quantisation, codes (straight through) and
    the codes' indices (B, h, w)."""

    features: Tensor
    codes: Tensor
    indices: Tensor


class VQVAE(nn.Module):
    """Images (B, 3, H, W) in [0, 1], H and W multiples of 8; 1.9 M parameters and 1.0 M of codes
    at the defaults.

    Parameters
    ----------
    channels : hidden width and length C of a code, even.
    codes : entries K of each codebook.
    """

    def __init__(self, channels: int = 128, codes: int = 4096):
        super().__init__()
        self.encoder_hi = nn.Sequential(
            nn.Conv2d(3, channels // 2, 4, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 4, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            Residual(channels),
            Residual(channels),
            nn.ReLU(),
        )
        self.encoder_lo = nn.Sequential(
            nn.Conv2d(channels, channels, 4, 2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            Residual(channels),
            Residual(channels),
            nn.ReLU(),
        )
        self.project_hi = nn.Conv2d(2 * channels, channels, 1)
        self.project_lo = nn.Conv2d(channels, channels, 1)
        self.up = nn.ConvTranspose2d(channels, channels, 4, 2, padding=1)
        self.decoder = image_head(2 * channels, channels)
        self.codebook_hi: Tensor
        self.register_buffer("codebook_hi", torch.randn(codes, channels))
        self.codebook_lo: Tensor
        self.register_buffer("codebook_lo", torch.randn(codes, channels))

    def lo(self, encoded: Tensor) -> Level:
        """Lo level (1/8) of ``encoder_hi``'s output (B, C, H/4, W/4)."""
        features = self.project_lo(self.encoder_lo(encoded))
        return Level(features, *quantise(features, self.codebook_lo))

    def hi(self, encoded: Tensor, codes_lo: Tensor) -> Level:
        """Hi level (1/4) of ``encoder_hi``'s output, given the lo codes (B, C, H/8, W/8)."""
        features = self.project_hi(torch.cat([encoded, self.up(codes_lo)], dim=1))
        return Level(features, *quantise(features, self.codebook_hi))

    def encode(self, images: Tensor) -> tuple[Level, Level]:
        """Both levels, hi and lo, of the images."""
        encoded = self.encoder_hi(images)
        lo = self.lo(encoded)
        return self.hi(encoded, lo.codes), lo

    def join(self, codes_hi: Tensor, codes_lo: Tensor) -> Tensor:
        """What a decoder sees: lo codes scaled up, then hi codes, (B, 2C, H/4, W/4)."""
        return torch.cat([self.up(codes_lo), codes_hi], dim=1)

    def decode(self, codes_hi: Tensor, codes_lo: Tensor) -> Tensor:
        """Images (B, 3, H, W) of the codes, not bounded: DSR's general appearance decoder."""
        return self.decoder(self.join(codes_hi, codes_lo))


def commitment(level: Level) -> Tensor:
    """‖features − sg[code]‖², mean over elements; weighs ``COMMITMENT`` in the loss."""
    return F.mse_loss(level.features.float(), level.codes.detach())
