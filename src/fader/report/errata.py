"""What does not add up in the paper's own numbers, recomputed from ``reference/*.csv``.

``text`` prints three kinds of findings about arXiv 2407.04597: averages that their rows do not
give, cells that two tables print differently, and statements of the text that the tables do not
bear out. Printed values are taken as exact decimals. A cell is rounded to 0.001, so the mean of its
column is known to ± 0.0005, as is the printed average: up to 0.001 apart they agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from statistics import fmean

from fader.report.paper import (
    AVERAGE,
    PAPER_DATASET,
    Correction,
    Key,
    corrections,
    paper_values,
    printed_values,
)
from fader.report.statistics import (
    BEFORE_AFTER,
    EITHER,
    LEVELS,
    Cell,
    Step,
    before_after,
    gains,
    pipe,
    signed,
    tally,
)

THOUSANDTH = Decimal("0.001")
_SAME = {
    "ear": {1: "ear", 2: "ear-dino", 3: "ear"},
    "fader": {1: "fader", 2: "fader-dino", 3: "fader"},
}
"""Systems that several tables print: table → name there."""
_IMAGE = "image_auroc"
_CLAIMED_GAIN = "2.90"


@dataclass(frozen=True)
class Average:
    """A printed average and the rows above it (category → printed AUROC)."""

    table: int
    system: str
    metric: str
    printed: Decimal
    rows: Mapping[str, Decimal]

    @property
    def column(self) -> tuple[int, str, str]:
        return self.table, self.system, self.metric

    @property
    def total(self) -> Decimal:
        return sum(self.rows.values(), Decimal(0))

    @property
    def mean(self) -> Decimal:
        return self.total / len(self.rows)

    @property
    def shortfall(self) -> Decimal:
        """What the rows' sum lacks for the printed average; negative where it has too much."""
        return len(self.rows) * self.printed - self.total

    @property
    def slack(self) -> Decimal:
        """The shortfall that rounding alone can make."""
        return len(self.rows) * THOUSANDTH

    @property
    def possible(self) -> bool:
        return abs(self.shortfall) <= self.slack

    @property
    def exact(self) -> bool:
        """Whether the print is the rounded mean of the printed rows."""
        return self.mean.quantize(THOUSANDTH, ROUND_HALF_UP) == self.printed

    def replaced(self, category: str, value: Decimal) -> "Average":
        """With another value in one row."""
        rows = {**self.rows, category: value}
        return Average(self.table, self.system, self.metric, self.printed, rows)


@dataclass(frozen=True)
class Conflict:
    """An image AUROC that tables print differently: table → (system there, value)."""

    category: str
    prints: Mapping[int, tuple[str, Decimal]]


def averages(reference: Path) -> list[Average]:
    """Every printed average of the five tables, in order. Raises FaderError as ``reference``."""
    found = []
    for table in PAPER_DATASET:
        values = _exact(printed_values(table, reference))
        for (category, system, metric), printed in values.items():
            if category == AVERAGE:
                rows = {
                    row: value
                    for (row, *column), value in values.items()
                    if column == [system, metric] and row != AVERAGE
                }
                found.append(Average(table, system, metric, printed, rows))
    return found


def conflicts(reference: Path) -> list[Conflict]:
    """Every cell of a system that several tables print, where they differ. Errors as above."""
    found = []
    for names in _SAME.values():
        values = {table: _exact(printed_values(table, reference)) for table in names}
        for category in (c for c, system, _ in values[1] if system == names[1]):
            prints = {t: (name, values[t][category, name, _IMAGE]) for t, name in names.items()}
            if len({value for _, value in prints.values()}) > 1:
                found.append(Conflict(category, prints))
    return found


def one_digit(average: Average) -> dict[str, Decimal]:
    """Category → the value that makes the rows' rounded mean the printed average and differs from
    the print in one decimal; where several digits do, the one that comes nearest."""
    found = {}
    for category, value in average.rows.items():
        text = f"{value:.3f}"
        others = [
            Decimal(text[:place] + digit + text[place + 1 :])
            for place in (2, 3, 4)
            for digit in "0123456789"
            if value < 1 and digit != text[place]
        ]
        mending = [other for other in others if average.replaced(category, other).exact]
        if mending:
            found[category] = min(mending, key=lambda v: abs(v - value - average.shortfall))
    return found


