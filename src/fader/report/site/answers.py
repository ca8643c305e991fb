"""The first screen: does FADeR help, what was run, does it agree with the paper?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from fader.pipeline.methods import Method, of_variant
from fader.report import labels
from fader.report.expected import PAPER_TOLERANCE
from fader.report.layout import Table
from fader.report.paper import AVERAGE
from fader.report.records import Records
from fader.report.render import signed
from fader.report.site.sheets import tone
from fader.report.statistics import OURS, Statistics, rows_of

LEVELS = ("image", "pixel")


@dataclass(frozen=True)
class Effect:
    """FADeR − EAR under one masker on one data set.

    Parameters
    ----------
    base : whether the masker is the base masker, under which EAR was trained.
    difference, low, high : of image AUROC, mean over categories and seeds, with its 95 % interval;
        None where image AUROC is not measured.
    pixel : the same difference of pixel AUROC; None where it is not measured.
    control : image AUROC of the control arm (the same fine-tuning without a mask) − EAR's; None
        where the run has none, or under another masker.
    counts : level → categories in which AUROC is higher, equal and lower.
    """

    masker: str
    base: bool
    dataset: str
    difference: float | None
    low: float | None
    high: float | None
    pixel: float | None
    control: float | None
    counts: Mapping[str, Sequence[int]]

    @property
    def sign(self) -> int:
        """1 or −1 where the interval leaves out 0 on that side, otherwise 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


def effects(records: Records, statistics: Statistics) -> list[Effect]:
    """Those of every masker that ran, the base masker's first."""
    config = records.config
    maskers = [config.masks.base, *(m for m in config.masks.maskers if m != config.masks.base)]
    return [
        effect
        for masker in maskers
        for dataset in records.by_dataset()
        if (effect := _effect(records, statistics, masker, dataset)) is not None
    ]


def _effect(records: Records, statistics: Statistics, masker: str, dataset: str) -> Effect | None:
    config, places = records.config, records.by_dataset()[dataset]
    after, before = Method("fader", masker), Method("ear", masker)
    if not any(records.of(place, after) for place in places):
        return None
    mean = rows_of(statistics.intervals, after, before, dataset=dataset, category=AVERAGE).iloc[0]
    counts = {}
    for level in LEVELS:
        row = rows_of(statistics.counts, after, before, dataset=dataset, level=level, source=OURS)
        if len(row):
            counts[level] = tuple(int(row.iloc[0][name]) for name in ("up", "equal", "down"))
    control = None
    if masker == config.masks.base and "nomask" in config.variants:
        control = _gain(records, places, of_variant(config, "nomask"), before, "image_auroc")
    return Effect(
        masker=labels.maskers(config)[masker],
        base=masker == config.masks.base,
        dataset=title(records, dataset),
        difference=_number(mean["difference"]),
        low=_number(mean["low"]),
        high=_number(mean["high"]),
        pixel=_gain(records, places, after, before, "pixel_auroc"),
        control=control,
        counts=counts,
    )


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _gain(
    records: Records, places: Sequence[str], after: Method, before: Method, metric: str
) -> float | None:
    """Mean over the categories that have both, of means over seeds; None where none has."""
    pairs = [[records.values(p, method, metric) for method in (after, before)] for p in places]
    gains = [fmean(a.values()) - fmean(b.values()) for a, b in pairs if a and b]
    return fmean(gains) if gains else None


def title(records: Records, dataset: str) -> str:
    """A data set's name in print."""
    public = records.config.public_set(dataset)
    return labels.DATASETS.get(public or "", dataset)


@dataclass(frozen=True)
class Verdict:
    """An answer: ``mark`` is yes, no or open, ``text`` says it in a sentence."""

    mark: str
    text: str


def helps(found: Iterable[Effect]) -> Verdict:
    """Whether FADeR helps, by the base masker's intervals of the data sets."""
    measured = [effect for effect in found if effect.base and effect.difference is not None]
    if not measured:
        return Verdict("open", "It cannot be told: image AUROC is not measured on these images.")
    up = [effect.dataset for effect in measured if effect.sign > 0]
    down = [effect.dataset for effect in measured if effect.sign < 0]
    many = len(measured) > 1
    if len(up) == len(measured):
        return Verdict(
            "yes",
            f"Yes{', on every data set' if many else ''}: the 95 % interval lies"
            f" above 0{' everywhere' if many else ''}.",
        )
    if down and not up:
        return Verdict(
            "no", f"No: image AUROC falls on {', '.join(down)}, and the 95 % interval lies below 0."
        )
    if up:
        rest = f"; it falls on {', '.join(down)}" if down else "; elsewhere the interval includes 0"
        return Verdict("open", f"On some data sets: image AUROC rises on {', '.join(up)}{rest}.")
    intervals = "every 95 % interval includes" if many else "the 95 % interval includes"
    return Verdict(
        "open",
        f"Not settled: {intervals} 0. More test images, not more seeds, would narrow it.",
    )


def elsewhere(found: Iterable[Effect]) -> str | None:
    """The same of the other maskers, in a sentence; None where there are none."""
    signs = [effect.sign for effect in found if not effect.base and effect.low is not None]
    if not signs:
        return None
    return (
        f"Under the other maskers {signs.count(1)} of {len(signs)} intervals lie above 0,"
        f" {signs.count(-1) or 'none'} below."
    )


@dataclass(frozen=True)
class Agreement:
    """Ours beside the paper's numbers.

    Parameters
    ----------
    cells : number of cells compared.
    within, above, below : how many of these are within ``PAPER_TOLERANCE``, and outside of it.
    mean : of ours − paper.
    """

    cells: int
    within: int
    above: int
    below: int
    mean: float

    @property
    def text(self) -> str:
        """In a sentence."""
        return (
            f"{self.within} of {self.cells} AUROCs are within ±{PAPER_TOLERANCE:.3f} of the"
            f" paper's, {self.above} above, {self.below} below; mean of ours − paper"
            f" {signed(self.mean)}."
        )


def agreement(tables: Iterable[Table]) -> Agreement | None:
    """Of the tables that stand beside the paper's, each cell once; None where there are none."""
    differences: dict[tuple[str, str, str, str], float] = {}
    for table in tables:
        for row in table.frame.to_dict("records"):
            block = str(row[table.layout.block_name]) if table.layout.block_name else ""
            for column in table.layout.blocks[block]:
                value = row.get(f"difference_{column.key}")
                if row["category"] != AVERAGE and value is not None and not pd.isna(value):
                    where = (row["dataset"], row["category"], str(column.method), column.metric)
                    differences[where] = float(value)
    if not differences:
        return None
    tones = [tone(value) for value in differences.values()]
    return Agreement(
        cells=len(tones),
        within=tones.count("within"),
        above=tones.count("above"),
        below=tones.count("below"),
        mean=fmean(differences.values()),
    )
