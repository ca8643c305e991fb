"""Tables as a browser shows them: of a run's ``Table``s, ours, the paper's and the difference in
adjacent cells, and of any page of Markdown.

A difference says in words and by a sign, not by colour alone, whether it is within the tolerance; a
cell without a number says why.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from fader.pipeline.methods import Method
from fader.report import render
from fader.report.expected import PAPER_TOLERANCE
from fader.report.layout import Column, Group, Table
from fader.report.paper import AVERAGE
from fader.report.records import Record, Records
from fader.report.render import ABSENT
from fader.report.site.markdown import Grid, Line, Span

LEFT_OUT = "left out: the notes below say why"


@dataclass(frozen=True)
class Cell:
    """A cell.

    Parameters
    ----------
    line : what it shows.
    value : what it is sorted by, where that is not its text.
    kind : ``name``, ``number``, or ``above``, ``within`` or ``below`` the paper's tolerance.
    reason : number, from 1, of the reason why it is empty.
    span : columns that it takes.
    """

    line: Line
    value: float | None = None
    kind: str = "number"
    reason: int | None = None
    span: int = 1

    @property
    def text(self) -> str:
        """What it shows, without marks."""
        return "".join(span.text for span in self.line)


@dataclass(frozen=True)
class Head:
    """A header cell; ``column`` is that of the cells below it, None where it is over several."""

    text: str
    columns: int = 1
    rows: int = 1
    column: int | None = None
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """A row; an average stays below the others when they are sorted."""

    cells: Sequence[Cell]
    average: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table.

    Parameters
    ----------
    heads : rows of header cells.
    names : leading columns, which name a row.
    reasons : why cells are empty; a cell refers to one by its number.
    """

    caption: str
    heads: Sequence[Sequence[Head]]
    rows: Sequence[Row]
    names: int
    reasons: Sequence[str] = ()

    def says(self, note: str) -> bool:
        """Whether a note repeats why cells or rows are empty."""
        return any(reason.rstrip(".") in note for reason in self.reasons)


def of_grid(caption: str, grid: Grid) -> Sheet:
    """A table of Markdown; a name that is left out since it is that of the row above is given."""
    names = max(len(grid.align) - len(grid.align.lstrip("l")), 1)
    heads = [
        Head(text, column=column if text else None, numeric=align == "r")
        for column, (text, align) in enumerate(zip(grid.headers, grid.align, strict=True))
    ]
    rows, above = [], [[Span("")]] * names
    for line in grid.rows:
        leading = [each or before for each, before in zip(line[:names], above, strict=True)]
        # A later name is the same only under the same first one.
        above = leading if not line[0] or names == 1 else [list(each) for each in line[:names]]
        cells = [Cell(each, kind="name") for each in above]
        cells += [
            Cell(each, number(each), "number" if align == "r" else "text")
            for each, align in zip(line[names:], grid.align[names:], strict=True)
        ]
        if len(cells) > names and all(cell.text in ("", ABSENT) for cell in cells[names:]):
            cells[names:] = [Cell([Span(LEFT_OUT)], kind="text", span=len(cells) - names)]
        words = {cell.text.rpartition("/")[2] for cell in cells[:names]}
        rows.append(Row(cells, AVERAGE in words))
    return Sheet(caption, [heads], rows, names)


def number(line: Line) -> float | None:
    """The number that a printed cell begins with; None where there is none."""
    text = "".join(span.text for span in line)
    first = (text.split() or [""])[0].replace("−", "-").replace(",", "")
    try:
        return float(first)
    except ValueError:
        return None


def of_table(table: Table, records: Records) -> Sheet:
    """A table of a run."""
    return _Filler(table, records).sheet()


