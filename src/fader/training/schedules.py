"""Learning-rate schedules: factors on an optimiser's own rate, by iteration."""

import math
from collections.abc import Callable, Sequence

Multiplier = Callable[[int], float]


def fixed() -> Multiplier:
    """Constant learning rate."""
    return lambda iteration: 1.0


def step_decay(total: int, at: float = 5 / 6, factor: float = 0.1) -> Multiplier:
    """× ``factor`` from the fraction ``at`` of the run on."""
    return lambda iteration: 1.0 if iteration < at * total else factor


def step_decays(total: int, at: Sequence[float], factor: float) -> Multiplier:
    """× ``factor`` from each of the fractions ``at`` of the run on."""
    return lambda iteration: factor ** sum(iteration >= part * total for part in at)


def one_cycle(total: int, rise: float = 0.3, start: float = 1 / 25) -> Multiplier:
    """Cosine from ``start`` to 1 over the fraction ``rise`` of the run, then cosine to 0 (Smith
    2018)."""
    top = max(1, round(rise * total))

    def multiplier(iteration: int) -> float:
        if iteration < top:
            return start + (1 - start) * (1 - math.cos(math.pi * iteration / top)) / 2
        return (1 + math.cos(math.pi * (iteration - top) / max(1, total - top))) / 2

    return multiplier


def warmup(iterations: int) -> Multiplier:
    """Linear from 1/iterations to 1 over the first ``iterations``, then constant (Goyal et al.
    2017)."""
    return lambda iteration: min(1.0, (iteration + 1) / iterations)


def sgdr(warm: int, cycle: int, floor: float = 0.2) -> Multiplier:
    """Warm-up, then cosine annealing to ``floor`` with restarts, cycles doubling (Loshchilov &
    Hutter 2017).

    ``warm`` and ``cycle`` (the first) count iterations; floor η/5 and the doubling are those of the
    authors' public code.
    """
    rise = warmup(warm)

    def multiplier(iteration: int) -> float:
        if iteration < warm:
            return rise(iteration)
        position, length = iteration - warm, cycle
        while position >= length:
            position, length = position - length, 2 * length
        return floor + (1 - floor) * (1 + math.cos(math.pi * position / length)) / 2

    return multiplier
