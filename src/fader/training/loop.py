"""The one training loop: every trained system of the benchmark goes through ``train``.

A system brings its modules, its optimisers and a ``step`` that turns image indices into losses and
hands each to ``update``. The loop brings the order of the images, the learning-rate schedules, an
atomic checkpoint outside the outputs, a guard against losses that are not finite, a progress bar on
a terminal and a JSON line an epoch otherwise.

All randomness of epoch e comes from a generator seeded by (seed, e), so a run that was killed and
resumed makes the same bytes as one that was not.
"""

import inspect
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fader.errors import FaderError
from fader.runtime import generator, interactive
from fader.seeds import derive_seed
from fader.training.checkpoint import Checkpoint, parameters_of
from fader.training.schedules import Multiplier, fixed

CHECKPOINT_SECONDS = 20.0  # between two checkpoints
SHORT_SECONDS = 5.0  # a stage that took no longer is not saved when it ends, but done again

History = list[dict[str, Any]]  # per epoch: numbers, or what was observed
Losses = Tensor | Mapping[str, Tensor]
Update = Callable[[str, Losses], None]
Step = Callable[[Tensor, torch.Generator, Update], None]


class Diverged(FaderError):
    """A training whose loss or weights are not finite.

    Parameters
    ----------
    label : what was trained.
    why : when it was seen, and what to do.
    history : of the epochs before.
    """

    def __init__(self, label: str, why: str, history: History) -> None:
        super().__init__(f"{label}: {why}")
        self.why = why
        self.history = history


@dataclass(frozen=True)
class Optimizer:
    """An optimiser with its schedule.

    Parameters
    ----------
    algorithm : of ``torch.optim``; its groups' learning rates are those that the schedule scales.
    schedule : iteration → factor on the learning rate of every group.
    clip : largest norm of the gradient, all its parameters together; None leaves it as it is.
    """

    algorithm: torch.optim.Optimizer
    schedule: Multiplier = field(default_factory=fixed)
    clip: float | None = None


@dataclass(frozen=True)
class Stage:
    """One training: what it is called, its seed, and where it saves itself.

    Parameters
    ----------
    label : what is trained, for the log and for errors.
    seed : derived seed of the order of the images and of all that ``step`` draws.
    checkpoint : where an unfinished training is saved, and the key that says which one it is.
    remedy : what a user can do when the loss is not finite; ends that error.
    """

    label: str
    seed: int
    checkpoint: Checkpoint
    remedy: str


@dataclass(frozen=True)
class Run:
    """The training of a system, in one or several stages.

    Parameters
    ----------
    seed : derived seed, from which each stage derives its own.
    label : the system, its category and its seed, for the log.
    checkpoint : name of a stage → where it saves itself.
    """

    seed: int
    label: str
    checkpoint: Callable[[str], Checkpoint]

    def stage(self, name: str, remedy: str) -> Stage:
        """A stage by name, with a seed of its own."""
        return Stage(
            f"{self.label} {name}", derive_seed(self.seed, name), self.checkpoint(name), remedy
        )


def train(
    stage: Stage,
    *,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    step: Step,
    count: int,
    batch: int,
    steps: int,
    observe: Callable[[], Mapping[str, list[float]]] | None = None,
    report: Callable[[str], None] = print,
) -> History:
    """Train in place for ``steps`` batches of ``count`` images; resumes from the checkpoint.

    An epoch is a pass over the images; the last one ends with the last step (see ``steps_of``).

    Parameters
    ----------
    stage : label, seed, checkpoint and remedy.
    modules : what a checkpoint holds, by name; ``step`` sets their train/eval modes.
    optimizers : by name; a checkpoint holds them too.
    step : (indices (b,) int64 on the CPU, generator, update) → None. It calls
        ``update(name, losses)`` for every optimiser that takes a step: gradients to zero, backward,
        clip, step at the scheduled rate. ``losses`` is the scalar to minimise, or a mapping in
        which ``loss`` is, the rest being recorded.
    observe : called after every epoch; what it returns is kept in that epoch's history.
    report : receives the JSON line of every epoch unless a progress bar is shown.

    Returns
    -------
    One dictionary per epoch: epoch and step (1-based, of its last), lr (of the first optimiser's
    first group) and the mean of each loss, those of all but the first optimiser under
    ``<optimiser>_<loss>``. A last batch of one image is left out, since batch normalisation cannot
    use it.

    Raises
    ------
    FaderError : fewer than two images.
    Diverged : a loss or a weight is not finite.
    """
    per_epoch = batches_per_epoch(count, batch)
    if not per_epoch:
        raise FaderError(
            f"{stage.label}: {count} training image(s) do not make a batch; at least 2 are needed"
        )
    algorithms = {name: optimizer.algorithm for name, optimizer in optimizers.items()}
    started, history = stage.checkpoint.load(modules, algorithms)
    updater = _Updater(optimizers)
    saved = started_at = time.monotonic()
    epochs = math.ceil(steps / per_epoch)
    bar = _progress(range(started, epochs), stage.label, epochs, started)
    for epoch in bar:
        random = generator(derive_seed(stage.seed, "epoch", str(epoch)))
        began = time.monotonic()
        updater.start_epoch()
        first = epoch * per_epoch
        batches = _batches(torch.randperm(count, generator=random), batch)[: steps - first]
        for number, indices in enumerate(batches):
            updater.schedule(first + number)
            step(indices, random, updater)
        rate = updater.rate()
        updater.restore_rates()
        means = {name: float(total) / len(batches) for name, total in updater.sums.items()}
        if not (all(map(math.isfinite, means.values())) and _finite(modules)):
            why = f"the loss or a weight is not finite in epoch {epoch + 1}; {stage.remedy}"
            raise Diverged(stage.label, why, history)
        losses = {"epoch": epoch + 1, "step": first + len(batches), "lr": rate} | means
        history.append(losses | dict(observe() if observe else {}))
        if isinstance(bar, tqdm):
            bar.set_postfix({name: f"{value:.4f}" for name, value in list(means.items())[:1]})
        else:
            seconds = round(time.monotonic() - began, 3)
            report(json.dumps({"label": stage.label} | losses | {"seconds": seconds}))
        now, last = time.monotonic(), epoch + 1 == epochs
        if now - saved > CHECKPOINT_SECONDS or (last and now - started_at > SHORT_SECONDS):
            stage.checkpoint.save(epoch + 1, history, modules, algorithms)
            saved = time.monotonic()
    return history


