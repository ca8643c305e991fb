"""FADeR over the η × schedule grid (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

import torch
from torch import Tensor

from fader.config import Fader as Settings
from fader.config import MaskPath
from fader.detectors.base import Images
from fader.detectors.ear import Ear
from fader.detectors.fader.model import Fader, Point
from fader.detectors.fader.train import WATCHED, Normals, fit, stage
from fader.seeds import derive_seed
from fader.training.loop import History, Run

Evidence = TypeVar("Evidence")


def grid(settings: Settings) -> list[Point]:
    """The grid in order: η descending as listed, schedules inside."""
    return [Point(lr, schedule) for lr, schedule in product(settings.lrs, settings.schedules)]


@dataclass(frozen=True)
class Outcome(Generic[Evidence]):
    """A trained grid point.

    Parameters
    ----------
    point : its η and schedule.
    state : of the trained detector.
    history : losses per epoch.
    validation : what ``validate`` found of it.
    watched : (epochs, k) what was watched after every epoch, or (1, k) after the last.
    """

    point: Point
    state: dict[str, Tensor]
    history: History
    validation: Evidence
    watched: Tensor


def search(
    ear: Ear,
    settings: Settings,
    path: MaskPath,
    points: Sequence[Point],
    normal: Images,
    run: Run,
    *,
    validate: Callable[[Fader], Evidence],
    watch: Callable[[Fader], Sequence[float]],
    initial: Mapping[str, Tensor] | None = None,
) -> list[Outcome[Evidence]]:
    """Train FADeR (or a variant) at every point, each from the same EAR and the same Φ.

    Parameters
    ----------
    normal : fitted normals with their masks.
    validate : trained detector → what the label-free choice is made of.
    watch : detector → numbers to record (see ``fader.watch``); they decide nothing.
    initial : pre-trained weights of a ViT's body, or None.
    """
    normals, outcomes = None, []
    for point in points:
        torch.manual_seed(derive_seed(run.seed, "phi"))
        detector = Fader(ear, settings, path, point, initial)
        normals = normals or Normals.of(detector, normal)
        observed = watch if settings.watch == "every" else None
        history = fit(detector, normals, stage(detector, run), observed)
        validation = validate(detector)
        if settings.watch == "every":
            watched = [epoch[WATCHED] for epoch in history]
        else:
            watched = [list(watch(detector))]
        outcomes.append(
            Outcome(point, detector.state(), history, validation, torch.tensor(watched))
        )
    return outcomes
