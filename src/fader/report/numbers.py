"""The run's numbers for machines: averages for `dvc metrics`, points of curves for `dvc plots`."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fader.pipeline.methods import Method
from fader.report.records import AUROCS, Record, Records

POINTS = 200  # per curve: enough for a picture


def averages(records: Records) -> dict[str, Any]:
    """Means over seeds: ``average``, data set → method → every metric over its categories, and the
    two AUROCs, method → data set/category. Methods that did not run are left out."""
    result: dict[str, Any] = {"average": {}} | {metric: {} for metric in AUROCS}
    for method in records.methods:
        means = {place: _means(records, place, method) for place in records.places}
        ran = {place: mean for place, mean in means.items() if mean}
        for dataset in dict.fromkeys(map(records.dataset, ran)):
            of_dataset = [mean for place, mean in ran.items() if records.dataset(place) == dataset]
            result["average"].setdefault(dataset, {})[str(method)] = _mean(of_dataset)
        for metric in AUROCS:
            if ran:
                result[metric][str(method)] = {_name(records, p): m[metric] for p, m in ran.items()}
    return result


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


def _name(records: Records, place: str) -> str:
    category = records.config.categories[place]
    return f"{category.dataset}/{category.category}"


def metrics_json(numbers: Mapping[str, Any]) -> str:
    """The numbers as JSON."""
    return json.dumps(numbers, indent=2) + "\n"


def auroc_csv(numbers: Mapping[str, Any]) -> str:
    """AUROCs of `averages` as rows, one a category and method."""
    rows = [
        (f"{place} {method}", image, numbers["pixel_auroc"][method][place])
        for method, places in numbers["image_auroc"].items()
        for place, image in places.items()
    ]
    return table(("row", *AUROCS), sorted(rows))


def roc_csv(records: Iterable[Record]) -> str:
    """Image-level ROC of every method and seed of one category: rows method, point, fpr, tpr."""
    from sklearn.metrics import roc_curve  # seconds to import, and tables do without

    rows = []
    for record in records:
        fpr, tpr, _ = roc_curve(record.labels, record.scores)
        rows += [(_curve(record), *point) for point in _thinned(fpr, tpr)]
    return table(("method", "point", "fpr", "tpr"), rows)


def pr_csv(records: Iterable[Record]) -> str:
    """Image-level precision and recall, likewise: rows method, point, recall, precision."""
    from sklearn.metrics import precision_recall_curve

    rows = []
    for record in records:
        precision, recall, _ = precision_recall_curve(record.labels, record.scores)
        rows += [(_curve(record), *point) for point in _thinned(recall, precision)]
    return table(("method", "point", "recall", "precision"), rows)


def losses_csv(histories: Mapping[str, Path]) -> str:
    """Losses per epoch of every training of one category: rows curve, epoch, loss.

    Parameters
    ----------
    histories : name of a training → its CSV: stage, epoch, lr and losses, empty where a stage has
        none of that name.
    """
    rows = []
    for name, path in histories.items():
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
        several = len({line["stage"] for line in lines}) > 1
        for line in lines:
            epoch, stage = int(line.pop("epoch")), line.pop("stage")
            del line["lr"]
            for loss, value in line.items():
                if value:
                    curve = " ".join((name, stage, loss) if several else (name, loss))
                    rows.append((curve, epoch, float(value)))
    return table(("curve", "epoch", "loss"), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, numbers with six digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
    return stream.getvalue()


def _curve(record: Record) -> str:
    return f"{record.method} seed {record.seed}"


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[int, float, float]]:
    """Index and coordinates of at most ``POINTS`` points, first and last kept."""
    indices = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return list(zip(indices.tolist(), x[indices].tolist(), y[indices].tolist(), strict=True))
