"""The paper's figures, drawn from tensors of the run; nothing is drawn by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from fader.artifacts import replacing


@dataclass(frozen=True)
class Example:
    """One test image on its way through FADeR.

    image, reconstruction : (H, W, 3) uint8. binary_mask, truth : (H, W) bool.
    soft_mask : (g, g) in [0, 1]. map : (H, W) anomaly map. title : category and defect.
    """

    title: str
    image: np.ndarray
    binary_mask: np.ndarray
    soft_mask: np.ndarray
    reconstruction: np.ndarray
    map: np.ndarray
    truth: np.ndarray


def figure1(examples: Sequence[Example], paths: Sequence[Path]) -> None:
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
            extent=(0, *example.truth.shape[::-1], 0),
        )
        row[3].imshow(example.reconstruction)
        row[4].imshow(example.map, cmap="inferno")
        row[5].imshow(example.truth, cmap="gray", vmin=0, vmax=1)
        row[0].set_ylabel(example.title, fontsize=7)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, fontsize=8)
    figure.colorbar(soft, ax=axes[:, -1], label="soft mask", fraction=0.08, aspect=12 * rows)
    save(figure, paths)


def save(figure, paths: Sequence[Path]) -> None:
    """Write a figure to every path, by its suffix, without dates, so that equal figures are equal
    bytes."""
    for path in paths:
        suffix = path.suffix.removeprefix(".")
        metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=200, metadata=metadata)
    plt.close(figure)
