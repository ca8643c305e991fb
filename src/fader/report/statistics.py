"""How sure FADeR's gain over EAR is: a paired bootstrap over test images, and counts over
categories.

The paper prints single numbers. Here the difference of the image AUROCs, FADeR − EAR with the same
masks and the same seeds, carries a 95 % interval (percentile bootstrap; Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 13). Images are resampled with replacement within the
normal and within the defective ones, so that every resample has both classes, and as many of each
as the test set; both methods and all seeds see the same resample. Over categories, Wilcoxon's
signed-rank test and the paper's own way of counting: in how many subtasks AUROC rises, at the three
decimals printed, for our cells and for the paper's Tables 2 and 4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from tabulate import tabulate

from fader.errors import FaderError
from fader.report.paper import AVERAGE, Key, paper_values
from fader.report.table import ABSENT, ALL, DATASET_LABEL, MARKDOWN, MASKER_LABEL, Pair, Record
from fader.seeds import derive_seed

RESAMPLES = 10_000
LEVELS = ("image", "pixel")
EITHER = "either"
OURS = "ours"
FEWEST = 6  # with five differences, all of one sign, the two-sided p is 2 / 2**5 = 0.0625
BEFORE_AFTER = (2, 4)  # the paper's tables of EAR → FADeR
_BLOCK = 1_000  # resamples at a time, which bounds the memory and changes no number


class Bootstrap(NamedTuple):
    """A difference of AUROCs, in [−1, 1], on the test images and on every resample (R,) of them."""

    difference: float
    resampled: np.ndarray

    def interval(self) -> "Interval":
        """With the 2.5th and the 97.5th percentile of the resamples."""
        low, high = np.percentile(self.resampled, (2.5, 97.5))
        return Interval(self.difference, float(low), float(high))


class Interval(NamedTuple):
    """A difference of AUROCs and its 95 % interval."""

    difference: float
    low: float
    high: float


class SignedRank(NamedTuple):
    """Wilcoxon's test: non-zero differences, min(W+, W−) and the two-sided p, None below
    ``FEWEST``."""

    n: int
    statistic: float | None
    p: float | None


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
"""The two ``LEVELS`` of one subtask (a category under a masker)."""


@dataclass(frozen=True)
class Statistics:
    """The finished statistics of one run.

    intervals : a row per masker and category and an average row per masker: ``seeds`` (number),
    ``normal``, ``defective`` (test images), ``difference``, ``low``, ``high``; what did not run is
    empty. counts : a row per source ("ours", "Table 2", "Table 4"), masker ("all" last) and level:
    ``up``, ``equal``, ``down``, ``n``, ``w``, ``p``. markdown : both, for reading, with notes.
    """

    intervals: pd.DataFrame
    counts: pd.DataFrame
    markdown: str

    def intervals_csv(self) -> str:
        return self.intervals.to_csv(index=False, float_format="%.6f", lineterminator="\n")

    def counts_csv(self) -> str:
        return self.counts.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def bootstrap_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """AUROC of ``scores_b`` minus AUROC of ``scores_a``, with its 95 % interval.

    Arguments and errors as for ``bootstrap``.
    """
    return bootstrap(labels, scores_a, scores_b, resamples, seed).interval()


def bootstrap(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, resamples: int, seed: int
) -> Bootstrap:
    """AUROC(b) − AUROC(a), the mean over seeds, on the images and on stratified resamples of them.

    labels : (N,), 1 for a defective image, 0 for a normal one. scores_a, scores_b : image scores,
    (N,) of one training seed or (S, N) of several, higher is more anomalous; ties count one half.
    resamples : R. seed : of the resampling alone; the same labels and seed give the same resamples.

    A resample in which normal image i occurs n_i times and defective image j m_j times has
    AUROC = nᵀ C m / (|n| |m|), with C_ij = [s_j > s_i] + ½ [s_j = s_i]. 2 (C_b − C_a), summed over
    seeds, is a matrix of small integers, so that every sum below is exact.

    Raises FaderError for labels other than 0 and 1, a class without images, shapes that differ and
    scores that are not finite.
    """
    labels = np.asarray(labels)
    scores_a, scores_b = (np.atleast_2d(np.asarray(s, dtype=float)) for s in (scores_a, scores_b))
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise FaderError("bootstrap: labels must be 0 and 1, at least one image of each")
    if labels.ndim != 1 or scores_a.shape != scores_b.shape or scores_a.shape[1:] != labels.shape:
        raise FaderError(
            f"bootstrap: {labels.shape} labels, scores of shape {scores_a.shape} and"
            f" {scores_b.shape}; expected (N,) and twice (seeds, N)"
        )
    if not (np.isfinite(scores_a).all() and np.isfinite(scores_b).all()):
        raise FaderError("bootstrap: scores must be finite")
    order = sum(
        _order(b, labels) - _order(a, labels) for a, b in zip(scores_a, scores_b, strict=True)
    )
    normal, defective = order.shape
    scale = 2 * len(scores_a) * normal * defective
    of_normal, of_defective = np.random.default_rng(seed).spawn(2)
    parts = []
    for start in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - start)
        n = of_normal.multinomial(normal, np.full(normal, 1 / normal), count)
        m = of_defective.multinomial(defective, np.full(defective, 1 / defective), count)
        parts.append(((n @ order) * m).sum(axis=1) / scale)
    return Bootstrap(float(order.sum() / scale), np.concatenate(parts))


def _order(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """2 C − 1, (normal, defective): 1 where the defective image scores higher, 0 at a tie, or
    −1."""
    return np.sign(scores[labels == 1] - scores[labels == 0][:, None])


def average(parts: Sequence[Bootstrap]) -> Bootstrap:
    """Mean over categories, each resampled on its own and of equal weight, as the paper averages.

    parts : at least one, all of the same number of resamples.
    """
    return Bootstrap(
        fmean(part.difference for part in parts),
        np.mean([part.resampled for part in parts], axis=0),
    )


def signed_rank(differences: Iterable[float]) -> SignedRank:
    """Wilcoxon's signed-rank test that differences are symmetric about 0: two-sided and exact.

    Zeros are dropped and ties get their average rank. The null distribution is the one of these
    ranks, so p is exact with ties too, where ``scipy.stats.wilcoxon`` turns to an approximation
    from 14 values on. Differences are taken at the six decimals to which AUROCs are stored.
    """
    values = np.round([float(value) for value in differences], 6)
    values = values[values != 0]
    n = len(values)
    if n < FEWEST:
        return SignedRank(n, None, None)
    doubled = (2 * rankdata(np.abs(values))).astype(int)
    null = np.zeros(doubled.sum() + 1)
    null[0] = 1  # null[k]: probability that the ranks of the positive differences sum to k / 2
    for rank in doubled:
        null = (null + np.roll(null, rank)) / 2  # what rolls over the end is 0
    least = min(doubled[values > 0].sum(), doubled[values < 0].sum())
    return SignedRank(n, float(least / 2), float(min(1, 2 * null[: least + 1].sum())))


def tally(gains: Iterable[Decimal]) -> Tally:
    """Positive, zero and negative gains."""
    signs = [(gain > 0) - (gain < 0) for gain in gains]
    return Tally(*(signs.count(sign) for sign in (1, 0, -1)))


def gains(cells: Iterable[Cell], level: str) -> list[Decimal]:
    """Printed gain of every cell at a level.

    ``either`` is the greater of the two: above 0 where image or pixel AUROC rises, which is what
    the paper counts, and below 0 where both fall.
    """
    levels = LEVELS if level == EITHER else (level,)
    return [max(cell[each].printed() for each in levels) for cell in cells]


def before_after(values: Mapping[Key, float]) -> dict[str, dict[str, Cell]]:
    """Cells by masker and category, from the values of the paper's Table 2 or 4, averages left
    out."""
    cells: dict[str, dict[str, Cell]] = {}
    for category, system, _ in values:
        stage, _, masker = system.partition("-")
        if stage == "ear" and category != AVERAGE:
            cells.setdefault(masker, {})[category] = {
                level: Step(
                    values[category, system, f"{level}_auroc"],
                    values[category, f"fader-{masker}", f"{level}_auroc"],
                )
                for level in LEVELS
            }
    return cells


def table(
    records: Iterable[Record],
    categories: Sequence[Pair],
    *,
    maskers: Sequence[str],
    reference: Path,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Statistics:
    """FADeR against EAR under every masker, from the metrics records of one run.

    records : as for ``table.build``, with ``scores`` and ``labels`` of the test images where the
    status is "ok". categories : (dataset, category), the rows in order; records of others are left
    aside. maskers : methods ``ear-<masker>`` and ``fader-<masker>`` are compared. reference : the
    repository's ``reference/`` folder. seed : of the resampling; every category has its own stream,
    the same under every masker.

    A seed counts where both methods ran; what did not run is left out and noted. Raises FaderError
    for duplicate and damaged records, labels that differ within a category, and when no record
    belongs to the table.
    """
    index = _index(records, categories, maskers)
    seeds = sorted({key[3] for key in index})
    intervals: list[dict[str, Any]] = []
    counted: dict[str, list[Cell]] = {}
    notes: list[str] = []
    for masker in maskers:
        pairs = {pair: _paired(index, pair, masker, seeds) for pair in categories}
        found = {
            pair: _measured(both, resamples, derive_seed(seed, *pair, "bootstrap"))
            for pair, both in pairs.items()
            if both
        }
        intervals += _interval_rows(masker, categories, found)
        counted[masker] = [each.cell for each in found.values()]
        notes += _gap_notes(index, masker, pairs, seeds)
    counts = _count_rows(OURS, counted)
    for number in BEFORE_AFTER:
        of_paper = before_after(paper_values(number, reference))
        counts += _count_rows(f"Table {number}", {m: list(c.values()) for m, c in of_paper.items()})
    caption = f"{_data(index.values())} {_protocol(seeds, resamples)}"
    frames = _frame(intervals, _INTERVAL_KINDS), _frame(counts, _COUNT_KINDS)
    return Statistics(*frames, _markdown(*frames, caption, notes))


_Index = Mapping[tuple[str, str, str, int], Record]  # by dataset, category, method, seed
_Both = Mapping[int, tuple[Record, Record]]  # seed → records of EAR and of FADeR
_INTERVAL_KINDS = (
    dict.fromkeys(("masker", "dataset", "category"), "object")
    | dict.fromkeys(("seeds", "normal", "defective"), "Int64")
    | dict.fromkeys(("difference", "low", "high"), "float64")
)
_COUNT_KINDS = (
    dict.fromkeys(("source", "masker", "level"), "object")
    | dict.fromkeys(("up", "equal", "down", "n"), "Int64")
    | dict.fromkeys(("w", "p"), "float64")
)


def _index(
    records: Iterable[Record], categories: Sequence[Pair], maskers: Sequence[str]
) -> dict[tuple[str, str, str, int], Record]:
    methods = [method for masker in maskers for method in _methods(masker)]
    index: dict[tuple[str, str, str, int], Record] = {}
    for record in records:
        key = (record["dataset"], record["category"], record["method"], record["seed"])
        if key[:2] not in categories or key[2] not in methods:
            continue
        name = "metrics record {}/{}/{}/seed{}".format(*key)
        if key in index:
            raise FaderError(f"{name}: given twice; pass every record once")
        needs = {"metrics", "scores", "labels", "data"} if record["status"] == "ok" else {"reason"}
        if not needs <= record.keys():
            raise FaderError(
                f"{name}: no {', '.join(sorted(needs - record.keys()))}; run the evaluation again"
            )
        index[key] = record
    if not index:
        raise FaderError(f"statistics: no metrics record of {', '.join(methods)}")
    return index


def _paired(
    index: _Index, pair: Pair, masker: str, seeds: Sequence[int]
) -> dict[int, tuple[Record, Record]]:
    """Seeds for which both methods ran."""
    both = {}
    for seed in seeds:
        ear, fader = (index.get((*pair, method, seed)) for method in _methods(masker))
        if ear and fader and ear["status"] == fader["status"] == "ok":
            both[seed] = (ear, fader)
    return both


def _gap_notes(
    index: _Index, masker: str, pairs: Mapping[Pair, _Both], seeds: Sequence[int]
) -> list[str]:
    """Why a category, or a seed of it, is left out: a note per reason."""
    gaps: dict[str, list[str]] = {}
    for pair, both in pairs.items():
        reasons: dict[str, dict[int, None]] = {}
        for seed in (seed for seed in seeds if seed not in both):
            for record in (index.get((*pair, method, seed)) for method in _methods(masker)):
                if record is None:
                    reasons.setdefault("no record", {})[seed] = None
                elif record["status"] != "ok":
                    reasons.setdefault(str(record["reason"]).rstrip("."), {})[seed] = None
        for reason, which in reasons.items():
            short = "" if list(which) == seeds else f" (seed {', '.join(map(str, which))})"
            gaps.setdefault(reason, []).append("/".join(pair) + short)
    return [f"Left out, {masker}, {', '.join(where)}: {why}." for why, where in gaps.items()]


def _methods(masker: str) -> tuple[str, str]:
    return f"ear-{masker}", f"fader-{masker}"


@dataclass(frozen=True)
class _Measured:
    """One category under one masker."""

    seeds: int
    normal: int
    defective: int
    bootstrap: Bootstrap
    cell: Cell


def _measured(both: _Both, resamples: int, seed: int) -> _Measured:
    labels = next(iter(both.values()))[0]["labels"]
    for record in (record for records in both.values() for record in records):
        if record["labels"] != labels or len(record["scores"]) != len(labels):
            raise FaderError(
                f"metrics record {record['dataset']}/{record['category']}/{record['method']}/seed"
                f"{record['seed']}: its labels differ from those of the category's other records,"
                " or from its scores in number; run the evaluation again"
            )
    ear, fader = ([pair[side]["scores"] for pair in both.values()] for side in (0, 1))
    return _Measured(
        seeds=len(both),
        normal=labels.count(0),
        defective=labels.count(1),
        bootstrap=bootstrap(labels, ear, fader, resamples, seed),
        cell={level: _step(both, level) for level in LEVELS},
    )


def _step(both: _Both, level: str) -> Step:
    """Mean over seeds before and after FADeR."""
    name = f"{level}_auroc"
    return Step(*(fmean(pair[side]["metrics"][name] for pair in both.values()) for side in (0, 1)))


def _interval_rows(
    masker: str, categories: Sequence[Pair], found: Mapping[Pair, _Measured]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for pair in categories:
        row = {"masker": masker, "dataset": pair[0], "category": pair[1]}
        if pair in found:
            one = found[pair]
            row |= {"seeds": one.seeds, "normal": one.normal, "defective": one.defective}
            row |= one.bootstrap.interval()._asdict()
        rows.append(row)
    row = {"masker": masker, "dataset": ALL, "category": AVERAGE}
    if found:
        row |= average([one.bootstrap for one in found.values()]).interval()._asdict()
        numbers = {one.seeds for one in found.values()}
        row |= {"seeds": numbers.pop()} if len(numbers) == 1 else {}
    return [*rows, row]


def _count_rows(source: str, cells: Mapping[str, Sequence[Cell]]) -> list[dict[str, Any]]:
    """Rows of one source. All maskers together are counted only: their subtasks share images, so
    that a test over them would take one category for several."""
    rows = []
    together = {ALL: [cell for each in cells.values() for cell in each]} if len(cells) > 1 else {}
    for masker, mine in (dict(cells) | together).items():
        for level in (*LEVELS, EITHER):
            row = {"source": source, "masker": masker, "level": level}
            row |= tally(gains(mine, level))._asdict()
            if masker != ALL and level != EITHER:
                test = signed_rank(cell[level].after - cell[level].before for cell in mine)
                row |= {"n": test.n, "w": test.statistic, "p": test.p}
            rows.append(row)
    return rows


def _frame(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=kinds[name]) for name in kinds}
    )


def _data(records: Iterable[Record]) -> str:
    kinds = set()
    for data, name in ((each["data"], each["dataset"]) for each in records if "data" in each):
        known = DATASET_LABEL.get(data["paper_dataset"], f"{name}, not a data set of the paper")
        kinds.add(_SYNTHETIC if data["synthetic"] else known)
    return f"Data: {'; '.join(sorted(kinds))}."


def _protocol(seeds: Sequence[int], resamples: int) -> str:
    listed = ", ".join(map(str, seeds))
    of_seeds = f"mean over the seeds {listed}" if len(seeds) > 1 else f"one seed ({listed})"
    return (
        f"Image AUROC of FADeR − EAR under the same masks, {of_seeds}, with a 95 % interval: paired"
        f" percentile bootstrap over the test images, {resamples:,} resamples drawn with"
        " replacement within the normal and within the defective images, the same for both methods"
        " and all seeds. The interval speaks of other test images, not of another training; there"
        " are as many intervals as rows, and no correction for their number; where both methods"
        " come near 1.000 it is too short, for lack of images that could go wrong. Average: every"
        " category resampled on its own, all of equal weight."
    )


_SYNTHETIC = (
    "synthetic inspection images generated by this repository; not a reproduction of the paper's"
    " numbers"
)
_COUNTS = (
    "Subtasks (a category under a masker) in which FADeR's AUROC is above, equal to and below EAR's"
    " at the three decimals printed. Either: up where image or pixel AUROC is, down where both are."
    " W, p: Wilcoxon's signed-rank test over categories, two-sided and exact, of n non-zero"
    " differences."
)
_PAPER = (
    "The paper's own tables (arXiv 2407.04597, MVTec AD), counted the same way, with the"
    " corrections of `reference/corrections.csv`."
)


def signed(value: float | Decimal, digits: int = 3) -> str:
    """``+0.012``, ``−0.012`` or ``0.000``."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def pipe(headers: Sequence[str], rows: Sequence[Sequence[object]], align: str) -> str:
    """A Markdown table of finished cells; ``align`` has ``l`` or ``r`` for every column."""
    return tabulate(
        [[str(cell).translate(MARKDOWN) for cell in row] for row in rows],
        headers=headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=[{"l": "left", "r": "right"}[letter] for letter in align],
    )


