"""FADeR: a two-layer MLP that attenuates suspected defects on EAR's skip connections (paper section
3).

Φ predicts from every patch of I′ how badly it will be reconstructed, trained by ranking (equation
3) against the error that the decoder really makes (equation 1). Its prediction, normalised per
image and flipped, is the soft mask M_S on all skips (equation 4). The encoder is frozen and nothing
is augmented, so its features are computed once and serve every epoch and every point of the η ×
schedule grid.

Settled where the paper is silent or contradicts itself: Φ reads I′ (its Figure 4 and poster;
equation 2 prints Î), M_S carries no gradient, pairs are random halves inside an image, the
decoder's batch normalisation stays in training mode and the encoder's in evaluation mode.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from fader import training
from fader.config import Config, Fader, Variant, derive_seed
from fader.runtime import Machine
from fader.vision.losses import rank_loss, reconstruction_loss
from fader.vision.mosaic import obfuscate, patch_l2, tokens
from fader.vision.unet import LEAK, Encoder, UNet

RANGE_EPS = 1e-6  # predictions closer than this are "an equal level overall": nothing is attenuated


def predictor(patch: int, hidden: int) -> nn.Sequential:
    """Φ: (…, 3·patch²) → (…, 1), a linear output on raw predictions."""
    return nn.Sequential(
        nn.Linear(3 * patch * patch, hidden), nn.LeakyReLU(LEAK), nn.Linear(hidden, 1)
    )


def soft_mask(predicted: Tensor) -> Tensor:
    """M_S: predictions (B, n) normalised to [0, 1] per image and flipped (paper section 3.3).

    The patch with the largest predicted error gets 0, the smallest 1; all ones where they are
    equal.
    """
    low, high = predicted.amin(1, keepdim=True), predicted.amax(1, keepdim=True)
    span = high - low
    mask = 1 - (predicted - low) / span.clamp_min(RANGE_EPS)
    return mask.where(span > RANGE_EPS, torch.ones_like(mask))


def feature_mask(phi: nn.Module, obfuscated: Tensor, patch: int, variant: Variant) -> Tensor | None:
    """The variant's mask (B, g, g) on the skips for I′ (B, 3, H, W), or None for no mask."""
    if variant.mask == "none":
        return None
    predicted = phi(tokens(obfuscated, patch)).squeeze(-1)
    return _as_grid(soft_mask(predicted.detach()), obfuscated, patch, variant)


