"""Image AUROC by how hard the defects are to see: what tells systems apart that tie on average.

Only generated images have a difficulty. The defective ones of a category are taken in thirds of the
scale, [0, 1/3), [1/3, 2/3) and [2/3, 1], each against all good images of the category.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fader.evaluation.metrics import auroc
from fader.pipeline.methods import Method
from fader.report import labels, numbers
from fader.report.paper import AVERAGE
from fader.report.records import Record, Records
from fader.report.render import ABSENT, bullets, escaped, pipe

THIRDS = ("plain", "middling", "barely visible")

Cells = tuple[float | None, ...]
"""Of each third: its AUROC; None where it has none."""


@dataclass(frozen=True)
class _Row:
    """A category of a data set under a method, or the average of the data set."""

    method: Method
    dataset: str
    category: str
    cells: Cells


def table(records: Records) -> tuple[str, str]:
    """The table as CSV and as Markdown: a row for EAR and FADeR under every masker and for each
    baseline, per category and on average of a data set."""
    rows = [row for method in _methods(records) for row in _rows(records, method)]
    return _csv(rows), _markdown(records, rows)


def third(difficulty: float) -> int:
    """Index in ``THIRDS`` of a difficulty in [0, 1]."""
    return min(int(difficulty * len(THIRDS)), len(THIRDS) - 1)


def by_third(record: Record, difficulty: Sequence[float | None]) -> Cells:
    """Image AUROC of the defective images of each third against all good ones.

    Parameters
    ----------
    difficulty : of each test image, in [0, 1]; None for good ones.
    """
    scores, good = np.asarray(record.scores), np.asarray(record.labels) == 0
    thirds = np.array([-1 if each is None else third(each) for each in difficulty])
    cells: list[float | None] = []
    for index in range(len(THIRDS)):
        taken = good | (thirds == index)
        some = good.any() and not good[taken].all()
        cells.append(auroc(scores[taken], ~good[taken]) if some else None)
    return tuple(cells)


def _methods(records: Records) -> list[Method]:
    """Those with image scores, but for the variants of FADeR."""
    return [m for m in records.methods if m.stage in ("ear", "fader", "detector") and not m.variant]


def _places(records: Records) -> list[str]:
    """Categories whose images have a difficulty."""
    return [
        place
        for place in records.places
        if place in records.sources
        and any(each is not None for each in records.sources[place].difficulty)
    ]


def _rows(records: Records, method: Method) -> Iterator[_Row]:
    for dataset, places in records.by_dataset(_places(records)).items():
        cells = {place: _cells(records, place, method) for place in places}
        for place in places:
            yield _Row(method, dataset, records.config.categories[place].category, cells[place])
        yield _Row(method, dataset, AVERAGE, _means(cells.values()))


def _cells(records: Records, place: str, method: Method) -> Cells:
    """Means over the seeds for which the method ran."""
    difficulty = records.sources[place].difficulty
    return _means(by_third(record, difficulty) for record in records.of(place, method).values())


def _means(every: Iterable[Cells]) -> Cells:
    """Mean of each third over those that have one."""
    columns = list(zip(*every, strict=True)) or [()] * len(THIRDS)
    known = [[cell for cell in column if cell is not None] for column in columns]
    return tuple(fmean(column) if column else None for column in known)


def _csv(rows: Iterable[_Row]) -> str:
    header = ("system", "dataset", "category", *(name.replace(" ", "_") for name in THIRDS))
    return numbers.table(header, ((str(r.method), r.dataset, r.category, *r.cells) for r in rows))


def _markdown(records: Records, rows: Iterable[_Row]) -> str:
    places, lines, previous = _places(records), [], None
    for row in rows:
        name = labels.method(records.config, row.method) if row.method != previous else ""
        cells = (ABSENT if cell is None else f"{cell:.3f}" for cell in row.cells)
        lines.append([name, row.dataset, row.category, *cells])
        previous = row.method
    headers = ["System", "Dataset", "Category", *(name.capitalize() for name in THIRDS)]
    caption = (
        "Image AUROC by the difficulty of the defects: those of each third of the scale against all"
        f" good images, mean over seeds. {records.provenance(places)} Difficulty: from 0, plain, to"
        " 1, barely visible, by size and contrast of the defect as it was drawn."
    )
    notes = [
        *(_counted(records, place) for place in places),
        *records.gaps(((method, "image_auroc") for method in _methods(records)), places),
        *records.unmeasured(["image_auroc"], places),
    ]
    return f"{escaped(caption)}\n\n{pipe(headers, lines, 'lllrrr')}\n" + bullets(notes)


def _counted(records: Records, place: str) -> str:
    difficulty = [each for each in records.sources[place].difficulty if each is not None]
    counts = [list(map(third, difficulty)).count(index) for index in range(len(THIRDS))]
    listed = ", ".join(f"{name} {count}" for name, count in zip(THIRDS, counts, strict=True))
    return f"Defective images of {records.title(place)}: {listed}."
