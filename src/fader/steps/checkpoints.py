"""Checkpoints of unfinished trainings, under ``work/``: no engine sees them, a restarted job
does."""

import shutil
from pathlib import Path
from typing import Any

from fader.files import digest
from fader.training.checkpoint import Checkpoint


def checkpoint(target: str, name: str, key: Any) -> Checkpoint:
    path = Path("work") / Path(target).with_suffix("") / f"{name}.ckpt"
    return Checkpoint(path, digest(key))


def finish(target: str) -> None:
    """Drop the checkpoints of a finished artefact."""
    shutil.rmtree(Path("work") / Path(target).with_suffix(""), ignore_errors=True)
