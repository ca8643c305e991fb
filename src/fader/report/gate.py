"""The gate: are the run's AUROCs those of ``reference/expected.csv``, within their tolerances?

``compare`` sets the cells of a run beside the file's rows (``fader.report.expected``), ``update``
makes these rows of a run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev

from tabulate import tabulate

from fader.errors import FaderError
from fader.pipeline.methods import Method
from fader.report import labels
from fader.report.expected import (
    EXPECTED,
    LEAST_SEEDS,
    MEASURED_HOW,
    Expected,
    Key,
    pooled,
    read,
    tolerance,
    write,
)
from fader.report.records import AUROCS, Records

_COLOUR = {
    "ok": 32,
    "miss": 31,
    "missing": 31,
    "diverged": 31,
    "new": 33,
    "skipped": 33,
}  # ANSI foregrounds


@dataclass(frozen=True)
class Cell:
    """One cell of a run beside its expectation; either may be None, both only with a reason.

    Parameters
    ----------
    got : mean AUROC over the run's seeds.
    lacking : why the test images do not let one measure it; None where they do.
    diverged : why a training of it ended without a detector; None where none did.
    """

    key: Key
    expected: Expected | None
    got: float | None
    lacking: str | None = None
    diverged: str | None = None

    @property
    def difference(self) -> float | None:
        """got − expected."""
        if self.expected is None or self.got is None:
            return None
        return self.got - self.expected.mean

    @property
    def verdict(self) -> str:
        """``ok``, ``miss`` (outside the tolerance), ``missing`` (expected, but not in the run),
        ``diverged`` (a training failed), ``new`` (not expected) or ``skipped`` (not expected, and
        cannot be measured)."""
        if self.diverged is not None:
            return "diverged"
        if self.expected is None:
            return "new" if self.lacking is None else "skipped"
        if self.difference is None:
            return "missing"
        # Both numbers are decimals of six digits: a difference equal to the tolerance is within.
        return "ok" if abs(self.difference) <= self.expected.tolerance + 1e-9 else "miss"


def compare(records: Records, expected: Iterable[Expected]) -> list[Cell]:
    """Every cell that the run has or should have: the run's in their order, then the missing ones,
    then those that cannot be measured.

    A cell that lacks one of the run's seeds counts as missing; so does an expected one that cannot
    be measured.

    Raises
    ------
    FaderError : no row is expected of the run, though there is an AUROC in it; or a row of the
        paper meets data or a masker that are not the paper's.
    """
    run = records.config.run
    rows = {row.key: row for row in expected if row.run == run}
    measured, lacking = _measured(records), _lacking(records)
    if not rows and (measured or not lacking):
        raise FaderError(
            f"no expected AUROC of run {run!r}; `fader check --update` makes them from at least"
            f" {LEAST_SEEDS} seeds"
        )
    for key in measured.keys() & rows.keys():
        if rows[key].source == "paper":
            _check_paper(records, key)
    seeds = set(records.config.seeds)
    whole = {key: fmean(by.values()) for key, by in measured.items() if by.keys() == seeds}
    diverged = _diverged(records)
    keys = dict.fromkeys([*measured, *rows, *lacking, *diverged])
    return [
        Cell(key, rows.get(key), whole.get(key), lacking.get(key), diverged.get(key))
        for key in keys
    ]


def _check_paper(records: Records, key: Key) -> None:
    """The paper's numbers are compared on its data, with its maskers."""
    dataset, category, name, _ = key
    masks, masker = records.config.masks, Method.parse(name).masker
    settings = masks.settings(masker) if masker in masks.maskers else None
    public = records.config.public_set(dataset)
    wrong = None
    if public != dataset:
        wrong = f"the data set is {public or 'no public set'}"
    elif settings and labels.stands_in(settings):
        wrong = f"the masker is {labels.maskers(records.config)[Method.parse(name).system]}"
    elif settings and labels.paper_masker(settings) != Method.parse(name).system:
        wrong = f"the masker is the paper's {labels.paper_masker(settings)}"
    if wrong:
        raise FaderError(
            f"{dataset}/{category}/{name}: {EXPECTED} gives the paper's AUROC, but {wrong}; give"
            " the run another name"
        )


def _measured(records: Records) -> dict[Key, dict[int, float]]:
    """Cell → seed → AUROC, in table order; without methods that did not run."""
    aurocs = {}
    for place, category in records.config.categories.items():
        for method in records.methods:
            for metric in AUROCS:
                values = records.values(place, method, metric)
                if values:
                    key = (category.dataset, category.category, str(method), metric)
                    aurocs[key] = values
    return aurocs