class _Updater:
    """``update`` of a step: one optimiser's step on one loss, and the sums of all losses."""

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self.optimizers = optimizers
        self.first = next(iter(optimizers))
        self.sums: dict[str, Tensor | float] = {}
        self.rates = {
            name: [group["lr"] for group in optimizer.algorithm.param_groups]
            for name, optimizer in optimizers.items()
        }

    def start_epoch(self) -> None:
        self.sums = {}

    def schedule(self, iteration: int) -> None:
        for name, optimizer in self.optimizers.items():
            self._scale(name, optimizer.schedule(iteration))

    def restore_rates(self) -> None:
        for name in self.optimizers:
            self._scale(name, 1.0)

    def _scale(self, name: str, factor: float) -> None:
        groups = self.optimizers[name].algorithm.param_groups
        for group, rate in zip(groups, self.rates[name], strict=True):
            group["lr"] = rate * factor

    def rate(self) -> float:
        """Present learning rate of the first optimiser's first group."""
        return self.optimizers[self.first].algorithm.param_groups[0]["lr"]

    def __call__(self, name: str, losses: Losses) -> None:
        values = losses if isinstance(losses, Mapping) else {"loss": losses}
        optimizer = self.optimizers[name]
        optimizer.algorithm.zero_grad(set_to_none=True)
        values["loss"].backward()
        if optimizer.clip is not None:
            nn.utils.clip_grad_norm_(parameters_of(optimizer.algorithm), optimizer.clip)
        _step(optimizer.algorithm)
        for key, value in values.items():
            column = key if name == self.first else f"{name}_{key}"
            self.sums[column] = self.sums.get(column, 0.0) + value.detach()


@torch.no_grad()
def _step(algorithm: torch.optim.Optimizer) -> None:
    """``algorithm.step()`` without the wrapper that imports torch's compiler: see
    ``fader.runtime``."""
    inspect.unwrap(type(algorithm).step)(algorithm)


def batches_per_epoch(count: int, batch: int) -> int:
    """Steps of one epoch over ``count`` images."""
    return len(_batches(torch.arange(count), batch))


class Lasting(Protocol):
    """What a training is told of its length: one of the two, and the batch."""

    @property
    def steps(self) -> int | None:
        """Optimiser steps."""

    @property
    def epochs(self) -> int | None:
        """Passes over the images."""

    @property
    def batch(self) -> int:
        """Images a step."""


def steps_of(settings: Lasting, count: int, share: float = 1.0) -> int:
    """Steps of a training on ``count`` images, or of a ``share`` of its length, at least one."""
    if settings.steps is not None:
        return max(1, round(share * settings.steps))
    epochs = max(1, round(share * settings.epochs))  # type: ignore[operator]  # one of the two is given
    return epochs * batches_per_epoch(count, settings.batch)


def _batches(order: Tensor, batch: int) -> list[Tensor]:
    return [part for part in order.split(batch) if len(part) > 1]


def _finite(modules: Mapping[str, nn.Module]) -> bool:
    """False when the last step left a parameter that is not finite, which no loss has seen yet."""
    parameters = [p.detach() for module in modules.values() for p in module.parameters()]
    return bool(torch.stack([p.isfinite().all() for p in parameters]).all())


def _progress(epochs: range, label: str, total: int, done: int) -> Iterable[int]:
    if not interactive():
        return epochs
    return tqdm(epochs, desc=label, unit="epoch", total=total, initial=done)