def text(reference: Path) -> str:
    """The errata as Markdown. reference : the repository's ``reference/`` folder.

    The same files give the same bytes. Raises FaderError for missing or damaged files.
    """
    sections = [
        "# The paper's numbers, recomputed",
        "arXiv 2407.04597v1, Tables 1 to 5 as transcribed in `reference/`; categories and systems"
        " bear the names used there. A cell is rounded to 0.001, so the mean of its column is known"
        " to ±0.0005, as is the printed average: they agree where they are at most 0.001 apart.",
        *_on_averages(reference),
        *_on_conflicts(reference),
        *_on_statements(reference),
    ]
    return "\n\n".join(sections) + "\n"


def _on_averages(reference: Path) -> Iterator[str]:
    every = averages(reference)
    wrong = [each for each in every if not each.possible]
    loose = [each for each in every if each.possible and not each.exact]
    yield "## Averages that their rows do not give"
    yield (
        f"Of the {len(every)} printed averages, {len(every) - len(wrong) - len(loose)} are the"
        f" rounded mean of their rows, {len(loose)} more can be the rounded mean of the unrounded"
        f" rows, and {len(wrong)} cannot:"
    )
    yield _averages_table(wrong)
    yield "What would mend them:"
    known = {(item.table, item.system, item.metric): item for item in _known(reference)}
    yield "\n".join(
        f"- {_name(each)}: "
        + (_by_correction(each, known[each.column]) if each.column in known else _by_one_row(each))
        for each in wrong
    )
    yield "Not the rounded mean of the printed rows, but within rounding:"
    yield _averages_table(loose)


def _averages_table(found: Sequence[Average]) -> str:
    rows = [
        [
            _name(each),
            f"{each.printed:.3f}",
            f"{each.total:.3f} / {len(each.rows)}",
            f"{each.mean:.5f}",
            signed(each.printed - each.mean, 5),
        ]
        for each in found
    ]
    return pipe(["Average of", "printed", "sum of rows", "mean", "printed − mean"], rows, "lrrrr")


def _by_correction(average: Average, item: Correction) -> str:
    """The arithmetic of a correction, and the value that the printed average asks for by itself."""
    old, new = average.rows[item.category], _decimal(item.corrected)
    mended = average.replaced(item.category, new)
    count = len(average.rows)
    return (
        f"{item.category} {new:.3f} for {old:.3f} ({item.evidence}): {average.total:.3f} −"
        f" {old:.3f} + {new:.3f} = {mended.total:.3f}, and {mended.total:.3f} / {count} ="
        f" {mended.mean:.4f}. The printed average alone asks for {count} × {average.printed:.3f} −"
        f" {average.total - old:.3f} = {old + average.shortfall:.3f}, ±{average.slack:.3f} for"
        " rounding."
    )


def _by_one_row(average: Average) -> str:
    candidates = [
        f"{category} {new:.3f} for {average.rows[category]:.3f}"
        for category, new in one_digit(average).items()
    ]
    return (
        f"{len(average.rows)} × {average.printed:.3f} − {average.total:.3f} ="
        f" {signed(average.shortfall)} (±{average.slack:.3f} for rounding) is to be found in one"
        " row or several, which no other table prints. One mistyped digit would do in"
        f" {len(candidates)} rows: {', '.join(candidates)}."
    )


