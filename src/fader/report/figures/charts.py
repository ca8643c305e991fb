"""Charts of what a run measured, which the paper does not print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fader.report.figures.style import plt

WIDTH = 7.2  # inches, a page
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Gain:
    """Image AUROC before and after FADeR, and the difference with its 95 % interval; of one masker
    on one category."""

    masker: str
    place: str
    before: float
    after: float
    low: float
    high: float


def gains(rows: Sequence[Gain]) -> Figure:
    """Dumbbells from EAR (hollow) to FADeR (filled), and beside them the differences with their
    bootstrap intervals."""
    figure, (left, right) = plt.subplots(
        1,
        2,
        sharey=True,
        figsize=(WIDTH, 0.17 * len(rows) + 0.9),
        width_ratios=(3, 2),
        layout="constrained",
    )
    places = np.arange(len(rows))[::-1]
    before, after = (np.array([getattr(row, each) for row in rows]) for each in ("before", "after"))
    left.hlines(places, before, after, color="0.6", linewidth=1)
    left.plot(before, places, "o", markerfacecolor="white", color="C0", label="EAR")
    left.plot(after, places, "o", color="C0", label="FADeR")
    low, high = (np.array([getattr(row, each) for row in rows]) for each in ("low", "high"))
    difference = after - before
    right.axvline(0, color="0.6", linewidth=0.6)
    right.hlines(places, low, high, color="C0", linewidth=1)
    right.plot(difference, places, "o", color="C0")
    left.set_yticks(places, [f"{row.place}, {row.masker}" for row in rows], parse_math=False)
    left.set(xlabel="image AUROC", ylim=(-0.7, len(rows) - 0.3))
    right.set(xlabel="FADeR − EAR, 95 % interval")
    right.tick_params(left=False)
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


@dataclass(frozen=True)
class Priced:
    """A system's mean image AUROC, milliseconds an image and parameters."""

    label: str
    auroc: float
    milliseconds: float
    parameters: int


def tradeoff(systems: Sequence[Priced], device: str) -> Figure:
    """AUROC against milliseconds and against parameters, with the systems that none beats in both
    (the Pareto front) joined.

    Parameters
    ----------
    device : on which the milliseconds were measured, and of how many images at a time.
    """
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(WIDTH, 3.6), layout="constrained")
    auroc = np.array([each.auroc for each in systems])
    costs = (
        (np.array([each.milliseconds for each in systems]), f"milliseconds an image, {device}"),
        (np.array([each.parameters / 1e6 for each in systems]), "parameters, millions"),
    )
    for place, (cost, name) in zip(axes, costs, strict=True):
        best = front(cost, auroc)
        place.plot(cost[best], auroc[best], drawstyle="steps-post", color="0.7", zorder=0)
        for number, (x, y) in enumerate(zip(cost, auroc, strict=True)):
            filled = number in best
            place.plot(
                x,
                y,
                MARKERS[number // 7 % len(MARKERS)],
                color=f"C{number % 7}",
                markerfacecolor=None if filled else "white",
                label=systems[number].label,
            )
            place.annotate(str(number + 1), (x, y), (3, 2), textcoords="offset points", fontsize=5)
        place.set(xlabel=name, xscale="log")
    axes[0].set_ylabel("mean image AUROC")
    handles, labels = axes[0].get_legend_handles_labels()
    numbered = [f"{number} {label}" for number, label in enumerate(labels, 1)]
    figure.legend(handles, numbered, loc="outside right upper", fontsize=5.5)
    return figure


def front(cost: np.ndarray, value: np.ndarray) -> list[int]:
    """Indices, by rising cost, of what nothing beats: nothing costs as little and is worth more,
    nor costs less and is worth as much."""
    best: list[int] = []
    for index in sorted(range(len(cost)), key=lambda i: (cost[i], -value[i])):
        if not best or value[index] > value[best[-1]]:
            best.append(index)
    return best


@dataclass(frozen=True)
class Search:
    """The search of m* on a category.

    Parameters
    ----------
    scales : candidates, ascending; none where m* is fixed.
    chosen : m* of each seed.
    validation : the criterion, a row of one value a scale for each seed.
    test : test image AUROC likewise; no rows where it is unknown.
    """

    title: str
    scales: Sequence[int]
    chosen: Sequence[int]
    validation: Sequence[Sequence[float]]
    test: Sequence[Sequence[float]]


def scales(searches: Sequence[Search], criterion: str) -> Figure:
    """AUROC over the mosaic's scale: the criterion, m* of every seed ringed, and dashed the test's
    image AUROC."""
    figure, axes = _panels(len(searches), 1.3)
    for place, each in zip(axes, searches, strict=False):
        ticks = np.arange(len(each.scales))
        for curve, chosen in zip(each.validation, each.chosen, strict=True):
            place.plot(ticks, curve, ".-", color="C0")
            where = each.scales.index(chosen)
            place.plot(where, curve[where], "o", color="C0", markersize=8, markerfacecolor="none")
        for curve in each.test:
            place.plot(ticks, curve, ".--", color="C1")
        place.set_xticks(ticks, [str(scale) for scale in each.scales])
        place.set_title(each.title, fontsize=7, parse_math=False)
        if not each.scales:
            _say(place, "$m$ is fixed")
    named = [
        Line2D([], [], color="C0", label=criterion),
        Line2D([], [], color="C1", linestyle="--", label="test image AUROC"),
        Line2D([], [], color="C0", marker="o", markerfacecolor="none", lw=0, label="$m^*$"),
    ]
    figure.legend(handles=named, loc="outside upper center", ncols=3)
    figure.supxlabel("mosaic scale $m$, pixels", fontsize=7)
    figure.supylabel("AUROC", fontsize=7)
    return figure


@dataclass(frozen=True)
class Curves:
    """Curves of a category, by the label of a method or training: x and y; or why there are
    none."""

    title: str
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]
    lacking: str = ""


