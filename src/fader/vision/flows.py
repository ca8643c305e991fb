"""Invertible pieces of a multi-scale normalising flow on feature maps (MSFlow, TNNLS 2024).

``forward`` maps features x to a latent z and gives log|det ∂z/∂x| of every sample; ``inverse`` maps
back. A level's parallel flow is a chain of ``AffineBlock`` (coupling, global affine, permutation:
the "all-in-one" block of FrEIA, whose published form and constants these are), conditional on the
position in the map. ``MultiScaleCoupling`` then lets the levels exchange information.

Networks inside the couplings may run under autocast; x, scales and log-determinants keep the
precision of the input.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Log-scales are CLAMP · tanh(·), in ±1.9 (MSFlow's clamp; tanh is FrEIA's soft clamp for this
# block).
CLAMP = 1.9
# Factor on what a network says, so that a fresh coupling is near the identity (FrEIA).
DAMPING = 0.1
POSITION_CHANNELS = 64

Affine = tuple[Tensor, Tensor]  # log-scale and shift, of one shape


def position_code(channels: int, height: int, width: int) -> Tensor:
    """2-D sinusoidal position code (channels, height, width), values in [-1, 1], fp32.

    Half of the channels tell the column and half the row, each as sin and cos of the index times
    the geometric frequencies 10000^(-4k / channels), k < channels / 4 (Vaswani et al. 2017, per
    axis). ``channels`` is a multiple of 4.
    """
    half = channels // 2
    frequency = torch.exp(torch.arange(0, half, 2) * (-math.log(10000.0) / half))

    def axis(length: int) -> Tensor:
        phase = frequency[:, None] * torch.arange(length)
        return torch.stack([phase.sin(), phase.cos()], 1).flatten(0, 1)

    columns = axis(width)[:, None, :].expand(half, height, width)
    rows = axis(height)[:, :, None].expand(half, height, width)
    return torch.cat([columns, rows])


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, h, w), at every position by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → the same shape, normalised over C."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _affine(raw: Tensor, dtype: torch.dtype) -> Affine:
    """A network's output (N, 2c, h, w) → log-scale and shift (N, c, h, w)."""
    log_scale, shift = (DAMPING * raw.to(dtype)).chunk(2, 1)
    return CLAMP * log_scale.tanh(), shift


def _total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


class AffineBlock(nn.Module):
    """Conditional affine coupling, global affine, fixed permutation of the channels.

    With x = (p, a) split in halves and (s, t) = subnet(p, condition):
    y = (p, a · exp(s) + t), z = (g ⊙ y + b)[permutation], g = 0.1 · softplus_{1/2}(θ) > 0, first 1.
    The subnet is conv 3×3 – channel norm – ReLU – conv 3×3, as wide inside as its input.

    The permutation is drawn from torch's global generator and kept as a buffer.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.active = channels // 2
        self.passive = channels - self.active
        width = self.passive + condition
        self.subnet = nn.Sequential(
            _conv(width, width), ChannelNorm(width), nn.ReLU(), _conv(width, 2 * self.active)
        )
        self.theta = nn.Parameter(torch.full((channels, 1, 1), 2 * math.log(math.exp(5) - 1)))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))
        self.permutation: Tensor
        self.register_buffer("permutation", torch.randperm(channels))

    def _coupling(self, passive: Tensor, condition: Tensor) -> Affine:
        condition = condition.to(passive.dtype).expand(len(passive), *condition.shape)
        return _affine(self.subnet(torch.cat([passive, condition], 1)), passive.dtype)

    def _scale(self) -> Tensor:
        return 0.1 * F.softplus(self.theta, beta=0.5)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, C, h, w), condition (K, h, w) → z like x, log-determinant (N,)."""
        passive, active = x.split([self.passive, self.active], 1)
        log_scale, shift = self._coupling(passive, condition)
        scale = self._scale()
        y = torch.cat([passive, active * log_scale.exp() + shift], 1) * scale + self.offset
        positions = x.shape[-2] * x.shape[-1]
        return y[:, self.permutation], _total(log_scale) + positions * scale.log().sum()

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """z (N, C, h, w) → x."""
        y = (z[:, self.permutation.argsort()] - self.offset) / self._scale()
        passive, active = y.split([self.passive, self.active], 1)
        log_scale, shift = self._coupling(passive, condition)
        return torch.cat([passive, (active - shift) * (-log_scale).exp()], 1)


class ParallelFlow(nn.Module):
    """The flow of one level: ``blocks`` affine blocks, conditional on the position code."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AffineBlock(channels, POSITION_CHANNELS) for _ in range(blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, C, h, w) → z like x, log-determinant (N,)."""
        code = position_code(POSITION_CHANNELS, *x.shape[-2:]).to(x.device)
        total = x.new_zeros(len(x))
        for block in self.blocks:
            x, log_det = block(x, code)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """z (N, C, h, w) → x."""
        code = position_code(POSITION_CHANNELS, *z.shape[-2:]).to(z.device)
        for block in reversed(self.blocks):
            z = block.inverse(z, code)  # type: ignore[operator]  # an ``AffineBlock``
        return z


