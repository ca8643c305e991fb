"""How sure differences between methods are: intervals, counts over categories, signed ranks.

The paper prints single numbers. Here the difference of two image AUROCs, with the same seeds,
carries a 95 % interval: FADeR − EAR under every masker, and FADeR and EAR − every baseline. Beside
it stand Wilcoxon's signed-rank test over the categories of a data set, and the paper's own way of
counting, in how many subtasks AUROC rises, for our cells and for the paper's Tables 2 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from fader.config import Config
from fader.evaluation.bootstrap import RESAMPLES, Bootstrap, average, bootstrap, signed_rank
from fader.pipeline.methods import Method
from fader.report import labels
from fader.report.gains import (
    BEFORE_AFTER,
    EITHER,
    LEVELS,
    Cell,
    Step,
    before_after,
    gains,
    tally,
)
from fader.report.layout import frame
from fader.report.paper import AVERAGE, PAPER_DATASET, paper_values
from fader.report.records import AUROCS, Record, Records
from fader.report.render import ABSENT, bullets, pipe, signed
from fader.seeds import derive_seed

OURS = "ours"
ALL = "all maskers"


@dataclass(frozen=True)
class Comparison:
    """The gain of a method over another one."""

    method: Method
    against: Method

    @property
    def of_masker(self) -> bool:
        """Whether this is FADeR − EAR, as in the paper's tables."""
        return self.against == Method("ear", self.method.system)

    def label(self, config: Config) -> str:
        """The comparison as printed."""
        if self.of_masker:
            return f"FADeR − EAR, {labels.maskers(config)[self.method.system]}"
        return f"{labels.STAGES[self.method.stage]} − {labels.method(config, self.against)}"


@dataclass(frozen=True)
class Statistics:
    """The finished statistics of a run.

    Parameters
    ----------
    intervals : a row per comparison and category, and an average row per data set: ``seeds``
        (number), ``normal``, ``defective`` (test images), ``difference``, ``low``, ``high``; what
        did not run, or cannot be measured, is empty.
    counts : a row per source ("ours", "Table 2", "Table 4"), data set, comparison and level that
        is measured: ``up``, ``equal``, ``down``, ``n``, ``w``, ``p``.
    markdown : both, with notes.
    """

    intervals: pd.DataFrame
    counts: pd.DataFrame
    markdown: str

    def intervals_csv(self) -> str:
        """``intervals`` as CSV, six decimals."""
        return self.intervals.to_csv(index=False, float_format="%.6f", lineterminator="\n")

    def counts_csv(self) -> str:
        """``counts`` as CSV, six digits."""
        return self.counts.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def comparisons(config: Config) -> list[Comparison]:
    """FADeR − EAR under every masker; FADeR and EAR, under the base masker, − every baseline."""
    base = config.masks.base
    return [
        *(Comparison(Method("fader", m), Method("ear", m)) for m in config.masks.maskers),
        *(
            Comparison(Method(stage, base), Method("detector", name))
            for name in config.detectors
            for stage in ("fader", "ear")
        ),
    ]


def statistics(
    records: Records, reference: Path, resamples: int = RESAMPLES, seed: int = 0
) -> Statistics:
    """All comparisons of a run.

    Parameters
    ----------
    reference : the repository's ``reference/`` folder.
    seed : of the resampling; every category has its own stream, the same for every comparison. A
        training seed counts where both methods ran; what did not run, or cannot be measured, is
        left out and noted.

    Raises
    ------
    FaderError : scores or labels that cannot be compared; a damaged table of the paper.
    """
    intervals: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    measured = {
        comparison: _measured(records, comparison, resamples, seed)
        for comparison in comparisons(records.config)
    }
    for comparison, results in measured.items():
        intervals += _interval_rows(records, comparison, results)
    for dataset, places in records.by_dataset().items():
        cells = {
            (str(comparison.method), str(comparison.against)): [
                results[place].cell for place in places if place in results
            ]
            for comparison, results in measured.items()
            if results.keys() & set(places)
        }
        pairs = [(str(c.method), str(c.against)) for c in measured if c.of_masker]
        of_masker = [pair for pair in pairs if pair in cells]
        counts += _count_rows(OURS, dataset, cells, of_masker)
    for number in BEFORE_AFTER:
        of_paper = {
            (str(Method("fader", masker)), str(Method("ear", masker))): list(cells.values())
            for masker, cells in before_after(paper_values(number, reference)).items()
        }
        dataset = PAPER_DATASET[number]
        counts += _count_rows(f"Table {number}", dataset, of_paper, list(of_paper))
    frames = frame(intervals, _INTERVAL_KINDS), frame(counts, _COUNT_KINDS)
    return Statistics(*frames, _markdown(records, *frames, resamples))


