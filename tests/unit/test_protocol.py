"""The label-free protocol: how candidates are judged, and which is taken."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_split import parted, pictures, validation
from tiny import Reconstructing, place, tiny

from fader.detectors import Images, Scores
from fader.evaluation.selection import (
    Evidence,
    Examples,
    aurocs,
    choose,
    evidence,
    larger_first,
    value,
)


def scored(maps: torch.Tensor) -> Scores:
    return Scores(maps, maps.flatten(1).amax(1))


def test_aurocs_by_hand():
    normal = torch.tensor([[[0, 0.1], [0, 0.1]], [[0.3, 0], [0, 0]]])
    defective = torch.tensor([[[0.2, 0], [0.1, 0]], [[0.9, 0.8], [0, 0]]])
    masks = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [0, 0]]], dtype=torch.uint8)
    found = aurocs(scored(normal), scored(defective), masks)
    # Maxima: normal .1 .3, defective .2 .9; of the four pairs only (.2, .3) is in wrong order.
    assert found["image_auroc"] == pytest.approx(3 / 4)
    # Defective pixels .2 .9 .8 against 13 normal ones: only .3 is above one of them.
    assert found["pixel_auroc"] == pytest.approx(38 / 39)
    assert value(found, "mean") == pytest.approx((3 / 4 + 38 / 39) / 2)
    assert (value(found, "image"), value(found, "pixel")) == tuple(found.values())
    # The same, image by image: rows are normals, columns defective copies.
    known = evidence(scored(normal), scored(defective), masks)
    assert known.images.tolist() == [[1, 1], [0, 1]]
    assert known.normal.tolist() == [7, 6]  # four and three, four and two
    assert known.defective.tolist() == [1, 2]
    assert known.pixels.tolist() == [[7, 14], [5, 12]]


def test_the_criterion_takes_a_detectors_own_image_scores():
    maps = torch.tensor([[[0.1, 0.2]], [[0.9, 0.3]]])
    normal, defective = Scores(maps[:1], torch.tensor([7.0])), Scores(maps[1:], torch.tensor([3.0]))
    found = aurocs(normal, defective, torch.tensor([[[1, 0]]], dtype=torch.uint8))
    assert (found["image_auroc"], found["pixel_auroc"]) == (0, 1)


def drawn(seed: int, normals: int, copies: int) -> tuple[torch.Tensor, ...]:
    """Maps of few levels, so that ties are common, and masks with a defect in each."""
    random = torch.Generator().manual_seed(seed)
    normal = torch.randint(0, 6, (normals, 4, 4), generator=random) / 8
    defective = torch.randint(1, 8, (normals * copies, 4, 4), generator=random) / 8
    masks = torch.randint(0, 2, defective.shape, generator=random, dtype=torch.uint8)
    masks[:, 0, 0], masks[:, 1, 1] = 1, 0
    return normal, defective, masks


def by_scikit_learn(normal, defective, masks) -> list[float]:
    maps = torch.cat([normal, defective])
    truth = torch.cat([torch.zeros(normal.shape, dtype=torch.uint8), masks])
    labels = [0] * len(normal) + [1] * len(defective)
    return [
        roc_auc_score(labels, maps.amax((1, 2))),
        roc_auc_score(truth.flatten(), maps.flatten()),
    ]


@examples(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_aurocs_are_those_of_scikit_learn(seed, normals, copies):
    normal, defective, masks = drawn(seed, normals, copies)
    found = aurocs(scored(normal), scored(defective), masks)
    assert list(found.values()) == pytest.approx(by_scikit_learn(normal, defective, masks))


@examples(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 3), st.data())
def test_a_resample_is_the_aurocs_of_the_images_drawn(seed, normals, copies, data):
    """Weights stand for copies of a normal with all its defective ones; a tie of levels is one of
    bins, so that the pixels' are exact here."""
    normal, defective, masks = drawn(seed, normals, copies)
    known = evidence(scored(normal), scored(defective), masks)
    rows = data.draw(st.lists(st.integers(0, normals - 1), min_size=normals, max_size=normals))
    of_copies = [row * copies + copy for row in rows for copy in range(copies)]
    expected = by_scikit_learn(normal[rows], defective[of_copies], masks[of_copies])
    weights = np.bincount(rows, minlength=normals)[None].astype(float)
    found = [known.resampled(weights, criterion)[0] for criterion in ("image", "pixel")]
    assert found == pytest.approx(expected)
    assert known.resampled(weights, "mean")[0] == pytest.approx(np.mean(expected))
    whole = np.ones((1, normals))
    assert known.resampled(whole, "mean")[0] == pytest.approx(known.value("mean"))


