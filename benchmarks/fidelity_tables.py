"""The rows of ``fidelity.py`` as the tables and the curve of docs/fidelity.md.

    python benchmarks/fidelity_tables.py [ROWS] [--curve FILE]

Prints a table of EAR and one of FADeR; a row is a category under one configuration on one machine,
its AUROCs are means over seeds with the standard deviation behind ±, as the label-free choice gets
them: every candidate's, weighted by how many of the ten splits take it by the rule of ties, in the
order in which its run listed them. *Regret* is what each rule gives away against the best
candidate: ties and best on twenty normals, best on a tenth of them. ``--curve`` draws EAR against
its length in steps, mean over seeds and machines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from fader.report.figures.style import plt

ROWS = Path(__file__).with_name("fidelity.csv")
GROUP = ["category", "set", "machine"]
RULES = {"chosen": "ties", "chosen_best": "best", "chosen_before": "a tenth"}
MEASURES = ["image_auroc", "pixel_auroc", "validation_image", "validation_pixel"]
LENGTH = "ear.steps=600"  # of every study that sets no other; it goes without saying


def main() -> None:
    """Print the tables; draw the curve where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="?", default=ROWS, help="CSV file")
    parser.add_argument("--curve", type=Path, help="SVG file to draw")
    args = parser.parse_args()
    rows = pd.read_csv(
        args.rows, keep_default_na=False, na_values={name: "" for name in [*MEASURES, *RULES]}
    )
    ear = rows[rows.detector == "ear"].assign(set=rows.set.map(of_ear))
    for of, candidate in ((ear, "scale"), (rows[rows.detector == "fader"], "point")):
        print(table(of, candidate).to_markdown(index=False, disable_numparse=True), end="\n\n")
    if args.curve:
        draw(ear, args.curve)
        print(f"{args.curve} drawn", file=sys.stderr)


def of_ear(settings: str) -> str:
    """The settings less FADeR's, whose grid shows in its rows."""
    return " ".join(one for one in settings.split() if not one.startswith("fader."))


def named(settings: str) -> str:
    """The settings of EAR less what goes without saying."""
    return " ".join(one for one in of_ear(settings).split() if one != LENGTH) or "as it is"


def label_free(rows: pd.DataFrame, rule: str = "chosen") -> pd.DataFrame:
    """(category, set, machine, seed) → every measure as a rule's choice gets it; NaN where what
    the rule chooses was not recorded."""
    weighted = rows[MEASURES].multiply(rows[rule] / 10, axis=0).where(rows[rule] != 0, 0.0)
    groups = weighted.groupby([rows[name] for name in [*GROUP, "seed"]])
    return groups.agg(lambda values: values.sum(skipna=False))


def table(rows: pd.DataFrame, candidate: str) -> pd.DataFrame:
    """A row a category, configuration and machine."""
    found = {rule: label_free(rows, rule) for rule in RULES}
    lines = []
    for key, of in rows.groupby(GROUP, sort=False):
        category, settings, machine = key
        means = of.groupby(candidate).image_auroc.mean()
        line = {
            "category": category,
            "set": named(settings),
            "machine": machine,
            "seeds": of.seed.nunique(),
            candidate: ", ".join(map(str, means.index)),
            "test image": " ".join(map(_short, means)),
        }
        best = of.groupby("seed").image_auroc.max()
        for rule, name in RULES.items():
            counts = of.groupby(candidate)[rule].sum(min_count=1)
            line[name] = "–" if counts.isna().any() else " ".join(f"{n:.0f}" for n in counts)
            line[f"regret, {name}"] = _spread(best - found[rule].loc[key].image_auroc, False)
        taken = found["chosen"].loc[key]
        lines.append(line | {name.replace("_", " "): _spread(taken[name]) for name in MEASURES})
    return pd.DataFrame(lines)


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def _spread(values: pd.Series, deviation: bool = True) -> str:
    """Mean, and the standard deviation over seeds where there are several and it is asked for."""
    if values.isna().any():
        return "–"
    spread = f" ± {_short(values.std())}" if deviation and len(values) > 1 else ""
    return _short(values.mean()) + spread


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
