"""The run's numbers for machines: averages for `dvc metrics`, points of curves for `dvc plots`."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fader.pipeline.methods import Method
from fader.report.records import AUROCS, Record, Records

POINTS = 200  # per curve: enough for a picture

Curve = tuple[np.ndarray, np.ndarray]
"""Its points' x and y."""


def averages(records: Records) -> dict[str, Any]:
    """Means over seeds: ``average``, data set → method → every metric over its categories, and the
    two AUROCs, method → data set/category. Methods that did not run are left out.

    Where some test images do not let one measure an AUROC, ``unmeasured`` says why, data
    set/category → metric → reason, and averages are over the other categories.
    """
    result: dict[str, Any] = {"average": {}} | {metric: {} for metric in AUROCS}
    for method in records.methods:
        means = {place: _means(records, place, method) for place in records.places}
        ran = {place: mean for place, mean in means.items() if mean}
        for dataset in dict.fromkeys(map(records.dataset, ran)):
            of_dataset = {p: mean for p, mean in ran.items() if records.dataset(p) == dataset}
            average = _average(records, of_dataset)
            result["average"].setdefault(dataset, {})[str(method)] = average
        for metric in AUROCS:
            values = {_name(records, p): mean[metric] for p, mean in ran.items() if metric in mean}
            if values:
                result[metric][str(method)] = values
    unmeasured = {
        _name(records, place): {
            metric: why for metric in AUROCS if (why := records.lacking(place, metric)) is not None
        }
        for place in records.places
    }
    reasons = {name: each for name, each in unmeasured.items() if each}
    return result | ({"unmeasured": reasons} if reasons else {})


def _means(records: Records, place: str, method: Method) -> dict[str, float]:
    return _mean([record.metrics for record in records.of(place, method).values()])


def _mean(values: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Mean of every metric that all have."""
    means: dict[str, float] = {}
    for name in values[0] if values else ():
        numbers = [value for each in values if (value := each.get(name)) is not None]
        if len(numbers) == len(values):
            means[name] = round(fmean(numbers), 6)
    return means


def _average(records: Records, means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean over categories of every metric that all have which let one measure it."""
    average: dict[str, float] = {}
    for name in dict.fromkeys(name for mean in means.values() for name in mean):
        of_those = [mean for place, mean in means.items() if records.lacking(place, name) is None]
        if all(name in mean for mean in of_those):
            average[name] = round(fmean(mean[name] for mean in of_those), 6)
    return average


def _name(records: Records, place: str) -> str:
    category = records.config.categories[place]
    return f"{category.dataset}/{category.category}"


def metrics_json(numbers: Mapping[str, Any]) -> str:
    """The numbers as JSON."""
    return json.dumps(numbers, indent=2) + "\n"


def auroc_csv(numbers: Mapping[str, Any]) -> str:
    """AUROCs of `averages` as rows, one a category and method; what is not measured is empty, and
    the row's name says why there is no image AUROC."""
    image, pixel = (numbers[metric] for metric in AUROCS)
    reasons = {
        place: each["image_auroc"]
        for place, each in numbers.get("unmeasured", {}).items()
        if "image_auroc" in each
    }
    cells = {(place, name) for each in (image, pixel) for name in each for place in each[name]}
    rows = [
        (
            f"{place} {name}" + (f": {reasons[place]}" if place in reasons else ""),
            image.get(name, {}).get(place),
            pixel.get(name, {}).get(place),
        )
        for place, name in cells
    ]
    bare = reasons.keys() - {place for place, _ in cells}
    rows += [(f"{place}: {reasons[place]}", None, None) for place in bare]
    return table(("row", *AUROCS), sorted(rows, key=lambda row: row[0]))


def roc(record: Record) -> Curve:
    """Image-level ROC: false- and true-positive rates."""
    from sklearn.metrics import roc_curve  # seconds to import, and tables do without

    fpr, tpr, _ = roc_curve(record.labels, record.scores)
    return fpr, tpr


def pr(record: Record) -> Curve:
    """Image-level recall and precision."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(record.labels, record.scores)
    return recall, precision


def roc_csv(records: Iterable[Record], lacking: str | None = None) -> str:
    """ROC of every method and seed of one category: rows method, point, fpr, tpr.

    Parameters
    ----------
    lacking : why there is none: the one entry of the legend, then.
    """
    return _curves(("fpr", "tpr"), records, roc, lacking)


def pr_csv(records: Iterable[Record], lacking: str | None = None) -> str:
    """Precision and recall, likewise: rows method, point, recall, precision."""
    return _curves(("recall", "precision"), records, pr, lacking)


def _curves(
    axes: tuple[str, str],
    records: Iterable[Record],
    curve: Callable[[Record], Curve],
    lacking: str | None,
) -> str:
    header = ("method", "point", *axes)
    if lacking is not None:
        return table(header, [(lacking, 0, None, None)])
    named = [(f"{record.method} seed {record.seed}", *curve(record)) for record in records]
    return table(header, [(name, *point) for name, x, y in named for point in _thinned(x, y)])


def losses_csv(histories: Mapping[str, Path]) -> str:
    """Losses of every training of one category, epoch by epoch: rows curve, step, loss.

    Parameters
    ----------
    histories : name of a training → its CSV: stage, epoch, step, lr and losses, empty where a stage
        has none of that name.
    """
    rows = []
    for name, path in histories.items():
        lines = _history(path)
        several = len({line["stage"] for line in lines}) > 1
        for line in lines:
            step, stage = int(line.pop("step")), line.pop("stage")
            del line["epoch"], line["lr"]
            for loss, value in line.items():
                if value:
                    curve = " ".join((name, stage, loss) if several else (name, loss))
                    rows.append((curve, step, float(value)))
    return table(("curve", "step", "loss"), rows)


def losses(path: Path) -> dict[str, Curve]:
    """Steps and loss of each stage of a training, as shares of its first value; by the stage's
    name, with a space before it where there are several."""
    lines = _history(path)
    stages = dict.fromkeys(line["stage"] for line in lines)
    curves = {}
    for stage in stages:
        of_stage = [line for line in lines if line["stage"] == stage and line["loss"]]
        steps = np.array([int(line["step"]) for line in of_stage])
        values = np.array([float(line["loss"]) for line in of_stage])
        if len(values) and values[0]:
            curves[f" {stage}" if len(stages) > 1 else ""] = steps, values / values[0]
    return curves


def _history(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, numbers with six digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
    return stream.getvalue()


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[int, float, float]]:
    """Index and coordinates of at most ``POINTS`` points, first and last kept."""
    indices = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return list(zip(indices.tolist(), x[indices].tolist(), y[indices].tolist(), strict=True))