def _as_grid(mask: Tensor, images: Tensor, patch: int, variant: Variant) -> Tensor:
    if variant.mask == "hard":
        mask = (mask > 0.5).to(mask.dtype)
    return mask.view(len(mask), images.shape[-2] // patch, images.shape[-1] // patch)


def reconstruct(network: UNet, phi: nn.Module, patch: int, variant: Variant, machine: Machine):
    """Callable (images (B, 3, H, W) in [0, 1], masks (B, H, W)) → reconstructions (paper Figure
    5)."""

    def forward(images: Tensor, masks: Tensor) -> Tensor:
        obfuscated = obfuscate(images, masks, patch)
        mask = feature_mask(phi, obfuscated, patch, variant)
        with machine.autocast():
            return network(obfuscated, mask, variant.scaling)

    return forward


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


@dataclass(frozen=True)
class Point:
    """One point of the η × schedule grid."""

    lr: float
    schedule: str


def grid(settings: Fader) -> list[Point]:
    """The grid in order: η descending as listed, schedules inside."""
    return [Point(lr, schedule) for lr, schedule in product(settings.lrs, settings.schedules)]


@dataclass(frozen=True)
class Outcome:
    """A trained grid point: the decoder's and Φ's weights, losses per epoch, validation
    criterion."""

    point: Point
    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    validation: dict[str, float]


def fit(
    config: Config,
    machine: Machine,
    network: UNet,
    pixels: Tensor,
    masks: Tensor,
    *,
    patch: int,
    variant: Variant,
    points: Sequence[Point],
    validate: Callable[[Callable], dict[str, float]],
    seed: int,
    label: str,
    checkpoint: Callable[[Point], training.Checkpoint],
) -> list[Outcome]:
    """Train FADeR (or a variant) at every grid point, from the same pre-trained EAR ``network``.

    Parameters
    ----------
    pixels, masks : fitted normals (N, 3, H, W) uint8 and their binary masks (N, H, W).
    patch : m*, the mosaic scale and patch size.
    validate : reconstruct callable → label-free criterion with a ``value`` to maximise.
    checkpoint : point → where its training saves itself.
    """
    settings = config.fader
    images = machine.images(pixels)
    obfuscated = obfuscate(images, masks.to(machine.device), patch)
    features = FrozenFeatures(
        network.encoder,
        obfuscated,
        machine,
        batch=config.score.batch,
        limit=settings.cache_gib * 2**30,
    )
    patches = tokens(obfuscated, patch)
    outcomes = []
    for point in points:
        decoder, phi, history = _fit_point(
            config,
            machine,
            copy.deepcopy(network.decoder),
            features,
            images,
            patches,
            patch=patch,
            variant=variant,
            point=point,
            seed=seed,
            label=f"{label} η={point.lr:g} {point.schedule}",
            checkpoint=checkpoint(point),
        )
        tuned = copy.copy(network)
        tuned._modules = {"encoder": network.encoder, "decoder": decoder.eval()}
        criterion = validate(reconstruct(tuned, phi.eval(), patch, variant, machine))
        weights = {
            f"{name}.{key}": value
            for name, module in (("decoder", decoder), ("phi", phi))
            for key, value in module.state_dict().items()
        }
        outcomes.append(Outcome(point, weights, history, criterion))
    return outcomes


def _fit_point(
    config: Config,
    machine: Machine,
    decoder: nn.Module,
    features: FrozenFeatures,
    images: Tensor,
    patches: Tensor,
    *,
    patch: int,
    variant: Variant,
    point: Point,
    seed: int,
    label: str,
    checkpoint: training.Checkpoint,
) -> tuple[nn.Module, nn.Module, list[dict[str, float]]]:
    settings, loss = config.fader, config.loss
    torch.manual_seed(derive_seed(seed, "phi"))
    phi = predictor(patch, settings.hidden).to(machine.device)
    decoder.train().requires_grad_(True)
    groups = [{"params": decoder.parameters(), "lr": settings.decoder_ratio * point.lr}]
    if variant.mask != "none":
        groups.insert(0, {"params": phi.parameters(), "lr": point.lr})
    optimizer = torch.optim.Adam(groups, fused=True)
    half = patches.shape[1] // 2

    def step(indices: Tensor, random: torch.Generator) -> Mapping[str, Tensor]:
        # Drawn for every variant alike, so that arms differ in their mask and in nothing else.
        pairs = torch.randperm(patches.shape[1], generator=random)[: 2 * half].view(2, half)
        chosen = indices.to(machine.device)
        target, (skips, deepest) = images[chosen], features[chosen]
        mask = None
        if variant.mask != "none":
            predicted = phi(patches[chosen]).squeeze(-1)
            mask = _as_grid(soft_mask(predicted.detach()), target, patch, variant)
        with machine.autocast():
            reconstruction = decoder(skips, deepest, mask, variant.scaling)
        losses = reconstruction_loss(
            target,
            reconstruction,
            l2=loss.l2,
            ssim_weight=loss.ssim,
            msgms=loss.msgms,
            scales=loss.scales,
        )
        if mask is not None:
            error = patch_l2(target, reconstruction.detach(), patch)
            rank = rank_loss(predicted, error, *pairs.to(machine.device), settings.margin)
            losses |= {"rank": rank, "loss": losses["loss"] + rank}
        return losses

    per_epoch = training.batches_per_epoch(len(images), settings.batch)
    schedules = {
        "fixed": training.fixed(),
        "warmup": training.warmup(settings.warmup_epochs * per_epoch),
        "sgdr": training.sgdr(
            settings.warmup_epochs * per_epoch, settings.cycle_epochs * per_epoch
        ),
    }
    history = training.train(
        label=label,
        modules={"decoder": decoder, "phi": phi},
        optimizer=optimizer,
        step=step,
        count=len(images),
        batch=settings.batch,
        epochs=settings.epochs,
        seed=seed,
        multiplier=schedules[point.schedule],
        checkpoint=checkpoint,
        remedy="remove the largest of fader.lrs",
    )
    return decoder, phi, history


def load(
    network: UNet, weights: Mapping[str, Tensor], patch: int, hidden: int, machine: Machine
) -> nn.Module:
    """Put a trained decoder into EAR's ``network`` (in place) and return the trained Φ, both in
    eval mode."""
    phi = predictor(patch, hidden)
    for name, module in (("decoder", network.decoder), ("phi", phi)):
        prefix = f"{name}."
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
    return phi.to(machine.device).eval().requires_grad_(False)
