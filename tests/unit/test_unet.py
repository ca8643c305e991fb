"""The U-Net: sizes of the published pattern, and equation 4 recomputed from outside."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fader.vision.unet import UNet, scale_mask

WIDTHS = (4, 6, 8)


def network(output: str = "sigmoid") -> UNet:
    torch.manual_seed(0)
    return UNet(WIDTHS, output).eval()


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def redundant_biases(module: torch.nn.Module) -> int:
    """Biases that the authors' pattern has and batch normalisation cancels: one an output channel
    of every convolution without bias."""
    convolutions = (m for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    return sum(conv.out_channels for conv in convolutions if conv.bias is None)


def skips_seen(net: UNet, images: Tensor, mask: Tensor | None, scaling: str = "nearest"):
    """What each decoder level concatenates, shallow first, read from the level's own input."""
    seen: dict[int, Tensor] = {}
    handles = [
        block.register_forward_pre_hook(
            lambda _, inputs, level=level: seen.update({level: inputs[0][:, WIDTHS[level] :]})
        )
        for level, block in enumerate(net.decoder.blocks)
    ]
    net(images, mask, scaling)
    for handle in handles:
        handle.remove()
    return [seen[level] for level in range(len(WIDTHS) - 1)]


@pytest.mark.parametrize(
    ("widths", "encoder", "decoder", "ours"),
    [
        ((64, 128, 256, 512), 5.465, 3.876, 9.34),
        ((64, 128, 256, 512, 512), 12.547, 13.318, 25.86),
        ((64, 128, 256, 512, 1024), 21.987, 15.678, 37.66),
        ((32, 64, 128, 256, 512), 5.501, 3.922, 9.42),
    ],
)
def test_parameters_in_millions(widths, encoder, decoder, ours):
    with torch.device("meta"):
        net = UNet(widths)
    for module, published in ((net.encoder, encoder), (net.decoder, decoder)):
        assert round((parameters(module) + redundant_biases(module)) / 1e6, 3) == published
    assert round(parameters(net) / 1e6, 2) == ours


@pytest.mark.parametrize("widths", [(3, 5), (4, 6, 8)])
def test_parameters_by_hand(widths):
    # A layer i → o has 9·i·o weights and 2·o normalisation parameters.
    shallow, pairs = widths[:-1], list(pairwise(widths))
    encoder = [(3, widths[0]), *pairs]  # first layer of every block
    encoder += [(w, w) for w in widths]  # second
    encoder += [(w, w) for w in shallow]  # third, with stride 2, but in the deepest block
    decoder = [(deep, w) for w, deep in pairs]  # after the up-sampling
    decoder += [(2 * w, w) for w in shallow] + [(w, w) for w in shallow]
    net = UNet(widths)
    assert parameters(net.encoder) == sum(9 * i * o + 2 * o for i, o in encoder)
    head = 9 * widths[0] * 3 + 3
    assert parameters(net.decoder) == sum(9 * i * o + 2 * o for i, o in decoder) + head


@pytest.mark.parametrize("widths", [(3, 5), (4, 6, 8), (2, 3, 4, 5, 5)])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48)])
def test_shapes(widths, height, width):
    with torch.device("meta"):
        net = UNet(widths)
        images = torch.empty(2, 3, height, width)
        skips, deepest = net.encoder(images)
        assert net.decoder(skips, deepest).shape == images.shape
    assert [tuple(skip.shape) for skip in skips] == [
        (2, w, height >> level, width >> level) for level, w in enumerate(widths[:-1])
    ]
    deep = len(widths) - 1
    assert deepest.shape == (2, widths[-1], height >> deep, width >> deep)


def test_the_skip_is_taken_after_the_second_layer_at_full_resolution():
    net = network()
    images = torch.rand(1, 3, 16, 16)
    skips, _ = net.encoder(images)
    assert torch.equal(skips[0], net.encoder.blocks[0](images))
    assert torch.equal(skips[1], net.encoder.blocks[1](net.encoder.down[0](skips[0])))


@pytest.mark.parametrize("scaling", ["nearest", "bilinear"])
def test_a_mask_of_ones_is_no_mask_bit_for_bit(scaling):
    net, images = network(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(net(images, torch.ones(2, 4, 4), scaling), net(images))


def test_a_mask_of_zeros_cuts_every_skip():
    net, images = network(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        skips, deepest = net.encoder(images)
        cut = net.decoder([torch.zeros_like(skip) for skip in skips], deepest)
        assert torch.equal(net(images, torch.zeros(2, 4, 4)), cut)
        assert not torch.equal(cut, net(images))


@given(seed=st.integers(0, 10**6), grid=st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=15, deadline=None)
def test_every_skip_is_attenuated_by_the_scaled_mask_and_nothing_else(seed, grid):
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 16, 16, generator=random)
    mask = torch.rand(2, grid, grid, generator=random)
    net = network()
    with torch.no_grad():
        skips, _ = net.encoder(images)
        for skip, seen in zip(skips, skips_seen(net, images, mask), strict=True):
            repeat = skip.shape[-1] // grid
            theta = mask.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
            assert torch.equal(seen, skip * theta[:, None])


def test_nearest_scaling_decimates_a_grid_finer_than_the_feature():
    mask = torch.rand(2, 8, 8)
    assert torch.equal(scale_mask(mask, (4, 4), "nearest"), mask[:, None, ::2, ::2])
    net, images = network(), torch.rand(2, 3, 16, 16)
    fine = torch.rand(2, 16, 16)
    with torch.no_grad():
        skips, _ = net.encoder(images)
        shallow, deep = skips_seen(net, images, fine)
    assert torch.equal(shallow, skips[0] * fine[:, None])
    assert torch.equal(deep, skips[1] * fine[:, None, ::2, ::2])


def test_bilinear_scaling_by_hand():
    # Pixel centres of the target lie at −1/4, 1/4, 3/4 and 5/4 cells; the ends repeat the border.
    row = scale_mask(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]), (4, 4), "bilinear")[0, 0, 0]
    assert torch.allclose(row, torch.tensor([0.0, 0.25, 0.75, 1.0]))


@pytest.mark.parametrize("output", ["sigmoid", "clamp"])
def test_the_image_is_float32_in_the_unit_interval(output):
    net = network(output)
    net.decoder.head.weight.data.mul_(1e4)  # far into both ends
    images = torch.rand(2, 3, 16, 16)
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            made = net(images)
        assert made.dtype == torch.float32
        assert made.min() >= 0
        assert made.max() <= 1
        assert made.min() < 0.01
        assert made.max() > 0.99


def test_attenuation_is_differentiable_in_the_mask():
    # FADeR detaches its mask; the network itself does not.
    mask = torch.rand(1, 4, 4, requires_grad=True)
    network()(torch.rand(1, 3, 16, 16), mask).sum().backward()
    assert mask.grad.abs().min() > 0