def rows_of(frame: pd.DataFrame, method: Method, against: Method, **where: str) -> pd.DataFrame:
    """The rows of ``Statistics.intervals`` or ``counts`` about a method's gain over another one.

    Parameters
    ----------
    where : column → its value.
    """
    for name, value in ({"method": str(method), "against": str(against)} | where).items():
        frame = frame[frame[name] == value]
    return frame


_INTERVAL_KINDS = (
    dict.fromkeys(("method", "against", "dataset", "category"), "object")
    | dict.fromkeys(("seeds", "normal", "defective"), "Int64")
    | dict.fromkeys(("difference", "low", "high"), "float64")
)
_COUNT_KINDS = (
    dict.fromkeys(("source", "dataset", "method", "against", "level"), "object")
    | dict.fromkeys(("up", "equal", "down", "n"), "Int64")
    | dict.fromkeys(("w", "p"), "float64")
)


@dataclass(frozen=True)
class _Measured:
    """One comparison on one category; ``bootstrap`` is None where image AUROC is not measured."""

    seeds: int
    normal: int
    defective: int
    bootstrap: Bootstrap | None
    cell: Cell


def _measured(
    records: Records, comparison: Comparison, resamples: int, seed: int
) -> dict[str, _Measured]:
    """Category → what was measured of a comparison, where both methods ran."""
    results = {}
    for place, category in records.config.categories.items():
        after, before = (
            records.of(place, each) for each in (comparison.method, comparison.against)
        )
        both = [(before[each], after[each]) for each in after if each in before]
        if not both:
            continue
        labels = list(both[0][0].labels)
        levels = [each for each in LEVELS if records.lacking(place, f"{each}_auroc") is None]
        stream = derive_seed(seed, category.dataset, category.category, "bootstrap")
        results[place] = _Measured(
            seeds=len(both),
            normal=labels.count(0),
            defective=labels.count(1),
            bootstrap=_bootstrap(both, resamples, stream) if "image" in levels else None,
            cell={level: _step(both, level) for level in levels},
        )
    return results


def _bootstrap(both: Sequence[tuple[Record, Record]], resamples: int, seed: int) -> Bootstrap:
    before, after = ([pair[side].scores for pair in both] for side in (0, 1))
    return bootstrap(both[0][0].labels, before, after, resamples, seed)


def _step(both: Sequence[tuple[Record, Record]], level: str) -> Step:
    """Means over seeds before and after."""
    name = f"{level}_auroc"
    return Step(*(fmean(pair[side].metrics[name] for pair in both) for side in (0, 1)))  # type: ignore[misc]  # measured


