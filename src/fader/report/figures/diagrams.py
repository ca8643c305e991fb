"""Figures 3, 4 and 5 of the paper: how FADeR works, every picture a tensor of the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from fader.report.figures.style import (
    ERROR,
    KEPT,
    arrow,
    box,
    outlined,
    panel,
    plt,
    tinted,
    with_contour,
    write,
)

Cell = tuple[float, float]

LEVELS = 4  # skips that are shown, shallow first: the paper's U-Net has as many
PHI = "Φ: linear,\nleaky ReLU,\nlinear"
# Inches.
CELL, GAP, HEADING, MARGIN, NEAR = 0.86, 0.24, 0.24, 0.14, 0.04
ACROSS, DOWN = CELL + GAP, CELL + HEADING + 0.06


@dataclass(frozen=True)
class Skip:
    """A skip connection of the U-Net: its features, as means of absolute values over the channels
    (h, w), before and after attenuation; and the soft mask at their size, (h, w) in [0, 1]."""

    before: np.ndarray
    mask: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Trace:
    """One image on its way through FADeR.

    Parameters
    ----------
    title : category and what is on the image.
    scale : m*, side of a patch, pixels.
    image, obfuscated, reconstruction : I, I′ and Î, (H, W, 3) uint8.
    mask : M_B, (H, W) bool.
    predicted, error : Φ's predictions l̂ and the errors l that it is trained on, mean squares of
        I − Î, (g, g).
    soft_mask : M_S, (g, g) in [0, 1].
    skips : shallow first.
    raw, map : 1 − MSGMS before and after smoothing, (H, W).
    truth : (H, W) bool; None where the data set has no masks.
    """

    title: str
    scale: int
    image: np.ndarray
    mask: np.ndarray
    obfuscated: np.ndarray
    predicted: np.ndarray
    error: np.ndarray
    soft_mask: np.ndarray
    skips: Sequence[Skip]
    reconstruction: np.ndarray
    raw: np.ndarray
    map: np.ndarray
    truth: np.ndarray | None


def figure3(trace: Trace) -> Figure:
    """Figure 3, the overview: what the U-Net is given, and how Φ attenuates what its skips
    carry."""
    skips = trace.skips[:LEVELS]
    rows = max(3, len(skips))
    board = _Board(7, rows + 1)
    board.image((0, 0), "image $I$", trace.image)
    board.image((0, 1), "binary mask $M_B$", tinted(trace.image, trace.mask))
    board.image((0, 2), f"$I'$, $m^*$ = {trace.scale}", trace.obfuscated)
    board.box((1, 2), "U-Net:\nencoder")
    for row, skip in enumerate(skips):
        side = f"{len(skip.before)}²"
        board.error((2, row), f"Enc$^{{{row + 1}}}$, {side}", skip.before)
        board.soft((3, row), r"$\Theta(M_S)$", skip.mask)
        board.error((4, row), r"Enc $\odot\ \Theta(M_S)$", skip.after, like=skip.before)
    board.box((5, 2), "U-Net:\ndecoder")
    board.image((6, 2), r"reconstruction $\hat{I}$", trace.reconstruction)
    board.tokens((0, rows), trace)
    board.box((1, rows), PHI)
    board.error((2, rows), r"predicted error $\hat{l}$", trace.predicted)
    board.soft((3, rows), "soft mask $M_S$", trace.soft_mask)
    board.down((0, 0), (0, 1), (0, 2), (0, 3) if rows == 3 else (0, rows))
    board.right((0, 2), (1, 2), (2, 2))
    board.right((4, 2), (5, 2), (6, 2))
    board.right((0, rows), (1, rows), (2, rows), (3, rows))
    board.up((3, rows), (3, len(skips) - 1))
    return board.figure


def figure4(trace: Trace, margin: float) -> Figure:
    """Figure 4, the construction of the loss: Φ learns to rank the patches of a normal image by the
    errors that the decoder makes.

    Parameters
    ----------
    margin : ξ of equation 3. The pairs are drawn by a generator of fixed seed.
    """
    board = _Board(7, 3)
    board.image((0, 0), "normal image $I$", trace.image)
    board.image((0, 1), f"$I'$, $m^*$ = {trace.scale}", trace.obfuscated)
    board.box((1, 1), "U-Net with\n$M_S$ on\nits skips")
    board.image((2, 1), r"reconstruction $\hat{I}$", trace.reconstruction)
    board.box((3, 0), "mean square\nof every patch\n(equation 1)")
    board.error((3, 1), "error $l$", trace.error)
    board.tokens((0, 2), trace)
    board.box((1, 2), PHI)
    board.error((2, 2), r"predicted error $\hat{l}$", trace.predicted)
    board.right((0, 0), (3, 0))
    board.right((0, 1), (1, 1), (2, 1), (3, 1))
    board.right((0, 2), (1, 2), (2, 2))
    board.down((3, 0), (3, 1))
    board.down((0, 0), (0, 1), (0, 2))
    predicted, error = trace.predicted.ravel(), trace.error.ravel()
    ranks, order = rankdata(predicted), rankdata(error)
    place = board.chart((4, 0), (3, 1), f"ranks, correlation {correlation(ranks, order):.2f}")
    place.plot(ranks, order, ".", markersize=2)
    place.set(xlabel=r"rank of $\hat{l}$", ylabel="rank of $l$", xticks=[], yticks=[])
    difference, cost = hinge(predicted, error, margin)
    place = board.chart((4, 1.5), (3, 1), f"pairs: loss (equation 3) {cost.mean():.3g}")
    place.plot(difference, cost, ".", markersize=2)
    place.axvline(0, color="0.6", linewidth=0.6)
    place.set(xlabel=r"$\hat{l}_i - \hat{l}_j$ where $l_i > l_j$", ylabel="loss")
    return board.figure


def figure5(trace: Trace) -> Figure:
    """Figure 5, inference: from an image to its anomaly map and score."""
    skips = trace.skips[:LEVELS]
    board = _Board(7, 4)
    board.image((0, 0), "image $I$", trace.image)
    board.image((1, 0), "binary mask $M_B$", tinted(trace.image, trace.mask))
    board.image((2, 0), f"$I'$, $m^*$ = {trace.scale}", trace.obfuscated)
    board.box((3, 0), PHI)
    board.error((4, 0), r"predicted error $\hat{l}$", trace.predicted)
    board.soft((5, 0), "soft mask $M_S$", trace.soft_mask)
    for level, skip in enumerate(skips):
        column, side = 5 - level, f"{len(skip.before)}²"
        board.soft((column, 1), rf"$\Theta(M_S)$, {side}", skip.mask)
        board.error((column, 2), f"Enc$^{{{level + 1}}}$", skip.before)
        board.error((column, 3), r"Enc $\odot\ \Theta(M_S)$", skip.after, like=skip.before)
        board.down((column, 2), (column, 3))
    board.image((6, 3), r"reconstruction $\hat{I}$", trace.reconstruction)
    board.error((6, 2), "1 − MSGMS", trace.raw)
    board.error((6, 1), f"map, max. {trace.map.max():.3f}", trace.map)
    with_contour(board.picture((6, 0), outlined(trace.truth)), trace.image, trace.truth)
    board.right(*((column, 0) for column in range(6)))
    board.down((5, 0), (5, 1))
    board.right((5, 3), (6, 3))
    board.up((6, 3), (6, 2))
    board.up((6, 2), (6, 1))
    return board.figure


def correlation(ranks: np.ndarray, others: np.ndarray) -> float:
    """Spearman's rank correlation from ranks; 0 where all of one side are equal."""
    if np.ptp(ranks) == 0 or np.ptp(others) == 0:
        return 0.0
    return float(np.corrcoef(ranks, others)[0, 1])