def _on_conflicts(reference: Path) -> Iterator[str]:
    tables = list(_SAME["ear"])
    column = {each.column: each for each in averages(reference)}
    found = conflicts(reference)
    rows = []
    for conflict in found:
        allowed = [
            f"{value:.3f}"
            for value in sorted({value for _, value in conflict.prints.values()})
            if all(
                column[table, system, _IMAGE].replaced(conflict.category, value).possible
                for table, (system, _) in conflict.prints.items()
            )
        ]
        system = conflict.prints[tables[0]][0]
        values = [f"{conflict.prints[table][1]:.3f}" for table in tables]
        rows.append([f"`{system}`, {conflict.category}", *values, " or ".join(allowed)])
    yield "## Cells that two tables print differently"
    yield (
        f"EAR and FADeR with the masks of DINO-ViT stand in Tables {', '.join(map(str, tables))}."
        f" Their image AUROC differs in {len(found)} cells; the last column says which of the"
        " values the printed averages of all these tables allow."
    )
    yield pipe(["Cell", *(f"Table {table}" for table in tables), "allowed"], rows, "lrrrr")
    yield "Set right where this repository compares with the paper (all else stays as printed):"
    yield "\n".join(
        f"- Table {item.table}, `{item.system}`, {item.category}, {_level(item.metric)}:"
        f" {item.corrected:.3f} for {item.printed:.3f} ({item.evidence})."
        for item in _known(reference)
    )


def _on_statements(reference: Path) -> Iterator[str]:
    yield "## Statements of the text that the tables do not bear out"
    yield (
        "FADeR against EAR in every subtask (a category under a masker), as printed. Either: up"
        " where image or pixel AUROC rises, down where both fall."
    )
    yield _counts_table(reference)
    yield "\n".join(
        f"- {statement(reference)}"
        for statement in (
            _subtasks_increased,
            _average_increases,
            _both_improved,
            _best_performance,
            _notable_improvements,
        )
    )


def _counts_table(reference: Path) -> str:
    rows = []
    for table in BEFORE_AFTER:
        of_masker = before_after(printed_values(table, reference))
        for masker, cells in of_masker.items():
            for level in (*LEVELS, EITHER):
                change = gains(cells.values(), level)
                falls = [c for c, gain in zip(cells, change, strict=True) if gain < 0]
                rows.append([table, masker, level, *tally(change), ", ".join(falls)])
        for level in (*LEVELS, EITHER):
            together = tally(gains(_subtasks(table, reference).values(), level))
            rows.append([table, "all", level, *together, ""])
    return pipe(["Table", "Masker", "AUROC", "up", "equal", "down", "down in"], rows, "lllrrrl")


def _subtasks_increased(reference: Path) -> str:
    cells = _subtasks(2, reference)
    change = dict(zip(cells, gains(cells.values(), EITHER), strict=True))
    count = tally(change.values())
    equal = "; ".join(_steps(name, cells[name]) for name, gain in change.items() if gain == 0)
    down = "; ".join(_steps(name, cells[name]) for name, gain in change.items() if gain < 0)
    return (
        '"The image-level or pixel-level AUROC was increased in 44 out of 45 independent subtasks'
        f' shown in Table 2": it is in {count.up} of {len(cells)}. {count.up + count.equal} is the'
        f" number of those in which not both fall, {equal} included; both fall in {down}."
    )


def _average_increases(reference: Path) -> str:
    printed, corrected = (
        " and ".join(f"{_relative_gain(values(2, reference), level):.2f} %" for level in LEVELS)
        for values in (printed_values, paper_values)
    )
    known = {(item.table, item.system, item.metric) for item in _known(reference)}
    trials = {}
    for average in averages(reference):
        if average.table == 2 and not average.possible and average.column not in known:
            for category, value in one_digit(average).items():
                changed = {(category, average.system, average.metric): float(value)}
                gain = _relative_gain(paper_values(2, reference) | changed, _level(average.metric))
                trials[f"`{average.system}`, {category} {value:.3f}"] = f"{gain:.2f}"
    recount = (
        f'"with average increases {_CLAIMED_GAIN}% and 3.6%" (Table 2, image and pixel): the mean'
        f" relative gain of the subtasks is {printed} as printed and {corrected} with the"
        " corrections above."
    )
    if not trials:
        return recount
    met = [name for name, gain in trials.items() if gain == _CLAIMED_GAIN]
    return (
        f"{recount} With the one digit changed that would also mend the average still open, it"
        f" becomes {', '.join(f'{gain} % ({name})' for name, gain in trials.items())}: of these,"
        f" {' and '.join(met) or 'none'} gives the text's figure."
    )


