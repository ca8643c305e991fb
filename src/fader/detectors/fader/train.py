"""FADeR's training at one point of the η × schedule grid (paper sections 3.2 and 3.3).

The encoder is frozen and nothing is augmented, so its features are computed once and serve every
epoch and every point of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fader.detectors.base import Images
from fader.runtime import Machine
from fader.training import schedules
from fader.training.loop import (
    History,
    Optimizer,
    Run,
    Stage,
    Update,
    batches_per_epoch,
    steps_of,
    train,
)
from fader.training.schedules import Multiplier
from fader.vision.losses import rank_loss
from fader.vision.mosaic import obfuscate, patch_l2
from fader.vision.unet import Encoder

if TYPE_CHECKING:
    from fader.detectors.fader.model import Fader

WATCHED = "watched"


def stage(detector: Fader, run: Run) -> Stage:
    """The training of a grid point: every point sees the same images in the same order."""
    point = detector.point
    return Stage(
        f"{run.label} η={point.lr:g} {point.schedule}",
        run.seed,
        run.checkpoint(f"{point.lr!r}-{point.schedule}"),
        "remove the largest of fader.lrs",
    )


@dataclass(frozen=True)
class Normals:
    """What every grid point trains on: images (N, 3, H, W) in [0, 1] on the device, and the frozen
    encoder's features of their I′."""

    images: Tensor
    features: FrozenFeatures

    @classmethod
    def of(cls, detector: Fader, normal: Images) -> Normals:
        """From uint8 images with their masks."""
        machine = detector.machine
        images = machine.images(normal.pixels)
        obfuscated = obfuscate(images, normal.masks.to(machine.device), detector.scale)  # type: ignore[union-attr]  # given masks
        features = FrozenFeatures(
            detector.encoder,
            obfuscated,
            machine,
            batch=detector.context.score.batch,
            limit=detector.settings.cache_gib * 2**30,
        )
        return cls(images, features)


