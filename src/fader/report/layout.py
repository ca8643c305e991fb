"""A table of one run: declared as data, and filled from the records.

A table is declared by a ``Layout`` of ``Column``s (which metric of which method, and the system of
the paper that stands beside it) and ``Group``s (how columns are printed together). ``build`` turns
records into a ``Table``, whose frame holds plain numbers at full precision; ``report.render``
prints it. The layouts themselves are in ``report.tables`` and ``report.supplement``.

Averages are per data set. Where a data set is compared with the paper, all averages of its rows,
ours, the paper's and their difference, are over the categories that both have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from fader.config import Config
from fader.pipeline.methods import Method
from fader.report import labels, lengths
from fader.report.paper import AVERAGE, PAPER_DATASET, corrections, paper_values
from fader.report.records import Records, kind

_CRITERIA = {
    "image": "image AUROC",
    "pixel": "pixel AUROC",
    "mean": "the mean of image and pixel AUROC",
}
_ORACLE = (
    "Diagnostic only: the mosaic scale is the one with the best test AUROC, so test labels were"
    " used."
)


def choices(config: Config) -> str:
    """How m*, the learning rate and the schedule were chosen, in words."""
    policy, settings = config.mosaic.policy, config.validation
    if policy == "oracle":
        return _ORACLE
    subject = {
        "search": "The mosaic scale m*, the learning rate and the schedule are",
        "fixed": "The mosaic scale is fixed beforehand; the learning rate and the schedule are",
    }[policy]
    first = "the largest scale and the first point" if policy == "search" else "the first point"
    return (
        f"{subject} chosen without labels, by {_CRITERIA[settings.criterion]} of held-out training"
        f" normals against synthetic defects painted on them; of candidates that are no worse than"
        f" the best in {settings.tie:.0%} of bootstrap resamples, {first} of the grid. No test"
        " label was used for any choice."
    )


@dataclass(frozen=True)
class Column:
    """One measured quantity of a table.

    Parameters
    ----------
    key : stem of its CSV columns.
    method, metric : what to read from the records.
    paper : the system of the paper's table it is compared with, None where the paper has none.
    """

    key: str
    method: Method
    metric: str
    paper: str | None = None


@dataclass(frozen=True)
class Group:
    """Columns printed in one cell, joined by an arrow, under one header."""

    header: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A table as declared.

    Parameters
    ----------
    name, title : of the files, and for the caption.
    blocks : name → columns, stacked in this order; every block has the same keys.
    groups : how the columns are printed.
    number : table of the paper whose values are shown, None for a table of ours.
    block_name : CSV column of the block's name, None for a table of one block.
    block_labels : name of a block → what is printed for it.
    places : categories, where they are not all of the run's.
    notes : remarks that hold whatever the records say.
    """

    name: str
    title: str
    blocks: Mapping[str, tuple[Column, ...]]
    groups: tuple[Group, ...]
    number: int | None = None
    block_name: str | None = None
    block_labels: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def dataset(self) -> str | None:
        """The public data set of the paper's table."""
        return None if self.number is None else PAPER_DATASET.get(self.number)

    @property
    def columns(self) -> list[Column]:
        """Those of all blocks."""
        return [column for block in self.blocks.values() for column in block]


@dataclass(frozen=True)
class Table:
    """A finished table.

    Parameters
    ----------
    frame : a row per category and, after those of a data set, its average, per block; per column
        key ``<key>_mean``, ``<key>_std`` (n − 1; empty for one seed), ``<key>_seeds`` (number of
        seeds), and where a data set is the paper's ``paper_<key>`` and ``difference_<key>`` (ours −
        paper). Missing: NaN.
    """

    layout: Layout
    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Stem of the table's files."""
        return self.layout.name


@dataclass(frozen=True)
class _Cell:
    values: Mapping[int, float]  # seed → value
    paper: float | None

    @property
    def mean(self) -> float:
        return fmean(self.values.values())


