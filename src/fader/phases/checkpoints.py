"""Checkpoints of unfinished trainings, under ``work/``: no engine sees them, a restarted job
does."""

import shutil
from pathlib import Path
from typing import Any

from fader import training
from fader.config import digest


def checkpoint(target: str, name: str, key: Any) -> training.Checkpoint:
    path = Path("work") / Path(target).with_suffix("") / f"{name}.ckpt"
    return training.Checkpoint(path, digest(key))


def finish(target: str) -> None:
    """Drop the checkpoints of a finished artefact."""
    shutil.rmtree(Path("work") / Path(target).with_suffix(""), ignore_errors=True)
