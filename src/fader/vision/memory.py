"""Memories of normal features: what is read from one is a sparse mixture of what it holds.

The addressing is that of MemAE (Gong et al., ICCV 2019): softmax of similarities, hard shrinkage,
L1 normalisation. Its paper measures similarity by the cosine, its public code by the dot product.
DAAD (Hou et al., ICCV 2021) reads features block by block.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-12


def shrink(weights: Tensor, threshold: float) -> Tensor:
    """Hard shrinkage of addresses (..., N): weights up to ``threshold`` are zero, the others sum to
    1 again. The largest stays whatever its size, so that something is always read."""
    kept = (weights > threshold).scatter(-1, weights.argmax(-1, keepdim=True), True)
    return F.normalize(weights * kept, p=1, dim=-1)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy of addresses (..., N), nats: a scalar; zero where each reads one item."""
    return -(weights * (weights + EPS).log()).sum(-1).mean()


def active(weights: Tensor) -> Tensor:
    """How many items any of the addresses (Q, N) reads: a scalar."""
    return (weights > 0).any(0).sum()


class Memory(nn.Module):
    """``items`` (N, C), learned; fresh ones are uniform in ±1/√C.

    Parameters
    ----------
    slots : N.
    values : C, the length of an item and of a query.
    addressing : ``dot`` or ``cosine``, the similarity of query and item.
    temperature : divides similarities before the softmax.
    shrinkage : threshold of the hard shrinkage, in units of 1/N.
    """

    def __init__(
        self, slots: int, values: int, *, addressing: str, temperature: float, shrinkage: float
    ) -> None:
        super().__init__()
        bound = values**-0.5
        self.items = nn.Parameter(torch.empty(slots, values).uniform_(-bound, bound))
        self.addressing = addressing
        self.temperature = temperature
        self.threshold = shrinkage / slots

    def address(self, queries: Tensor) -> Tensor:
        """Weights (Q, N) of the items for queries (Q, C): at least 0, of sum 1."""
        items = self.items
        if self.addressing == "cosine":
            queries, items = F.normalize(queries.float(), dim=-1), F.normalize(items, dim=-1)
        similarities = F.linear(queries, items).float()
        return shrink((similarities / self.temperature).softmax(-1), self.threshold)

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (Q, C) → what is read for each (Q, C), and its weights (Q, N)."""
        weights = self.address(queries)
        return weights @ self.items, weights


def divide(features: Tensor, side: int, groups: int) -> Tensor:
    """Features (B, C, H, W) in ``side`` × ``side`` blocks of C / ``groups`` channels: a row each,
    (B·side²·groups, H·W·C / (side²·groups)), its channels last."""
    batch, channels, height, width = features.shape
    shape = (batch, side, height // side, side, width // side, groups, channels // groups)
    blocks = features.movedim(1, -1).reshape(shape).permute(0, 1, 3, 5, 2, 4, 6)
    return blocks.reshape(batch * side**2 * groups, -1)


def assemble(blocks: Tensor, shape: torch.Size, side: int, groups: int) -> Tensor:
    """The features (B, C, H, W) of ``shape`` whose ``divide`` is ``blocks``; channels last."""
    batch, channels, height, width = shape
    parts = (batch, side, side, groups, height // side, width // side, channels // groups)
    pixels = blocks.reshape(parts).permute(0, 1, 4, 2, 5, 3, 6)
    return pixels.reshape(batch, height, width, channels).movedim(-1, 1)


class BlockMemory(nn.Module):
    """Puts in the place of each block of a feature map what one ``memory``, the same for all of
    them, holds of it.

    Parameters
    ----------
    channels, size : of the feature maps (B, channels, size, size).
    side, groups : division rate: blocks along each side, which divides ``size``, and parts of the
        channels, which divide ``channels``.
    options : the rest of ``Memory``.
    """

    def __init__(
        self, slots: int, channels: int, size: int, *, side: int, groups: int, **options
    ) -> None:
        super().__init__()
        self.side, self.groups = side, groups
        values = channels * size**2 // (groups * side**2)
        self.memory = Memory(slots, values, **options)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) → what is read of them (B, C, H, W), and the weights (Q, N)."""
        read, weights = self.memory(divide(features, self.side, self.groups))
        return assemble(read, features.shape, self.side, self.groups), weights
