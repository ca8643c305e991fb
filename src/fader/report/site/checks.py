"""What ``fader check`` says of the run: the same verdicts, from the same code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fader.errors import FaderError
from fader.report import expected as file
from fader.report import gate
from fader.report.records import Records
from fader.report.render import ABSENT, signed
from fader.report.site.markdown import Span
from fader.report.site.sheets import Cell, Head, Row, Sheet

_SIGNS = {"ok": "within", "miss": "miss", "missing": "miss", "diverged": "miss"}


@dataclass(frozen=True)
class Gate:
    """The gate's verdict.

    Parameters
    ----------
    passed : None where there is nothing to compare with.
    text : the verdict in a sentence.
    counts : verdict → number of cells.
    sheet : every cell.
    """

    passed: bool | None
    text: str
    counts: Mapping[str, int]
    sheet: Sheet | None


def check(records: Records) -> Gate:
    """The run's AUROCs against the expected ones.

    Raises
    ------
    FaderError : the file of expected AUROCs is missing or damaged.
    """
    expected, run = file.read(file.EXPECTED), records.config.run
    if not any(row.run == run for row in expected):
        return Gate(None, f"Not checked: {file.EXPECTED} has no rows for run {run!r}.", {}, None)
    try:
        cells = gate.compare(records, expected)
    except FaderError as error:
        return Gate(False, f"Not passed: {error}", {}, None)
    passed = gate.passed(cells)
    counts = Counter(cell.verdict for cell in cells)
    listed = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return Gate(
        passed,
        f"{'Passed' if passed else 'Not passed'}: {listed} of {len(cells)} AUROCs.",
        counts,
        _sheet(cells),
    )


def _sheet(cells: Sequence[gate.Cell]) -> Sheet:
    names = ("Dataset", "Category", "Method", "Metric")
    columns = ("Expected", "Tolerance", "Measured", "Difference", "Verdict")
    heads = [
        Head(text, column=number, numeric=len(names) <= number < len(names) + 4)
        for number, text in enumerate((*names, *columns))
    ]
    return Sheet(
        "Every AUROC of the run beside its expectation",
        [heads],
        [
            Row([*(Cell([Span(part)], kind="name") for part in cell.key), *_numbers(cell)])
            for cell in cells
        ],
        len(names),
    )


def _numbers(cell: gate.Cell) -> list[Cell]:
    expected = cell.expected
    values = [
        None if expected is None else expected.mean,
        None if expected is None else expected.tolerance,
        cell.got,
    ]
    plain = [Cell([Span(ABSENT if v is None else f"{v:.3f}")], v) for v in values]
    sign = _SIGNS.get(cell.verdict, "number")
    difference = cell.difference
    text = ABSENT if difference is None else signed(difference)
    why = cell.diverged or cell.lacking
    verdict = f"{cell.verdict}: {why}" if why else cell.verdict
    return [*plain, Cell([Span(text)], difference, "number"), Cell([Span(verdict)], kind=sign)]
