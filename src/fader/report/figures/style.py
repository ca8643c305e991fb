"""How every figure looks: the style sheet, places in inches, and files that are equal bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from fader.files import replacing

plt.style.use(Path(__file__).with_name("fader.mplstyle"))

NO_MASK = "no mask"
"""Said where the ground truth would be shown."""

TINT = np.array([31, 119, 180], np.uint8)
"""Colour laid over a masked area where the figure shows the mask, not what the network sees."""

ERROR, KEPT = "inferno", "viridis"
"""Colour maps of errors and of the soft mask: lightness alone tells their order."""


def emptied(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with zeros where the mask (H, W) is True."""
    return np.where(mask[..., None], np.uint8(0), image)


def tinted(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8 with three quarters of ``TINT`` where the mask (H, W) is True."""
    blend = (0.25 * image + 0.75 * TINT).round().astype(np.uint8)
    return np.where(mask[..., None], blend, image)


def panel(
    figure: Figure, left: float, top: float, height: float, width: float | None = None
) -> Axes:
    """Axes without ticks, placed in inches from the figure's upper left corner; square unless
    ``width`` is given."""
    across, down = figure.get_size_inches()
    width = height if width is None else width
    place = figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )
    return bare(place)


def bare(place: Axes) -> Axes:
    """Axes of a picture: no ticks, no spines."""
    place.set_xticks([])
    place.set_yticks([])
    place.spines[:].set_visible(False)
    return place


def arrow(figure: Figure, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two places in inches from the figure's upper left corner."""
    figure.add_artist(
        FancyArrowPatch(
            at(figure, *start),
            at(figure, *end),
            arrowstyle="-|>",
            mutation_scale=7,
            linewidth=0.8,
            color="0.3",
            shrinkA=0,
            shrinkB=0,
        )
    )


def box(figure: Figure, left: float, top: float, width: float, height: float, text: str) -> None:
    """A step of a diagram that is no picture: words in a frame, placed in inches."""
    place = panel(figure, left, top, height, width)
    place.set_facecolor("0.95")
    place.spines[:].set_visible(True)
    place.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, transform=place.transAxes)


def write(
    figure: Figure, x: float, y: float, text: str, size: float, weight: str = "normal"
) -> None:
    """Text centred at ``x`` on the line ``y``, in inches from the figure's upper left corner."""
    where = at(figure, x, y)
    figure.text(*where, text, ha="center", va="baseline", fontsize=size, weight=weight)


def at(figure: Figure, x: float, y: float) -> tuple[float, float]:
    """A place in inches from the figure's upper left corner as matplotlib's fractions."""
    across, down = figure.get_size_inches()
    return x / across, 1 - y / down


def say(place: Axes, text: str) -> None:
    """Words where there is nothing to show."""
    place.set_facecolor("0.95")
    place.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, transform=place.transAxes)


def outlined(truth: np.ndarray | None) -> str:
    """What the contour of ``with_contour`` is."""
    if truth is None:
        return NO_MASK
    return "outlined: ground truth" if truth.any() else "ground truth: no defect"


def with_contour(place: Axes, image: np.ndarray, truth: np.ndarray | None) -> None:
    """The image, outlined where the ground truth begins."""
    place.imshow(image)
    if truth is not None and truth.any() and not truth.all():
        place.contour(truth, levels=[0.5], colors="red", linewidths=0.8)


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """Write a figure to every path, by its suffix, and close it; without dates, so that equal
    figures are equal bytes."""
    for path in paths:
        suffix = path.suffix.removeprefix(".")
        options: dict[str, Any] = {"metadata": {"CreationDate": None}}
        if suffix == "png":  # level 6, the default, takes twice as long for a tenth of the size
            options = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix, **options)
        if figure.get_layout_engine() is not None:
            figure.set_layout_engine("none")  # laid out once, for the first file
    plt.close(figure)