@dataclass(frozen=True)
class _Filled:
    """A layout with its cells, by block, category and column key."""

    layout: Layout
    records: Records
    cells: Mapping[tuple[str, str, str], _Cell]

    @property
    def datasets(self) -> dict[str, list[str]]:
        """Data set → its categories, in table order."""
        return self.records.by_dataset(self.layout.places)

    def averaged(self, block: str, key: str, places: Sequence[str]) -> list[str]:
        """The categories of one data set that the average of a column is over."""
        keys = [column.key for column in self.layout.blocks[block]]
        common = [
            place
            for place in places
            if any(self.cells[block, place, each].paper is not None for each in keys)
        ]
        own = [place for place in common or places if self.cells[block, place, key].values]
        joined = self.joined(block, key)
        ran = [p for p in own if all(self.cells[block, p, each.key].values for each in joined)]
        both = [place for place in ran if self.cells[block, place, key].paper is not None]
        return both or ran or own

    def joined(self, block: str, key: str) -> list[Column]:
        """The columns that are printed in one cell with a column, itself included: their averages
        are over the same categories."""
        keys = next(group.keys for group in self.layout.groups if key in group.keys)
        return [column for column in self.layout.blocks[block] if column.key in keys]


def build(layout: Layout, records: Records, reference: Path) -> Table:
    """Fill a layout with the records of a run.

    Parameters
    ----------
    reference : the repository's ``reference/`` folder. Without any value of the paper, the columns
        for it are absent.

    Raises
    ------
    FaderError : a file of the paper's tables is missing or damaged.
    """
    paper: dict[Any, float] = {}
    if layout.number:
        paper |= paper_values(layout.number, reference)
    places = list(layout.places or records.places)
    compared = [
        place
        for place in places
        if layout.dataset and records.data(place)["paper_dataset"] == layout.dataset
    ]
    category = {place: records.config.categories[place].category for place in places}
    cells = {
        (block, place, column.key): _Cell(
            records.values(place, column.method, column.metric),
            paper.get((category[place], column.paper, column.metric))
            if place in compared
            else None,
        )
        for block, columns in layout.blocks.items()
        for place in places
        for column in columns
    }
    filled = _Filled(layout, records, cells)
    with_paper = {key for (*_, key), cell in cells.items() if cell.paper is not None}
    notes = [
        *layout.notes,
        *lengths.note(records, (column.method for column in layout.columns), places),
        *dict.fromkeys(_average_notes(filled)),
        *records.gaps(((c.method, c.metric) for c in layout.columns), places),
        *records.unmeasured((c.metric for c in layout.columns), places),
        *_correction_notes(layout, [category[place] for place in compared], reference),
    ]
    caption = _caption(layout, records, places, bool(with_paper))
    return Table(layout, _frame(filled, with_paper), caption, tuple(notes))


def _average_notes(filled: _Filled) -> Iterator[str]:
    """Which categories an average is over, wherever it is not over all of the data set's: because
    the others' test images do not let one measure it, or for reasons of a method's own."""
    records, several = filled.records, len(filled.datasets) > 1
    for dataset, places in filled.datasets.items():
        on = f" on {dataset}" if several else ""
        for block, columns in filled.layout.blocks.items():
            for column in columns:
                over = filled.averaged(block, column.key, places)
                metrics = [each.metric for each in filled.joined(block, column.key)]
                measured = [p for p in places if not any(records.lacking(p, m) for m in metrics)]
                if 0 < len(over) < len(places):
                    names = ", ".join(records.title(place) for place in over)
                    which = f"{len(over)} of {len(places)} categories: {names}."
                    if over == measured:
                        yield f"Averages of {kind(column.metric)}{on} are over {which}"
                    else:
                        yield f"The average of {column.method}{on} is over {which}"


def _correction_notes(layout: Layout, categories: Sequence[str], reference: Path) -> Iterator[str]:
    """The paper's misprints among the values shown."""
    shown = {(c, column.paper, column.metric) for c in categories for column in layout.columns}
    for item in corrections(layout.number, reference) if layout.number else ():
        if (item.category, item.system, item.metric) in shown:
            yield (
                f"{item.category}: the paper's Table {item.table} prints {item.printed:.3f}"
                f" ({item.system}, {item.metric}); {item.corrected:.3f} is shown"
                f" ({item.evidence})."
            )


