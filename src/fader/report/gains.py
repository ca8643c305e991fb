"""In how many subtasks AUROC rises from EAR to FADeR: the paper's own way of counting, at the three
decimals printed."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from fader.pipeline.methods import Method
from fader.report.paper import AVERAGE, Key

LEVELS = ("image", "pixel")
EITHER = "either"
BEFORE_AFTER = (2, 4)  # the paper's tables of EAR → FADeR


class Tally(NamedTuple):
    """In how many cells a printed AUROC rises, stays and falls."""

    up: int
    equal: int
    down: int


class Step(NamedTuple):
    """An AUROC in [0, 1] before (EAR) and after FADeR."""

    before: float
    after: float

    def printed(self) -> Decimal:
        """after − before, both at three decimals."""
        return Decimal(f"{self.after:.3f}") - Decimal(f"{self.before:.3f}")


Cell = Mapping[str, Step]
"""Those of the two ``LEVELS`` that are measured of one subtask (a category under a masker)."""


def tally(gains: Iterable[Decimal]) -> Tally:
    """Positive, zero and negative gains."""
    signs = [(gain > 0) - (gain < 0) for gain in gains]
    return Tally(*(signs.count(sign) for sign in (1, 0, -1)))


def gains(cells: Iterable[Cell], level: str) -> list[Decimal]:
    """Printed gain at a level, of every cell that is measured at it.

    ``either`` is the greater of the two, where both are measured: above 0 where image or pixel
    AUROC rises, which is what the paper counts, and below 0 where both fall.
    """
    levels = LEVELS if level == EITHER else (level,)
    return [
        max(cell[each].printed() for each in levels) for cell in cells if cell.keys() >= set(levels)
    ]


def before_after(values: Mapping[Key, float]) -> dict[str, dict[str, Cell]]:
    """Cells by masker and category, from the values of the paper's Table 2 or 4, averages left
    out."""
    cells: dict[str, dict[str, Cell]] = {}
    for category, system, _ in values:
        before = Method.parse(system)
        after = Method("fader", before.system)
        if before.stage == "ear" and category != AVERAGE:
            cells.setdefault(before.system, {})[category] = {
                level: Step(
                    values[category, system, f"{level}_auroc"],
                    values[category, str(after), f"{level}_auroc"],
                )
                for level in LEVELS
            }
    return cells
