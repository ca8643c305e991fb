"""Which detector for these images: all that fit the time, ranked without a label or by a few."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fader.errors import FaderError, MissingWeights
from fader.evaluation import metrics
from fader.model import images as sources
from fader.model.fitting import fitted
from fader.model.images import Pictures, Source
from fader.model.settings import Plan, known, plan
from fader.model.system import System
from fader.model.trainings import TooShort, told
from fader.training.loop import Diverged

LEAST = 0.1  # share of its steps that a detector must get, or it is left out


@dataclass(frozen=True)
class Trust:
    """How well validation AUROC ranked detectors where test labels were known: Spearman's rank
    correlation of the two over ``cells`` (category and method), from ``source``."""

    image: float
    pixel: float
    cells: int
    source: str

    def __str__(self) -> str:
        return (
            f"how far to trust this order: over {self.cells} pairs of category and method, the rank"
            f" correlation of validation and test AUROC was {self.image:.2f} for images and"
            f" {self.pixel:.2f} for pixels (1: the same order, 0: none; {self.source})"
        )


TRUST = Trust(image=0.71, pixel=0.60, cells=60, source="results/real/tables/validation.md")


@dataclass(frozen=True)
class Candidate:
    """A fitted detector.

    Parameters
    ----------
    detector, label : its key and its name in tables.
    image_auroc, pixel_auroc : validation AUROC, on held-out normals and synthetic defects on which
        nothing was chosen.
    defects_auroc : image AUROC of all held-out normals against the defective images that were
        given; None where none were.
    trained : share of the preset's steps that it was trained for; None where it is not trained.
    fit_seconds, milliseconds_per_image, parameters : what it costs.
    """

    detector: str
    label: str
    image_auroc: float
    pixel_auroc: float
    defects_auroc: float | None
    trained: float | None
    fit_seconds: float
    milliseconds_per_image: float
    parameters: int


@dataclass(frozen=True)
class Ranking:
    """Detectors, the best first, and those that were left out with the reason.

    Parameters
    ----------
    by : ``defects_auroc``, or ``image_auroc``, of validation.
    trust : of a ranking by validation; None of one by defects.
    """

    candidates: tuple[Candidate, ...]
    left_out: dict[str, str]
    by: str
    trust: Trust | None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The ranking as text, a line each."""
        head = ("detector", "validation", "pixel", "defects", "trained", "fit", "an image", "M")
        rows = [head, *map(_cells, self.candidates)]
        shown = [i for i in range(len(head)) if head[i] != "defects" or self.trust is None]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        for row in rows:
            yield "  ".join(
                row[i].rjust(widths[i]) if i else row[i].ljust(widths[i]) for i in shown
            )
        for name, reason in self.left_out.items():
            yield f"left out: {name} ({reason})"
        if self.trust:
            yield "ranked by validation image AUROC: held-out normals against synthetic defects"
            yield str(self.trust)
        else:
            yield "ranked by image AUROC of held-out normals against the defects given"


def _cells(one: Candidate) -> tuple[str, ...]:
    return (
        one.label,
        f"{one.image_auroc:.3f}",
        f"{one.pixel_auroc:.3f}",
        "–" if one.defects_auroc is None else f"{one.defects_auroc:.3f}",
        "–" if one.trained is None else f"{one.trained:.0%}",
        f"{one.fit_seconds:.0f} s",
        f"{one.milliseconds_per_image:.0f} ms",
        f"{one.parameters / 1e6:.1f}",
    )


def choose(
    images: Source,
    *,
    minutes: float | None = None,
    defects: Source | None = None,
    detectors: list[str] | None = None,
    preset: str | Path = "real",
    size: int | None = None,
    seed: int | None = None,
    white: float | None = None,
    progress: bool = True,
) -> Ranking:
    """Fit the detectors of a preset, EAR and FADeR, and rank them.

    Those that are not trained come first. Each may take an equal part of the
    time that is left; its training is cut down to that, and one that would get less than a tenth of
    its steps is left out.

    Parameters
    ----------
    images : normal ones: a folder, files, or arrays (N, H, W, 3) uint8 RGB, N ≥ 6.
    minutes : for all; None takes the time that the preset's lengths need.
    defects : a few defective images, to rank by instead of by synthetic defects.
    detectors : which ones; None takes all.
    preset, size, seed, white, progress : as for ``fader.Model``.

    Raises
    ------
    FaderError : as ``fader.fit``; or no detector is left.
    """
    began = time.perf_counter()
    plans = _plans(preset, detectors, size, seed, white)
    sides = sorted({side for each in plans for side in each.sides})
    pictures = sources.read(sources.find(images), sides, white)
    stated = pictures.white.value if pictures.white else None
    bad = None if defects is None else sources.read(sources.find(defects), sides, stated)
    candidates: list[Candidate] = []
    left_out: dict[str, str] = {}
    with told(silent=not progress), tempfile.TemporaryDirectory() as work:
        for number, each in enumerate(plans):
            share = None
            if minutes is not None:
                share = (minutes - (time.perf_counter() - began) / 60) / (len(plans) - number)
            try:
                candidates.append(_candidate(each, pictures, bad, Path(work), share))
            except (Diverged, MissingWeights, TooShort) as error:
                left_out[each.label] = str(error)
    if not candidates:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise FaderError(f"no detector is left to choose from ({reasons})")
    by = "image_auroc" if bad is None else "defects_auroc"
    candidates.sort(key=lambda one: (-getattr(one, by), -one.pixel_auroc))
    return Ranking(tuple(candidates), left_out, by, TRUST if bad is None else None)


def _plans(
    preset: str | Path,
    names: list[str] | None,
    size: int | None,
    seed: int | None,
    white: float | None,
) -> list[Plan]:
    """A plan a detector, those first that are not trained."""
    if names is None:
        names = known(preset)
    plans = [plan(preset, detector=n, size=size, seed=seed, white=white) for n in names]
    return sorted(plans, key=lambda each: each.trained)


def _candidate(
    given: Plan, pictures: Pictures, bad: Pictures | None, work: Path, minutes: float | None
) -> Candidate:
    """A detector fitted in at most ``minutes``, and judged."""
    print(f"{given.label} …", flush=True)
    result = fitted(pictures, given, work / given.detector, _nothing, minutes, LEAST)
    return Candidate(
        detector=given.detector,
        label=given.label,
        image_auroc=result.validation["image_auroc"],
        pixel_auroc=result.validation["pixel_auroc"],
        defects_auroc=None if bad is None else _against(result.system, result.held_out, bad),
        trained=result.share if given.trained else None,
        fit_seconds=round(result.seconds, 2),
        milliseconds_per_image=round(result.milliseconds, 2),
        parameters=result.system.parameters,
    )


def _nothing(line: str) -> None:
    """What is said of a single fit is not said of many."""


def _against(system: System, normal: np.ndarray, bad: Pictures) -> float:
    defective = system.scores(bad.pixels).images.numpy()
    labels = np.repeat([0, 1], [len(normal), len(defective)])
    return metrics.auroc(np.concatenate([normal, defective]), labels)
