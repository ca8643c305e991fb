"""The one training loop: every trained system of the benchmark goes through ``train``.

A system brings its modules, an optimiser and a ``step`` that turns image indices into losses. The
loop brings the order of the images, the learning-rate schedule, an atomic checkpoint outside the
outputs, a guard against losses that are not finite, a progress bar on a terminal and a JSON line an
epoch otherwise.

All randomness of epoch e comes from a generator seeded by (seed, e), so a run that was killed and
resumed makes the same bytes as one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fader.errors import FaderError
from fader.runtime import generator, interactive
from fader.seeds import derive_seed
from fader.training.checkpoint import Checkpoint, parameters_of
from fader.training.schedules import Multiplier

CHECKPOINT_SECONDS = 20.0

Step = Callable[[Tensor, torch.Generator], Mapping[str, Tensor]]


def train(
    *,
    label: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    step: Step,
    count: int,
    batch: int,
    epochs: int,
    seed: int,
    multiplier: Multiplier,
    checkpoint: Checkpoint,
    remedy: str,
    clip: float | None = None,
    observe: Callable[[], Mapping[str, list[float]]] | None = None,
    report: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train in place for ``epochs`` passes over ``count`` images; resumes from ``checkpoint``.

    Parameters
    ----------
    label : what is trained, for the log and for errors.
    modules : what a checkpoint holds, by name; ``step`` sets their train/eval modes.
    step : (indices (b,) int64 on the CPU, generator) → scalar losses, ``loss`` being the one
    minimised.
    multiplier : iteration → factor on every parameter group's own learning rate.
    remedy : what a user can do when the loss is not finite; ends that FaderError.
    clip : largest norm of the gradient, all parameters together; None leaves it as it is.
    observe : called after every epoch; what it gives is kept in that epoch's history.
    report : receives the JSON line of every epoch unless a progress bar is shown.

    Returns
    -------
    One dictionary per epoch: epoch (1-based), lr (of the first group) and the mean of each loss.
    A last batch of one image is left out, since batch normalisation cannot use it.
    """
    started, history = checkpoint.load(modules, optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = parameters_of(optimizer)
    per_epoch = batches_per_epoch(count, batch)
    if not per_epoch:
        raise FaderError(
            f"{label}: {count} training image(s) do not make a batch; at least 2 are needed"
        )
    saved = time.monotonic()
    bar = _progress(range(started, epochs), label, epochs, started)
    for epoch in bar:
        random = generator(derive_seed(seed, "epoch", str(epoch)))
        sums: dict[str, Tensor] = {}
        began = time.monotonic()
        for number, indices in enumerate(_batches(torch.randperm(count, generator=random), batch)):
            factor = multiplier(epoch * per_epoch + number)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            losses = step(indices, random)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
        means = {name: float(value) / per_epoch for name, value in sums.items()}
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if not (math.isfinite(means["loss"]) and _finite(modules)):
            raise FaderError(
                f"{label}: the loss or a weight is not finite in epoch {epoch + 1}; {remedy}"
            )
        losses = {"epoch": epoch + 1, "lr": rates[0] * factor} | means
        history.append(losses | dict(observe() if observe else {}))
        if isinstance(bar, tqdm):
            bar.set_postfix(loss=f"{means['loss']:.4f}")
        else:
            seconds = round(time.monotonic() - began, 3)
            report(json.dumps({"label": label} | losses | {"seconds": seconds}))
        if epoch + 1 == epochs or time.monotonic() - saved > CHECKPOINT_SECONDS:
            checkpoint.save(epoch + 1, history, modules, optimizer)
            saved = time.monotonic()
    return history


def history_csv(history: list[dict[str, float]]) -> str:
    """Losses per epoch as CSV."""
    lines = [",".join(history[0])]
    lines += [",".join(f"{value:.6g}" for value in epoch.values()) for epoch in history]
    return "\n".join(lines) + "\n"


def batches_per_epoch(count: int, batch: int) -> int:
    """Steps of one epoch over ``count`` images."""
    return len(_batches(torch.arange(count), batch))


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