def _markdown(
    intervals: pd.DataFrame, counts: pd.DataFrame, caption: str, notes: Sequence[str]
) -> str:
    several = intervals.loc[intervals["dataset"] != ALL, "dataset"].nunique() > 1
    rows = []
    for row in intervals.to_dict("records"):
        named = several and row["dataset"] != ALL
        place = f"{row['dataset']}/{row['category']}" if named else row["category"]
        images = "" if pd.isna(row["normal"]) else f"{row['normal']} + {row['defective']}"
        cells = [ABSENT, ABSENT]
        if not pd.isna(row["difference"]):
            cells = [signed(row["difference"]), f"{signed(row['low'])} … {signed(row['high'])}"]
        rows.append(
            [
                MASKER_LABEL.get(row["masker"], row["masker"]),
                place,
                _whole(row["seeds"]),
                images,
                *cells,
            ]
        )
    headers = ["Masker", "Category", "Seeds", "Normal + defective", "FADeR − EAR", "95 % interval"]
    ours = counts["source"] == OURS
    sections = [
        caption,
        pipe(headers, rows, "llrrrr"),
        _COUNTS,
        _counts_table(counts[ours], ["masker", "level"]),
        _PAPER,
        _counts_table(counts[~ours], ["source", "masker", "level"]),
    ]
    if notes:
        sections.append("\n".join(f"- {note.translate(MARKDOWN)}" for note in notes))
    return "\n\n".join(sections) + "\n"


def _counts_table(counts: pd.DataFrame, leading: list[str]) -> str:
    rows = []
    for row in counts.to_dict("records"):
        label = MASKER_LABEL.get(row["masker"]) if row["source"] == OURS else None
        shown = row | {"masker": label or row["masker"]}
        line = [shown[name] for name in leading]
        line += [_whole(row[name]) for name in ("up", "equal", "down", "n")]
        if pd.isna(row["n"]):
            line += ["", ""]
        elif pd.isna(row["p"]):
            line += [ABSENT, "too few categories"]
        else:
            line += [f"{row['w']:g}", f"{row['p']:.2g}"]
        rows.append(line)
    headers = [name.capitalize() for name in leading]
    headers += ["up", "equal", "down", "n", "W", "p"]
    return pipe(headers, rows, "l" * len(leading) + "r" * 6)


def _whole(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
