"""What a run should say aloud, from the tables of its data and of its validation. Without pandas:
Snakemake asks for it."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from fader.config import Config
from fader.pipeline import paths
from fader.pipeline.methods import Method
from fader.report.paper import AVERAGE


def warnings(config: Config) -> list[str]:
    """What was found odd in the images of a category; and a sentence for every category where
    FADeR's validation AUROC, the mean of image and pixel over seeds, is under
    ``report.warn_below``. None before the report is made, and none from a table of another
    layout."""
    data = [
        (f"{row['dataset']}/{row['category']}", row["warnings"].splitlines())
        for row in _rows(config, "data")
    ]
    system = str(Method("fader", config.masks.base))
    values = {
        f"{row['dataset']}/{row['category']}": fmean(
            float(row[f"validation_{level}_mean"]) for level in ("image", "pixel")
        )
        for row in _rows(config, "validation")
        if row.get("system") == system and row["category"] != AVERAGE
    }
    return of_data(data) + sentences(values, config.report.warn_below)


def _rows(config: Config, name: str) -> list[dict[str, str]]:
    """Rows of a table of the run; none where it is not made."""
    path = Path(paths.table(config.run, name)[0])
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def of_data(found: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Sentences on what was found in the images, a category's in turn."""
    return [f"Warning: {place}: {text.rstrip('.')}." for place, texts in found for text in texts]


def sentences(values: Mapping[str, float], bound: float) -> list[str]:
    """Warnings for the categories whose validation AUROC is under ``bound``."""
    return [
        f"Warning: {place}: the validation AUROC is {value:.3f}, under {bound:g}: reconstruction by"
        " inpainting may not work on these images; do not rely on the model before it has been"
        " tried on real defects."
        for place, value in values.items()
        if value < bound
    ]
