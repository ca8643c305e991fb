"""Which detector for these images: all that fit the time, ranked without a label or by a few."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fader.errors import FaderError, MissingWeights
from fader.evaluation import metrics
from fader.model import images as sources
from fader.model.defects import Defects, Masks, read
from fader.model.fitting import Fitted, Start, fitted, started
from fader.model.images import Pictures, Source
from fader.model.settings import MASKED, Plan, known, plan
from fader.model.trainings import TooShort, check_minutes, told
from fader.model.wording import options_named
from fader.training.loop import Diverged

DEFECTS, PIXELS = "defects", "their pixels"  # columns
LEAST = 0.1  # share of its steps that a detector must get, or it is left out


@dataclass(frozen=True)
class Trust:
    """How well validation AUROC ranked detectors where test labels were known.

    Parameters
    ----------
    image, pixel : Spearman's rank correlation of validation and test AUROC over all ``cells``
        (category and method).
    within : category → that of image AUROC over its methods alone, which is what an order of
        detectors for one part rests on.
    source : where they were measured.
    """

    image: float
    pixel: float
    cells: int
    within: Mapping[str, float]
    source: str

    def __str__(self) -> str:
        return (
            f"how far to trust this order: over {self.cells} pairs of category and method, the rank"
            f" correlation of validation and test AUROC was {self.image:.2f} for images and"
            f" {self.pixel:.2f} for pixels, within a category"
            f" {', '.join(f'{value:.2f} ({name})' for name, value in self.within.items())} for"
            f" images (1: the same order, 0: none; {self.source})"
        )


TRUST = Trust(
    image=0.75,
    pixel=0.67,
    cells=60,
    within={"bottle": 0.90, "transistor": 0.72, "tire": 0.03, "commutator": 0.10},
    source="results/real/tables/validation.md",
)


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
    defects_pixel_auroc : pixel AUROC of the same normals and of the defective images that have a
        mask; None where none has.
    trained : share of the preset's steps that it was trained for; None where it is not trained.
    fit_seconds, milliseconds_per_image, parameters : what it costs.
    """

    detector: str
    label: str
    image_auroc: float
    pixel_auroc: float
    defects_auroc: float | None
    defects_pixel_auroc: float | None
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
    defects, masked : numbers of defective images given, and of those with a mask.
    """

    candidates: tuple[Candidate, ...]
    left_out: dict[str, str]
    by: str
    trust: Trust | None
    defects: int
    masked: int

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The ranking as text, a line each."""
        head = (
            "detector",
            "validation",
            "pixel",
            DEFECTS,
            PIXELS,
            "trained",
            "fit",
            "an image",
            "M",
        )
        rows = [head, *map(_cells, self.candidates)]
        there = {DEFECTS: self.defects, PIXELS: self.masked}
        shown = [i for i in range(len(head)) if there.get(head[i], 1)]
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
            also = f", then by pixel AUROC on the {self.masked} with a mask" * bool(self.masked)
            yield (
                "ranked by image AUROC of held-out normals against the defects given"
                f" ({self.defects}){also}"
            )


def _cells(one: Candidate) -> tuple[str, ...]:
    return (
        one.label,
        f"{one.image_auroc:.3f}",
        f"{one.pixel_auroc:.3f}",
        "–" if one.defects_auroc is None else f"{one.defects_auroc:.3f}",
        "–" if one.defects_pixel_auroc is None else f"{one.defects_pixel_auroc:.3f}",
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
    masks: Masks | None = None,
    detectors: list[str] | None = None,
    preset: str | Path = "real",
    size: int | None = None,
    seed: int | None = None,
    white: float | None = None,
    progress: bool = True,
) -> Ranking:
    """Fit the detectors of a preset, EAR and FADeR, and rank them.

    Those that are not trained come first. Each may take an equal part of the time that is left; its
    training is cut down to that, and one that would get less than a tenth of its steps is left out.
    FADeR is built on EAR: the two take their parts together, EAR is trained once, and both are cut
    down alike. ``fit_seconds`` of FADeR are nevertheless those of a fit of its own.

    Parameters
    ----------
    images : normal ones: a folder, files, or arrays (N, H, W, 3) uint8 RGB, N ≥ 6.
    minutes : for all; None takes the time that the preset's lengths need.
    defects : a few defective images, to rank by instead of by synthetic defects.
    masks : of defects, white = defective: a folder or files, called as their images or that and
        ``_mask``, ``_gt``, ``_seg`` or ``_label``; or an array (H, W) or None for each. They give
        pixel AUROC, which ranks detectors of equal image AUROC. An image without a mask counts in
        image AUROC alone.
    detectors : which ones; None takes all.
    preset, size, seed, white, progress : as for ``fader.Model``.

    Raises
    ------
    FaderError : as ``fader.fit``; masks without defects, or as ``fader.model.defects.read``; or no
        detector is left.
    """
    began = time.perf_counter()
    check_minutes(minutes)
    if masks is not None and defects is None:
        raise FaderError("masks: of which images? give --defects as well")
    plans = _plans(preset, detectors, size, seed, white)
    sides = sorted({side for each in plans for side in each.sides})
    with options_named():
        pictures = sources.read(sources.find(images), sides, white)
        stated = pictures.white.value if pictures.white else None
        bad = None
        if defects is not None:
            sizes = {each.config.image.size for each in plans}
            bad = read(defects, masks, sides, sizes, stated)
    candidates: list[Candidate] = []
    left_out: dict[str, str] = {}
    left = len(plans)
    with told(silent=not progress), options_named(), tempfile.TemporaryDirectory() as work:
        for group in _groups(plans):
            share = None
            if minutes is not None:
                spent = (time.perf_counter() - began) / 60
                share = (minutes - spent) * len(group) / left
            left -= len(group)
            for label, found in _candidates(group, pictures, bad, Path(work), share):
                if isinstance(found, Candidate):
                    candidates.append(found)
                else:
                    left_out[label] = found
    if not candidates:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise FaderError(f"no detector is left to choose from ({reasons})")
    if bad is None:
        candidates.sort(key=lambda one: (-one.image_auroc, -one.pixel_auroc))
        return Ranking(tuple(candidates), left_out, "image_auroc", TRUST, 0, 0)
    candidates.sort(key=by_defects)
    counted = len(bad), len(bad.masked)
    return Ranking(tuple(candidates), left_out, "defects_auroc", None, *counted)