def _interval_rows(
    records: Records, comparison: Comparison, results: Mapping[str, _Measured]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for dataset, places in records.by_dataset().items():
        named: dict[str, Any] = {
            "method": str(comparison.method),
            "against": str(comparison.against),
            "dataset": dataset,
        }
        for place in places:
            row = named | {"category": records.config.categories[place].category}
            if place in results:
                one = results[place]
                row |= {"seeds": one.seeds, "normal": one.normal, "defective": one.defective}
                if one.bootstrap is not None:
                    row |= one.bootstrap.interval()._asdict()
            rows.append(row)
        row = named | {"category": AVERAGE}
        ran = [results[place] for place in places if place in results]
        parts = [one.bootstrap for one in ran if one.bootstrap is not None]
        if parts:
            row |= average(parts).interval()._asdict()
            numbers = {one.seeds for one in ran if one.bootstrap is not None}
            row |= {"seeds": numbers.pop()} if len(numbers) == 1 else {}
        rows.append(row)
    return rows


def _count_rows(
    source: str,
    dataset: str,
    cells: Mapping[tuple[str, str], Sequence[Cell]],
    of_masker: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    """Rows of one source and data set, of what is measured at a level. All maskers together are
    counted only: their subtasks share images, so that a test over them would take one category for
    several."""
    together = {}
    if len(of_masker) > 1:
        together = {(ALL, ""): [cell for key in of_masker for cell in cells[key]]}
    rows = []
    for (method, against), subtasks in (dict(cells) | together).items():
        for level in (*LEVELS, EITHER):
            found = gains(subtasks, level)
            if not found:
                continue
            row: dict[str, Any] = {
                "source": source,
                "dataset": dataset,
                "method": method,
                "against": against,
            }
            row |= {"level": level} | tally(found)._asdict()
            if method != ALL and level != EITHER:
                steps = [cell[level] for cell in subtasks if level in cell]
                test = signed_rank(step.after - step.before for step in steps)
                row |= {"n": test.n, "w": test.statistic, "p": test.p}
            rows.append(row)
    return rows


_COUNTS = (
    "Subtasks (a category under a masker, or beside a baseline) in which the first method's AUROC"
    " is above, equal to and below the second's at the three decimals printed. Either: up where"
    " image or pixel AUROC is, down where both are. W, p: Wilcoxon's signed-rank test over the"
    " categories of a data set, two-sided and exact, of n non-zero differences."
)
_NO_COUNTS = "Nothing to count: no comparison has an AUROC on both sides."
_PAPER = (
    "The paper's own tables (arXiv 2407.04597, MVTec AD), counted the same way, with the"
    " corrections of `reference/corrections.csv`."
)


def _protocol(seeds: Sequence[int], resamples: int) -> str:
    listed = ", ".join(map(str, seeds))
    of_seeds = f"mean over the seeds {listed}" if len(seeds) > 1 else f"one seed ({listed})"
    return (
        f"Differences of image AUROC, FADeR − EAR under the same masks, {of_seeds}, with a 95 %"
        " interval: paired percentile bootstrap over the test images,"
        f" {resamples:,} resamples drawn with replacement within the normal and within the"
        " defective images, the same for both methods and all seeds. The interval speaks of other"
        " test images, not of another training; there are as many intervals as rows, and no"
        " correction for their number; where both methods come near 1.000 it is too short, for"
        " lack of images that could go wrong. Average: every category of the data set resampled"
        " on its own, all of equal weight."
    )


def _markdown(
    records: Records, intervals: pd.DataFrame, counts: pd.DataFrame, resamples: int
) -> str:
    config = records.config
    names = {(str(c.method), str(c.against)): c.label(config) for c in comparisons(config)}
    baselines = "Baselines stand beside FADeR and EAR under the base masker's masks."
    caption = f"{records.provenance(records.places)} {_protocol(config.seeds, resamples)}"
    ours = counts["source"] == OURS
    sections = [
        f"{caption} {baselines}" if config.detectors else caption,
        _intervals_table(intervals, names),
        _COUNTS,
        _counts_table(counts[ours], "dataset", names) if ours.any() else _NO_COUNTS,
        _PAPER,
        _counts_table(counts[~ours], "source", {}),
    ]
    methods = dict.fromkeys(each for c in comparisons(config) for each in (c.method, c.against))
    gaps = records.gaps(((method, "image_auroc") for method in methods), records.places)
    notes = [f"Left out: {note}" for note in gaps]
    notes += records.unmeasured(AUROCS, records.places)
    return "\n\n".join(sections) + "\n" + bullets(notes)


def _intervals_table(intervals: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> str:
    several = intervals["dataset"].nunique() > 1
    rows = []
    for key, group in groupby(intervals.to_dict("records"), lambda r: (r["method"], r["against"])):
        for number, row in enumerate(group):
            place = f"{row['dataset']}/{row['category']}" if several else row["category"]
            images = "" if pd.isna(row["normal"]) else f"{row['normal']} + {row['defective']}"
            cells = [ABSENT, ABSENT]
            if not pd.isna(row["difference"]):
                cells = [signed(row["difference"]), f"{signed(row['low'])} … {signed(row['high'])}"]
            name = "" if number else names[key]
            rows.append([name, place, _whole(row["seeds"]), images, *cells])
    headers = ["Comparison", "Category", "Seeds", "Normal + defective", "Difference"]
    return pipe([*headers, "95 % interval"], rows, "llrrrr")


def _counts_table(counts: pd.DataFrame, leading: str, names: Mapping[tuple[str, str], str]) -> str:
    rows = []
    for row in counts.to_dict("records"):
        method, against = row["method"], row["against"]
        name = names.get((method, against), f"{method} − {against}" if against else method)
        line = [row[leading], name, row["level"]]
        line += [_whole(row[column]) for column in ("up", "equal", "down", "n")]
        if pd.isna(row["n"]):
            line += ["", ""]
        elif pd.isna(row["p"]):
            line += [ABSENT, "too few categories"]
        else:
            line += [f"{row['w']:g}", f"{row['p']:.2g}"]
        rows.append(line)
    headers = [leading.capitalize(), "Comparison", "Level", "up", "equal", "down", "n", "W", "p"]
    return pipe(headers, rows, "lllrrrrrr")


def _whole(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
