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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fader.artifacts import replacing
from fader.config import derive_seed
from fader.errors import FaderError
from fader.runtime import generator, interactive

CHECKPOINT_SECONDS = 20.0

Multiplier = Callable[[int], float]
Step = Callable[[Tensor, torch.Generator], Mapping[str, Tensor]]


def fixed() -> Multiplier:
    """Constant learning rate."""
    return lambda iteration: 1.0


def step_decay(total: int, at: float = 5 / 6, factor: float = 0.1) -> Multiplier:
    """× ``factor`` from the fraction ``at`` of the run on."""
    return lambda iteration: 1.0 if iteration < at * total else factor


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


@dataclass(frozen=True)
class Checkpoint:
    """Where a run saves itself, and the key that says which run it is: another key is never
    resumed."""

    path: Path
    key: str

    def save(self, epoch: int, history: list, modules: Mapping[str, nn.Module], optimizer) -> None:
        from safetensors.torch import save_file

        tensors = {
            f"{name}/{key}": value.contiguous()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer/{index}/{key}"] = value.contiguous()
        about = {"key": self.key, "epoch": epoch, "history": history}
        with replacing(self.path) as temporary:
            save_file(tensors, temporary, {"checkpoint": json.dumps(about)})

    def load(self, modules: Mapping[str, nn.Module], optimizer) -> tuple[int, list]:
        """Restore in place; (epochs done, history), or (0, []) when there is no checkpoint of this
        run."""
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0, []
        try:
            with safe_open(self.path, framework="pt") as stream:
                about = json.loads(stream.metadata()["checkpoint"])
                if about["key"] != self.key:
                    return 0, []
                tensors = {key: stream.get_tensor(key) for key in filter(None, stream.keys())}
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FaderError(
                f"{self.path}: damaged checkpoint ({error!r}); delete it to start again"
            ) from None
        for name, module in modules.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        parameters = _parameters(optimizer)
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, entry = key.split("/")
                # Fused Adam pairs elements by address, so moments need their parameter's layout
                # (channels last), which a file does not keep.
                if value.shape == parameters[int(index)].shape:
                    value = torch.empty_like(parameters[int(index)]).copy_(value)
                state.setdefault(int(index), {})[entry] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        return about["epoch"], about["history"]


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
    parameters = _parameters(optimizer)
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


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """In the order in which the optimiser's state counts them."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _finite(modules: Mapping[str, nn.Module]) -> bool:
    """False when the last step left a parameter that is not finite, which no loss has seen yet."""
    parameters = [p.detach() for module in modules.values() for p in module.parameters()]
    return bool(torch.stack([p.isfinite().all() for p in parameters]).all())


def _progress(epochs: range, label: str, total: int, done: int) -> Iterable[int]:
    if not interactive():
        return epochs
    return tqdm(epochs, desc=label, unit="epoch", total=total, initial=done)
