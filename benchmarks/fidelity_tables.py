"""The rows of ``fidelity.py`` as the tables and the curve of docs/fidelity.md.

    python benchmarks/fidelity_tables.py [ROWS] [--curve FILE]

Prints a table of EAR and one of FADeR; a row is a category under one configuration on one machine,
its AUROCs are means over seeds with the standard deviation behind ±. *Label-free* is what the
choice of m* (of η and schedule) gets: the AUROC of every candidate, weighted by how many of the ten
splits take it; *regret* is what that gives away against the best candidate, *before* the same with
a tenth of the normals and no rule of ties. ``--curve`` draws EAR against its length in steps, mean
over seeds and machines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from fader.report.figures.style import plt

ROWS = Path(__file__).with_name("fidelity.csv")
GROUP = ["category", "set", "machine"]
MEASURES = ["image_auroc", "pixel_auroc", "validation_image", "validation_pixel"]
LENGTH = "ear.steps=600"  # of every study that sets no other; it goes without saying


def main() -> None:
    """Print the tables; draw the curve where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="?", default=ROWS, help="CSV file")
    parser.add_argument("--curve", type=Path, help="SVG file to draw")
    args = parser.parse_args()
    rows = pd.read_csv(args.rows, keep_default_na=False, na_values={name: "" for name in MEASURES})
    rows["set"] = rows.set.map(of_ear)
    for detector, candidate in (("ear", "scale"), ("fader", "point")):
        of = rows[rows.detector == detector]
        print(table(of, candidate).to_markdown(index=False, disable_numparse=True), end="\n\n")
    if args.curve:
        draw(rows[rows.detector == "ear"], args.curve)
        print(f"{args.curve} drawn", file=sys.stderr)


def of_ear(settings: str) -> str:
    """The settings less FADeR's, whose grid shows in its rows."""
    return " ".join(one for one in settings.split() if not one.startswith("fader."))


def named(settings: str) -> str:
    """The settings less what goes without saying."""
    return " ".join(one for one in settings.split() if one != LENGTH) or "as it is"


def label_free(rows: pd.DataFrame, choice: str = "chosen") -> pd.DataFrame:
    """(category, set, machine, seed) → every measure as the label-free choice gets it."""
    taken = rows[rows[choice] > 0]
    weighted = taken[MEASURES].multiply(taken[choice] / 10, axis=0)
    return weighted.groupby([taken[name] for name in [*GROUP, "seed"]]).sum(min_count=1)


def table(rows: pd.DataFrame, candidate: str) -> pd.DataFrame:
    """A row a category, configuration and machine."""
    chosen, before, lines = label_free(rows), label_free(rows, "chosen_before"), []
    for key, of in rows.groupby(GROUP, sort=False):
        category, settings, machine = key
        counts = of.groupby(candidate)[["chosen", "chosen_before"]].sum()
        line = {
            "category": category,
            "set": named(settings),
            "machine": machine,
            "seeds": of.seed.nunique(),
            candidate: ", ".join(map(str, counts.index)),
            "test image": " ".join(map(_short, of.groupby(candidate).image_auroc.mean())),
            "chosen": " ".join(map(str, counts.chosen)),
            "chosen before": " ".join(map(str, counts.chosen_before)),
        }
        best = of.groupby("seed").image_auroc.max()
        for name, choice in (("regret", chosen), ("before", before)):
            line[name] = _short((best - choice.loc[key].image_auroc).mean())
        found = chosen.loc[key]
        lines.append(line | {name.replace("_", " "): _spread(found[name]) for name in MEASURES})
    return pd.DataFrame(lines)


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def _spread(values: pd.Series) -> str:
    """Mean, and the standard deviation over seeds where there are several."""
    if values.isna().all():
        return "–"
    deviation = f" ± {_short(values.std())}" if len(values) > 1 else ""
    return _short(values.mean()) + deviation


def draw(rows: pd.DataFrame, path: Path) -> None:
    """EAR against steps, a panel a category: image AUROC of the test set and of validation at the
    label-free scale, and the best that a scale has in the test set."""
    rows = rows[rows.set.str.fullmatch(r"ear\.steps=\d+")]
    found = label_free(rows)
    found["best"] = rows.groupby([*GROUP, "seed"]).image_auroc.max()
    found = found.reset_index()
    found["steps"] = found.set.str.removeprefix("ear.steps=").astype(int)
    measures = ["image_auroc", "best", "validation_image"]
    mean = found.groupby(["category", "steps"])[measures].mean()
    categories = list(dict.fromkeys(found.category))
    figure, axes = plt.subplots(1, len(categories), figsize=(1.7 * len(categories), 1.8))
    for axis, category in zip(axes, categories, strict=True):
        of = mean.loc[category]
        axis.plot(of.index, of.image_auroc, marker="o", label="test")
        axis.plot(of.index, of.best, marker="^", ls=":", label="test, best scale")
        axis.plot(of.index, of.validation_image, marker="s", ls="--", label="validation")
        axis.set(xscale="log", ylim=(0.4, 1.0), title=category, xlabel="steps of four images")
        axis.set_xticks(of.index, map(str, of.index))
        axis.minorticks_off()
    axes[0].set_ylabel("image AUROC")
    axes[0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
