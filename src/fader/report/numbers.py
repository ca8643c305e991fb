"""The run's numbers for machines: averages for `dvc metrics`, points of curves for `dvc plots`."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

POINTS = 200  # per curve: enough for a picture


def averages(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds: every metric over categories, and the two AUROCs of each category."""
    result: dict[str, Any] = {"average": {}, "image_auroc": {}, "pixel_auroc": {}}
    for method in dict.fromkeys(record["method"] for record in records):
        mine = [record for record in records if record["method"] == method]
        places = dict.fromkeys(_place(record) for record in mine)
        means = {
            place: _mean([record["metrics"] for record in mine if _place(record) == place])
            for place in places
        }
        result["average"][method] = _mean(list(means.values()))
        for metric in ("image_auroc", "pixel_auroc"):
            result[metric][method] = {place: mean[metric] for place, mean in means.items()}
    return result


def auroc_csv(numbers: Mapping[str, Any]) -> str:
    """AUROCs of `averages` as rows, one a category and method."""
    rows = [
        (f"{place} {method}", image, numbers["pixel_auroc"][method][place])
        for method, places in numbers["image_auroc"].items()
        for place, image in places.items()
    ]
    return table(("row", "image_auroc", "pixel_auroc"), sorted(rows))


def roc_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Image-level ROC of every method and seed of one category: rows method, point, fpr, tpr."""
    from sklearn.metrics import roc_curve  # seconds to import, and tables do without

    rows = []
    for record in records:
        fpr, tpr, _ = roc_curve(record["labels"], record["scores"])
        rows += [(_curve(record), *point) for point in _thinned(fpr, tpr)]
    return table(("method", "point", "fpr", "tpr"), rows)


def pr_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Image-level precision and recall, likewise: rows method, point, recall,
    precision."""
    from sklearn.metrics import precision_recall_curve

    rows = []
    for record in records:
        precision, recall, _ = precision_recall_curve(record["labels"], record["scores"])
        rows += [(_curve(record), *point) for point in _thinned(recall, precision)]
    return table(("method", "point", "recall", "precision"), rows)


def losses_csv(histories: Mapping[str, Path]) -> str:
    """Losses per epoch of every trained artefact of one category: rows curve, epoch, loss."""
    rows = []
    for name, path in histories.items():
        with path.open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                epoch = int(float(line.pop("epoch")))
                del line["lr"]
                rows += [(f"{name} {loss}", epoch, float(value)) for loss, value in line.items()]
    return table(("curve", "epoch", "loss"), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, numbers with six digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
    return stream.getvalue()


def metrics_json(numbers: Mapping[str, Any]) -> str:
    return json.dumps(numbers, indent=2) + "\n"


def _place(record: Mapping[str, Any]) -> str:
    return f"{record['dataset']}/{record['category']}"


def _curve(record: Mapping[str, Any]) -> str:
    return f"{record['method']} seed {record['seed']}"


def _mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(fmean(value[name] for value in values), 6) for name in values[0]}


def _thinned(x: np.ndarray, y: np.ndarray) -> list[tuple[int, float, float]]:
    """Index and coordinates of at most ``POINTS`` points, first and last kept."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return list(zip(chosen.tolist(), x[chosen].tolist(), y[chosen].tolist(), strict=True))
