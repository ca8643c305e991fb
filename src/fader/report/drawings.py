"""All figures of a run, each drawn from what the run found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fader.config import Config
from fader.evaluation import metrics
from fader.pipeline import artifacts, phases
from fader.pipeline.context import checked
from fader.pipeline.jobs import Job, method_of
from fader.pipeline.methods import Method
from fader.report import cost, labels, numbers, pictures
from fader.report.figures import charts, diagrams, paper
from fader.report.records import Record, Records
from fader.report.statistics import Statistics, rows_of, statistics
from fader.report.warn import levels


@dataclass(frozen=True)
class Findings:
    """What a run found, each part worked out once.

    Parameters
    ----------
    records : what was measured.
    reference : folder of the paper's tables.
    """

    records: Records
    reference: Path

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.records.config

    @cached_property
    def statistics(self) -> Statistics:
        """Differences with their intervals."""
        return statistics(self.records, self.reference)

    @cached_property
    def costs(self) -> list[dict[str, Any]]:
        """Rows of the cost table with their timings."""
        header, path = checked(self.config, Job("cost"), "cost")
        timings = artifacts.volatile(path)["timings"]
        return [row | {"timings": timings[row["name"]]} for row in header.facts["rows"]]

    @cached_property
    def traces(self) -> tuple[diagrams.Trace, diagrams.Trace]:
        """A normal and a test image on their way through FADeR."""
        return pictures.traces(self.config)

    @cached_property
    def compared(self) -> list[Method]:
        """EAR and FADeR under the base masker, and every baseline."""
        config = self.config
        base = [Method(stage, config.masks.base) for stage in ("ear", "fader")]
        return base + [Method("detector", name) for name in config.detectors]

    @cached_property
    def histories(self) -> dict[str, dict[str, Path]]:
        """Category → losses of everything trained on it, by a name for the legend."""
        return {place: _histories(self.config, place) for place in self.config.categories}


def _histories(config: Config, place: str) -> dict[str, Path]:
    files = {}
    for job in phases.jobs(config, place=place):
        path = phases.outputs(config, job).get("losses")
        if path is not None:
            facts = checked(config, job, "weights")[0].facts
            artifacts.check_beside(path, facts.get("losses"))
            files[f"{_trained(config, job)} seed {job.seed}"] = Path(path)
    return files


def _trained(config: Config, job: Job) -> str:
    """What a job trains, as in the names of methods."""
    if job.phase == "mask":
        return f"mask-{job.system}"
    return job.phase if job.phase == "ear" else str(method_of(config, job))


def _gains(found: Findings) -> Figure:
    records, table = found.records, found.statistics.intervals
    rows = []
    for masker, label in labels.maskers(found.config).items():
        ear, fader = Method("ear", masker), Method("fader", masker)
        for place, category in found.config.categories.items():
            here = rows_of(table, fader, ear, dataset=category.dataset, category=category.category)
            low, high = (float(here[bound].iloc[0]) for bound in ("low", "high"))
            if not isnan(low):
                before, after = (
                    _mean(records, place, each, "image_auroc") for each in (ear, fader)
                )
                title = records.title(place)
                rows.append(charts.Gain(label, title, before, after, low, high))
    return charts.gains(rows)


def _tradeoff(found: Findings) -> Figure:
    systems, timed = [], ""
    for row in (row for row in found.costs if row["kind"] == "system"):
        method, timing = Method.parse(row["name"]), row["timings"][0]
        places = found.records.places
        auroc = fmean(_mean(found.records, place, method, "image_auroc") for place in places)
        if timing["milliseconds"] is not None and not isnan(auroc):
            timed = f"{cost.DEVICE_LABEL[timing['device']]}, batch {timing['batch']}"
            label = labels.method(found.config, method)
            priced = charts.Priced(label, auroc, timing["milliseconds"], row["parameters"])
            systems.append(priced)
    return charts.tradeoff(systems, timed)


def _scales(found: Findings) -> Figure:
    criterion = f"validation, {found.config.validation.criterion}"
    if found.config.mosaic.policy == "oracle":
        criterion = "test labels, a diagnostic"
    return charts.scales([_search(found, place) for place in found.config.categories], criterion)


def _search(found: Findings, place: str) -> charts.Search:
    """The search of m* on a category."""
    jobs = [Job("mosaic", place, seed=seed) for seed in found.config.seeds]
    facts = [checked(found.config, job, "scale")[0].facts for job in jobs]
    title, scales = found.records.title(place), list(facts[0]["candidates"])
    if not scales:
        return charts.Search(title, [], [], [], [])
    truth = None
    if found.records.lacking(place, "image_auroc") is None:
        ear = Method("ear", found.config.masks.base)
        truth = np.array(found.records.get(place, ear, found.config.seeds[0]).labels)
    return charts.Search(
        title,
        scales=[int(scale) for scale in scales],
        chosen=[each["mosaic"] for each in facts],
        validation=[[each["candidates"][scale]["value"] for scale in scales] for each in facts],
        test=[
            [metrics.auroc(np.array(each["test_scores"][scale]), truth) for scale in scales]
            for each in facts
            if truth is not None
        ],
    )


def _roc(found: Findings) -> Figure:
    return charts.curves(
        [_curves(found, place, numbers.roc) for place in found.config.categories],
        ("false-positive rate", "true-positive rate"),
    )


def _pr(found: Findings) -> Figure:
    return charts.curves(
        [_curves(found, place, numbers.pr) for place in found.config.categories],
        ("recall", "precision"),
    )


def _curves(found: Findings, place: str, curve: Callable[[Record], numbers.Curve]) -> charts.Curves:
    """Curves of a category, with the first seed."""
    records, seed = found.records, found.config.seeds[0]
    lacking = records.lacking(place, "image_auroc")
    ran = [records.get(place, method, seed) for method in found.compared]
    lines = {
        labels.method(found.config, record.method): curve(record)
        for record in ran
        if record.missing is None and lacking is None
    }
    return charts.Curves(records.title(place), lines, lacking or "")


def _calibration(found: Findings) -> Figure:
    config, records = found.config, found.records
    (level,) = levels(config)[:1]
    points = {}
    for method in found.compared:
        cells = [
            (
                _mean(records, place, method, f"validation_{level}_auroc"),
                _mean(records, place, method, f"{level}_auroc"),
            )
            for place in records.places
        ]
        known = [cell for cell in cells if not any(map(isnan, cell))]
        points[labels.method(config, method)] = known
    return charts.calibration(points, config.report.warn_below, level)


def _losses(found: Findings) -> Figure:
    seed, shown = found.config.seeds[0], {"ear", *map(str, found.compared)}
    categories = []
    for place in found.config.categories:
        lines: dict[str, numbers.Curve] = {}
        for name, path in found.histories[place].items():
            of, _, number = name.rpartition(" seed ")
            if int(number) == seed and (of in shown or of.startswith("mask-")):
                lines |= {f"{of}{stage}": curve for stage, curve in numbers.losses(path).items()}
        categories.append(charts.Curves(found.records.title(place), lines, "nothing was trained"))
    return charts.curves(categories, ("optimiser step", "loss, first value = 1"), scale="log")


def _mean(records: Records, place: str, method: Method, metric: str) -> float:
    """Over the seeds that have it; NaN where none has."""
    values = records.values(place, method, metric).values()
    return fmean(values) if values else nan


DRAWINGS: Mapping[str, Callable[[Findings], Figure]] = {
    "fig1": lambda found: paper.figure1(list(pictures.examples(found.config))),
    "fig2": lambda found: paper.figure2(pictures.masking(found.config)),
    "fig3": lambda found: diagrams.figure3(found.traces[1]),
    "fig4": lambda found: diagrams.figure4(found.traces[0], found.config.fader.margin),
    "fig5": lambda found: diagrams.figure5(found.traces[1]),
    "fig6": lambda found: paper.figure6(pictures.suspects(found.config)),
    "gains": _gains,
    "tradeoff": _tradeoff,
    "scales": _scales,
    "roc": _roc,
    "pr": _pr,
    "calibration": _calibration,
    "losses": _losses,
}
