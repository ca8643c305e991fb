"""What is expected of a run: the rows of ``reference/expected.csv``.

A row is one cell of a run: the mean AUROC of one method on one category, how far from it another
run may lie, and where both come from. ``paper`` rows are the paper's own numbers (Tables 2 and 5,
corrected), made by ``paper_rows``. ``measured`` rows are made by ``fader.report.gate.update`` from
at least three seeds.

A measured tolerance is max(0.005, 3 · σ · √(1 + 1/n)), rounded up to 0.001, where n is the number
of seeds and σ the sample standard deviation over them. √(1 + 1/n) is the spread of the difference
between one new seed and a mean of n, so the gate holds for a run of any number of seeds; 3 is the
usual three sigma; 0.005 is left to rounding and to other hardware where all seeds agree. Three
seeds give σ with two degrees of freedom, and often far too small (about one new seed in ten would
lie outside). Each cell therefore takes the larger of its own σ and the median over the run's cells
of its sort: one metric of one masker's EAR and FADeR, of all variants, of all saliencies, or of one
baseline. Apart and by the median, since arms that are unstable by nature (a hard or shuffled mask)
must not widen the others.

Another processor rounds otherwise, which after a short training is worth as much as another seed.
Its runs are taken for further seeds: ``pooled``.
"""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from fader.errors import FaderError
from fader.files import write_text
from fader.report.paper import AVERAGE, PAPER_DATASET, paper_values
from fader.report.records import AUROCS

EXPECTED = Path("reference/expected.csv")
LEAST_SEEDS = 3
LEAST_TOLERANCE = 0.005
PAPER_TOLERANCE = 0.02
MEASURED_HOW = "max(0.005; 3 sigma sqrt(1 + 1/n)) over the seeds"
POOLED_HOW = f"{MEASURED_HOW} of several processors"
PAPER_HOW = "stated tolerance, not measured"

_PAPER_METHODS = {  # table → system of the paper → method of the run `paper`
    2: {method: method for method in ("ear-dino", "fader-dino", "ear-vit", "fader-vit")},
    5: {"fader": "fader-dino"},
}

Key = tuple[str, str, str, str]
"""(dataset, category, method, metric)."""


@dataclass(frozen=True)
class Expected:
    """One row of ``reference/expected.csv``.

    Parameters
    ----------
    mean, tolerance : AUROC.
    seeds : measured seeds, again for every processor; empty for the paper's.
    source : ``measured`` or ``paper``.
    how : how the tolerance was found.
    """

    run: str
    dataset: str
    category: str
    method: str
    metric: str
    mean: float
    tolerance: float
    seeds: tuple[int, ...]
    source: str
    how: str

    @property
    def key(self) -> Key:
        """Which cell of the run it is: data set, category, method, metric."""
        return self.dataset, self.category, self.method, self.metric


COLUMNS = tuple(field.name for field in fields(Expected))


def read(path: Path) -> list[Expected]:
    """Rows of an expected-values file, every one checked.

    Raises FaderError for a missing file, another header, a damaged row and a cell given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FaderError(f"{path}: no such file; restore the repository's") from None
    lines = csv.DictReader(io.StringIO(text))
    if tuple(lines.fieldnames or ()) != COLUMNS:
        raise FaderError(f"{path}: expected the header {','.join(COLUMNS)}; restore the file")
    rows: dict[tuple[str, Key], Expected] = {}
    for values in lines:
        where = f"{path}, line {lines.line_num}"
        row = _parse(values, where)
        if (row.run, row.key) in rows:
            raise FaderError(f"{where}: {row.run} {' '.join(row.key)} is given twice; keep one")
        rows[row.run, row.key] = row
    return list(rows.values())


def _parse(values: dict[str, Any], where: str) -> Expected:
    try:
        row = Expected(
            **values
            | {
                "mean": float(values["mean"]),
                "tolerance": float(values["tolerance"]),
                "seeds": tuple(int(seed) for seed in values["seeds"].split()),
            }
        )
    except (TypeError, ValueError, AttributeError):
        raise FaderError(
            f"{where}: not a row of {len(COLUMNS)} fields with numbers for mean, tolerance and"
            " seeds; restore it"
        ) from None
    if not (0 <= row.mean <= 1 and 0 < row.tolerance < math.inf):
        raise FaderError(f"{where}: mean is not in [0, 1] or tolerance not above 0; restore it")
    if row.metric not in AUROCS:
        raise FaderError(f"{where}: metric {row.metric!r} is not one of {', '.join(AUROCS)}")
    if row.source not in ("measured", "paper"):
        raise FaderError(f"{where}: source {row.source!r} is neither measured nor paper")
    return row


def write(path: Path, rows: Iterable[Expected]) -> None:
    """Write rows, sorted by run and cell, in place of the file's."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in sorted(rows, key=lambda row: (row.run, row.key)):
        table.writerow(asdict(row) | {"seeds": " ".join(map(str, row.seeds))})
    write_text(path, stream.getvalue())


def paper_rows(reference: Path) -> list[Expected]:
    """Rows of the run ``paper``: the paper's AUROCs, corrected, of the methods that run measures.

    ``reference`` is the repository's folder of that name. Raises FaderError as ``paper_values``.
    """
    return [
        Expected(
            run="paper",
            dataset=PAPER_DATASET[table],
            category=category,
            method=methods[system],
            metric=metric,
            mean=value,
            tolerance=PAPER_TOLERANCE,
            seeds=(),
            source="paper",
            how=PAPER_HOW,
        )
        for table, methods in _PAPER_METHODS.items()
        for (category, system, metric), value in paper_values(table, reference).items()
        if system in methods and category != AVERAGE
    ]


def pooled(one: Expected, other: Expected) -> Expected:
    """Mean and tolerance over the runs of both, by mean and variance of either."""
    counts = [len(row.seeds) for row in (one, other)]
    total = sum(counts)
    within = sum(
        (count - 1) * (row.tolerance / _sigmas(count)) ** 2
        for count, row in zip(counts, (one, other), strict=True)
    )
    between = math.prod(counts) / total * (one.mean - other.mean) ** 2
    return replace(
        other,
        mean=round((counts[0] * one.mean + counts[1] * other.mean) / total, 6),
        tolerance=tolerance(math.sqrt((within + between) / (total - 1)), total),
        seeds=(*one.seeds, *other.seeds),
        how=POOLED_HOW,
    )


def tolerance(sigma: float, seeds: int) -> float:
    """max(0.005, 3 · σ · √(1 + 1/n)) rounded up to 0.001, for a mean over ``seeds`` = n seeds."""
    exact = max(LEAST_TOLERANCE, sigma * _sigmas(seeds))
    # The inner rounding keeps 0.04 from becoming 0.041 through its last bit.
    return math.ceil(round(1000 * exact, 6)) / 1000


def _sigmas(seeds: int) -> float:
    """How many σ a tolerance is: 3 · √(1 + 1/n)."""
    return 3 * math.sqrt(1 + 1 / seeds)
