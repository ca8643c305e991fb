"""The paper's figures, drawn from tensors of the run; nothing is drawn by hand."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fader.files import replacing

CELLS = 16
"""Cells a side of Figure 2's random and complementary sets; divides every image size."""

SETS = 3
"""Masks that Figure 2 shows of each way of masking with several, as many as RIAD's sets."""

LABEL_WIDTH = 24
"""Characters of a masker's label on one line of Figure 6."""

NO_MASK = "no mask"
"""Said where the ground truth would be shown."""

TINT = np.array([31, 119, 180], np.uint8)
"""Colour laid over a masked area where the figure shows the mask, not what the network sees."""


@dataclass(frozen=True)
class Example:
    """One test image on its way through FADeR.

    Parameters
    ----------
    title : category and defect.
    image, reconstruction : (H, W, 3) uint8.
    binary_mask, truth : (H, W) bool; truth None where the data set has no masks.
    soft_mask : (g, g) in [0, 1].
    map : (H, W) anomaly map.
    """

    title: str
    image: np.ndarray
    binary_mask: np.ndarray
    soft_mask: np.ndarray
    reconstruction: np.ndarray
    map: np.ndarray
    truth: np.ndarray | None


def figure1(examples: Sequence[Example]) -> Figure:
    """Figure 1: input, binary mask, soft mask, reconstruction, anomaly map and ground truth, a row
    each.

    The colour bar, 0 to 1, is that of the soft mask; an anomaly map is scaled to its own range.
    """
    headings = (
        "input",
        "binary mask $M_B$",
        "soft mask $M_S$",
        "reconstruction",
        "anomaly map",
        "ground truth",
    )
    rows = len(examples)
    figure, axes = plt.subplots(
        rows,
        len(headings),
        figsize=(1.5 * len(headings) + 0.6, 1.55 * rows + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for row, example in zip(axes, examples, strict=True):
        hidden = example.image.copy()
        hidden[example.binary_mask] = 0
        row[0].imshow(example.image)
        row[1].imshow(hidden)
        soft = row[2].imshow(
            example.soft_mask,
            cmap="jet",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(0, *example.image.shape[1::-1], 0),
        )
        row[3].imshow(example.reconstruction)
        row[4].imshow(example.map, cmap="inferno")
        if example.truth is None:
            row[5].set_box_aspect(1)
            _say(row[5], NO_MASK)
        else:
            row[5].imshow(example.truth, cmap="gray", vmin=0, vmax=1)
        row[0].set_ylabel(example.title, fontsize=7, parse_math=False)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, fontsize=8)
    figure.colorbar(soft, ax=axes[:, -1], label="soft mask", fraction=0.08, aspect=12 * rows)
    return figure


@dataclass(frozen=True)
class Masking:
    """One test image, and what EAR makes of it: its mask, the hint in the mask, its error.

    Parameters
    ----------
    title : category and defect.
    image : (H, W, 3) uint8; H = W, a multiple of ``CELLS``.
    truth, binary_mask : (H, W) bool; truth None where the data set has no masks.
    error : (H, W) anomaly map of EAR.
    mosaic : (H, W, 3) uint8, the image with the mask's area as a mosaic of ``scale`` × ``scale``
        pixels.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    binary_mask: np.ndarray
    error: np.ndarray
    mosaic: np.ndarray
    scale: int


@dataclass(frozen=True)
class Suspicion:
    """What one masker makes of an image: saliency (h, w) on its own grid, binary_mask (H, W)
    bool."""

    saliency: np.ndarray
    binary_mask: np.ndarray


@dataclass(frozen=True)
class Suspects:
    """One test image as every masker sees it.

    Parameters
    ----------
    title : category and defect.
    image : (H, W, 3) uint8.
    truth : (H, W) bool; None where the data set has no masks.
    maskers : by the masker's label; None where it has no masks.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    maskers: Mapping[str, Suspicion | None]


def random_sets(cells: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """RIAD's masks: ``cells`` × ``cells`` cells dealt at random into ``count`` disjoint sets whose
    sizes differ by one at most; (count, cells, cells) bool, True = masked.

    Source: Zavrtanik et al., Reconstruction by inpainting for visual anomaly detection, section 3.
    """
    owner = np.arange(cells * cells) % count
    return _members(generator.permutation(owner).reshape(cells, cells), count)


def complementary_sets(cells: int, count: int) -> np.ndarray:
    """Disjoint masks that need no chance: cell (i, j) is in set (i + j) mod ``count``;
    (count, cells, cells) bool."""
    return _members(np.add.outer(np.arange(cells), np.arange(cells)) % count, count)


def _members(owner: np.ndarray, count: int) -> np.ndarray:
    return owner == np.arange(count)[:, None, None]


def progressive_masks(error: np.ndarray, count: int) -> np.ndarray:
    """Masks that close in on the defect: the half, quarter, eighth … of the pixels that are
    reconstructed worst; (count, H, W) bool, each within the one before.

    The methods that mask progressively (Huang et al. 2022, Nakanishi et al. 2022) reconstruct anew
    for every mask; here all masks come from one anomaly map ``error`` (H, W).
    """
    worst_first = np.argsort(-error, axis=None, kind="stable")
    rank = np.empty(error.size, np.int64)
    rank[worst_first] = np.arange(error.size)
    return np.stack([rank < error.size >> step for step in range(1, count + 1)]).reshape(
        count, *error.shape
    )


def enlarge(masks: np.ndarray, side: int) -> np.ndarray:
    """Masks of cells (n, g, g) as masks of pixels (n, side, side); g divides side."""
    factor = side // masks.shape[-1]
    return masks.repeat(factor, axis=-2).repeat(factor, axis=-1)


def emptied(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with zeros where the mask (H, W) is True."""
    return np.where(mask[..., None], np.uint8(0), image)


def tinted(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) uint8 with three quarters of ``TINT`` where the mask (H, W) is True."""
    blend = (0.25 * image + 0.75 * TINT).round().astype(np.uint8)
    return np.where(mask[..., None], blend, image)


def figure2(example: Masking) -> Figure:
    """Figure 2: (a) ways of masking one image, masked areas tinted; (b) what stands in the mask.

    The random sets are dealt by a generator of fixed seed.
    """
    side = len(example.image)
    random = enlarge(random_sets(CELLS, SETS, np.random.default_rng(0)), side)
    lattice = enlarge(complementary_sets(CELLS, SETS), side)
    worst = progressive_masks(example.error, SETS)
    of_sets = [f"set {number} of {SETS}" for number in range(1, SETS + 1)]
    halves = [f"worst 1/{2**step}" for step in range(1, SETS + 1)]

    def tints(masks: np.ndarray) -> list[np.ndarray]:
        return [tinted(example.image, mask) for mask in masks]

    hints = [emptied(example.image, example.binary_mask), example.mosaic]
    cell, gap, between, heading, margin = 1.15, 0.06, 0.3, 0.5, 0.12
    pitch = cell + gap
    big = 1.6
    first = margin + big + between
    second = first + SETS * pitch - gap + between
    width = second + SETS * pitch - gap + margin
    rows = [heading, 2 * heading + cell]
    figure = plt.figure(figsize=(width, rows[1] + cell + margin))
    groups = [
        (first, rows[0], "(a) random disjoint sets", of_sets, tints(random)),
        (second, rows[0], "(a) complementary sets", of_sets, tints(lattice)),
        (first, rows[1], "(a) progressive", halves, tints(worst)),
        (second, rows[1], "(a) single", ["$M_B$"], tints(example.binary_mask[None])),
        (
            second + pitch,
            rows[1],
            "(b) hint in the mask",
            ["emptied", f"mosaic, $m$ = {example.scale}"],
            hints,
        ),
    ]
    for left, top, name, titles, images in groups:
        span = len(images) * pitch - gap
        _write(figure, left + span / 2, top - 0.27, name, size=8, weight="bold")
        for column, (title, image) in enumerate(zip(titles, images, strict=True)):
            _panel(figure, left + column * pitch, top, cell).imshow(image)
            _write(figure, left + column * pitch + cell / 2, top - 0.06, title, size=7)
    top = heading + (rows[1] + cell - heading - big) / 2
    _with_contour(_panel(figure, margin, top, big), example.image, example.truth)
    _write(figure, margin + big / 2, top - 0.06, example.title.replace("$", r"\$"), size=7)
    _write(figure, margin + big / 2, top + big + 0.2, _outlined(example.truth), size=7)
    return figure


def figure6(rows: Sequence[Suspects]) -> Figure:
    """Figure 6: each image, outlined by its ground truth, and every masker's saliency and mask.

    A saliency map is scaled to its own range; the maskers are those of the first row, in order.
    """
    labels = list(rows[0].maskers)
    names = {label: textwrap.fill(label, LABEL_WIDTH, break_on_hyphens=False) for label in labels}
    lines = max(name.count("\n") + 1 for name in names.values())
    cell, gap, between, margin, naming = 0.95, 0.05, 0.16, 0.08, 0.36
    heading = 0.37 + 0.13 * lines
    pair = 2 * cell + gap
    pitch = cell + gap
    first = naming + cell + between
    lefts = [first + column * (pair + between) for column in range(len(labels))]
    width = lefts[-1] + pair + margin
    figure = plt.figure(figsize=(width, heading + len(rows) * pitch - gap + margin))
    _write(figure, naming + cell / 2, heading - 0.06, "input", size=7)
    for left, label in zip(lefts, labels, strict=True):
        name = figure.text(*_at(figure, left + pair / 2, heading - 0.22), names[label])
        name.set(ha="center", va="bottom", size=8, weight="bold")
        _write(figure, left + cell / 2, heading - 0.06, "saliency", size=7)
        _write(figure, left + pitch + cell / 2, heading - 0.06, "mask $M_B$", size=7)
    for number, row in enumerate(rows):
        top = heading + number * pitch
        place = _panel(figure, naming, top, cell)
        _with_contour(place, row.image, row.truth)
        if row.truth is None:
            white = {"facecolor": "white", "linewidth": 0, "pad": 1}
            place.text(0.04, 0.05, NO_MASK, fontsize=5, transform=place.transAxes, bbox=white)
        place.set_ylabel(row.title, fontsize=6.5, parse_math=False)
        for left, label in zip(lefts, labels, strict=True):
            suspicion = row.maskers[label]
            if suspicion is None:
                _say(_panel(figure, left, top, cell, width=pair), "not available")
            else:
                heat = _panel(figure, left, top, cell)
                heat.imshow(suspicion.saliency, cmap="inferno", interpolation="nearest")
                _panel(figure, left + pitch, top, cell).imshow(
                    tinted(row.image, suspicion.binary_mask)
                )
    return figure


def _panel(
    figure: Figure, left: float, top: float, height: float, width: float | None = None
) -> Axes:
    """Axes without ticks, placed in inches from the figure's upper left corner; square unless
    ``width`` is given."""
    across, down = figure.get_size_inches()
    width = height if width is None else width
    place = figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )
    place.set_xticks([])
    place.set_yticks([])
    return place


def _write(
    figure: Figure, x: float, y: float, text: str, size: float, weight: str = "normal"
) -> None:
    """Text centred at ``x`` on the line ``y``, in inches from the figure's upper left corner."""
    where = _at(figure, x, y)
    figure.text(*where, text, ha="center", va="baseline", fontsize=size, weight=weight)


def _at(figure: Figure, x: float, y: float) -> tuple[float, float]:
    """A place in inches from the figure's upper left corner as matplotlib's fractions."""
    across, down = figure.get_size_inches()
    return x / across, 1 - y / down


def _say(place: Axes, text: str) -> None:
    """Words where there is nothing to show."""
    place.set_facecolor("0.95")
    place.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, transform=place.transAxes)


def _outlined(truth: np.ndarray | None) -> str:
    """What the contour of ``_with_contour`` is."""
    if truth is None:
        return NO_MASK
    return "outlined: ground truth" if truth.any() else "ground truth: no defect"


def _with_contour(place: Axes, image: np.ndarray, truth: np.ndarray | None) -> None:
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
            figure.savefig(temporary, format=suffix, dpi=200, **options)
    plt.close(figure)
