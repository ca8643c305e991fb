"""Milliseconds per image of what runs on a CPU or a GPU."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from fader import runtime
from fader.runtime import Machine
from fader.vision.backbones import RANDOM

BATCHES = (1, 16)
# Of one measurement: passes go on until they add up to this many seconds, or are this many.
BUDGET_S, PASSES = 0.3, 30
# A first pass longer than this is taken as the measurement, for warming up is little of it.
SLOW_S = 2.0
# A batch that would take longer, by the time of one image, is not timed.
LIMIT_S = 20.0


def machines(machine: Machine) -> list[Machine]:
    """Where times are taken: the CPU, and the GPU where there is one; bf16 only where the hardware
    has it."""
    if machine.device.type == "cpu":
        return [machine]
    cpu = torch.device("cpu")
    bf16 = machine.precision == "bf16" and runtime.has_bf16(cpu)
    return [Machine(cpu, "bf16" if bf16 else "fp32"), machine]


def timings(run: Callable[[Tensor], Any], size: int, machine: Machine) -> list[dict[str, Any]]:
    """Milliseconds per image, a dictionary a batch: see ``fader.evaluation.cost.components``.

    Parameters
    ----------
    run : images (B, 3, S, S) in [0, 1] on the machine → anything.
    size : S, pixels.
    """
    facts = machine.facts()
    found = []
    single = 0.0
    for batch in BATCHES:
        timing = {
            "device": machine.device.type,
            "name": facts["device"],
            "precision": facts["precision"],
            "threads": facts["threads"],
            "batch": batch,
            "weights": RANDOM,
            "milliseconds": None,
            "passes": 0,
            "note": None,
        }
        if single * batch > LIMIT_S:
            timing["note"] = f"one image takes {single:.1f} s"
        else:
            pixels = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
            seconds = _passes(partial(run, machine.images(pixels)), machine.device)
            single = median(seconds) / batch
            timing |= {"milliseconds": round(1000 * single, 4), "passes": len(seconds)}
        found.append(timing)
    return found


def _passes(run: Callable[[], Any], device: torch.device) -> list[float]:
    """Seconds of each pass after the first, which warms up; of the first alone when it is slow."""

    def seconds() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    first = seconds()
    if first > SLOW_S:
        return [first]
    found = [seconds()]
    while sum(found) < BUDGET_S and len(found) < PASSES:
        found.append(seconds())
    return found


def summed(
    passes: Mapping[str, int], timings: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Timings of a system: its components' one after the other, None where one of them is.

    Parameters
    ----------
    passes : component → how often it runs for an image.
    timings : component → its own.
    """
    sums = []
    for entries in zip(*(timings[name] for name in passes), strict=True):
        at = dict(zip(passes, entries, strict=True))
        absent = [f"{name}: {t['note']}" for name, t in at.items() if t["note"]]
        total = None
        if not absent:
            total = round(sum(t["milliseconds"] * passes[name] for name, t in at.items()), 4)
        sums.append(
            entries[0]
            | {
                "milliseconds": total,
                "passes": min(t["passes"] for t in entries),
                "note": "; ".join(absent) or None,
            }
        )
    return sums
