"""The label-free protocol: how candidates are judged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tiny import Reconstructing, place, tiny

from fader.config import Validation
from fader.data.split import split
from fader.detectors import Images, Scores
from fader.evaluation.selection import Examples, criterion, search_mosaic

KINDS = ["perlin", "cutpaste", "scar", "swap"]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Distinct noisy gradients (N, 3, 32, 32) uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, 32)[None, None, None]
    return (ramp + rng.uniform(-50, 50, (count, 3, 32, 32))).astype(np.uint8)


def validation(fraction: float = 0.25, per_image: int = 2) -> Validation:
    return Validation(fraction=fraction, per_image=per_image, kinds=KINDS)


def scored(maps: torch.Tensor) -> Scores:
    return Scores(maps, maps.flatten(1).amax(1))


def test_criterion_by_hand():
    normal = torch.tensor([[[0, 0.1], [0, 0.1]], [[0.3, 0], [0, 0]]])
    defective = torch.tensor([[[0.2, 0], [0.1, 0]], [[0.9, 0.8], [0, 0]]])
    masks = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [0, 0]]], dtype=torch.uint8)
    found = criterion(scored(normal), scored(defective), masks)
    # Maxima: normal .1 .3, defective .2 .9; of the four pairs only (.2, .3) is in wrong order.
    assert found["image_auroc"] == pytest.approx(3 / 4)
    # Defective pixels .2 .9 .8 against 13 normal ones: only .3 is above one of them.
    assert found["pixel_auroc"] == pytest.approx(38 / 39)
    assert found["value"] == pytest.approx((3 / 4 + 38 / 39) / 2)


def test_the_criterion_takes_a_detectors_own_image_scores():
    maps = torch.tensor([[[0.1, 0.2]], [[0.9, 0.3]]])
    normal, defective = Scores(maps[:1], torch.tensor([7.0])), Scores(maps[1:], torch.tensor([3.0]))
    found = criterion(normal, defective, torch.tensor([[[1, 0]]], dtype=torch.uint8))
    assert (found["image_auroc"], found["pixel_auroc"]) == (0, 1)


@examples(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_criterion_is_that_of_scikit_learn(seed, normals, defects):
    random = torch.Generator().manual_seed(seed)
    # Few levels, so that ties are common.
    normal = torch.randint(0, 6, (normals, 4, 4), generator=random) / 8
    defective = torch.randint(1, 8, (defects, 4, 4), generator=random) / 8
    masks = torch.randint(0, 2, (defects, 4, 4), generator=random, dtype=torch.uint8)
    masks[0, 0, 0] = 1
    found = criterion(scored(normal), scored(defective), masks)
    maps = torch.cat([normal, defective])
    truth = torch.cat([torch.zeros(normals, 4, 4, dtype=torch.uint8), masks])
    labels = [0] * normals + [1] * defects
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, maps.amax((1, 2))))
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth.flatten(), maps.flatten()))


def held_out() -> Examples:
    """Six normals with empty masks, and their defective copies with masks that hit the defect."""
    pixels = pictures(24)
    chosen = split(pixels, validation(), 0)
    normal = torch.from_numpy(pixels)[chosen.held]
    truth = torch.from_numpy(chosen.defect_masks)
    return Examples(
        Images(normal, torch.zeros(len(normal), 32, 32, dtype=torch.bool)),
        Images(torch.from_numpy(chosen.defects), truth.bool()),
        truth,
    )


def judge(reconstruct, batch: int = 4) -> dict[str, float]:
    """The criterion of a detector whose reconstruction is that of a function."""
    context = place(tiny(score={"smooth": 3, "batch": batch}))
    return held_out().judge(Reconstructing(reconstruct, context))


def test_a_perfect_copy_tells_nothing_apart():
    found = judge(lambda images, masks: images)
    assert found == {"image_auroc": 0.5, "pixel_auroc": 0.5, "value": 0.5}


def test_a_reconstruction_wrong_on_defects_only_is_judged_best():
    found = judge(lambda images, masks: images * ~masks.unsqueeze(1))
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.9


def test_images_per_forward_pass_do_not_matter():
    def reconstruct(images, masks):
        return images.flip(-1).where(~masks.unsqueeze(1), images)

    assert judge(reconstruct, batch=1) == judge(reconstruct)


def judged(values: dict[int, float]):
    calls = []

    def of_scale(m: int) -> dict[str, float]:
        calls.append(m)
        return {"image_auroc": 0.0, "pixel_auroc": 0.0, "value": values[m]}

    return of_scale, calls


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({2: 0.5, 4: 0.9, 8: 0.7}, 4),
        ({2: 0.9, 4: 0.9, 8: 0.7}, 4),
        ({16: 0.9, 4: 0.9, 8: 0.9}, 16),
        ({8: 0.1}, 8),
    ],
)
def test_best_mosaic_scale_and_ties_to_the_larger(values, best):
    judging, calls = judged(values)
    found, results = search_mosaic(list(values), judging)
    assert found == best
    assert sorted(calls) == sorted(values)
    assert {int(m): result["value"] for m, result in results.items()} == values


@examples(max_examples=25, deadline=None)
@given(st.permutations([2, 4, 8, 16]), st.lists(st.sampled_from([0.5, 0.75]), min_size=4))
def test_order_of_the_candidates_does_not_matter(order, values):
    judging, _ = judged(dict(zip([2, 4, 8, 16], values, strict=False)))
    assert search_mosaic(order, judging) == search_mosaic([2, 4, 8, 16], judging)
