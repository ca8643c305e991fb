"""What detectors that reconstruct share: anomaly maps and image scores, against scipy and by
hand."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter
from tiny import CPU, Reconstructing, place, tiny

from fader.config import Score
from fader.detectors import Context, Images
from fader.detectors.reconstruction import anomaly_map
from fader.vision.losses import msgms_map, reconstruction_loss
from fader.vision.mosaic import obfuscate
from fader.vision.unet import UNet


def score(smooth: int = 5, batch: int = 4, c: float = 0.0026) -> Score:
    return Score(scales=3, c=c, smooth=smooth, batch=batch)


def context(batch: int = 4) -> Context:
    return dataclasses.replace(place(tiny()), size=16, score=score(batch=batch))


@given(
    seed=st.integers(0, 10**6),
    smooth=st.sampled_from([1, 3, 21]),
    c=st.sampled_from([0.0026, 0.1]),
)
@examples(max_examples=15, deadline=None)
def test_the_map_is_msgms_mean_filtered_with_zero_padding(seed, smooth, c):
    random = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, 2, 3, 24, 16, generator=random)
    made = anomaly_map(a, b, score(smooth, c=c))
    raw = msgms_map(a, b, 3, c).double().numpy()
    expected = np.stack([uniform_filter(one, smooth, mode="constant") for one in raw])
    assert made.shape == (2, 24, 16)
    assert np.allclose(made.numpy(), expected, atol=1e-6)


def test_a_perfect_reconstruction_has_no_anomaly():
    detector = Reconstructing(lambda images, masks: images, context())
    scores = detector.scores(Images(torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)))
    assert scores.maps.abs().max() == 0
    assert scores.images.tolist() == [0, 0]


def test_the_map_peaks_where_the_reconstruction_differs():
    reconstruction = torch.full((1, 3, 64, 64), 0.5)
    images = reconstruction.clone()
    images[..., 20:24, 40:44] = 1.0
    peak = anomaly_map(images, reconstruction, score(7)).flatten().argmax().item()
    assert abs(peak // 64 - 21.5) <= 3
    assert abs(peak % 64 - 41.5) <= 3


def test_image_score_is_the_maximum_of_the_map():
    detector = Reconstructing(lambda images, masks: images, context())
    maps = torch.tensor([[[0.1, 0.7], [0.2, 0.3]], [[0.0, 0.0], [0.0, 0.4]]])
    assert torch.equal(detector.image_score(torch.rand(2, 3, 2, 2), maps), torch.tensor([0.7, 0.4]))


def test_the_loss_has_the_weights_of_the_run():
    weights = tiny(loss={"l2": 2.0, "ssim": 0.5, "msgms": 3.0})
    images, reconstructions = torch.rand(2, 4, 3, 32, 32)
    detector = Reconstructing(lambda images, masks: images, place(weights))
    parts = detector.loss(images, reconstructions)
    plain = reconstruction_loss(images, reconstructions, scales=weights.loss.scales)
    expected = 2 * plain["l2"] + 0.5 * plain["ssim"] + 3 * plain["msgms"]
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_scores_do_not_depend_on_the_batch_size_in_fp32(batch):
    torch.manual_seed(0)
    network = UNet((4, 8)).eval()

    def reconstruct(images, masks):
        return network(obfuscate(images, masks, 4))

    pixels = torch.randint(256, (7, 3, 16, 16), dtype=torch.uint8)
    masks = torch.rand(7, 16, 16) > 0.5
    scores = Reconstructing(reconstruct, context(batch)).scores(Images(pixels, masks))
    images = pixels.float() / 255
    with torch.no_grad():
        whole = anomaly_map(images, reconstruct(images, masks), score())
    assert torch.allclose(scores.maps, whole, atol=1e-6)
    assert torch.equal(scores.images, scores.maps.flatten(1).amax(1))
    for values, shape in ((scores.maps, (7, 16, 16)), (scores.images, (7,))):
        assert (values.shape, values.dtype, values.device.type) == (shape, torch.float32, "cpu")


def test_every_image_meets_its_own_mask():
    met = []

    def reconstruct(images, masks):
        met.extend(zip((images[:, 0, 0, 0] * 255).tolist(), masks[:, 0, 0].tolist(), strict=True))
        return images

    values = torch.arange(5, dtype=torch.uint8)
    pixels = values[:, None, None, None].expand(5, 3, 16, 16)
    masks = (values % 2 == 1)[:, None, None].expand(5, 16, 16)
    Reconstructing(reconstruct, context(batch=2)).scores(Images(pixels, masks))
    assert [(round(value), mask) for value, mask in met] == [(i, i % 2 == 1) for i in range(5)]


def test_chosen_images_keep_their_masks_and_batches_their_order():
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)
    masks = (torch.arange(5) > 2)[:, None, None].expand(5, 2, 2)
    images = Images(pixels, masks)
    some = images[torch.tensor([4, 0])]
    assert some.pixels[:, 0, 0, 0].tolist() == [4, 0]
    assert some.masks[:, 0, 0].tolist() == [True, False]
    assert [part.pixels[:, 0, 0, 0].tolist() for part in images.batches(2)] == [[0, 1], [2, 3], [4]]
    assert all(part.masks is None for part in Images(pixels).batches(2))


@pytest.mark.parametrize("count", [1, 2, 6])
def test_images_and_masks_of_different_number_are_refused(count):
    with pytest.raises(ValueError, match=rf"5 images, {count} masks"):
        Images(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), torch.zeros(count, 16, 16))


def test_images_are_in_the_unit_range_on_the_machine():
    images = CPU.images(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1))
    assert images.flatten().tolist() == pytest.approx([0, 0.2, 1])
