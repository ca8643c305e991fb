"""Memories: addresses that sum to 1 and are sparse, and blocks that are taken apart and put
together."""

import math
from itertools import pairwise

import pytest
import torch

from fader.runtime import generator
from fader.vision.memory import BlockMemory, Memory, active, assemble, divide, entropy, shrink


def memory(**values) -> Memory:
    options = {"addressing": "dot", "temperature": 1.0, "shrinkage": 1.0} | values
    torch.manual_seed(0)
    return Memory(options.pop("slots", 10), options.pop("values", 6), **options)


def queries(count: int = 40, values: int = 6, seed: int = 1) -> torch.Tensor:
    return 3 * torch.randn(count, values, generator=generator(seed))


# Addresses.


@pytest.mark.parametrize(
    ("weights", "threshold", "expected"),
    [
        ([0.5, 0.3, 0.2], 0.25, [5 / 8, 3 / 8, 0]),
        ([0.5, 0.3, 0.2], 0.3, [1, 0, 0]),  # up to the threshold
        ([0.5, 0.3, 0.2], 0.0, [0.5, 0.3, 0.2]),
        ([0.4, 0.35, 0.25], 0.9, [1, 0, 0]),  # all are below: the largest
        ([0.25, 0.25, 0.25, 0.25], 0.25, [1, 0, 0, 0]),  # nothing remembered stands out: the first
        ([0.0, 1.0, 0.0], 1.0, [0, 1, 0]),
    ],
)
def test_hard_shrinkage_by_hand(weights, threshold, expected):
    found = shrink(torch.tensor([weights]), threshold)
    assert found[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("addressing", ["dot", "cosine"])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("shrinkage", [0.0, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_weights_are_at_least_zero_sum_to_one_and_are_sparse(
    addressing, temperature, shrinkage, scale
):
    found = memory(addressing=addressing, temperature=temperature, shrinkage=shrinkage)
    weights = found.address(scale * queries())
    assert weights.isfinite().all()
    assert weights.min() >= 0
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 40)
    if shrinkage:
        # More than N / shrinkage weights cannot all be above shrinkage / N.
        assert (weights > 0).sum(1).max() <= max(1, 10 / shrinkage)
        assert (weights == 0).any(1).all()


def test_weights_are_the_softmax_of_similarities_over_the_temperature():
    asked = queries()
    for addressing in ("dot", "cosine"):
        found = memory(addressing=addressing, temperature=0.5, shrinkage=0.0)
        items = found.items
        similarities = asked @ items.T
        if addressing == "cosine":
            similarities /= asked.norm(dim=1, keepdim=True) * items.norm(dim=1)
        expected = (2 * similarities).softmax(1)
        read, weights = found(asked)
        assert weights.allclose(expected, atol=1e-6)
        assert read.allclose(expected @ items, atol=1e-6)


def test_the_cosine_ignores_how_long_a_query_is_and_the_dot_product_does_not():
    asked = queries()
    cosine, dot = memory(addressing="cosine", temperature=0.1), memory()
    assert cosine.address(asked).allclose(cosine.address(5 * asked), atol=1e-6)
    assert not dot.address(asked).allclose(dot.address(5 * asked), atol=1e-2)


@pytest.mark.parametrize("addressing", ["dot", "cosine"])
@pytest.mark.parametrize("shrinkage", [1.0, 20.0])  # 20: only the largest weight is left
def test_the_gradient_reaches_what_is_read_and_only_that(addressing, shrinkage):
    found = memory(addressing=addressing, shrinkage=shrinkage, slots=30)
    asked = queries(4).requires_grad_()
    read, weights = found(asked)
    read.square().sum().backward()
    in_use = (weights > 0).any(0)
    assert 0 < active(weights) == in_use.sum() < 30
    assert (found.items.grad[in_use].abs().amax(1) > 0).all()
    if shrinkage == 20.0:
        # One weight is 1 whatever the query: nothing else is moved.
        assert found.items.grad[~in_use].abs().max() < 1e-6
    else:
        assert asked.grad.abs().max() > 0


def test_entropy_and_items_in_use_by_hand():
    weights = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0, 0.5]])
    nats = (0 + math.log(2) + 1.5 * math.log(2)) / 3
    assert entropy(weights).item() == pytest.approx(nats)
    assert active(weights).item() == 3
    # Zeros have a gradient too.
    leaf = weights.clone().requires_grad_()
    entropy(leaf).backward()
    assert leaf.grad.isfinite().all()


def test_fresh_items_are_uniform_in_one_over_the_root_of_their_length():
    items = memory(slots=500, values=64).items
    assert items.abs().max() <= 1 / 8
    assert items.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.02)


# Blocks.


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_blocks_are_cut_out_and_put_together_again(side, groups):
    features = torch.rand(3, 6, 8, 8, generator=generator(0))
    blocks = divide(features, side, groups)
    height, width = 8 // side, 6 // groups
    assert blocks.shape == (3 * groups * side**2, width * height**2)
    assert torch.equal(assemble(blocks, features.shape, side, groups), features)
    # The last block of the second image is its lower right corner, of the last channels.
    corner = features[1, -width:, -height:, -height:]
    assert torch.equal(blocks[2 * groups * side**2 - 1], corner.movedim(0, -1).flatten())


def test_what_is_read_of_a_block_does_not_depend_on_the_others():
    options = {"addressing": "dot", "temperature": 1.0, "shrinkage": 1.0}
    found = BlockMemory(9, 6, 8, side=2, groups=3, **options)
    features = torch.randn(2, 6, 8, 8, generator=generator(0))
    other = features.clone()
    other[0, :2, :4, :4] += 1
    changed = (found(other)[0] - found(features)[0]).abs() > 1e-6
    assert changed[0, :2, :4, :4].any()
    changed[0, :2, :4, :4] = False
    assert not changed.any()


def test_finer_blocks_reconstruct_a_defect_better():
    """DAAD's thesis, on memories that hold every block of the same normal maps."""
    normal = torch.randn(12, 4, 16, 16, generator=generator(0))
    defect = torch.randn(1, 4, 16, 16, generator=generator(1))
    errors, own = [], []
    for side in (1, 2, 4, 8):
        items = divide(normal, side, 1)
        options = {"addressing": "cosine", "temperature": 0.01, "shrinkage": 1.0}
        found = BlockMemory(len(items), 4, 16, side=side, groups=1, **options)
        found.memory.items.data.copy_(items)
        errors.append((found(defect)[0] - defect).square().mean().item())
        own.append((found(normal)[0] - normal).square().mean().item())
    assert all(coarse > 1.1 * fine for coarse, fine in pairwise(errors))
    # At every rate normal maps come back better than the defect does.
    assert all(good < 0.5 * bad for good, bad in zip(own, errors, strict=True))
