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

A ``Variant`` changes one thing in this: the ablations of Table 3, and the controls that tell the
mask's part in the gain from that of the extra training.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from fader.config import Config, Fader, Variant
from fader.errors import FaderError
from fader.runtime import Machine, generator
from fader.seeds import derive_seed
from fader.training import schedules
from fader.training.loop import Optimizer, Run, Stage, Update, batches_per_epoch, train
from fader.vision.losses import rank_loss, reconstruction_loss
from fader.vision.mosaic import obfuscate, patch_l2, tokens
from fader.vision.unet import LEAK, Encoder, UNet

RANGE_EPS = 1e-6  # predictions closer than this are "an equal level overall": nothing is attenuated
QUANTILES = (0.01, 0.99)  # of the training normals' predictions: what M_S = 1 and 0 stand for


class Mlp(nn.Sequential):
    """The paper's Φ: tokens of an image (B, 3, H, W) → a prediction a patch (B, n)."""

    def __init__(self, patch: int, hidden: int) -> None:
        super().__init__(
            nn.Linear(3 * patch * patch, hidden), nn.LeakyReLU(LEAK), nn.Linear(hidden, 1)
        )
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(tokens(images, self.patch)).squeeze(-1)


class Vit(nn.Module):
    """Table 3's ViT in the place of the MLP: every patch sees the others; (B, 3, H, W) → (B, n)."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int) -> None:
        from timm.models.vision_transformer import VisionTransformer  # seconds, for this Φ only

        super().__init__()
        self.patch = patch
        self.body = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            class_token=False,
            global_pool="",
            num_classes=0,
        )
        self.head = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(2 * images - 1)).squeeze(-1)


class Predictor(nn.Module):
    """Φ with the normalisation that turns its predictions into M_S.

    body : ``Mlp`` or ``Vit``. normalise : ``minmax`` per image (the paper); ``sigmoid``, an
    absolute level; ``quantile``, between the training normals' 1 % and 99 % (of the batch while
    training, of all fitted normals afterwards).
    """

    def __init__(self, body: Mlp | Vit, normalise: str) -> None:
        super().__init__()
        self.body, self.normalise, self.patch = body, normalise, body.patch
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        """Raw predictions l̂ (B, n) of images (B, 3, H, W), row-major over the patch grid."""
        return self.body(images).float()

    def soft_mask(self, predicted: Tensor) -> Tensor:
        """M_S (B, n) in [0, 1] of raw predictions; large predicted errors get small values."""
        if self.normalise == "sigmoid":
            return 1 - predicted.sigmoid()
        if self.normalise == "quantile":
            low, high = _range(predicted) if self.training else self.range
            return 1 - ((predicted - low) / (high - low).clamp_min(RANGE_EPS)).clamp(0, 1)
        return soft_mask(predicted)

    def calibrate(self, predicted: Tensor) -> None:
        """Set the range from the predictions of all fitted normals."""
        self.range.copy_(_range(predicted))


def _range(predicted: Tensor) -> Tensor:
    return torch.quantile(predicted.flatten(), predicted.new_tensor(QUANTILES))


def soft_mask(predicted: Tensor) -> Tensor:
    """M_S: predictions (B, n) normalised to [0, 1] per image and flipped (paper section 3.3).

    The patch with the largest predicted error gets 0, the smallest 1; all ones where they are
    equal.
    """
    low, high = predicted.amin(1, keepdim=True), predicted.amax(1, keepdim=True)
    span = high - low
    mask = 1 - (predicted - low) / span.clamp_min(RANGE_EPS)
    return mask.where(span > RANGE_EPS, torch.ones_like(mask))


def predictor(config: Config, patch: int, variant: Variant) -> Predictor:
    """A fresh Φ of a variant; ``patch`` is m*. Draws from the global generator."""
    if variant.predictor == "mlp":
        return Predictor(Mlp(patch, config.fader.hidden), variant.normalise)
    vit = config.fader.vit
    body = Vit(config.image.size, vit.patch or patch, vit.width, vit.depth, vit.heads)
    return Predictor(body, variant.normalise)


def arrange(mask: Tensor, variant: Variant, random: torch.Generator) -> Tensor:
    """The variant's mask (B, n) from the soft one: hard, shuffled over patches, or its mean.

    ``random`` is left as it was, so that shuffling shifts no draw that the arms have in common.
    """
    if variant.mask == "hard":
        return (mask > 0.5).to(mask.dtype)
    if variant.mask == "shuffled":
        order = torch.randperm(mask.shape[1], generator=random.clone_state())
        return mask[:, order.to(mask.device)]
    if variant.mask == "constant":
        return mask.mean(1, keepdim=True).expand_as(mask)
    return mask


def as_grid(mask: Tensor, images: Tensor, patch: int) -> Tensor:
    """(B, n) → (B, H / patch, W / patch)."""
    return mask.reshape(len(mask), images.shape[-2] // patch, images.shape[-1] // patch)


def feature_mask(
    network: UNet, phi: Predictor, obfuscated: Tensor, variant: Variant, machine: Machine
) -> Tensor | None:
    """The variant's mask (B, g, g) on the skips for I′ (B, 3, H, W), or None for no mask.

    Shuffling takes one permutation, the same for all images.
    """
    if variant.mask == "none":
        return None
    seen = obfuscated
    if variant.input == "reconstruction":
        with machine.autocast():
            seen = network(obfuscated, None, variant.scaling)
        seen = seen.float()
    mask = phi.soft_mask(phi(seen).detach())
    return as_grid(arrange(mask, variant, generator(0)), obfuscated, phi.patch)


def reconstruct(network: UNet, phi: Predictor, patch: int, variant: Variant, machine: Machine):
    """Callable (images (B, 3, H, W) in [0, 1], masks (B, H, W)) → reconstructions (paper Figure
    5). ``patch`` is m*."""

    def forward(images: Tensor, masks: Tensor) -> Tensor:
        obfuscated = obfuscate(images, masks, patch)
        mask = feature_mask(network, phi, obfuscated, variant, machine)
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
    """A trained grid point: the decoder's and Φ's weights, losses per epoch, validation criterion,
    and what was watched after every epoch (epochs, k)."""

    point: Point
    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    validation: dict[str, float]
    watched: Tensor


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
    watch: Callable[[Callable], Sequence[float]],
    run: Run,
    initial: Mapping[str, Tensor] | None = None,
) -> list[Outcome]:
    """Train FADeR (or a variant) at every grid point, from the same pre-trained EAR ``network``.

    Parameters
    ----------
    pixels, masks : fitted normals (N, 3, H, W) uint8 and their binary masks (N, H, W).
    patch : m*, the mosaic scale and patch size.
    validate : reconstruct callable → label-free criterion with a ``value`` to maximise.
    watch : reconstruct callable → numbers recorded after every epoch; they decide nothing.
    run : seed, label, and where the training of each point saves itself.
    initial : pre-trained weights of a ViT's body, or None.
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
    outcomes = []
    for point in points:
        tuned = copy.copy(network)
        decoder = copy.deepcopy(network.decoder)
        tuned._modules = {"encoder": network.encoder, "decoder": decoder}
        torch.manual_seed(derive_seed(run.seed, "phi"))
        phi = predictor(config, patch, variant)
        if initial is not None:
            _start_from(phi.body, initial)
        phi = phi.to(machine.device)
        history = _fit_point(
            config,
            machine,
            tuned,
            phi,
            features,
            images,
            patch=patch,
            variant=variant,
            point=point,
            watch=watch,
            stage=_stage(run, point),
        )
        criterion = validate(reconstruct(tuned, phi, patch, variant, machine))
        weights = {
            f"{name}.{key}": value
            for name, module in (("decoder", decoder), ("phi", phi))
            for key, value in module.state_dict().items()
        }
        watched = torch.tensor([epoch.pop(WATCHED) for epoch in history])
        outcomes.append(Outcome(point, weights, history, criterion, watched))
    return outcomes


