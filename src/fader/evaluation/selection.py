"""The honest protocol: every choice is made on training normals and synthetic defects painted on
them.

Two folds of the training normals are held out; copies of them carry synthetic defects. m* and η ×
schedule are chosen on one of them, and the validation AUROC, of which the run warns, is measured on
the other, on which nothing is chosen. No test image and no test label takes part (the ``oracle``
policy, a diagnostic, is the one exception and says so in its artefact).

Twenty normals cannot tell an AUROC of .63 from one of .57. So candidates *tie* with the best where
they are no worse than it in some share of bootstrap resamples of the held-out images, each with its
defective copies, and among them the one that the method's reasoning prefers is taken: for m* the
largest, since a small mosaic leaks the defect (EAR), for FADeR the first of the grid, which the
presets begin with the largest η, since Φ starts from nothing, and with SGDR, which ends annealed.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from fader.detectors.base import Detector, Images, Scores
from fader.evaluation import metrics

RESAMPLES = 1_000
BINS = 1_024  # of pixel scores, equally filled; for the resamples alone
_SAMPLE = 1_000_000  # pixel scores that the bins are made of, at most

Candidate = TypeVar("Candidate", bound=Hashable)


@dataclass(frozen=True)
class Evidence:
    """How a candidate tells defects from normals, image by image.

    Parameters
    ----------
    image_auroc, pixel_auroc : of all.
    images : (k, k): of normal image i and the defective copies of image j, the share of pairs in
        which the copy scores higher; ties count half.
    pixels : (k, k): the same of pixels, normal ones of image i and of its copies outside their
        defects, defective ones of the copies of image j, as numbers of pairs.
    normal, defective : (k,) numbers of such pixels.
    """

    image_auroc: float
    pixel_auroc: float
    images: np.ndarray
    pixels: np.ndarray
    normal: np.ndarray
    defective: np.ndarray

    def value(self, criterion: str) -> float:
        """The label-free criterion: ``image`` or ``pixel`` AUROC, or their ``mean``."""
        return value(self.aurocs, criterion)

    def resampled(self, weights: np.ndarray, criterion: str) -> np.ndarray:
        """The criterion (R,) on resamples: ``weights`` (R, k) say how often each image is drawn."""
        image = np.einsum("ri,ij,rj->r", weights, self.images, weights) / weights.sum(1) ** 2
        pairs = np.einsum("ri,ij,rj->r", weights, self.pixels, weights)
        pixel = pairs / ((weights @ self.normal) * (weights @ self.defective))
        return np.asarray(_criterion(image, pixel, criterion))

    @property
    def aurocs(self) -> dict[str, float]:
        """As kept: ``image_auroc`` and ``pixel_auroc``."""
        return {"image_auroc": self.image_auroc, "pixel_auroc": self.pixel_auroc}


def value(found: Mapping[str, float], criterion: str) -> float:
    """The criterion from ``image_auroc`` and ``pixel_auroc``."""
    return float(_criterion(found["image_auroc"], found["pixel_auroc"], criterion))


def _criterion(
    image: float | np.ndarray, pixel: float | np.ndarray, criterion: str
) -> float | np.ndarray:
    return {"image": image, "pixel": pixel, "mean": (image + pixel) / 2}[criterion]


@dataclass(frozen=True)
class Examples:
    """What candidates are judged on.

    Parameters
    ----------
    normal, defective : images of either kind, with a masker's masks; of label-free examples the
        defective ones are copies of the normal ones, equally many of each, in order.
    truth : (N, H, W), defective pixels of ``defective``.
    """

    normal: Images
    defective: Images
    truth: Tensor

    def without(self, kinds: Collection[str], painted: Sequence[str]) -> Examples:
        """The same less the defects of some ``kinds``; ``painted`` is the kind of each."""
        rows = [row for row, kind in enumerate(painted) if kind not in kinds]
        return Examples(self.normal, self.defective[rows], self.truth[rows])

    def judge(self, detector: Detector) -> dict[str, float]:
        """``image_auroc`` and ``pixel_auroc`` of a detector."""
        return aurocs(detector.scores(self.normal), detector.scores(self.defective), self.truth)

    def evidence(self, detector: Detector) -> Evidence:
        """What the label-free choice is made of."""
        return evidence(detector.scores(self.normal), detector.scores(self.defective), self.truth)


def aurocs(normal: Scores, defective: Scores, truth: Tensor) -> dict[str, float]:
    """Image and pixel AUROC, exact, of scores of normals and of defective images."""
    scores = torch.cat([normal.images, defective.images]).numpy()
    labels = np.repeat([0, 1], [len(normal.images), len(defective.images)])
    pixels = metrics.PixelHistogram()
    pixels.update(normal.maps.numpy(), np.zeros(normal.maps.shape, np.uint8))
    pixels.update(defective.maps.numpy(), truth.numpy())
    return {"image_auroc": metrics.auroc(scores, labels), "pixel_auroc": pixels.auroc()}


def evidence(normal: Scores, defective: Scores, truth: Tensor) -> Evidence:
    """From scores of k held-out normals and of their k·c defective copies; ``truth`` (k·c, H, W).

    The matrix of pixels is made of ``BINS`` bins, within which pixels tie.
    """
    count = len(normal.images)
    scores, copies = normal.images.numpy(), defective.images.numpy().reshape(count, -1)
    above = copies[None] > scores[:, None, None]
    equal = copies[None] == scores[:, None, None]
    bad = truth.numpy().astype(bool).reshape(count, -1)
    of_normals = normal.maps.numpy().reshape(count, -1)
    of_copies = defective.maps.numpy().reshape(count, -1)
    edges = _edges(of_normals, of_copies)
    negative = _counts(edges, of_normals) + _counts(edges, of_copies, ~bad)
    positive = _counts(edges, of_copies, bad)
    below = negative.cumsum(1) - negative / 2
    return Evidence(
        **aurocs(normal, defective, truth),
        images=(above + equal / 2).mean(2),
        pixels=below @ positive.T,
        normal=negative.sum(1),
        defective=positive.sum(1),
    )


def _edges(*scores: np.ndarray) -> np.ndarray:
    values = np.concatenate([each.ravel() for each in scores])
    sample = np.sort(values[:: 1 + len(values) // _SAMPLE])
    ranks = np.linspace(0, len(sample) - 1, BINS + 1)[1:-1].round().astype(int)
    return np.asarray(sample[ranks])


def _counts(edges: np.ndarray, scores: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """(k, BINS) numbers of scores (k, n) in each bin, of those ``where`` is true."""
    rows = [
        np.bincount(np.searchsorted(edges, row if where is None else row[where[i]]), minlength=BINS)
        for i, row in enumerate(scores)
    ]
    return np.stack(rows).astype(np.float64)


@dataclass(frozen=True)
class Choice(Generic[Candidate]):
    """A label-free choice.

    Parameters
    ----------
    chosen, best : the candidate taken, and the one of the highest criterion.
    aurocs : candidate → its ``Evidence.aurocs``.
    values : candidate → criterion.
    ties : candidate → share of the resamples in which it is no worse than the best.
    """

    chosen: Candidate
    best: Candidate
    aurocs: Mapping[Candidate, Mapping[str, float]]
    values: Mapping[Candidate, float]
    ties: Mapping[Candidate, float]

    def facts(self, candidate: Candidate) -> dict[str, float]:
        """What is kept of a candidate: its AUROCs, ``value`` and ``tie``."""
        about = {"value": self.values[candidate], "tie": self.ties[candidate]}
        return dict(self.aurocs[candidate]) | about


def choose(
    candidates: Mapping[Candidate, Evidence], *, criterion: str, tie: float, seed: int
) -> Choice[Candidate]:
    """The first of the candidates that tie with the best; list them by preference.

    Parameters
    ----------
    criterion : see ``Evidence.value``.
    tie : a candidate ties that is no worse than the best in this share of ``RESAMPLES`` resamples.
    seed : of the resampling, which is the same for all candidates.
    """
    values = {name: each.value(criterion) for name, each in candidates.items()}
    best = max(values, key=lambda name: values[name])
    count = len(candidates[best].images)
    draws = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    weights = np.stack([np.bincount(row, minlength=count) for row in draws]).astype(np.float64)
    resampled = {name: each.resampled(weights, criterion) for name, each in candidates.items()}
    ties = {name: float((each >= resampled[best]).mean()) for name, each in resampled.items()}
    chosen = next(name for name in candidates if name == best or ties[name] >= tie)
    aurocs = {name: each.aurocs for name, each in candidates.items()}
    return Choice(chosen, best, aurocs, values, ties)


def larger_first(scales: Sequence[int]) -> list[int]:
    """Mosaic scales in the order in which ties are broken."""
    return sorted(scales, reverse=True)
