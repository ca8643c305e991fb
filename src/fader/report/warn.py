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
    FADeR's validation AUROC, the mean over seeds of what ``report.warn_by`` says, is under
    ``report.warn_below``. None before the report is made, and none from a table of another
    layout."""
    data = [
        (f"{row['dataset']}/{row['category']}", row["warnings"].splitlines())
        for row in _rows(config, "data")
    ]
    system = str(Method("fader", config.masks.base))
    values = {
        f"{row['dataset']}/{row['category']}": fmean(
            float(row[f"validation_{level}_mean"]) for level in levels(config)
        )
        for row in _rows(config, "validation")
        if row.get("system") == system and row["category"] != AVERAGE
    }
    return of_data(data) + sentences(values, config)


def levels(config: Config) -> tuple[str, ...]:
    """Levels whose validation AUROC a warning looks at."""
    by = config.report.warn_by
    return ("image", "pixel") if by == "mean" else (by,)


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


def sentences(values: Mapping[str, float], config: Config) -> list[str]:
    """Warnings for the categories whose validation AUROC is under ``report.warn_below``."""
    bound, which = config.report.warn_below, " and ".join(levels(config))
    return [
        f"Warning: {place}: the validation {which} AUROC is {value:.3f}, under {bound:g}, on images"
        " and defects on which nothing was chosen: reconstruction by"
        " inpainting may not work on these images; do not rely on the model before it has been"
        " tried on real defects."
        for place, value in values.items()
        if value < bound
    ]