class _Filler:
    """A table on its way to a sheet, and the reasons met so far."""

    def __init__(self, table: Table, records: Records) -> None:
        self.table, self.layout, self.records = table, table.layout, records
        self.places = {
            (each.dataset, each.category): place
            for place, each in records.config.categories.items()
        }
        self.reasons: dict[str, int] = {}
        self.leading = render.row_names(table)

    def sheet(self) -> Sheet:
        rows = list(self._rows())
        reasons = list(self.reasons)
        return Sheet(self.layout.title, self._heads(), rows, len(self.leading), reasons)

    def kinds(self, key: str) -> list[str]:
        """The printed columns of a key."""
        return render.kinds(self.table, [key])

    def _heads(self) -> list[list[Head]]:
        """A row of groups, of the parts of groups where one has several, and of ours, the paper's
        and the difference where any is compared."""
        groups = self.layout.groups
        parted = any(len(group.keys) > 1 for group in groups)
        compared = any(len(self.kinds(key)) > 1 for group in groups for key in group.keys)
        depth = 1 + parted + compared
        rows: list[list[Head]] = [[] for _ in range(depth)]
        for column, name in enumerate(self.leading):
            rows[0].append(Head(name.capitalize(), 1, depth, column, numeric=False))
        column = len(self.leading)
        for group in groups:
            column = self._head(rows, group, column, parted, compared)
        return rows

    def _head(
        self, rows: list[list[Head]], group: Group, column: int, parted: bool, compared: bool
    ) -> int:
        """Header cells of a group; returns the column after it."""
        width = sum(len(self.kinds(key)) for key in group.keys)
        leaf = width == 1
        rows[0].append(
            Head(group.header, width, len(rows) if leaf else 1, column if leaf else None)
        )
        if leaf:
            return column + 1
        for key in group.keys:
            kinds = self.kinds(key)
            if parted:
                last = len(kinds) == 1
                name = _part(key) if len(group.keys) > 1 else ""
                depth = len(rows) - 1 if last else 1
                rows[1].append(Head(name, len(kinds), depth, column if last else None))
            if compared and len(kinds) > 1:
                rows[-1] += [
                    Head(_KINDS[kind], column=column + offset) for offset, kind in enumerate(kinds)
                ]
            column += len(kinds)
        return column

    def _rows(self) -> Iterator[Row]:
        frame, name = self.table.frame.to_dict("records"), self.layout.block_name
        for block, rows in groupby(frame, lambda row: row[name] if name else ""):
            columns = {column.key: column for column in self.layout.blocks[str(block)]}
            why = self._whole(columns.values())
            if why is None:
                yield from self._of_block(list(rows), columns)
            else:
                yield self._absent(str(block), why)

    def _of_block(
        self, rows: Sequence[Mapping[Any, Any]], columns: Mapping[str, Column]
    ) -> Iterator[Row]:
        """Rows of categories and averages; the average of one category is that one."""
        counts = Counter(row["dataset"] for row in rows)
        for row in rows:
            average = row["category"] == AVERAGE
            if not average or counts[row["dataset"]] > 2:
                yield Row(list(self._cells(row, columns)), average)

    def _absent(self, block: str, why: str) -> Row:
        """The one row of a block of which nothing ran."""
        keys = [key for group in self.layout.groups for key in group.keys]
        width = len(self.leading) - 1 + sum(len(self.kinds(key)) for key in keys)
        label = Cell([Span(self.layout.block_labels.get(block, block))], kind="name")
        return Row([label, Cell([Span("did not run")], None, "text", self._number(why), width)])

    def _whole(self, columns: Iterable[Column]) -> str | None:
        """Why nothing of a block ran; None where something did, or the table has one block."""
        if not self.layout.block_name:
            return None
        methods = {column.method for column in columns}
        missing = {
            record.missing
            for method in methods
            for place in self.layout.places or self.records.places
            for record in self._records(place, method)
        }
        return missing.pop() if len(missing) == 1 else None

    def _records(self, place: str, method: Method) -> list[Record]:
        return [self.records.get(place, method, seed) for seed in self.records.config.seeds]

    def _cells(self, row: Mapping[Any, Any], columns: Mapping[str, Column]) -> Iterator[Cell]:
        for name in self.leading:
            text = str(row[name])
            if name == self.layout.block_name:
                text = self.layout.block_labels.get(text, text)
            yield Cell([Span(text)], kind="name")
        for group in self.layout.groups:
            for key in group.keys:
                for kind in self.kinds(key):
                    yield self._cell(row, columns[key], kind)

    def _cell(self, row: Mapping[Any, Any], column: Column, kind: str) -> Cell:
        value = render.value(row, column.key, kind)
        if pd.isna(value):
            explained = kind == "ours" and row["category"] != AVERAGE
            return Cell(
                [Span(ABSENT)],
                reason=self._number(self._why(row, column)) if explained else None,
            )
        text = render.printed(row, column.key, kind)
        return Cell([Span(text)], value, tone(value) if kind == "difference" else "number")

    def _number(self, why: str) -> int:
        """The number of a reason why a cell of ours is empty."""
        return self.reasons.setdefault(why, len(self.reasons) + 1)

    def _why(self, row: Mapping[Any, Any], column: Column) -> str:
        place = self.places[row["dataset"], row["category"]]
        for record in self._records(place, column.method):
            if record.missing is not None:
                return record.missing
        lacking = self.records.lacking(place, column.metric)
        return lacking or f"{column.metric} is not measured of {column.method}"


_KINDS = {"ours": "ours", "paper": "paper", "difference": "ours − paper"}
_PARTS = {"ear": "EAR", "fader": "FADeR"}


def _part(key: str) -> str:
    """Which of the columns of a group a key is, by its first word."""
    word = key.partition("_")[0]
    return _PARTS.get(word, word)


def tone(difference: float) -> str:
    """How a difference from the paper stands to its tolerance."""
    if abs(difference) <= PAPER_TOLERANCE + 1e-9:
        return "within"
    return "above" if difference > 0 else "below"