def held_out() -> Examples:
    """Normals with empty masks, and their defective copies with masks that hit the defect."""
    pixels = pictures(24)
    fold = parted(pixels, validation(held=6), 0).folds["held"]
    normal, truth = torch.from_numpy(pixels)[fold.normals], torch.from_numpy(fold.masks)
    return Examples(
        Images(normal, torch.zeros(len(normal), 32, 32, dtype=torch.bool)),
        Images(torch.from_numpy(fold.defects[32]), truth.bool()),
        truth,
    )


def judge(reconstruct, batch: int = 4) -> dict[str, float]:
    """The AUROCs of a detector whose reconstruction is that of a function."""
    context = place(tiny(score={"smooth": 3, "batch": batch}))
    detector = Reconstructing(reconstruct, context)
    found = held_out().judge(detector)
    assert held_out().evidence(detector).aurocs == found
    return found


def test_a_perfect_copy_tells_nothing_apart():
    assert judge(lambda images, masks: images) == {"image_auroc": 0.5, "pixel_auroc": 0.5}


def test_a_reconstruction_wrong_on_defects_only_is_judged_best():
    found = judge(lambda images, masks: images * ~masks.unsqueeze(1))
    assert found["image_auroc"] == 1
    assert found["pixel_auroc"] > 0.9


def test_images_per_forward_pass_do_not_matter():
    def reconstruct(images, masks):
        return images.flip(-1).where(~masks.unsqueeze(1), images)

    assert judge(reconstruct, batch=1) == judge(reconstruct)


def told(wins: np.ndarray) -> Evidence:
    """Evidence of ``wins`` (k, k), the image pairs in order, and of pixels alike."""
    ones = np.ones(len(wins))
    return Evidence(wins.mean(), wins.mean(), wins, wins, ones, ones)


def weak(*rows: int, of: int = 20) -> Evidence:
    """All pairs in order but those of some normals, which are above every defect."""
    wins = np.ones((of, of))
    wins[list(rows)] = 0
    return told(wins)


@pytest.mark.parametrize(
    ("candidates", "chosen", "best"),
    [
        # One normal of twenty decides: within the noise, so the first listed is taken.
        ({16: weak(1), 8: weak(), 4: weak(2)}, 16, 8),
        # Ten of twenty are beyond it.
        ({16: weak(*range(10)), 8: weak(), 4: weak(2)}, 8, 8),
        # The best is first among equals.
        ({16: weak(3), 8: weak(3), 4: weak(3)}, 16, 16),
        # A paired difference: the same normals fail in both, one more in the first.
        ({16: weak(*range(11)), 8: weak(*range(10)), 4: weak(*range(20))}, 16, 8),
        ({8: weak()}, 8, 8),
    ],
)
def test_the_first_that_ties_with_the_best_is_chosen(candidates, chosen, best):
    found = choose(candidates, criterion="mean", tie=0.05, seed=0)
    assert (found.chosen, found.best) == (chosen, best)
    assert found.ties[best] == 1
    assert found.values == {name: each.value("mean") for name, each in candidates.items()}


def test_ties_are_the_share_of_resamples_by_hand():
    """Two images; the first normal is above every defect under A, neither under B: A is no worse
    where a resample has the second alone, with probability 1/4."""
    found = choose({"A": weak(0, of=2), "B": weak(of=2)}, criterion="image", tie=0.3, seed=1)
    assert found.ties["A"] == pytest.approx(0.25, abs=0.04)
    assert found.chosen == "B"
    found = choose({"A": weak(0, of=2), "B": weak(of=2)}, criterion="image", tie=0.2, seed=1)
    assert found.chosen == "A"


def test_larger_scales_come_first_however_they_are_listed():
    assert larger_first([4, 32, 2, 16]) == [32, 16, 4, 2]