def curves(
    categories: Sequence[Curves], axes_named: tuple[str, str], scale: str = "linear"
) -> Figure:
    """A panel of lines a category; one legend for all."""
    figure, axes = _panels(len(categories), 1.5)
    labels = list(dict.fromkeys(label for each in categories for label in each.lines))
    styles: dict[str, dict[str, Any]] = {
        label: {"color": f"C{i % 7}", "linestyle": DASHES[i // 7 % len(DASHES)], "linewidth": 0.9}
        for i, label in enumerate(labels)
    }
    for place, each in zip(axes, categories, strict=False):
        for label, (x, y) in each.lines.items():
            place.plot(x, y, **styles[label])
        if not each.lines:
            _say(place, each.lacking)
        place.set_yscale(scale)
        place.set_title(each.title, fontsize=7, parse_math=False)
    handles = [Line2D([], [], label=label, **style) for label, style in styles.items()]
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=5.5)
    figure.supxlabel(axes_named[0], fontsize=7)
    figure.supylabel(axes_named[1], fontsize=7)
    return figure


def calibration(
    points: Mapping[str, Sequence[tuple[float, float]]], bound: float, level: str
) -> Figure:
    """Test AUROC against validation AUROC of every cell, a marker a system, and the level under
    which a warning is given.

    Parameters
    ----------
    points : label of a system → (validation, test) of every category.
    bound, level : of the warning: ``report.warn_below``, and which AUROC it looks at.
    """
    figure, place = plt.subplots(figsize=(WIDTH, 3.8), layout="constrained")
    for number, (label, cells) in enumerate(points.items()):
        x, y = np.array(cells).reshape(-1, 2).T
        marker = MARKERS[number % len(MARKERS)]
        place.plot(x, y, marker, color=f"C{number % 7}", label=label, alpha=0.8)
    place.axvline(bound, color="0.4", linewidth=0.8, linestyle=":")
    place.axline((0.5, 0.5), slope=1, color="0.8", linewidth=0.6, zorder=0)
    place.annotate(
        "warned of", (bound, 1.02), (-4, 0), textcoords="offset points", ha="right", fontsize=6
    )
    place.set(xlabel=f"validation {level} AUROC, label-free", ylabel=f"test {level} AUROC")
    figure.legend(loc="outside right upper", fontsize=5.5)
    return figure


def _say(place: Axes, text: str) -> None:
    """Words where there is nothing to draw."""
    place.text(0.5, 0.5, text, ha="center", va="center", wrap=True, transform=place.transAxes)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A page of ``count`` equal axes, at most six a row, and rows as high as told in inches; the
    last row's rest is empty."""
    columns = min(count, 4 if count <= 12 else 6)
    rows = ceil(count / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * height + 1.1), squeeze=False, layout="constrained"
    )
    for place in axes.flat[count:]:
        place.set_visible(False)
    return figure, list(axes.flat)
