"""What is fitted: a detector and, for EAR and FADeR, the attention masker in front of it.

Fitting composes what the steps of a run compose, function by function, with the same seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fader import detectors, maskers
from fader.data.split import split
from fader.detectors import Detector, Images, Scores
from fader.detectors.ear import Ear
from fader.detectors.fader import PROPOSED, Fader, Point
from fader.detectors.fader.search import grid, search
from fader.errors import FaderError
from fader.evaluation import cost, selection
from fader.evaluation.selection import Examples
from fader.maskers.threshold import binarise, enlarge
from fader.model.settings import MASKED, Plan
from fader.runtime import Machine
from fader.seeds import derive_seed
from fader.training.loop import History, Run

Pixels = Mapping[int, Tensor]  # side → (N, 3, side, side) uint8
Runs = Callable[[str], Run]  # name of a training → its run


def seed_of(plan: Plan, stage: str) -> int:
    """Seed of a named stream, as of a category of a run."""
    place = next(iter(plan.config.categories.values()))
    return derive_seed(plan.seed, place.dataset, place.category, stage)


@dataclass(frozen=True)
class Fold:
    """Held-out normals and the synthetic defects on them.

    Parameters
    ----------
    rows : (k,) int64 of the normals.
    defects : the defective copies at every side.
    truth : (k·c, S, S) uint8 0/1, their defective pixels.
    kinds : of the defects.
    """

    rows: Tensor
    defects: Pixels
    truth: Tensor
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """The given normals, and how they were split: see ``fader.data.split``."""

    pixels: Pixels
    fit: Tensor
    folds: Mapping[str, Fold]

    @property
    def count(self) -> int:
        """How many images there are, the defective copies included."""
        given = len(next(iter(self.pixels.values())))
        return given + sum(len(fold.truth) for fold in self.folds.values())

    @property
    def out(self) -> Tensor:
        """Rows of all that is held out, sorted."""
        return torch.cat([fold.rows for fold in self.folds.values()]).sort().values


def divided(pixels: Pixels, plan: Plan) -> Data:
    """Hold out normals and paint defects on copies of them.

    Raises
    ------
    FaderError : too few images (see ``fader.data.split.sizes``).
    """
    config = plan.config
    arrays = {side: values.numpy() for side, values in pixels.items()}
    found = split(arrays, config.image.size, config.validation, seed_of(plan, "validation"))
    folds = {
        name: Fold(
            torch.from_numpy(fold.normals),
            {side: torch.from_numpy(values) for side, values in fold.defects.items()},
            torch.from_numpy(fold.masks),
            fold.kinds,
        )
        for name, fold in found.folds.items()
    }
    return Data(pixels, torch.from_numpy(found.fit), folds)


@dataclass(frozen=True)
class Learning:
    """What a system is fitted and judged on, with its masks.

    Parameters
    ----------
    normals : all that were given.
    fitted : those that it is fitted on.
    folds : examples of each fold.
    checked : those of the fold ``checked`` on which the detector is judged: without defects of
        kinds that it trains on.
    masking : seconds that the masks of an image took; 0 without a masker.
    """

    normals: Images
    fitted: Images
    folds: Mapping[str, Examples]
    checked: Examples
    masking: float


class System:
    """A detector with its masker.

    Parameters
    ----------
    plan : which one, and its settings.
    machine : device and precision.
    masker : the plan's, where it has been loaded already.

    Attributes
    ----------
    detector : as fitted or loaded; None before.
    chosen : what was chosen label-free, ``mosaic``, ``lr`` and ``schedule``.
    steps : optimiser steps of each training that ``fit`` has done.
    """

    def __init__(self, plan: Plan, machine: Machine, masker: maskers.Masker | None = None) -> None:
        self.plan, self.config, self.machine = plan, plan.config, machine
        self._loaded = masker
        self.detector: Detector | None = None
        self.chosen: dict[str, Any] = {}
        self.steps: dict[str, int] = {}

    @cached_property
    def masker(self) -> maskers.Masker | None:
        """The base masker; None where the detector works without."""
        if self.plan.detector not in MASKED:
            return None
        if self._loaded is not None:
            return self._loaded
        base = self.config.masks.base
        place = maskers.Context("images", self.machine, self.config.weights_folder)
        return maskers.create(base, self.config.masks.settings(base), place)

    # Images.

    def images(self, pixels: Pixels) -> Images:
        """Images as the detector is given them, with masks where it works on masks."""
        given = pixels[self.plan.side]
        return Images(given, None if self.masker is None else self._masks(pixels))

    def _masks(self, pixels: Pixels) -> Tensor:
        """Masks (N, S, S) of the base masker by its threshold rule."""
        masks, size = self.config.masks, self.config.image.size
        seen = pixels[max(size, masks.settings(masks.base).input_size)]
        assert self.masker is not None
        parts = seen.split(self.masker.batch)
        saliency = torch.cat([self.masker.saliency(p.float() / 255).float().cpu() for p in parts])
        return enlarge(binarise(saliency, *masks.threshold(masks.base)), size)

    def masking(self, data: Data) -> float:
        """Seconds that the masks of all images will take, by those of a first batch."""
        if self.masker is None:
            return 0.0
        few = {side: pixels[: self.masker.batch] for side, pixels in data.pixels.items()}
        began = time.perf_counter()
        count = len(self._masks(few))
        return (time.perf_counter() - began) / count * data.count

    def learning(self, data: Data) -> Learning:
        """What the system is fitted and judged on."""
        masker = self.masker  # loaded before the clock starts
        began = time.perf_counter()
        normals = self.images(data.pixels)
        folds = {
            name: Examples(normals[fold.rows], self.images(fold.defects), fold.truth)
            for name, fold in data.folds.items()
        }
        seconds = time.perf_counter() - began if masker else 0.0
        checked = self._judged(folds["checked"], data.folds["checked"].kinds)
        return Learning(normals, normals[data.fit], folds, checked, seconds / data.count)

    def _judged(self, examples: Examples, kinds: tuple[str, ...]) -> Examples:
        name = self.plan.detector
        own = () if name in MASKED else self.config.detectors[name].trained_on
        others = examples.without(own, kinds)
        if not len(others.defective):
            raise FaderError(
                f"validation.kinds: every defect is of a kind that {name} trains on"
                f" ({', '.join(own)}); raise validation.per_image"
            )
        return others

    # Fitting.

    def fit(self, learning: Learning, runs: Runs, ear: System | None = None) -> None:
        """Learn from the fitted normals, and choose on the fold ``held``.

        Parameters
        ----------
        ear : EAR with the same settings, fitted on the same, for FADeR to build on; None fits one.

        Raises
        ------
        Diverged : a loss is not finite.
        """
        name = self.plan.detector
        if name == "ear":
            self._fit_ear(learning, runs("ear"))
        elif name == "fader":
            if ear is None:
                ear = System(replace(self.plan, detector="ear"), self.machine)
                ear.fit(learning, runs)
            self._fit_fader(ear, learning, runs("fader"))
        else:
            detector = self._create()
            self.steps = _steps(detector.fit(learning.fitted, runs(f"detector/{name}")))
            self.detector, self.chosen = detector.requires_grad_(False), {}

    def train(self, section: str, images: Images, runs: Runs) -> Detector:
        """One training alone, which chooses and keeps nothing: for its time.

        Parameters
        ----------
        section : ``ear``, ``fader`` or ``detectors``.
        """
        if section == "fader":
            detector: Detector = Fader(self._ear().eval(), self.config.fader)
        else:
            detector = self._ear() if section == "ear" else self._create()
        detector.fit(images, runs(section))
        return detector

    def _create(self) -> Detector:
        return detectors.create(self.config.detectors[self.plan.detector], self._place())

    def _place(self) -> detectors.Context:
        return detectors.Context.of(self.config, self.machine)

    def _ear(self, state: Mapping[str, Tensor] | None = None, scale: int | None = None) -> Ear:
        ear = Ear(self._place(), self.config.ear, scale or self.config.ear.scales[0])
        if state is not None:
            ear.load(_below("ear", state))
        return ear

    def _fit_ear(self, learning: Learning, run: Run) -> None:
        fresh, first = self._ear(), self.config.ear.scales[0]
        self.steps = _steps(fresh.fit(learning.fitted, run))
        state = _named("ear", fresh.state())
        scale = self._mosaic(self._ear(state, first), learning.folds["held"])
        self.load(state, {"mosaic": scale})

    def _mosaic(self, ear: Ear, held: Examples) -> int:
        """m*: the largest scale that ties with the best on the fold ``held``, or as told."""
        if self.config.mosaic.policy == "fixed":
            return self.config.mosaic.fixed
        found = {}
        for scale in selection.larger_first(self.config.ear.scales):
            ear.scale = scale
            found[scale] = held.evidence(ear)
        return self._choose(found).chosen

    def _fit_fader(self, ear: System, learning: Learning, run: Run) -> None:
        """Train FADeR over its grid, and take the label-free pick."""
        assert isinstance(ear.detector, Ear)
        outcomes = search(
            ear.detector,
            self.config.fader,
            PROPOSED,
            grid(self.config.fader),
            learning.fitted,
            run,
            validate=learning.folds["held"].evidence,
            watch=lambda detector: [],
        )
        choice = self._choose({o.point: o.validation for o in outcomes})
        best = next(outcome for outcome in outcomes if outcome.point == choice.chosen)
        self.steps = ear.steps | _steps({"fader": best.history})
        picked = {"lr": best.point.lr, "schedule": best.point.schedule}
        self.load(ear.state() | _named("fader", best.state), ear.chosen | picked)

    def _choose(self, found: Mapping[Any, selection.Evidence]) -> selection.Choice[Any]:
        settings, seed = self.config.validation, seed_of(self.plan, "ties")
        return selection.choose(found, criterion=settings.criterion, tie=settings.tie, seed=seed)

    # What was fitted.

    def state(self) -> dict[str, Tensor]:
        """What was learnt, on the CPU; frozen weights come with their packages."""
        assert self.detector is not None
        if isinstance(self.detector, Fader):
            encoder = self.detector.encoder.state_dict()
            state = {f"ear/network.encoder.{key}": value for key, value in encoder.items()}
            state |= _named("fader", self.detector.state())
        else:
            prefix = "ear" if isinstance(self.detector, Ear) else "detector"
            state = _named(prefix, self.detector.state())
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    def load(self, state: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> None:
        """Take the ``state`` of an equal system and what was ``chosen`` for it."""
        self.chosen = dict(chosen)
        if self.plan.detector not in MASKED:
            self.detector = self._create()
            self.detector.load(_below("detector", state))
        elif self.plan.detector == "ear":
            self.detector = self._ear(state, chosen["mosaic"])
        else:
            ear = Ear(self._place(), self.config.ear, chosen["mosaic"])
            encoder = _below("ear", state)
            ear.network.load_state_dict(ear.network.state_dict() | _below_network(encoder))
            ear.eval().requires_grad_(False)
            point = Point(chosen["lr"], chosen["schedule"])
            self.detector = Fader(ear, self.config.fader, PROPOSED, point)
            self.detector.load(_below("fader", state))

    def scores(self, pixels: Pixels) -> Scores:
        """Maps (N, S, S) and scores (N,) of images."""
        assert self.detector is not None
        return self.detector.scores(self.images(pixels))

    @property
    def weights(self) -> dict[str, str]:
        """Pretrained weights that the system works with: what needs them → which, with digest."""
        found = {}
        if self.masker is not None:
            found["masker"] = self.masker.weights
        if self.detector is not None and self.detector.weights is not None:
            found["detector"] = self.detector.weights
        return found

    @property
    def backbones(self) -> list[str]:
        """Names of the backbones of these weights."""
        masks = self.config.masks
        settings: Any = masks.settings(masks.base)
        if self.masker is None:
            settings = self.config.detectors[self.plan.detector]
        name = getattr(settings, "backbone", None)
        return [] if name is None else [name]

    @property
    def parameters(self) -> int:
        """All that inference needs, pretrained networks included, as ``fader.evaluation.cost`` has
        it: of a memory its rows as well."""
        assert self.detector is not None
        own = self.detector.children() if self.detector.frozen else (self.detector,)
        frozen = () if self.masker is None else self.masker.frozen
        return cost.parameters((*own, *frozen))


def _named(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{key}": value for key, value in state.items()}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}


def _below_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("network."): value for key, value in state.items()}


def _steps(histories: Mapping[str, History]) -> dict[str, int]:
    return {stage: history[-1]["step"] for stage, history in histories.items() if history}
