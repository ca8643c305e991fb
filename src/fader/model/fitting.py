"""From a folder of good images to a fitted model: what is done, in order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fader import runtime
from fader.data.layout import listed
from fader.detectors import Scores
from fader.evaluation import selection
from fader.evaluation.decision import AlarmLimit, alarm_limit
from fader.maskers import Masker
from fader.model.images import Pictures
from fader.model.settings import Plan
from fader.model.system import Data, Learning, System, divided
from fader.model.trainings import Clock, TooShort, cut, runs_of
from fader.runtime import Machine

OUTLYING = 3.5  # modified z-score beyond which an image is suspected
SUSPECTS = 5  # of these, at most

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Suspect:
    """A given image that looks unlike the rest: its name, and by how many robust standard
    deviations its score is above the median."""

    name: str
    deviations: float


@dataclass(frozen=True)
class Fitted:
    """A fitted system and what is known of it.

    Parameters
    ----------
    system : it.
    share : of the steps in the preset that the trainings have got.
    validation : ``image_auroc`` and ``pixel_auroc`` on the fold on which nothing was chosen.
    limit : the threshold of image scores, on the held-out normals of both folds.
    map_low, map_limit : median pixel of these normals' maps, and the same threshold of the maxima
        of the maps: what colours of a heat map are anchored to.
    suspects : given images that look least like the rest.
    data : how the images were split.
    held_out : image scores (k,) of the held-out normals, in the order of ``data.out``.
    training : seconds that the trainings took, of FADeR EAR's among them.
    seconds : that fitting took, all in all.
    milliseconds : of an image, masked and scored in batches.
    """

    system: System
    share: float
    validation: Mapping[str, float]
    limit: AlarmLimit
    map_low: float
    map_limit: float
    suspects: tuple[Suspect, ...]
    data: Data
    held_out: np.ndarray
    training: float
    seconds: float
    milliseconds: float

    @property
    def warning(self) -> str | None:
        """Why the model is not to be relied on; None where the validation gives no reason."""
        report = self.system.config.report
        names = {"image": ["image_auroc"], "pixel": ["pixel_auroc"]}
        names["mean"] = [*names["image"], *names["pixel"]]
        value = float(np.mean([self.validation[name] for name in names[report.warn_by]]))
        if value >= report.warn_below:
            return None
        return (
            f"the validation AUROC ({report.warn_by}) is {value:.3f}, under {report.warn_below:g}:"
            f" {self.system.plan.label} may not work on these images; do not rely on the model"
            " before it has been tried on real defects"
        )

    def facts(self) -> dict[str, Any]:
        """What is kept in a file, without what differs between equal fits."""
        return {
            "chosen": self.system.chosen,
            "steps": self.system.steps,
            "validation": {**self.validation, "warning": self.warning},
            "threshold": asdict(self.limit),
            "map": {"low": self.map_low, "limit": self.map_limit},
            "suspects": [asdict(suspect) for suspect in self.suspects],
        }


@dataclass(frozen=True)
class Start:
    """What a fit starts from.

    Parameters
    ----------
    plan : cut down to the minutes that there are.
    share : of the steps in the preset that this leaves.
    machine, data, learning : where, on what, and with the masks of which ``masker``, if any.
    pictures : the images.
    work : folder of checkpoints.
    suspects : whether to look for images that are least like the rest, which scores every one.
    seconds : that it took to get here.
    """

    plan: Plan
    share: float
    machine: Machine
    data: Data
    learning: Learning
    masker: Masker | None
    pictures: Pictures
    work: Path
    suspects: bool
    seconds: float

    def of(self, detector: str) -> Start:
        """That of EAR where this is FADeR's, or the other way: their configurations are one."""
        return replace(self, plan=replace(self.plan, detector=detector))

    def system(self) -> System:
        """What is to be fitted."""
        return System(self.plan, self.machine, self.masker)


def started(
    pictures: Pictures,
    plan: Plan,
    work: Path,
    tell: Tell,
    minutes: float | None,
    least: float = 0.0,
    *,
    suspects: bool = True,
) -> Start:
    """Divide images, make their masks, and cut the plan down to the time.

    Parameters
    ----------
    work : folder of checkpoints and of a plan that was cut down to ``minutes``; a fit that was
        killed goes on from there.
    tell : receives a line a stage.
    minutes : that the whole fit may take, or None; trainings are cut down to what fits.
    least : share of the steps without which there is no use in it.
    suspects : whether to look for images that are least like the rest.

    Raises
    ------
    FaderError : too few images.
    TooShort : too few minutes.
    """
    began = time.perf_counter()
    clock = Clock(began, minutes) if minutes is not None and plan.trained else None
    if clock:
        clock.check()
    machine = runtime.start(plan.config.runtime)
    data = divided(pictures.pixels, plan)
    tell(f"fitting {plan.label} on {len(data.fit)} images, {len(data.out)} are held out")
    system = System(plan, machine)
    if clock:
        clock.check(system.masking(data))
    learning = system.learning(data)
    share = 1.0
    if clock:
        plan, share = cut(plan, learning, machine, work, pictures.digest, clock, suspects=suspects)
        if share < least:
            raise TooShort(f"{share:.1%} of its training fit into {clock.minutes:.1f} minutes")
        if share < 1:
            tell(f"{share:.1%} of the preset's training fit into {clock.minutes:g} minutes")
    taken = time.perf_counter() - began
    return Start(
        plan, share, machine, data, learning, system.masker, pictures, work, suspects, taken
    )