def _both_improved(reference: Path) -> str:
    values = _exact(printed_values(4, reference))
    cells = _subtasks(4, reference)
    means = [
        f"`{masker}` "
        + " / ".join(
            signed(
                values[AVERAGE, f"fader-{masker}", f"{level}_auroc"]
                - values[AVERAGE, f"ear-{masker}", f"{level}_auroc"]
            )
            for level in LEVELS
        )
        for masker in dict.fromkeys(masker for _, masker in cells)
    ]
    image, pixel, either = (tally(gains(cells.values(), level)) for level in (*LEVELS, EITHER))
    return (
        '"both the UAD performance and the defect localization are improved by applying FADeR"'
        f" (Table 4): the printed averages are (image / pixel: {', '.join(means)}), but image AUROC"
        f" falls in {image.down} of {len(cells)} subtasks, pixel AUROC in {pixel.down}, both in"
        f" {either.down}."
    )


def _best_performance(reference: Path) -> str:
    values = _exact(printed_values(1, reference))
    rows: dict[str, dict[str, Decimal]] = {}
    for (category, system, _), value in values.items():
        if category != AVERAGE:
            rows.setdefault(category, {})[system] = value
    beaten = {c: max(row, key=lambda s: row[s]) for c, row in rows.items() if not _leads(row)}
    listed = ", ".join(
        f"{c} (`{best}` {rows[c][best]:.3f}, `fader` {rows[c]['fader']:.3f})"
        for c, best in beaten.items()
    )
    without_ear = sum(
        _leads({s: value for s, value in row.items() if s != "ear"}) for row in rows.values()
    )
    return (
        '"FADeR achieves the best performance in 10 out of the 15 subtasks" (Table 1): in'
        f" {len(rows) - len(beaten)} of {len(rows)}, ties included, and in {without_ear} if EAR is"
        f" left aside. It is beaten on {listed}."
    )


def _leads(row: Mapping[str, Decimal]) -> bool:
    return row["fader"] == max(row.values())


def _notable_improvements(reference: Path) -> str:
    values = printed_values(1, reference)
    change = {
        category: Step(values[category, "ear", _IMAGE], values[category, "fader", _IMAGE]).printed()
        for category, system, _ in values
        if system == "fader" and category != AVERAGE
    }
    named = ("capsule", "carpet", "metal_nut", "pill")
    ranks = sorted(change.values(), reverse=True)
    listed = ", ".join(
        f"{c} {signed(change[c])} (rank {ranks.index(change[c]) + 1})" for c in named
    )
    return (
        '"notable performance improvements in the capsule, carpet, metal nut, and pill cases"'
        f" (Table 1, FADeR − EAR): {listed}."
    )


def _subtasks(table: int, reference: Path) -> dict[tuple[str, str], Cell]:
    """Printed cells of Table 2 or 4 by (category, masker)."""
    return {
        (category, masker): cell
        for masker, cells in before_after(printed_values(table, reference)).items()
        for category, cell in cells.items()
    }


def _steps(name: tuple[str, str], cell: Cell) -> str:
    steps = ", ".join(
        f"{level} {step.before:.3f} → {step.after:.3f}" for level, step in cell.items()
    )
    return f"{name[0]} with `{name[1]}` ({steps})"


def _relative_gain(values: Mapping[Key, float], level: str) -> float:
    """Mean over the subtasks of (after − before) / before, in per cent."""
    steps = [cell[level] for cells in before_after(values).values() for cell in cells.values()]
    return 100 * fmean(step.after / step.before - 1 for step in steps)


def _known(reference: Path) -> list[Correction]:
    return [item for table in PAPER_DATASET for item in corrections(table, reference)]


def _name(average: Average) -> str:
    return f"Table {average.table}, `{average.system}`, {_level(average.metric)}"


def _level(metric: str) -> str:
    return metric.removesuffix("_auroc")


def _exact(values: Mapping[Key, float]) -> dict[Key, Decimal]:
    return {key: _decimal(value) for key, value in values.items()}


def _decimal(value: float) -> Decimal:
    """The three decimals that were printed: the shortest text of a float gives them back."""
    return Decimal(str(value))
