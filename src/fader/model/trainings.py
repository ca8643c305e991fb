"""The trainings of a model: where they save themselves, how long they may take, and where what they
say goes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import fader
from fader.config import parse
from fader.detectors.fader.search import grid
from fader.errors import FaderError
from fader.evaluation.selection import Examples
from fader.files import digest, write_text
from fader.model.settings import MASKED, Plan, shortened
from fader.model.system import Learning, System, seed_of
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run, steps_of

MARGIN = 0.95  # share of the time left that is given out
PROBE = (2, 6)  # steps of the two trainings that the time of a step is measured by


class TooShort(FaderError):
    """There is no time for a training that is worth the name."""


def runs_of(plan: Plan, work: Path, images: str, machine: Machine) -> Callable[[str], Run]:
    """Runs that resume only with the same settings, images, machine and code."""

    @cache
    def key() -> str:
        return digest([plan.config.plain, images, machine.facts(), _code()])

    def run(name: str) -> Run:
        def checkpoint(stage: str) -> Checkpoint:
            return Checkpoint(work / f"{stage}.ckpt", key)

        return Run(seed_of(plan, name), plan.label, checkpoint)

    return run


@cache
def _code() -> str:
    """Digest of the package's files: any change starts trainings again."""
    root = Path(fader.__file__).parent
    hasher = hashlib.sha256(fader.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:16]


def check_minutes(minutes: float | None) -> None:
    """FaderError when they are none; None is no limit."""
    if minutes is not None and minutes <= 0:
        raise FaderError(f"minutes: {minutes:g}; give more than 0")


@dataclass(frozen=True)
class Clock:
    """When a fit began, and how many minutes it may take."""

    began: float
    minutes: float

    def left(self) -> float:
        """Seconds that training and judging may take from now on."""
        return MARGIN * (60 * self.minutes - (time.perf_counter() - self.began))

    def check(self, judging: float = 0.0) -> None:
        """TooShort when no time is left to train."""
        if self.left() <= judging:
            raise TooShort(
                f"{max(self.minutes, 0):.3g} minutes: all but training takes as long; give more"
                " minutes, or a smaller size"
            )


@dataclass(frozen=True)
class Needs:
    """Seconds that a fit takes: its trainings at full length, and scoring what it is chosen and
    judged by."""

    training: float
    judging: float


def cut(
    plan: Plan,
    learning: Learning,
    machine: Machine,
    work: Path,
    images: str,
    clock: Clock,
    *,
    suspects: bool,
) -> tuple[Plan, float]:
    """The plan with as many steps as fit, and their share; of a fit that goes on, as it was decided
    when it began.

    Parameters
    ----------
    suspects : whether every image is scored in the end.
    """
    kept, request = work / "plan.json", digest([plan.text(), clock.minutes, images])
    if kept.is_file():
        decided = json.loads(kept.read_text(encoding="utf-8"))
        if decided["request"] == request:
            share = decided["share"]
            return (shortened(plan, share) if share < 1 else plan), share
    clock.check()
    needed = needs(plan, learning, machine, suspects=suspects)
    clock.check(needed.judging)
    share = min(1.0, (clock.left() - needed.judging) / needed.training)
    write_text(kept, json.dumps({"request": request, "share": share}))
    return (shortened(plan, share) if share < 1 else plan), share


def needs(plan: Plan, learning: Learning, machine: Machine, *, suspects: bool) -> Needs:
    """What a fit needs, from trainings of a few steps and from scores of a few images."""
    folds, held = learning.folds.values(), learning.folds["held"]
    scored = sum(map(_size, folds)) + len(learning.fitted) * suspects

    def total(settings: Any) -> int:
        return steps_of(settings, len(learning.fitted))

    def measured(section: str) -> tuple[float, float]:
        return _measured(plan, section, learning, machine)

    if plan.detector not in MASKED:
        step, score = measured("detectors")
        return Needs(total(plan.config.detectors[plan.detector]) * step, scored * score)
    step, score = measured("ear")
    training = total(plan.config.ear) * step
    if plan.config.mosaic.policy == "search":
        scored += len(plan.config.ear.scales) * _size(held)
    if plan.detector == "ear":
        return Needs(training, scored * score)
    points = len(grid(plan.config.fader))
    step, _ = measured("fader")  # its network is EAR's: a score takes as long
    training += points * total(plan.config.fader) * step
    return Needs(training, (scored + points * _size(held)) * score)


def _size(examples: Examples) -> int:
    return len(examples.normal) + len(examples.defective)


def _measured(
    plan: Plan, section: str, learning: Learning, machine: Machine
) -> tuple[float, float]:
    """Seconds of a step, and of an image's score.

    A step is what a few more of them take, so that preparations do not count.
    """
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for steps in PROBE:
            brief = _brief(plan, section, steps)
            system = System(brief, machine)
            runs = runs_of(brief, Path(folder) / str(steps), "probe", machine)
            began = time.perf_counter()
            with told(silent=True):
                detector = system.train(section, learning.fitted, runs)
            taken.append(time.perf_counter() - began)
    few = learning.fitted[: plan.config.score.batch]
    began = time.perf_counter()
    detector.scores(few)
    score = (time.perf_counter() - began) / len(few)
    return max(taken[1] - taken[0], 1e-6) / (PROBE[1] - PROBE[0]), score


def _brief(plan: Plan, section: str, steps: int) -> Plan:
    values = plan.config.model_dump(mode="json")
    settings = values["detectors"][plan.detector] if section == "detectors" else values[section]
    settings |= {"epochs": None, "steps": steps}
    return Plan(parse(values, "probe"), plan.detector, plan.false_alarms)


class _NoTerminal:
    """A stream on which no progress bar is drawn."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def told(*, silent: bool) -> Iterator[None]:
    """Send the lines of a training to standard error, for the output is the user's; or nowhere."""
    if not silent:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path("/dev/null").open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(_NoTerminal(sys.stderr)))
        yield
