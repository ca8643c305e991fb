"""Figures 1, 2 and 6 of the paper: images and what maskers and FADeR make of them."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from fader.report.figures.masking import (
    complementary_sets,
    enlarge,
    progressive_masks,
    random_sets,
)
from fader.report.figures.style import (
    ERROR,
    KEPT,
    NO_MASK,
    at,
    bare,
    emptied,
    outlined,
    panel,
    plt,
    say,
    tinted,
    with_contour,
    write,
)

CELLS = 16
"""Cells a side of Figure 2's random and complementary sets; divides every image size."""

SETS = 3
"""Masks that Figure 2 shows of each way of masking with several, as many as RIAD's sets."""

LABEL_WIDTH = 24
"""Characters of a masker's label on one line of Figure 6."""


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
        figsize=(1.2 * len(headings) + 0.6, 1.2 * rows + 0.4),
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
            cmap=KEPT,
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(0, *example.image.shape[1::-1], 0),
        )
        row[3].imshow(example.reconstruction)
        row[4].imshow(example.map, cmap=ERROR)
        if example.truth is None:
            row[5].set_box_aspect(1)
            say(row[5], NO_MASK)
        else:
            row[5].imshow(example.truth, cmap="gray", vmin=0, vmax=1)
        row[0].set_ylabel(example.title, fontsize=7, parse_math=False)
        for axis in row:
            bare(axis)
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, fontsize=8)
    figure.colorbar(soft, ax=axes[:, -1], label="soft mask", fraction=0.08, aspect=12 * rows)
    return figure


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
        write(figure, left + span / 2, top - 0.27, name, size=8, weight="bold")
        for column, (title, image) in enumerate(zip(titles, images, strict=True)):
            panel(figure, left + column * pitch, top, cell).imshow(image)
            write(figure, left + column * pitch + cell / 2, top - 0.06, title, size=7)
    top = heading + (rows[1] + cell - heading - big) / 2
    with_contour(panel(figure, margin, top, big), example.image, example.truth)
    write(figure, margin + big / 2, top - 0.06, example.title.replace("$", r"\$"), size=7)
    write(figure, margin + big / 2, top + big + 0.2, outlined(example.truth), size=7)
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
    write(figure, naming + cell / 2, heading - 0.06, "input", size=7)
    for left, label in zip(lefts, labels, strict=True):
        name = figure.text(*at(figure, left + pair / 2, heading - 0.22), names[label])
        name.set(ha="center", va="bottom", size=8, weight="bold")
        write(figure, left + cell / 2, heading - 0.06, "saliency", size=7)
        write(figure, left + pitch + cell / 2, heading - 0.06, "mask $M_B$", size=7)
    for number, row in enumerate(rows):
        top = heading + number * pitch
        place = panel(figure, naming, top, cell)
        with_contour(place, row.image, row.truth)
        if row.truth is None:
            white = {"facecolor": "white", "linewidth": 0, "pad": 1}
            place.text(0.04, 0.05, NO_MASK, fontsize=5, transform=place.transAxes, bbox=white)
        place.set_ylabel(row.title, fontsize=6.5, parse_math=False)
        for left, label in zip(lefts, labels, strict=True):
            suspicion = row.maskers[label]
            if suspicion is None:
                say(panel(figure, left, top, cell, width=pair), "not available")
            else:
                heat = panel(figure, left, top, cell)
                heat.imshow(suspicion.saliency, cmap=ERROR, interpolation="nearest")
                panel(figure, left + pitch, top, cell).imshow(
                    tinted(row.image, suspicion.binary_mask)
                )
    return figure