def fitted(start: Start, tell: Tell, ear: Fitted | None = None) -> Fitted:
    """Fit what a plan says, and judge it.

    Parameters
    ----------
    tell : receives a line a stage.
    ear : EAR fitted from the same start, for FADeR to build on; None fits one.

    Raises
    ------
    Diverged : a training's loss is not finite.
    """
    began = time.perf_counter()
    system, data, learning = start.system(), start.data, start.learning
    runs = runs_of(start.plan, start.work, start.pictures.digest, start.machine)
    system.fit(learning, runs, None if ear is None else ear.system)
    training = time.perf_counter() - began + (0.0 if ear is None else ear.training)
    tell("scoring what was held out")
    judging = time.perf_counter()
    found = judged(system, data, learning)
    names = start.pictures.names
    odd = ()
    if start.suspects:
        odd = _suspects(system, data, learning, found["normals"], names, start.work)
    return Fitted(
        system=system,
        share=start.share,
        validation=found["validation"],
        limit=found["limit"],
        map_low=found["low"],
        map_limit=found["map_limit"],
        suspects=odd,
        data=data,
        held_out=found["normals"],
        training=training,
        seconds=start.seconds + training + time.perf_counter() - judging,
        milliseconds=found["milliseconds"],
    )


def judged(system: System, data: Data, learning: Learning) -> dict[str, Any]:
    """Validation, thresholds and speed of a fitted system, from the scores of both folds."""
    detector = system.detector
    assert detector is not None
    began = time.perf_counter()
    normal: dict[str, Scores] = {}
    defective: dict[str, Scores] = {}
    for name, examples in learning.folds.items():
        judged_on = learning.checked if name == "checked" else examples
        normal[name] = detector.scores(examples.normal)
        defective[name] = detector.scores(judged_on.defective)
    count = sum(len(s.images) for s in (*normal.values(), *defective.values()))
    seconds = time.perf_counter() - began
    rows = torch.cat([fold.rows for fold in data.folds.values()]).argsort()
    of_normals = torch.cat([s.images for s in normal.values()])[rows].numpy()
    of_defects = torch.cat([s.images for s in defective.values()]).numpy()
    maps = torch.cat([s.maps for s in normal.values()])
    rate = system.plan.false_alarms
    return {
        "validation": selection.aurocs(
            normal["checked"], defective["checked"], learning.checked.truth
        ),
        "normals": of_normals,
        "limit": alarm_limit(of_normals, of_defects, rate),
        "low": float(maps.median()),
        "map_limit": alarm_limit(maps.flatten(1).amax(1).numpy(), np.empty(0), rate).value,
        "milliseconds": 1000 * (seconds / count + learning.masking),
    }


# Images among the good ones that may not be good.


def _suspects(
    system: System,
    data: Data,
    learning: Learning,
    held_out: np.ndarray,
    names: list[str],
    work: Path,
) -> tuple[Suspect, ...]:
    """Given images whose score is far above the others', the worst first.

    Held-out images are scored by the system. So are the others where it is trained step by step; a
    memory or a projection knows those it was made of by heart, so they are scored by a second one,
    made of the held-out images. Scores are compared within either group, since the two detectors
    differ: modified z-scores (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
    """
    judge = system
    if not system.plan.trained:
        judge = System(system.plan, system.machine)
        from_rest = replace(learning, fitted=learning.normals[data.out])
        judge.fit(from_rest, runs_of(system.plan, work / "second", "second", system.machine))
    assert judge.detector is not None
    fitted_on = judge.detector.scores(learning.fitted).images.numpy()
    deviations = np.zeros(len(names))
    deviations[data.out.numpy()] = _modified_z(held_out)
    deviations[data.fit.numpy()] = _modified_z(fitted_on)
    worst = np.argsort(-deviations, kind="stable")[:SUSPECTS]
    return tuple(
        Suspect(names[row], round(float(deviations[row]), 2))
        for row in worst
        if deviations[row] > OUTLYING
    )


def _modified_z(scores: np.ndarray) -> np.ndarray:
    distance = scores.astype(np.float64) - np.median(scores)
    spread = np.median(np.abs(distance))
    return 0.6745 * distance / spread if spread else np.zeros(len(scores))


# What is said meanwhile.


def said(fit: Fitted) -> Iterator[str]:
    """What a user is told of a fitted model, a line each."""
    limit = fit.limit
    yield (
        f"validation (held-out normals against synthetic defects): image AUROC"
        f" {fit.validation['image_auroc']:.3f}, pixel AUROC {fit.validation['pixel_auroc']:.3f}"
    )
    yield (
        f"threshold {limit.value:.6g}: {limit.false_positives:.1%} of {limit.normal} held-out"
        f" normals are above it ({limit.asked:.1%} asked for), {limit.recall:.1%} of"
        f" {limit.defective} synthetic defects"
    )
    if limit.extrapolated:
        yield (
            f"note: {limit.normal} normals cannot attest a rate below 1 in {limit.normal}; the"
            " threshold follows from their spread"
        )
    if fit.suspects:
        names = listed([f"{s.name} ({s.deviations:.1f} σ)" for s in fit.suspects])
        yield f"look at these before you trust the threshold, they are least like the rest: {names}"
    if fit.warning:
        yield f"warning: {fit.warning}"


def removed(work: Path) -> None:
    """Drop the checkpoints of a fit that is done."""
    shutil.rmtree(work, ignore_errors=True)
