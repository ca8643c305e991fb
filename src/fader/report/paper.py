"""The paper's five tables (arXiv 2407.04597), read from the CSV files under ``reference/``.

The files hold the numbers as printed; ``corrections.csv`` holds the few cells for which the authors
print another value elsewhere and their own average needs that one. ``reference/README.md`` gives
the arithmetic. Systems of Tables 2 and 4 are named ``ear-<masker>`` (before FADeR) and
``fader-<masker>`` (after).
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fader.errors import FaderError

PAPER_DATASET = {1: "mvtec_ad", 2: "mvtec_ad", 3: "mvtec_ad", 4: "mvtec_ad", 5: "visa"}
AVERAGE = "average"  # category of the row that the paper prints last

_PER_SYSTEM = ("category", "system", "image_auroc", "note")
_PER_MASKER = ("category", "masker", "stage", "image_auroc", "pixel_auroc", "note")
_COLUMNS = {1: _PER_SYSTEM, 2: _PER_MASKER, 3: _PER_SYSTEM, 4: _PER_MASKER, 5: _PER_SYSTEM}
_CORRECTION = ("table", "category", "system", "metric", "printed", "corrected", "evidence")
_STAGES = {"before": "ear", "after": "fader"}

Key = tuple[str, str, str]
"""(category, system, metric), metric being ``image_auroc`` or ``pixel_auroc``."""


@dataclass(frozen=True)
class Correction:
    """A printed AUROC that the authors' own other prints contradict."""

    table: int
    category: str
    system: str
    metric: str
    printed: float
    corrected: float
    evidence: str


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FaderError(f"{path}: no such file; give the repository's reference/ folder") from None
    lines = csv.DictReader(text.splitlines())
    if tuple(lines.fieldnames or ()) != columns:
        raise FaderError(f"{path}: expected the header {','.join(columns)}; restore the file")
    for row in lines:
        yield lines.line_num, row


def _auroc(text: str, path: Path, line: int) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0 <= value <= 1:
        raise FaderError(
            f"{path}, line {line}: {text!r} is not an AUROC in [0, 1]; restore the file"
        )
    return value


def printed_values(table: int, reference: Path) -> dict[Key, float]:
    """AUROCs of one of the paper's tables exactly as printed, the ``average`` rows included.

    Raises FaderError for a table other than 1…5 and for a missing or damaged file.
    """
    if table not in _COLUMNS:
        raise FaderError(f"table {table}: the paper has tables 1 to 5")
    path = reference / f"table{table}.csv"
    values: dict[Key, float] = {}
    for line, row in _rows(path, _COLUMNS[table]):
        system = (
            row["system"] if "system" in row else f"{_STAGES.get(row['stage'])}-{row['masker']}"
        )
        for metric in ("image_auroc", "pixel_auroc"):
            if metric in row:
                key = (row["category"], system, metric)
                if key in values:
                    raise FaderError(
                        f"{path}, line {line}: {'/'.join(key)} is given twice; restore it"
                    )
                values[key] = _auroc(row[metric], path, line)
    return values


def corrections(table: int, reference: Path) -> tuple[Correction, ...]:
    """Cells of a table whose print the authors contradict elsewhere. Raises FaderError as above."""
    path = reference / "corrections.csv"
    return tuple(
        Correction(
            table,
            row["category"],
            row["system"],
            row["metric"],
            _auroc(row["printed"], path, line),
            _auroc(row["corrected"], path, line),
            row["evidence"],
        )
        for line, row in _rows(path, _CORRECTION)
        if row["table"] == str(table)
    )


def paper_values(table: int, reference: Path) -> dict[Key, float]:
    """``printed_values`` with the corrections applied: what our numbers are compared with.

    Raises FaderError as above, and when a correction does not quote the printed value.
    """
    values = printed_values(table, reference)
    for item in corrections(table, reference):
        key = (item.category, item.system, item.metric)
        if values.get(key) != item.printed:
            raise FaderError(
                f"{reference / 'corrections.csv'}: {'/'.join(key)} of table {table} is corrected"
                f" from {item.printed}, but the table prints {values.get(key)}; make them agree"
            )
        values[key] = item.corrected
    return values
