"""Anomaly maps and image scores, against scipy and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from fader.config import Score
from fader.evaluation.scoring import anomaly_map, image_scores, maps_of
from fader.runtime import Machine
from fader.vision.losses import msgms_map
from fader.vision.mosaic import obfuscate
from fader.vision.unet import UNet

MACHINE = Machine(torch.device("cpu"), "fp32")


def settings(smooth: int = 5, batch: int = 4, scales: int = 3, c: float = 0.0026) -> Score:
    return Score(scales=scales, c=c, smooth=smooth, batch=batch)


@given(
    seed=st.integers(0, 10**6),
    smooth=st.sampled_from([1, 3, 21]),
    c=st.sampled_from([0.0026, 0.1]),
)
@examples(max_examples=15, deadline=None)
def test_the_map_is_msgms_mean_filtered_with_zero_padding(seed, smooth, c):
    random = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 2, 3, 24, 16, generator=random)
    made = anomaly_map(a, b, settings(smooth, c=c))
    raw = msgms_map(a, b, 3, c).double().numpy()
    expected = np.stack([uniform_filter(one, smooth, mode="constant") for one in raw])
    assert made.shape == (2, 24, 16)
    assert np.allclose(made.numpy(), expected, atol=1e-6)


def test_a_perfect_reconstruction_has_no_anomaly():
    images = torch.rand(2, 3, 16, 16)
    maps = anomaly_map(images, images, settings())
    assert maps.abs().max() == 0
    assert image_scores(maps).tolist() == [0, 0]


def test_the_map_peaks_where_the_reconstruction_differs():
    reconstruction = torch.full((1, 3, 64, 64), 0.5)
    images = reconstruction.clone()
    images[..., 20:24, 40:44] = 1.0
    peak = anomaly_map(images, reconstruction, settings(7)).flatten().argmax().item()
    assert abs(peak // 64 - 21.5) <= 3
    assert abs(peak % 64 - 41.5) <= 3


def test_image_score_is_the_maximum_of_the_map():
    maps = torch.tensor([[[0.1, 0.7], [0.2, 0.3]], [[0.0, 0.0], [0.0, 0.4]]])
    assert torch.equal(image_scores(maps), torch.tensor([0.7, 0.4]))


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_maps_do_not_depend_on_the_batch_size_in_fp32(batch):
    torch.manual_seed(0)
    network = UNet((4, 8)).eval()

    def reconstruct(images, masks):
        return network(obfuscate(images, masks, 4))

    pixels = torch.randint(256, (7, 3, 16, 16), dtype=torch.uint8)
    masks = torch.rand(7, 16, 16) > 0.5
    maps = maps_of(reconstruct, pixels, masks, settings(batch=batch), MACHINE)
    images = pixels.float() / 255
    with torch.no_grad():
        whole = anomaly_map(images, reconstruct(images, masks), settings())
    assert torch.allclose(maps, whole, atol=1e-6)
    assert (maps.shape, maps.dtype, maps.device.type) == ((7, 16, 16), torch.float32, "cpu")


def test_every_image_meets_its_own_mask():
    seen = []

    def reconstruct(images, masks):
        seen.extend(zip((images[:, 0, 0, 0] * 255).tolist(), masks[:, 0, 0].tolist(), strict=True))
        return images

    values = torch.arange(5, dtype=torch.uint8)
    pixels = values[:, None, None, None].expand(5, 3, 16, 16)
    masks = (values % 2 == 1)[:, None, None].expand(5, 16, 16)
    maps_of(reconstruct, pixels, masks, settings(batch=2), MACHINE)
    assert [(round(value), mask) for value, mask in seen] == [(i, i % 2 == 1) for i in range(5)]


def test_images_and_masks_of_different_number_are_refused():
    pixels = torch.zeros(5, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="shorter"):
        maps_of(lambda images, masks: images, pixels, torch.zeros(2, 16, 16), settings(), MACHINE)
