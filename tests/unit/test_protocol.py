"""The label-free protocol: what is held out, what is painted, and how candidates are judged."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fader.config import Score, Validation
from fader.data.split import split
from fader.errors import FaderError
from fader.evaluation.selection import Examples, criterion, search_mosaic
from fader.runtime import Machine

CPU = Machine(torch.device("cpu"), "fp32")
KINDS = ["perlin", "cutpaste", "scar", "swap"]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Distinct noisy gradients (N, 3, 32, 32) uint8."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 180, 32)[None, None, None]
    return (ramp + rng.uniform(-50, 50, (count, 3, 32, 32))).astype(np.uint8)


def validation(fraction: float = 0.25, per_image: int = 2) -> Validation:
    return Validation(fraction=fraction, per_image=per_image, kinds=KINDS)


def same(a, b) -> bool:
    return a.kinds == b.kinds and all(
        getattr(a, name).equal(getattr(b, name))
        for name in ("fit", "held", "defects", "defect_masks")
    )


@examples(max_examples=8, deadline=None)
@given(st.integers(4, 24), st.floats(0.01, 0.5), st.integers(1, 2), st.integers(0, 2**62))
def test_fitted_and_held_out_are_disjoint_and_complete(count, fraction, per_image, seed):
    chosen = split(pictures(count), validation(fraction, per_image), seed)
    fit, held = chosen.fit.tolist(), chosen.held.tolist()
    assert sorted(fit + held) == list(range(count))
    assert fit == sorted(fit)
    assert held == sorted(held)
    assert len(held) == max(2, round(fraction * count))
    assert len(fit) >= 2
    assert chosen.fit.dtype == chosen.held.dtype == torch.int64
    assert len(chosen.defects) == len(chosen.defect_masks) == len(held) * per_image
    assert chosen.kinds == tuple(KINDS[row % 4] for row in range(len(held) * per_image))


def test_defects_are_painted_on_held_out_images_only():
    pixels = pictures(16)
    chosen = split(pixels, validation(), 3)
    assert set(chosen.defect_masks.unique().tolist()) == {0, 1}
    for row, (defect, mask) in enumerate(zip(chosen.defects, chosen.defect_masks, strict=True)):
        unmasked = mask.bool().logical_not()
        # Noise makes images unlike each other, so a copy is near its own original only.
        distance = [
            (defect.int() - torch.from_numpy(image).int()).abs()[:, unmasked].float().mean().item()
            for image in pixels
        ]
        assert int(np.argmin(distance)) == chosen.held[row // 2]
        assert mask.any()
    # A fitted image leaves no trace in anything else of the split.
    other = pixels.copy()
    other[chosen.fit.numpy()] = 0
    assert same(chosen, split(other, validation(), 3))


def test_split_depends_on_its_arguments_and_on_nothing_else():
    pixels = pictures(12)
    first = split(pixels, validation(), 5)
    # Another category's jobs would have moved the global generators.
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    assert same(first, split(pixels.copy(), validation(), 5))
    assert not first.held.equal(split(pixels, validation(), 6).held) or not first.defects.equal(
        split(pixels, validation(), 6).defects
    )


@pytest.mark.parametrize(("count", "fraction"), [(3, 0.1), (2, 0.5), (20, 0.99)])
def test_too_few_images_to_fit(count, fraction):
    with pytest.raises(FaderError, match=r"fewer than 2 to fit; lower validation\.fraction"):
        split(pictures(count), validation(fraction), 0)


def test_criterion_by_hand():
    normal = torch.tensor([[[0, 0.1], [0, 0.1]], [[0.3, 0], [0, 0]]])
    defective = torch.tensor([[[0.2, 0], [0.1, 0]], [[0.9, 0.8], [0, 0]]])
    masks = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [0, 0]]], dtype=torch.uint8)
    found = criterion(normal, defective, masks)
    # Maxima: normal .1 .3, defective .2 .9; of the four pairs only (.2, .3) is in wrong order.
    assert found["image_auroc"] == pytest.approx(3 / 4)
    # Defective pixels .2 .9 .8 against 13 normal ones: only .3 is above one of them.
    assert found["pixel_auroc"] == pytest.approx(38 / 39)
    assert found["value"] == pytest.approx((3 / 4 + 38 / 39) / 2)


@examples(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_criterion_is_that_of_scikit_learn(seed, normals, defects):
    random = torch.Generator().manual_seed(seed)
    # Few levels, so that ties are common.
    normal = torch.randint(0, 6, (normals, 4, 4), generator=random) / 8
    defective = torch.randint(1, 8, (defects, 4, 4), generator=random) / 8
    masks = torch.randint(0, 2, (defects, 4, 4), generator=random, dtype=torch.uint8)
    masks[0, 0, 0] = 1
    found = criterion(normal, defective, masks)
    maps = torch.cat([normal, defective])
    truth = torch.cat([torch.zeros(normals, 4, 4, dtype=torch.uint8), masks])
    labels = [0] * normals + [1] * defects
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, maps.amax((1, 2))))
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth.flatten(), maps.flatten()))


SCORE = Score(scales=3, c=0.0026, smooth=3, batch=4)


def held_out() -> Examples:
    """Six normals with empty masks, and their defective copies with masks that hit the defect."""
    pixels = pictures(24)
    chosen = split(pixels, validation(), 0)
    normal = torch.from_numpy(pixels)[chosen.held]
    return Examples(
        normal,
        torch.zeros(len(normal), 32, 32, dtype=torch.bool),
        chosen.defects,
        chosen.defect_masks.bool(),
        chosen.defect_masks,
    )


def test_a_perfect_copy_tells_nothing_apart():
    found = held_out().judge(lambda images, masks: images, SCORE, CPU)
    assert found == {"image_auroc": 0.5, "pixel_auroc": 0.5, "value": 0.5}


def test_a_reconstruction_wrong_on_defects_only_is_judged_best():
    found = held_out().judge(lambda images, masks: images * ~masks.unsqueeze(1), SCORE, CPU)
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.9


def test_images_per_forward_pass_do_not_matter():
    def reconstruct(images, masks):
        return images.flip(-1).where(~masks.unsqueeze(1), images)

    whole = held_out().judge(reconstruct, SCORE, CPU)
    one = held_out().judge(reconstruct, SCORE.model_copy(update={"batch": 1}), CPU)
    assert one == whole


def judged(values: dict[int, float]):
    calls = []

    def judge(m: int) -> dict[str, float]:
        calls.append(m)
        return {"image_auroc": 0.0, "pixel_auroc": 0.0, "value": values[m]}

    return judge, calls


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
    judge, calls = judged(values)
    found, results = search_mosaic(list(values), judge)
    assert found == best
    assert sorted(calls) == sorted(values)
    assert {int(m): result["value"] for m, result in results.items()} == values


@examples(max_examples=25, deadline=None)
@given(st.permutations([2, 4, 8, 16]), st.lists(st.sampled_from([0.5, 0.75]), min_size=4))
def test_order_of_the_candidates_does_not_matter(order, values):
    judge, _ = judged(dict(zip([2, 4, 8, 16], values, strict=False)))
    assert search_mosaic(order, judge) == search_mosaic([2, 4, 8, 16], judge)