def _lacking(records: Records) -> dict[Key, str]:
    """Cell of a method that ran → why its AUROC is not measured."""
    reasons = {}
    for place, category in records.config.categories.items():
        for method in records.methods:
            for metric in AUROCS:
                why = records.lacking(place, metric)
                if why is not None and records.of(place, method):
                    reasons[category.dataset, category.category, str(method), metric] = why
    return reasons


def _diverged(records: Records) -> dict[Key, str]:
    """Cell of a method of which a training diverged → the first reason."""
    reasons: dict[Key, str] = {}
    for record in records:
        if record.diverged and record.missing:
            category = records.config.categories[record.place]
            for metric in AUROCS:
                key = (category.dataset, category.category, str(record.method), metric)
                reasons.setdefault(key, record.missing)
    return reasons


def passed(cells: Iterable[Cell]) -> bool:
    """Whether every expected cell is there and within its tolerance."""
    return all(cell.verdict in ("ok", "new", "skipped") for cell in cells)


def render(cells: Sequence[Cell], colour: bool) -> str:
    """The cells as a table for the terminal and one line of counts; coloured only when asked."""
    rows = [
        [
            " ".join(cell.key),
            f"{cell.expected.mean:.3f} ± {cell.expected.tolerance:.3f}" if cell.expected else "",
            "" if cell.got is None else f"{cell.got:.3f}",
            "" if cell.difference is None else f"{cell.difference:+.3f}",
            (f"\033[{_COLOUR[cell.verdict]}m{cell.verdict}\033[0m" if colour else cell.verdict)
            + (f": {why}" if (why := cell.diverged or cell.lacking) else ""),
        ]
        for cell in cells
    ]
    header = ["cell", "expected", "got", "difference", "verdict"]
    align = ("left", "right", "right", "right", "left")
    text = tabulate(rows, header, tablefmt="simple", colalign=align, disable_numparse=True)
    verdicts = [cell.verdict for cell in cells]
    rare = ("skipped", "diverged")
    shown = [verdict for verdict in _COLOUR if verdict not in rare or verdict in verdicts]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in shown)
    return f"{text}\n\n{counts}"


def update(records: Records, path: Path, *, pool: bool = False) -> list[Expected]:
    """Replace this run's rows of the file by what its records measured; returns the new rows. Rows
    of other runs stay as they are.

    Parameters
    ----------
    pool : take the runs for further ones of those before, whose rows all stay.

    Raises
    ------
    FaderError : fewer than three seeds; a cell that lacks a seed; a training that diverged; no
        AUROC at all; the run's rows are the paper's; a damaged file.
    """
    run, seeds = records.config.run, sorted(records.config.seeds)
    if len(seeds) < LEAST_SEEDS:
        raise FaderError(
            f"run {run!r} has {len(seeds)} seed{'' if len(seeds) == 1 else 's'}; a tolerance needs"
            f" at least {LEAST_SEEDS}: list them under `seeds` and run again"
        )
    rows = read(path)
    if any(row.run == run and row.source == "paper" for row in rows):
        raise FaderError(
            f"{path}: the rows of run {run!r} are the paper's and are not measured over; give the"
            " run another name"
        )
    for key, reason in _diverged(records).items():
        raise FaderError(f"{'/'.join(key)}: {reason}; nothing is expected of that")
    measured = _measured(records)
    if not measured:
        why = dict.fromkeys(_lacking(records).values())
        raise FaderError(f"run {run!r} has no AUROC to expect: {'; '.join(why) or 'no method ran'}")
    for key, by in measured.items():
        if sorted(by) != seeds:
            raise FaderError(
                f"{'/'.join(key)}: has seeds {sorted(by)} of {seeds}; run the evaluation of all"
            )
    spreads = {key: stdev(by.values()) for key, by in measured.items()}
    spreads_of: dict[tuple[str, str], list[float]] = {}
    for key, spread in spreads.items():
        spreads_of.setdefault(_sort(key), []).append(spread)
    typical = {sort: median(of) for sort, of in spreads_of.items()}
    new = [
        Expected(
            run,
            *key,
            mean=round(fmean(by.values()), 6),
            tolerance=tolerance(max(spreads[key], typical[_sort(key)]), len(seeds)),
            seeds=tuple(seeds),
            source="measured",
            how=MEASURED_HOW,
        )
        for key, by in measured.items()
    ]
    if pool:
        before = {row.key: row for row in rows if row.run == run}
        for row in new:
            before[row.key] = pooled(before[row.key], row) if row.key in before else row
        new = list(before.values())
    write(path, [*(row for row in rows if row.run != run), *new])
    return new


def _sort(key: Key) -> tuple[str, str]:
    """Cells whose spreads are alike (see the top of this module), as a name and the metric."""
    method = Method.parse(key[2])
    if method.stage == "mask":
        return "saliency", key[3]
    return "variant" if method.variant else method.system, key[3]