def by_defects(one: Candidate) -> tuple[float, ...]:
    """What sorts candidates by the defects given, the best first."""
    values = (one.defects_auroc, one.defects_pixel_auroc, one.pixel_auroc)
    return tuple(-value for value in values if value is not None)


def _plans(
    preset: str | Path,
    names: list[str] | None,
    size: int | None,
    seed: int | None,
    white: float | None,
) -> list[Plan]:
    """A plan a detector."""
    names = known(preset) if names is None else list(dict.fromkeys(names))
    return [plan(preset, detector=n, size=size, seed=seed, white=white) for n in names]


def _groups(plans: list[Plan]) -> list[list[Plan]]:
    """Plans that are fitted together, those first that are not trained. FADeR is built on EAR: the
    two have one configuration, and EAR is trained once for both."""
    masked = sorted((p for p in plans if p.detector in MASKED), key=lambda p: p.detector)
    alone = [[p] for p in plans if p.detector not in MASKED]
    return sorted(filter(None, [*alone, masked]), key=lambda group: group[0].trained)


def _candidates(
    group: list[Plan], pictures: Pictures, bad: Defects | None, work: Path, minutes: float | None
) -> Iterator[tuple[str, Candidate | str]]:
    """Labels of the detectors of a group, each with what was found, or why it is left out.

    The group takes at most ``minutes``: its last plan says how long that is, for the trainings of
    the others are among its own. What cannot be fitted leaves out those that are built on it.
    """
    last = group[-1]
    start: Start | None = None
    former: Fitted | None = None
    for number, each in enumerate(group):
        print(f"{each.label} …", flush=True)
        try:
            if start is None:
                place = work / last.detector
                start = started(pictures, last, place, _nothing, minutes, LEAST, suspects=False)
            former = fitted(start.of(each.detector), _nothing, former)
        except (Diverged, MissingWeights, TooShort) as error:
            yield from ((missing.label, str(error)) for missing in group[number:])
            return
        yield each.label, _candidate(each, former, bad)


def _candidate(given: Plan, result: Fitted, bad: Defects | None) -> Candidate:
    """What is said of a fitted detector."""
    image, pixel = (None, None) if bad is None else _against(result, bad)
    return Candidate(
        detector=given.detector,
        label=given.label,
        image_auroc=result.validation["image_auroc"],
        pixel_auroc=result.validation["pixel_auroc"],
        defects_auroc=image,
        defects_pixel_auroc=pixel,
        trained=result.share if given.trained else None,
        fit_seconds=round(result.seconds, 2),
        milliseconds_per_image=round(result.milliseconds, 2),
        parameters=result.system.parameters,
    )


def _nothing(line: str) -> None:
    """What is said of a single fit is not said of many."""


def _against(result: Fitted, bad: Defects) -> tuple[float, float | None]:
    """Image AUROC of held-out normals against defects, and pixel AUROC of those with a mask."""
    system, data = result.system, result.data
    defective = system.scores(bad.pixels)
    labels = np.repeat([0, 1], [len(result.held_out), len(bad)])
    image = metrics.auroc(np.concatenate([result.held_out, defective.images.numpy()]), labels)
    if not len(bad.masked):
        return image, None
    normal = system.scores({side: pixels[data.out] for side, pixels in data.pixels.items()})
    pixels = metrics.PixelHistogram()
    pixels.update(normal.maps.numpy(), np.zeros(normal.maps.shape, np.uint8))
    pixels.update(defective.maps[bad.masked].numpy(), bad.truth[system.config.image.size].numpy())
    return image, pixels.auroc()