def hinge(predicted: np.ndarray, error: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of random halves of the patches (n,): how far the one with the larger error is
    predicted above the other, (n // 2,), and what equation 3 charges for it, (n // 2,).

    As ``fader.vision.losses.rank_loss``, pair by pair; ties count as −1.
    """
    halves = np.random.default_rng(0).permutation(len(error))[: len(error) // 2 * 2].reshape(2, -1)
    first, second = halves
    sign = np.where(error[first] > error[second], 1.0, -1.0)
    difference = sign * (predicted[first] - predicted[second])
    return difference, np.maximum(0, margin - difference)


class _Board:
    """A page of columns × rows cells; a cell is a picture with its title above. Places are (column,
    row) from the upper left."""

    def __init__(self, columns: int, rows: int) -> None:
        size = (columns * ACROSS + 2 * MARGIN - GAP, rows * DOWN + MARGIN)
        self.figure = plt.figure(figsize=size)

    def _corner(self, cell: Cell) -> tuple[float, float]:
        """Upper left corner of a picture, inches."""
        return MARGIN + cell[0] * ACROSS, HEADING + cell[1] * DOWN

    def picture(self, cell: Cell, title: str) -> Axes:
        """Empty axes of a picture."""
        left, top = self._corner(cell)
        write(self.figure, left + CELL / 2, top - 0.06, title, size=6.5)
        return panel(self.figure, left, top, CELL)

    def image(self, cell: Cell, title: str, image: np.ndarray) -> None:
        """An image (H, W, 3)."""
        self.picture(cell, title).imshow(image)

    def error(
        self, cell: Cell, title: str, values: np.ndarray, like: np.ndarray | None = None
    ) -> None:
        """Values (h, w) that are large where something is wrong, from their least to their largest,
        or on the scale of others."""
        scale = values if like is None else like
        self.picture(cell, title).imshow(
            values, cmap=ERROR, vmin=scale.min(), vmax=scale.max(), interpolation="nearest"
        )

    def soft(self, cell: Cell, title: str, mask: np.ndarray) -> None:
        """A soft mask (h, w) in [0, 1]."""
        self.picture(cell, title).imshow(mask, cmap=KEPT, vmin=0, vmax=1, interpolation="nearest")

    def tokens(self, cell: Cell, trace: Trace) -> None:
        """I′ cut into the patches that Φ reads."""
        place = self.picture(cell, f"{trace.predicted.size} tokens")
        place.imshow(trace.obfuscated)
        cuts = np.arange(trace.scale, len(trace.image), trace.scale) - 0.5
        for line in (place.axhline, place.axvline):
            for cut in cuts:
                line(cut, color="white", linewidth=0.25)

    def box(self, cell: Cell, text: str) -> None:
        """A step that is no picture."""
        left, top = self._corner(cell)
        box(self.figure, left, top + CELL / 4, CELL, CELL / 2, text)

    def chart(self, cell: Cell, size: tuple[float, float], title: str) -> Axes:
        """Axes of a chart over several cells, with room for its labels."""
        left, top = self._corner(cell)
        across, down = self.figure.get_size_inches()
        width, height = size[0] * ACROSS - GAP - 0.4, size[1] * DOWN - 0.1
        place = (left + 0.4) / across, 1 - (top + height) / down, width / across, height / down
        axes = self.figure.add_axes(place)
        axes.set_title(title, fontsize=7, pad=3)
        return axes

    def right(self, *cells: Cell) -> None:
        """Arrows from each picture to the next one, to the right."""
        for start, end in pairwise(cells):
            (left, top), (goal, _) = self._corner(start), self._corner(end)
            middle = top + CELL / 2
            arrow(self.figure, (left + CELL + NEAR, middle), (goal - NEAR, middle))

    def down(self, *cells: Cell) -> None:
        """Arrows from each picture to the next one, downwards, beside its title."""
        for start, end in pairwise(cells):
            (left, top), (_, goal) = self._corner(start), self._corner(end)
            arrow(self.figure, (left + NEAR, top + CELL + NEAR), (left + NEAR, goal - NEAR))

    def up(self, start: Cell, end: Cell) -> None:
        """An arrow upwards, beside the title of the picture that it begins at."""
        (left, top), (_, goal) = self._corner(start), self._corner(end)
        arrow(self.figure, (left + NEAR, top - NEAR), (left + NEAR, goal + CELL + NEAR))