def _frame(filled: _Filled, with_paper: set[str]) -> pd.DataFrame:
    layout = filled.layout
    kinds = dict.fromkeys([layout.block_name] if layout.block_name else [], "object")
    kinds |= {"dataset": "object", "category": "object"}
    for key in (key for group in layout.groups for key in group.keys):
        kinds |= {f"{key}_mean": "float64", f"{key}_std": "float64", f"{key}_seeds": "Int64"}
        if key in with_paper:
            kinds |= {f"paper_{key}": "float64", f"difference_{key}": "float64"}
    return frame(list(_rows(filled)), kinds)


def frame(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a frame of these columns (name → pandas dtype); what a row lacks is missing."""
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=kinds[name]) for name in kinds}
    )


def _rows(filled: _Filled) -> Iterator[dict[str, Any]]:
    layout, categories = filled.layout, filled.records.config.categories
    for block, columns in layout.blocks.items():
        named: dict[Any, Any] = {layout.block_name: block} if layout.block_name else {}
        for dataset, places in filled.datasets.items():
            for place in places:
                row = named | {"dataset": dataset, "category": categories[place].category}
                for column in columns:
                    row |= _row(column.key, filled.cells[block, place, column.key])
                yield row
            row = named | {"dataset": dataset, "category": AVERAGE}
            for column in columns:
                over = filled.averaged(block, column.key, places)
                row |= _average(column.key, [filled.cells[block, p, column.key] for p in over])
            yield row


def _row(key: str, cell: _Cell) -> dict[str, float | int]:
    row: dict[str, float | int] = {}
    if cell.values:
        row |= {f"{key}_mean": cell.mean, f"{key}_seeds": len(cell.values)}
        if len(cell.values) > 1:
            row[f"{key}_std"] = stdev(cell.values.values())
    if cell.paper is not None:
        row[f"paper_{key}"] = cell.paper
        if cell.values:
            row[f"difference_{key}"] = cell.mean - cell.paper
    return row


def _average(key: str, cells: Sequence[_Cell]) -> dict[str, float | int]:
    """Mean over categories; its spread is that of the per-seed averages."""
    if not cells:
        return {}
    row: dict[str, float | int] = {f"{key}_mean": fmean(cell.mean for cell in cells)}
    seeds = {tuple(cell.values) for cell in cells}
    if len(seeds) == 1:  # otherwise the per-seed averages would be over different categories
        per_seed = [fmean(cell.values[seed] for cell in cells) for seed in next(iter(seeds))]
        row[f"{key}_seeds"] = len(per_seed)
        if len(per_seed) > 1:
            row[f"{key}_std"] = stdev(per_seed)
    papers = [cell.paper for cell in cells if cell.paper is not None]
    if len(papers) == len(cells):
        row[f"paper_{key}"] = fmean(papers)
        row[f"difference_{key}"] = row[f"{key}_mean"] - row[f"paper_{key}"]
    return row


def seeds_sentence(seeds: Sequence[int]) -> str:
    """How many seeds the numbers are of."""
    listed = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"One seed ({listed})."
    return f"Mean ± standard deviation (n − 1) over {len(seeds)} seeds ({listed})."


def _caption(layout: Layout, records: Records, places: Sequence[str], compared: bool) -> str:
    sentences = [
        f"{layout.title}.",
        records.provenance(places),
        seeds_sentence(records.config.seeds),
    ]
    if compared and layout.dataset:
        sentences.append(
            f"Paper: Table {layout.number} of arXiv 2407.04597"
            f" ({labels.DATASETS[layout.dataset]}), averaged over the same categories;"
            " difference: ours − paper."
        )
    if layout.number:
        sentences.append(choices(records.config))
    return " ".join(sentences)
