"""Ways of masking an image with several masks: what Figure 2 compares."""

import numpy as np


def random_sets(cells: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """RIAD's masks: ``cells`` × ``cells`` cells dealt at random into ``count`` disjoint sets whose
    sizes differ by one at most; (count, cells, cells) bool, True = masked.

    Source: Zavrtanik et al., Reconstruction by inpainting for visual anomaly detection, section 3.
    """
    owner = np.arange(cells * cells) % count
    return _members(generator.permutation(owner).reshape(cells, cells), count)


def complementary_sets(cells: int, count: int) -> np.ndarray:
    """Disjoint masks that need no chance: cell (i, j) is in set (i + j) mod ``count``;
    (count, cells, cells) bool."""
    return _members(np.add.outer(np.arange(cells), np.arange(cells)) % count, count)


def _members(owner: np.ndarray, count: int) -> np.ndarray:
    return owner == np.arange(count)[:, None, None]


def progressive_masks(error: np.ndarray, count: int) -> np.ndarray:
    """Masks that close in on the defect: the half, quarter, eighth … of the pixels that are
    reconstructed worst; (count, H, W) bool, each within the one before.

    The methods that mask progressively (Huang et al. 2022, Nakanishi et al. 2022) reconstruct anew
    for every mask; here all masks come from one anomaly map ``error`` (H, W).
    """
    worst_first = np.argsort(-error, axis=None, kind="stable")
    rank = np.empty(error.size, np.int64)
    rank[worst_first] = np.arange(error.size)
    return np.stack([rank < error.size >> step for step in range(1, count + 1)]).reshape(
        count, *error.shape
    )


def enlarge(masks: np.ndarray, side: int) -> np.ndarray:
    """Masks of cells (n, g, g) as masks of pixels (n, side, side); g divides side."""
    factor = side // masks.shape[-1]
    return masks.repeat(factor, axis=-2).repeat(factor, axis=-1)