class Exchange(nn.Module):
    """Log-scales and shifts of every level from the passive channels of all levels.

    The passive channels are resized to the smallest grid and concatenated, conv C → C/4 – ReLU –
    conv C/4 → C mixes the levels, every level takes its part back at its own size and adds it to
    its own passive channels; ReLU and a convolution of each level give its log-scale and shift.
    """

    def __init__(self, passive: Sequence[int], active: Sequence[int]) -> None:
        super().__init__()
        self.passive = list(passive)
        total = sum(passive)
        self.mix = nn.Sequential(
            _conv(total, max(1, total // 4)), nn.ReLU(), _conv(max(1, total // 4), total)
        )
        self.heads = nn.ModuleList(_conv(p, 2 * a) for p, a in zip(passive, active, strict=True))

    def forward(self, xs: Sequence[Tensor]) -> list[Affine]:
        """Passive channels (N, C_i, h_i, w_i) of every level → log-scale and shift of each."""
        smallest = min((x.shape[-2:] for x in xs), key=math.prod)
        mixed = self.mix(torch.cat([_resize(x, smallest) for x in xs], 1)).split(self.passive, 1)
        return [
            _affine(head(F.relu(x + _resize(part, x.shape[-2:]))), x.dtype)
            for x, part, head in zip(xs, mixed, self.heads, strict=True)
        ]


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class MultiScaleCoupling(nn.Module):
    """The fusion flow: a fixed permutation of each level's channels and one affine coupling across
    all levels, of both halves in turn: the first halves given the second ones, then the reverse.

    Two-sided because only so the published shapes have their 19.6 million parameters. The ReLUs in
    ``Exchange`` and its bilinear resizing are our choice, as no source at hand states them.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        second = [c // 2 for c in channels]
        first = [c - s for c, s in zip(channels, second, strict=True)]
        self.halves = list(zip(first, second, strict=True))
        self.to_first = Exchange(second, first)
        self.to_second = Exchange(first, second)
        for level, count in enumerate(channels):
            self.register_buffer(f"permutation{level}", torch.randperm(count))

    def _permutations(self) -> list[Tensor]:
        return [self.get_buffer(f"permutation{level}") for level in range(len(self.halves))]

    def _split(self, xs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        parts = [x.split(halves, 1) for x, halves in zip(xs, self.halves, strict=True)]
        return [first for first, _ in parts], [second for _, second in parts]

    def forward(self, xs: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """A tensor (N, C_i, h_i, w_i) each level → latents alike, log-determinant (N,)."""
        permuted = [x[:, p] for x, p in zip(xs, self._permutations(), strict=True)]
        first, second = self._split(permuted)
        first, of_first = _transform(first, self.to_first(second))
        second, of_second = _transform(second, self.to_second(first))
        zs = [torch.cat(pair, 1) for pair in zip(first, second, strict=True)]
        return zs, of_first + of_second

    def inverse(self, zs: Sequence[Tensor]) -> list[Tensor]:
        """Latents of every level → what ``forward`` took."""
        first, second = self._split(zs)
        second = _restore(second, self.to_second(first))
        first = _restore(first, self.to_first(second))
        joined = [torch.cat(pair, 1) for pair in zip(first, second, strict=True)]
        return [x[:, p.argsort()] for x, p in zip(joined, self._permutations(), strict=True)]


def _transform(xs: list[Tensor], affine: list[Affine]) -> tuple[list[Tensor], Tensor]:
    ys = [x * log_scale.exp() + shift for x, (log_scale, shift) in zip(xs, affine, strict=True)]
    return ys, sum(_total(log_scale) for log_scale, _ in affine)  # type: ignore[return-value]  # of one level at least


def _restore(ys: list[Tensor], affine: list[Affine]) -> list[Tensor]:
    return [
        (y - shift) * (-log_scale).exp() for y, (log_scale, shift) in zip(ys, affine, strict=True)
    ]


class MultiScaleFlow(nn.Module):
    """Parallel flows of all levels, then their fusion.

    Parameters
    ----------
    channels : of each level, at least 2 each.
    blocks : affine blocks of each level's parallel flow.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.parallel = nn.ModuleList(
            ParallelFlow(c, b) for c, b in zip(channels, blocks, strict=True)
        )
        self.fusion = MultiScaleCoupling(channels)

    def forward(self, xs: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """A tensor (N, C_i, h_i, w_i) each level → latents alike, log-determinant (N,)."""
        pairs = [flow(x) for flow, x in zip(self.parallel, xs, strict=True)]
        zs, total = self.fusion([z for z, _ in pairs])
        return zs, total + sum(log_det for _, log_det in pairs)

    def inverse(self, zs: Sequence[Tensor]) -> list[Tensor]:
        """Latents of every level → what ``forward`` took."""
        fused = self.fusion.inverse(zs)
        return [flow.inverse(z) for flow, z in zip(self.parallel, fused, strict=True)]  # type: ignore[operator]  # ``ParallelFlow``s