class FrozenFeatures:
    """Encoder features of I′ for a fixed set of images, held in memory up to ``limit`` bytes.

    Features keep the precision of the encoder's own output, and none is computed in a batch of one,
    where convolutions round differently: on a CPU a cached feature equals a recomputed one.
    """

    def __init__(
        self, encoder: Encoder, obfuscated: Tensor, machine: Machine, *, batch: int, limit: float
    ):
        self.encoder = encoder.eval().requires_grad_(False)
        self.obfuscated, self.machine = obfuscated, machine
        first = self._compute(obfuscated[:1])
        size = sum(f.numel() * f.element_size() for f in first) * len(obfuscated)
        self.cached: list[Tensor] | None = None
        if size <= limit:
            chunks = obfuscated.tensor_split(max(1, len(obfuscated) // max(2, batch)))
            parts = [[_rows(f) for f in self._compute(chunk)] for chunk in chunks]
            self.cached = [torch.cat(level) for level in zip(*parts, strict=True)]

    def _compute(self, obfuscated: Tensor) -> list[Tensor]:
        with torch.no_grad(), self.machine.autocast():
            skips, deepest = self.encoder(obfuscated)
        return [*skips, deepest]

    def __getitem__(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Skip features and deepest feature of the images at ``indices``."""
        if self.cached is None:
            features = self._compute(self.obfuscated[indices])
        else:
            features = [level[indices].permute(0, 3, 1, 2) for level in self.cached]
        return features[:-1], features[-1]


def _rows(feature: Tensor) -> Tensor:
    # Kept as (N, h, w, c) in memory, so that picking images gives channels-last tensors.
    return feature.permute(0, 2, 3, 1).contiguous()


def fit(
    detector: Fader,
    normals: Normals,
    stage: Stage,
    watch: Callable[[Fader], Sequence[float]] | None = None,
) -> History:
    """Train Φ and the decoder in place, and leave the detector in evaluation mode.

    Parameters
    ----------
    watch : called after every epoch; its numbers stand in the history under ``watched``.
    """
    settings, machine = detector.settings, detector.machine
    masked = detector.path.mask != "none"

    def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
        detector.decoder.train()
        detector.phi.train()
        batch = indices.to(machine.device)
        target, (skips, deepest) = normals.images[batch], normals.features[batch]
        pairs = _pairs(detector, random)
        mask = None
        if masked:
            predicted = detector.predict(_read_by_phi(detector, normals, batch))
            mask = detector.arrange(detector.phi.soft_mask(predicted.detach()), random)
        reconstruction = detector.decode(skips, deepest, mask)
        losses = detector.loss(target, reconstruction)
        if masked:
            error = patch_l2(target, reconstruction.detach(), detector.phi.patch)
            rank = rank_loss(predicted, error, *pairs.to(machine.device), settings.margin)  # type: ignore[call-arg]  # two rows
            losses |= {"rank": rank, "loss": losses["loss"] + rank}
        update("adam", losses)

    def observe() -> dict[str, list[float]]:
        _settle(detector, normals)
        return {WATCHED: list(watch(detector))}  # type: ignore[misc]  # called where there is one

    history = train(
        stage,
        modules={"decoder": detector.decoder, "phi": detector.phi},
        optimizers={"adam": _optimizer(detector, len(normals.images))},
        step=step,
        count=len(normals.images),
        batch=settings.batch,
        steps=steps_of(settings, len(normals.images)),
        observe=observe if watch else None,
    )
    _settle(detector, normals)
    return history


def _optimizer(detector: Fader, count: int) -> Optimizer:
    """Adam at η on Φ and at a share of η on the decoder, with the point's schedule."""
    settings, point = detector.settings, detector.point
    detector.decoder.requires_grad_(True)
    decoder_lr = settings.decoder_ratio * point.lr
    groups = [{"params": detector.decoder.parameters(), "lr": decoder_lr}]
    if detector.path.mask != "none":
        groups.insert(0, {"params": detector.phi.parameters(), "lr": point.lr})
    algorithm = torch.optim.Adam(groups, fused=True)
    unit = batches_per_epoch(count, settings.batch) if settings.steps is None else 1
    return Optimizer(algorithm, _schedule(detector, unit))


def _schedule(detector: Fader, unit: int) -> Multiplier:
    """The point's schedule; ``unit`` is that of the length, in steps."""
    settings = detector.settings
    warm, cycle = settings.warmup * unit, settings.cycle * unit
    if detector.point.schedule == "fixed":
        return schedules.fixed()
    if detector.point.schedule == "warmup":
        return schedules.warmup(warm)
    return schedules.sgdr(warm, cycle)


def _pairs(detector: Fader, random: torch.Generator) -> Tensor:
    """Random halves of the patches, (2, n // 2): drawn for every variant alike, so that they differ
    in their mask and in nothing else."""
    count = (detector.context.size // detector.phi.patch) ** 2
    return torch.randperm(count, generator=random)[: count // 2 * 2].view(2, -1)


def _read_by_phi(detector: Fader, normals: Normals, batch: Tensor) -> Tensor:
    """What Φ reads of a batch: I′, or a reconstruction of it without mask, by the decoder as it is
    in use."""
    if detector.path.input == "obfuscated":
        return normals.features.obfuscated[batch]
    detector.decoder.eval()
    with torch.no_grad():
        reconstruction = detector.decode(*normals.features[batch])
    detector.decoder.train()
    return reconstruction.float()


@torch.no_grad()
def _settle(detector: Fader, normals: Normals) -> None:
    """Evaluation mode, and the range that ``normalise: quantile`` takes from all fitted normals."""
    detector.eval()
    if detector.path.normalise == "quantile" and detector.path.mask != "none":
        parts = normals.features.obfuscated.split(16)
        detector.phi.calibrate(torch.cat([detector.predict(part) for part in parts]))
