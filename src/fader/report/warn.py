"""What a run should say aloud, from the validation table. Without pandas: Snakemake asks for it."""

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from fader.config import Config
from fader.pipeline import paths
from fader.pipeline.methods import Method
from fader.report.paper import AVERAGE


def warnings(config: Config) -> list[str]:
    """A sentence for every category where FADeR's validation AUROC, the mean of image and pixel
    over seeds, is under ``report.warn_below``; none before the report is made, and none from a
    table of another layout."""
    path = Path(paths.table(config.run, "validation")[0])
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    system = str(Method("fader", config.masks.base))
    values = {
        f"{row['dataset']}/{row['category']}": fmean(
            float(row[f"validation_{level}_mean"]) for level in ("image", "pixel")
        )
        for row in rows
        if row.get("system") == system and row["category"] != AVERAGE
    }
    return sentences(values, config.report.warn_below)


def sentences(values: Mapping[str, float], bound: float) -> list[str]:
    """Warnings for the categories whose validation AUROC is under ``bound``."""
    return [
        f"Warning: {place}: the validation AUROC is {value:.3f}, under {bound:g}: reconstruction by"
        " inpainting may not work on these images; do not rely on the model before it has been"
        " tried on real defects."
        for place, value in values.items()
        if value < bound
    ]
