"""Predictions of any number of images, written one after the other: constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fader.errors import FaderError
from fader.files import replacing, shown
from fader.model import pictures
from fader.model.images import Source, find
from fader.model.model import Model
from fader.model.predictions import Prediction, Unread
from fader.runtime import interactive

TABLE = "scores.csv"
COLUMNS = ("file", "score", "threshold", "verdict", "seconds", "map_black", "map_white")


@dataclass
class Summary:
    """Numbers of images: scored, above the threshold, and not readable."""

    scored: int = 0
    defective: int = 0
    unread: int = 0

    def __str__(self) -> str:
        line = f"{self.scored} images, {self.defective} above the threshold"
        return f"{line}; {self.unread} could not be read" if self.unread else line


def predict(
    model: Model,
    images: Source,
    out: Path,
    *,
    batch: int,
    emit: Callable[[str], None] | None,
    complain: Callable[[str], None],
) -> Summary:
    """Score images and write, under ``out``, ``heatmaps/``, ``maps/`` and ``scores.csv``.

    The table appears when all images are done. ``map_black`` and ``map_white`` are the values that
    0 and 65535 stand for in an image's map.

    Parameters
    ----------
    batch : images in memory at a time.
    emit : receives each row as a line of JSON.
    complain : receives a line for each image that cannot be read.

    Raises
    ------
    FaderError : no image; ``out`` lies among the images; or the system refuses.
    """
    found = find(images, tolerant=True)
    _check_apart(images, out)
    summary = Summary()
    bar = tqdm(total=len(found), unit="image", disable=not interactive())
    with (
        replacing(out / TABLE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
        bar,
    ):
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        table.writeheader()
        for one in model.stream(found, batch):
            row = _written(model, one, out)
            bar.update()
            if isinstance(row, str):
                summary.unread += 1
                complain(f"{row} (skipped)")
                continue
            summary.scored += 1
            summary.defective += row["verdict"] == "defective"
            table.writerow(row)
            if emit:
                emit(json.dumps(row, ensure_ascii=False))
    return summary


def _written(model: Model, one: Prediction | Unread, out: Path) -> dict[str, Any] | str:
    """The row of an image whose pictures are written; or why it cannot be read."""
    if isinstance(one, Unread):
        return one.reason
    black, white = pictures.write(model, one, out)
    return {
        "file": one.name,
        "score": float(f"{one.score:.9g}"),
        "threshold": model.threshold,
        "verdict": "defective" if one.defective else "good",
        "seconds": round(one.seconds, 4),
        "map_black": float(f"{black:.9g}"),
        "map_white": float(f"{white:.9g}"),
    }


def _check_apart(images: Source, out: Path) -> None:
    """Refuse to write among the images, where a second call would take heat maps for images."""
    given = [images] if isinstance(images, str | Path) else list(images)
    for path in map(Path, given):
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise FaderError(
                f"{shown(out)}: lies in {shown(path)}, among the images; give an --out elsewhere"
            )