def _stage(run: Run, point: Point) -> Stage:
    """The training of a grid point: every point sees the same images in the same order."""
    return Stage(
        f"{run.label} η={point.lr:g} {point.schedule}",
        run.seed,
        run.checkpoint(f"{point.lr!r}-{point.schedule}"),
        "remove the largest of fader.lrs",
    )


def _start_from(vit: Vit, initial: Mapping[str, Tensor]) -> None:
    try:
        vit.body.load_state_dict(initial)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise FaderError(
            f"fader.vit: its backbone's weights do not fit ({detail[:200]}); set patch, width,"
            " depth and heads to the backbone's"
        ) from error


WATCHED = "watched"


def _fit_point(
    config: Config,
    machine: Machine,
    network: UNet,
    phi: Predictor,
    features: FrozenFeatures,
    images: Tensor,
    *,
    patch: int,
    variant: Variant,
    point: Point,
    watch: Callable[[Callable], Sequence[float]],
    stage: Stage,
) -> list[dict[str, float]]:
    """Train the decoder of ``network`` and ``phi`` in place; both are left in evaluation mode."""
    settings, loss, decoder = config.fader, config.loss, network.decoder
    decoder.requires_grad_(True)
    groups = [{"params": decoder.parameters(), "lr": settings.decoder_ratio * point.lr}]
    if variant.mask != "none":
        groups.insert(0, {"params": phi.parameters(), "lr": point.lr})
    optimizer = torch.optim.Adam(groups, fused=True)

    def seen(chosen: Tensor, skips: list[Tensor], deepest: Tensor) -> Tensor:
        if variant.input == "obfuscated":
            return features.obfuscated[chosen]
        decoder.eval()
        with torch.no_grad(), machine.autocast():
            reconstruction = decoder(skips, deepest, None, variant.scaling)
        decoder.train()
        return reconstruction.float()

    def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
        decoder.train()
        phi.train()
        chosen = indices.to(machine.device)
        target, (skips, deepest) = images[chosen], features[chosen]
        # Drawn for every variant alike, so that arms differ in their mask and in nothing else.
        count = (target.shape[-2] // phi.patch) * (target.shape[-1] // phi.patch)
        pairs = torch.randperm(count, generator=random)[: count // 2 * 2].view(2, -1)
        mask = None
        if variant.mask != "none":
            with machine.autocast() if variant.predictor == "vit" else nullcontext():
                predicted = phi(seen(chosen, skips, deepest))
            mask = arrange(phi.soft_mask(predicted.detach()), variant, random)
            mask = as_grid(mask, target, phi.patch)
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
            error = patch_l2(target, reconstruction.detach(), phi.patch)
            rank = rank_loss(predicted, error, *pairs.to(machine.device), settings.margin)
            losses |= {"rank": rank, "loss": losses["loss"] + rank}
        update("adam", losses)

    def settle() -> dict[str, list[float]]:
        decoder.eval()
        phi.eval()
        if variant.normalise == "quantile" and variant.mask != "none":
            with torch.no_grad():
                phi.calibrate(torch.cat([phi(part) for part in features.obfuscated.split(16)]))
        return {WATCHED: list(watch(reconstruct(network, phi, patch, variant, machine)))}

    per_epoch = batches_per_epoch(len(images), settings.batch)
    by_name = {
        "fixed": schedules.fixed(),
        "warmup": schedules.warmup(settings.warmup_epochs * per_epoch),
        "sgdr": schedules.sgdr(
            settings.warmup_epochs * per_epoch, settings.cycle_epochs * per_epoch
        ),
    }
    history = train(
        stage,
        modules={"decoder": decoder, "phi": phi},
        optimizers={"adam": Optimizer(optimizer, by_name[point.schedule])},
        step=step,
        count=len(images),
        batch=settings.batch,
        epochs=settings.epochs,
        observe=settle,
    )
    decoder.eval()
    phi.eval()
    return history


def load(
    network: UNet,
    weights: Mapping[str, Tensor],
    patch: int,
    variant: Variant,
    config: Config,
    machine: Machine,
) -> Predictor:
    """Put a trained decoder into EAR's ``network`` (in place) and return the trained Φ, both in
    eval mode."""
    phi = predictor(config, patch, variant)
    for name, module in (("decoder", network.decoder), ("phi", phi)):
        prefix = f"{name}."
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
    return phi.to(machine.device).eval().requires_grad_(False)
