"""The mask rules: worked by hand, by their invariances, and against a brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fader.errors import FaderError
from fader.maskers.threshold import RULES, binarise, enlarge

few = settings(max_examples=25, deadline=None)
# Integers, so that sums are exact and invariances hold without a tolerance.
maps = st.lists(st.integers(0, 50), min_size=12, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float32).view(1, 3, 4)
)
LEVELS = {"mass": 0.6, "minmax": 0.5, "mean_std": 1.0, "otsu": 0.0, "quantile": 0.9}


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, -1)


def masked(saliency: Tensor, rule: str, level: float) -> list[int]:
    return binarise(saliency, rule, level).flatten().int().tolist()


def test_mass_by_hand():
    # Ascending .1 .2 .3 .4, cumulative .1 .3 .6 1: above .4 are the cells .3 and .4.
    assert masked(row(3, 1, 4, 2), "mass", 0.6) == [1, 0, 1, 0]
    # Level .4: above .6 is only the cell .4, since the cumulative .6 does not exceed .6.
    assert masked(row(3, 1, 4, 2), "mass", 0.4) == [0, 0, 1, 0]


def test_minmax_by_hand():
    # Scaled: 0 .25 .5 .75 1; the cell at the level is not above it.
    assert masked(row(-2, -1, 0, 1, 2), "minmax", 0.5) == [0, 0, 0, 1, 1]


def test_mean_std_by_hand():
    # Mean 2, population variance (4 * 4 + 64) / 5 = 16, std 4: thresholds 9.6 and 10.4.
    assert masked(row(0, 0, 0, 0, 10), "mean_std", 1.9) == [0, 0, 0, 0, 1]
    assert masked(row(0, 0, 0, 0, 10), "mean_std", 2.1) == [0, 0, 0, 0, 0]


def test_otsu_by_hand():
    assert masked(row(1, 9, 2, 8, 1), "otsu", 0) == [0, 1, 0, 1, 0]
    # Splits {0 | 1 2} and {0 1 | 2} have equal variance 1/2: the lower one is taken.
    assert masked(row(0, 1, 2), "otsu", 0) == [0, 1, 1]


def test_quantile_by_hand():
    # Half of the cells do not exceed 2; a level of 0 masks all but the lowest.
    assert masked(row(4, 1, 3, 2), "quantile", 0.5) == [1, 0, 1, 0]
    assert masked(row(4, 1, 3, 2), "quantile", 0.0) == [1, 0, 1, 1]


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_uniform_attention_at_mass_60_percent_masks_60_percent_from_the_end(value):
    mask = binarise(torch.full((2, 10, 10), value), "mass", 0.6)
    assert mask.flatten(1).sum(1).tolist() == [60, 60]
    assert mask[:, 4:].all()


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "mass"])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_constant_map_has_no_suspect_for_the_other_rules(rule, value):
    assert not binarise(torch.full((1, 7, 3), value), rule, LEVELS[rule]).any()


@few
@given(maps, st.integers(1, 1000))
def test_mass_ignores_scale(saliency, scale):
    assert torch.equal(binarise(saliency, "mass", 0.6), binarise(scale * saliency, "mass", 0.6))


@few
@given(maps, st.sampled_from([0.25, 2.0, 8.0]), st.integers(-100, 100))
def test_minmax_mean_std_and_otsu_ignore_affine_contrast(saliency, scale, shift):
    # Level 0.73 keeps mean + level * std off the integers, where rounding would decide.
    for rule, level in (("minmax", 0.5), ("mean_std", 0.73), ("otsu", 0.0)):
        changed = scale * saliency + shift
        assert torch.equal(binarise(saliency, rule, level), binarise(changed, rule, level)), rule


def test_mass_does_not_ignore_an_offset():
    # The reason for the rule: less contrast, larger mask.
    sharp = row(0, 0, 0, 1)
    assert binarise(sharp + 1, "mass", 0.6).sum() > binarise(sharp, "mass", 0.6).sum()


@few
@given(maps, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_masks_are_nested_in_the_level(saliency, one, other):
    low, high = sorted((one, other))
    for rule in ("mass", "minmax", "mean_std", "quantile"):
        at_low, at_high = binarise(saliency, rule, low), binarise(saliency, rule, high)
        # ``mass`` keeps more at a higher level, the others demand more.
        inner, outer = (at_low, at_high) if rule == "mass" else (at_high, at_low)
        assert (inner <= outer).all(), rule


@few
@given(maps, st.floats(0.05, 0.95))
def test_mass_is_the_smallest_set_holding_the_level(saliency, level):
    total = saliency.double().sum().item()
    values = saliency.double().flatten()
    mask = binarise(saliency, "mass", level).flatten()
    if total == 0:
        return
    assert mask.any()
    kept = values[mask].sum().item()
    assert kept >= level * total - 1e-6 * total
    assert kept - values[mask].min().item() <= level * total + 1e-6 * total
    assert mask.all() or values[mask].min() >= values[~mask].max()


@few
@given(maps)
def test_otsu_maximises_between_class_variance(saliency):
    values = saliency.flatten().tolist()

    def variance(threshold: float) -> float:
        low = [value for value in values if value <= threshold]
        high = [value for value in values if value > threshold]
        gap = sum(low) / len(low) - sum(high) / len(high)
        return len(low) * len(high) / len(values) ** 2 * gap**2

    candidates = sorted(set(values))[:-1]
    mask = binarise(saliency, "otsu", 0).flatten()
    if not candidates:
        assert not mask.any()
        return
    best = max(variance(threshold) for threshold in candidates)
    first = next(t for t in candidates if variance(t) >= best * (1 - 1e-9))
    assert mask.tolist() == [value > first for value in values]


@pytest.mark.parametrize("rule", RULES)
def test_images_are_independent(rule):
    saliency = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0))
    together = binarise(saliency, rule, LEVELS[rule])
    assert together.shape == saliency.shape and together.dtype == torch.bool
    alone = [binarise(one[None], rule, LEVELS[rule])[0] for one in saliency]
    assert torch.equal(together, torch.stack(alone))


@pytest.mark.parametrize(
    ("saliency", "rule", "level", "complaint"),
    [
        (row(1, 2), "mas", 0.6, "choose one of mass, minmax"),
        (row(1, 2), "mass", 60, r"level 60 must be in \(0, 1\)"),
        (row(1, 2), "minmax", 1.0, r"must be in \[0, 1\)"),
        (row(1, 2), "mean_std", float("nan"), "must be finite"),
        (row(-1, 2), "mass", 0.6, "non-negative saliency, got -1"),
        (row(float("nan"), 2), "minmax", 0.5, "NaN"),
    ],
)
def test_what_cannot_be_thresholded_is_said(saliency, rule, level, complaint):
    with pytest.raises(FaderError, match=complaint):
        binarise(saliency, rule, level)


def test_a_mask_is_enlarged_cell_by_cell():
    mask = torch.tensor([[[True, False], [False, True]], [[False, False], [True, False]]])
    large = enlarge(mask, 6)
    assert large.dtype == torch.bool
    assert large.equal(mask.repeat_interleave(3, 1).repeat_interleave(3, 2))


@few
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_an_enlarged_mask_is_that_of_the_cell_at_each_pixels_corner(height, width, size):
    random = torch.Generator().manual_seed(height * width)
    mask = torch.rand(2, height, width, generator=random) > 0.5
    rows, columns = (
        torch.tensor([i * side // size for i in range(size)]) for side in (height, width)
    )
    assert enlarge(mask, size).equal(mask[:, rows][:, :, columns])
