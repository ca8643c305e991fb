"""What does not add up in the paper's own numbers: averages that their rows do not give, and cells
that two tables print differently.

Printed values are taken as exact decimals. A cell is rounded to 0.001, so the mean of its column is
known to ± 0.0005, as is the printed average: up to 0.001 apart they agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from fader.report.paper import AVERAGE, PAPER_DATASET, Key, printed_values

THOUSANDTH = Decimal("0.001")
SAME = {
    "ear": {1: "ear", 2: "ear-dino", 3: "ear"},
    "fader": {1: "fader", 2: "fader-dino", 3: "fader"},
}
"""Systems that several tables print: table → name there."""
IMAGE = "image_auroc"


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
        """Table, system and metric."""
        return self.table, self.system, self.metric

    @property
    def total(self) -> Decimal:
        """Sum of the printed rows."""
        return sum(self.rows.values(), Decimal(0))

    @property
    def mean(self) -> Decimal:
        """Mean of the printed rows, not rounded."""
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
        """Whether rounding alone explains the shortfall."""
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
    result = []
    for table in PAPER_DATASET:
        values = exact(printed_values(table, reference))
        for (category, system, metric), printed in values.items():
            if category == AVERAGE:
                rows = {
                    row: value
                    for (row, *column), value in values.items()
                    if column == [system, metric] and row != AVERAGE
                }
                result.append(Average(table, system, metric, printed, rows))
    return result


def conflicts(reference: Path) -> list[Conflict]:
    """Every cell of a system that several tables print, where they differ. Errors as above."""
    result = []
    for names in SAME.values():
        values = {table: exact(printed_values(table, reference)) for table in names}
        for category in (c for c, system, _ in values[1] if system == names[1]):
            prints = {t: (name, values[t][category, name, IMAGE]) for t, name in names.items()}
            if len({value for _, value in prints.values()}) > 1:
                result.append(Conflict(category, prints))
    return result


def one_digit(average: Average) -> dict[str, Decimal]:
    """Category → the value that makes the rows' rounded mean the printed average and differs from
    the print in one decimal; where several digits do, the one that comes nearest."""
    mended = {}
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
            mended[category] = min(mending, key=lambda v: abs(v - value - average.shortfall))
    return mended


def exact(values: Mapping[Key, float]) -> dict[Key, Decimal]:
    """Values as the decimals that were printed."""
    return {key: decimal(value) for key, value in values.items()}


def decimal(value: float) -> Decimal:
    """The three decimals that were printed: the shortest text of a float gives them back."""
    return Decimal(str(value))
