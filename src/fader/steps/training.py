"""What the trainings share: checkpoints under ``work/``, which no engine sees and a restarted job
resumes from, and losses beside the weights."""

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from fader.files import digest, file_sha256, write_text
from fader.pipeline import artifacts, code, external
from fader.pipeline.context import Context
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import History, Run


def run_of(context: Context, machine: Machine, seed: int) -> Run:
    """The training of a job: resumed only where settings, inputs, machine and code are the same."""
    code.snapshot()  # as the code is now: a long training may outlive an edit
    folder = _folder(context)

    @cache
    def key() -> str:
        of_code = external.code_digest(context.config, context.job)
        return digest([context.settings, context.inputs(), machine.facts(), of_code])

    return Run(seed, context.label, lambda stage: Checkpoint(folder / f"{stage}.ckpt", key))


def keep(
    context: Context,
    machine: Machine,
    state: dict[str, Tensor],
    histories: Mapping[str, History],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write what a job learnt and its losses, and drop its checkpoints.

    The fact ``losses`` of the weights is the sha256 of the file of losses, ``length`` the steps and
    epochs of each stage of the training.
    """
    losses = context.output("losses")
    write_text(losses, losses_csv(histories))
    about = {"seed": context.job.seed, "machine": machine.facts(), "losses": file_sha256(losses)}
    about |= {"length": lengths(histories)} | dict(facts or {})
    artifacts.write_tensors(context.output("weights"), state, context.header(about))
    shutil.rmtree(_folder(context), ignore_errors=True)


def lengths(histories: Mapping[str, History]) -> dict[str, dict[str, int]]:
    """Stage of a training → its ``steps`` and ``epochs``."""
    return {
        stage: {"steps": history[-1]["step"], "epochs": history[-1]["epoch"]}
        for stage, history in histories.items()
    }


def _folder(context: Context) -> Path:
    return Path("work") / Path(context.output("weights")).with_suffix("")


def losses_csv(histories: Mapping[str, History]) -> str:
    """Losses per epoch of every stage of a training; a stage leaves those empty that it has not."""
    rows = [{"stage": stage} | epoch for stage, history in histories.items() for epoch in history]
    columns = dict.fromkeys(
        ["stage", "epoch", "step", "lr", "loss"]
        + [name for row in rows for name, value in row.items() if not isinstance(value, list)]
    )
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(name, "")) for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)
