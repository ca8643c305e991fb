"""Saliency to binary mask M_B: one rule for every masker.

The threshold of EAR and FADeR is not stated. Their remark that low-contrast attention "makes a
large mask" (FADeR, section 4.4) excludes a fixed area, and thresholds on the min-max scaled map
or at mean + k std ignore an affine change of contrast. Keeping a share of the attention's mass,
as DINO's visualisation does, fits: uniform attention at mass 0.6 masks 60 % of the area. Hence
``mass`` 0.6 is the default of the benchmark and the others are options.

True marks a suspected defect, which is replaced. Per image, a rule masks the cells

``mass``      whose cumulative sum, in ascending order, exceeds 1 - level of the total: the most
              salient ones, which hold ``level`` of the mass. Level in (0, 1), map non-negative. A
              constant map, all zeros included, is masked on a share ``level`` of its area.
``minmax``    above ``level`` after min-max scaling to [0, 1]. Level in [0, 1).
``mean_std``  above mean + level * (population) std. Any level.
``otsu``      above the split of largest between-class variance: Otsu's criterion with every
              distinct value as a candidate instead of a histogram; of equal splits the lowest.
              Level not used.
``quantile``  above the smallest value that a share ``level`` of the cells does not exceed. Level
              in [0, 1). A diagnostic: its area hardly depends on the map.

Of a constant map all rules but ``mass`` mask nothing. Cells of equal saliency are treated alike
by all but ``mass``, which has to part them to keep its share: it takes the last ones in
row-major order.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fader.errors import FaderError

# Sums, and levels such as 1 - 0.6, are rounded: what is equal up to this, relatively, counts as
# equal, so that the rule decides and not the rounding.
_TOLERANCE = 1e-9


def _mass(flat: Tensor, level: float) -> Tensor:
    flat = torch.where(flat.sum(dim=1, keepdim=True) > 0, flat, 1.0)
    ascending, order = flat.sort(dim=1, stable=True)
    cumulative = ascending.cumsum(dim=1)
    masked = cumulative > (1 - level + _TOLERANCE) * cumulative[:, -1:]
    return torch.zeros_like(masked).scatter(1, order, masked)


def _minmax(flat: Tensor, level: float) -> Tensor:
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    return flat - low > level * (high - low)


def _mean_std(flat: Tensor, level: float) -> Tensor:
    std, mean = torch.std_mean(flat, dim=1, correction=0, keepdim=True)
    # The mean of a constant may be rounded below it.
    constant = flat.amin(dim=1, keepdim=True) == flat.amax(dim=1, keepdim=True)
    return (flat > mean + level * std) & ~constant


def _otsu(flat: Tensor, level: float) -> Tensor:
    cells = flat.shape[1]
    centred = flat - flat.mean(dim=1, keepdim=True)
    ascending = centred.sort(dim=1).values
    # Entry k, from 1, is the split after the k lowest cells; it must part distinct values. With S
    # the sum of the k lowest centred values, w0 w1 (mu0 - mu1)^2 = S^2 / (k (cells - k)).
    valid = F.pad(ascending[:, 1:] > ascending[:, :-1], (0, 1), value=False)
    k = torch.arange(1, cells + 1, dtype=flat.dtype)
    between = torch.where(valid, ascending.cumsum(dim=1).square() / (k * (cells - k)), 0.0)
    best = valid & (between >= (1 - _TOLERANCE) * between.amax(dim=1, keepdim=True))
    lowest = best.to(torch.uint8).argmax(dim=1, keepdim=True)
    return (centred > ascending.gather(1, lowest)) & valid.any(dim=1, keepdim=True)


def _quantile(flat: Tensor, level: float) -> Tensor:
    rank = max(math.ceil((1 - _TOLERANCE) * level * flat.shape[1]), 1)
    return flat > flat.sort(dim=1).values[:, rank - 1 : rank]


# rule -> (mask of flattened maps, whether a level is allowed, in words)
_RULES: dict[str, tuple[Callable[[Tensor, float], Tensor], Callable[[float], bool], str]] = {
    "mass": (_mass, lambda level: 0 < level < 1, "in (0, 1)"),
    "minmax": (_minmax, lambda level: 0 <= level < 1, "in [0, 1)"),
    "mean_std": (_mean_std, math.isfinite, "finite"),
    "otsu": (_otsu, lambda level: True, "any number"),
    "quantile": (_quantile, lambda level: 0 <= level < 1, "in [0, 1)"),
}

RULES = tuple(_RULES)


def binarise(saliency: Tensor, rule: str, level: float) -> Tensor:
    """Binary masks of a batch of saliency maps.

    Computed on the CPU in float64, so that a saliency gives the same mask on every device.

    Parameters
    ----------
    saliency : (N, h, w), N >= 1, finite, higher = more suspicious; non-negative for ``mass``.
    rule : one of ``RULES``, defined at the top of this module.
    level : its parameter.

    Returns
    -------
    (N, h, w) bool on the saliency's device, True = suspected defect.

    Raises
    ------
    FaderError : unknown rule, level outside its range, or a saliency that the rule cannot take.
    """
    check(rule, level)
    if not saliency.isfinite().all():
        raise FaderError("saliency holds NaN or infinity: the masker or its weights are broken")
    if rule == "mass" and saliency.min() < 0:
        raise FaderError(
            f"mask rule 'mass' needs a non-negative saliency, got {saliency.min().item():g}: "
            "shift it in the masker or choose another rule"
        )
    return masked(saliency.detach().cpu(), rule, level).to(saliency.device)


def check(rule: str, level: float) -> None:
    """FaderError when there is no such rule, or when the level is outside its range."""
    if rule not in _RULES:
        raise FaderError(f"unknown mask rule {rule!r}: choose one of {', '.join(RULES)}")
    _, allowed, levels = _RULES[rule]
    if not allowed(level):
        raise FaderError(f"mask rule {rule!r}: level {level:g} must be {levels}")


def masked(saliency: Tensor, rule: str, level: float) -> Tensor:
    """``binarise`` of a saliency that is known to be fit for the rule, which nothing looks at: what
    can be traced for a graph."""
    of_flat = _RULES[rule][0]
    return of_flat(saliency.double().flatten(1), level).view(saliency.shape)


def enlarge(masks: Tensor, size: int) -> Tensor:
    """Masks (N, h, w) scaled by nearest neighbour to (N, size, size) bool."""
    scaled = F.interpolate(masks.unsqueeze(1).float(), size=(size, size), mode="nearest")
    return scaled.squeeze(1) > 0.5
