"""AMI-Net (Luo et al., IEEE T-ASE 2024): inpainting of frozen features under an adaptive mask.

A frozen convolutional pyramid gives an image C channels at a quarter of its side; a token is a
patch of 4 x 4 of these cells. The auxiliary stream turns learnable tokens into the centres of the
image's clusters; tokens far from their centre, measured against their own cluster, are suspected.
The main stream is a transformer that predicts the features of all patches, suspects replaced by a
learnable token. It is trained with random masks of random size, hence the two streams meet only
when a test image is masked.

The saliency is the map that the paper scores: squared error times (1 - cosine) between predicted
and frozen features, each smoothed. It is not scaled per image, so maps compare across images. The
binary token mask of the method itself is ``AmiNetMasker.native``.

What the paper leaves open is as in the authors' code: clean tokens with positions are compared
with layer-normalised centres, jitter is drawn at the tokens (so it weighs 20 / sqrt(width) of a
token's norm: 0.7 at width 768), a cluster of one token has no outlier, the standard deviation is
the unbiased one, and the smoothing of 4 pixels is of the input image, one cell of the features;
here it is done at the features' resolution. Theirs also aligns corners when it resizes features,
which shifts levels against each other and is left out, and keeps the best epoch on the test set
instead of the last.
"""

from collections.abc import Callable, Mapping

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import AmiNet
from fader.errors import FaderError
from fader.maskers import Context
from fader.seeds import derive_seed
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.vision.backbones import load_pyramid

CELL = 4  # pixels of the resized image per feature cell
PATCH = 4  # feature cells per side of a token
JITTER = 20.0
COSINE_WEIGHT = 5.0
SPREAD_WEIGHT = 0.1
SMOOTHING = 4.0 / CELL  # standard deviation, cells
CACHE_BYTES = 4 * 2**30


def patchify(features: Tensor) -> Tensor:
    """Features (B, C, H, W) → patches (B, H/4 * W/4, 16 C), row by row."""
    return F.pixel_unshuffle(features, PATCH).flatten(2).mT


def unpatchify(patches: Tensor) -> Tensor:
    """Inverse of ``patchify`` for square features: (B, g * g, 16 C) → (B, C, 4 g, 4 g)."""
    side = round(patches.shape[1] ** 0.5)
    return F.pixel_shuffle(patches.mT.unflatten(2, (side, side)), PATCH)


def cluster_distance(tokens: Tensor, centres: Tensor) -> Tensor:
    """Tokens (B, L, D), centres (B, K, D) → ‖t − c‖₂ (1 − cos(t, c)), (B, L, K), non-negative."""
    apart = torch.linalg.vector_norm(tokens.unsqueeze(2) - centres.unsqueeze(1), dim=-1)
    cosine = F.normalize(tokens, dim=-1) @ F.normalize(centres, dim=-1).mT
    return apart * (1 - cosine).clamp_min(0)


def outliers(distances: Tensor, sigma: float) -> Tensor:
    """Adaptive mask: tokens at least mean + sigma * std of their cluster away from its centre.

    Parameters
    ----------
    distances : (B, L, K) of L tokens to K centres; a token belongs to the nearest.

    Returns
    -------
    (B, L) bool. The statistics are those of one cluster of one image.
    """
    nearest = distances.amin(dim=2)
    clusters = torch.arange(distances.shape[2], device=distances.device)
    member = (distances.argmin(dim=2, keepdim=True) == clusters).float()
    count = member.sum(dim=1)
    mean = (member.mT @ nearest.unsqueeze(2)).squeeze(2) / count.clamp_min(1)
    spread = (member * (nearest.unsqueeze(2) - mean.unsqueeze(1)).square()).sum(dim=1)
    limit = mean + sigma * (spread / (count - 1).clamp_min(1)).sqrt()
    limit = limit.masked_fill(count < 2, torch.finfo(limit.dtype).max)
    return nearest >= (member @ limit.unsqueeze(2)).squeeze(2)


def random_mask(images: int, tokens: int, random: torch.Generator) -> Tensor:
    """(images, tokens) bool: in each image floor(u * tokens) tokens at random, u ~ U(0, 1)."""
    count = (torch.rand(images, 1, generator=random) * tokens).floor()
    rank = torch.rand(images, tokens, generator=random).argsort(dim=1).argsort(dim=1)
    return rank < count


def jitter(tokens: Tensor, random: torch.Generator) -> Tensor:
    """Tokens (B, L, D) plus Gaussian noise of standard deviation 20 ||token|| / D per component."""
    noise = torch.randn(tokens.shape, generator=random, device=tokens.device)
    scale = JITTER / tokens.shape[-1]
    return tokens + scale * torch.linalg.vector_norm(tokens, dim=-1, keepdim=True) * noise


def inpainting_losses(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Means over the patches (B, L, 16 C), hidden or not, of 1 - cosine and of squared error."""
    return {
        "cosine": (1 - F.cosine_similarity(prediction, target, dim=-1)).mean(),
        "mse": F.mse_loss(prediction, target),
    }


def clustering_losses(tokens: Tensor, centres: Tensor) -> dict[str, Tensor]:
    """Mean distance of tokens to their nearest centre, and mean distance between two centres."""
    clusters = centres.shape[1]
    pairs = cluster_distance(centres, centres).sum(dim=(1, 2)) / (clusters * (clusters - 1))
    return {
        "compactness": cluster_distance(tokens, centres).amin(dim=2).mean(),
        "spread": pairs.mean(),
    }


def residual_map(prediction: Tensor, target: Tensor) -> Tensor:
    """Patches (B, g * g, 16 C) → (B, 4 g, 4 g): smoothed squared error (mean over channels) times
    smoothed 1 - cosine (over channels)."""
    prediction, target = unpatchify(prediction), unpatchify(target)
    squared = (prediction - target).square().mean(dim=1)
    direction = (1 - F.cosine_similarity(prediction, target, dim=1)).clamp_min(0)
    blur = _gaussian(squared.shape[-1], SMOOTHING).to(squared.device)
    return (blur @ squared @ blur.T) * (blur @ direction @ blur.T)


def _gaussian(size: int, sigma: float) -> Tensor:
    """(size, size) matrix of a Gaussian filter cut at 4 sigma, edges mirrored (scipy's default)."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    source = torch.remainder(torch.arange(size).unsqueeze(1) + offsets, 2 * size)
    source = torch.minimum(source, 2 * size - 1 - source)
    return kernel / kernel.sum() @ F.one_hot(source, size).float()


class InpaintingNetwork(nn.Module):
    """Both streams of AMI-Net, on patches (B, L, 16 C) of frozen features, L = grid²."""

    def __init__(
        self, channels: int, grid: int, *, width: int, depth: int, heads: int, clusters: int
    ) -> None:
        super().__init__()
        features = channels * PATCH**2
        self.embed = nn.Linear(features, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, features)
        self.auxiliary_embed = nn.Linear(features, width)
        self.cluster_tokens = nn.Parameter(torch.empty(clusters, width).normal_(std=0.02))
        self.auxiliary = Block(width, heads, qkv_bias=True)
        self.auxiliary_norm = nn.LayerNorm(width)
        positions = build_sincos2d_pos_embed([grid, grid], width)
        self.positions: Tensor
        self.register_buffer("positions", positions, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.auxiliary_embed:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def cluster(
        self, patches: Tensor, noise: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Auxiliary stream: tokens (B, L, D) with their positions, cluster centres (B, K, D); fp32.

        Parameters
        ----------
        noise : draws the jitter (training only) of what the centres are made from.
        """
        tokens = self.auxiliary_embed(patches).float()
        seen = tokens if noise is None else jitter(tokens, noise)
        queries = self.cluster_tokens.expand(len(tokens), -1, -1)
        mixed = self.auxiliary(torch.cat([queries, seen + self.positions], dim=1))
        centres = self.auxiliary_norm(mixed[:, : queries.shape[1]]).float()
        return tokens + self.positions, centres

    def inpaint(
        self, patches: Tensor, mask: Tensor, noise: torch.Generator | None = None
    ) -> Tensor:
        """Main stream: features (B, L, 16 C) of all patches, fp32, blind to ``mask`` (B, L).

        Parameters
        ----------
        noise : draws the jitter (training only), which the mask token gets too.
        """
        tokens = self.embed(patches).float()
        tokens = torch.where(mask.unsqueeze(2), self.mask_token, tokens)
        if noise is not None:
            tokens = jitter(tokens, noise)
        return self.head(self.norm(self.blocks(tokens + self.positions))).float()


class AmiNetMasker:
    """AMI-Net as a masker.

    Parameters
    ----------
    name : the masker, for messages.
    settings : ``input_size`` is the side of the square the images are resized to (bilinear,
        antialiased).
    context : as in ``fader.maskers.create``.

    Raises
    ------
    MissingWeights, FaderError : as ``backbones.load_pyramid``.
    """

    def __init__(self, name: str, settings: AmiNet, context: Context) -> None:
        self.name, self.settings, self.machine = name, settings, context.machine
        self.batch = settings.batch
        pyramid = load_pyramid(
            settings.backbone, settings.layers, context.weights_dir, random=context.random
        )
        self.weights = str(pyramid.info)
        self.pyramid = pyramid.to(self.machine.device)
        self.network: InpaintingNetwork | None = None

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """Both streams."""
        return (self._trained(),)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The pyramid."""
        return (self.pyramid,)

    def initialise(self, seed: int) -> None:
        """Draw the weights of both streams."""
        self.network = self._build(seed)

    def fit(self, normal: Tensor, run: Run) -> dict[str, History]:
        """Train both streams on normal images (N, 3, H, W) uint8; one stage, ``inpainting``.

        The frozen features of all images are computed once and kept in half precision on the
        device, unless they take more than ``CACHE_BYTES`` (4 GiB: 292 images of 256 pixels at
        1792 channels); then those of each batch are computed when it comes.
        """
        settings, device = self.settings, self.machine.device
        self.initialise(derive_seed(run.seed, "inpainting weights"))
        network = self._trained()
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.lr, betas=(0.9, 0.95), fused=True
        )
        frozen = self._frozen_patches(normal)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            patches = frozen(indices)
            mask = random_mask(*patches.shape[:2], random).to(device)  # type: ignore[call-arg]  # two sizes
            # Millions of normals a step: drawn where they are needed.
            noise = torch.Generator(device)
            noise.manual_seed(int(torch.randint(2**62, (1,), generator=random)))
            with self.machine.autocast():
                tokens, centres = network.cluster(patches, noise)
                prediction = network.inpaint(patches, mask, noise)
            losses = inpainting_losses(prediction, patches) | clustering_losses(tokens, centres)
            loss = COSINE_WEIGHT * losses["cosine"] + losses["mse"]
            loss = loss + losses["compactness"] - SPREAD_WEIGHT * losses["spread"]
            update("adamw", {"loss": loss} | losses)

        history = train(
            run.stage("inpainting", f"lower masks.maskers.{self.name}.lr"),
            modules={"network": network},
            optimizers={"adamw": Optimizer(optimizer)},
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=steps_of(settings, len(normal)),
        )
        return {"inpainting": history}

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] → residual maps (N, g, g) fp32, g = input_size / 4, same
        device; FaderError before ``fit`` or ``load``."""
        network = self._trained()
        maps = []
        for part in images.split(self.batch):
            patches = self._patches(part)
            mask = self._suspects(patches)
            with self.machine.autocast():
                prediction = network.inpaint(patches, mask)
            maps.append(residual_map(prediction, patches).to(images.device))
        return torch.cat(maps)

    @torch.no_grad()
    def native(self, images: Tensor, saliency: Tensor) -> Tensor:
        """The adaptive mask of images (N, 3, H, W) in [0, 1]: (N, g, g) bool, True = hidden, g =
        input_size / 16, same device; FaderError before ``fit`` or ``load``."""
        masks = [self._suspects(self._patches(p)) for p in images.split(self.batch)]
        return torch.cat(masks).unflatten(1, (self._grid, self._grid)).to(images.device)

    def state(self) -> dict[str, Tensor]:
        """Weights of both streams, on the CPU; FaderError before ``fit`` or ``load``."""
        return {key: value.cpu() for key, value in self._trained().state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; FaderError when it is not of these settings."""
        network = self._build(seed=0)
        try:
            network.load_state_dict(dict(state))
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise FaderError(
                f"masker {self.name!r}: weights are not of these settings: {detail[:300]};"
                " train it again"
            ) from error
        self.network = network

    @property
    def _grid(self) -> int:
        return self.settings.input_size // (CELL * PATCH)

    def _build(self, seed: int) -> InpaintingNetwork:
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = InpaintingNetwork(
                sum(self.pyramid.channels),
                self._grid,
                width=settings.width,
                depth=settings.depth,
                heads=settings.heads,
                clusters=settings.clusters,
            )
        return network.to(self.machine.device)

    def _trained(self) -> InpaintingNetwork:
        if self.network is None:
            raise FaderError(f"masker {self.name!r} has not learnt anything; fit or load it first")
        return self.network

    @torch.no_grad()
    def _patches(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] → patches of their frozen features (B, L, 16 C), fp32."""
        side = self.settings.input_size
        images = images.to(self.machine.device, torch.float32)
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        cells = (side // CELL, side // CELL)
        levels = [
            F.avg_pool2d(F.interpolate(level, cells, mode="bilinear"), 3, stride=1, padding=1)
            for level in self.pyramid(images)
        ]
        return patchify(torch.cat(levels, dim=1))

    def _frozen_patches(self, normal: Tensor) -> Callable[[Tensor], Tensor]:
        """Callable (indices (b,) → patches of those images, fp32), from memory if they fit."""

        def compute(indices: Tensor) -> Tensor:
            return self._patches(self.machine.images(normal[indices])).half()

        values = sum(self.pyramid.channels) * (self.settings.input_size // CELL) ** 2
        if len(normal) * values * torch.half.itemsize > CACHE_BYTES:
            return lambda indices: compute(indices).float()
        parts = torch.arange(len(normal)).split(self.settings.batch)
        cache = torch.cat([compute(part) for part in parts])
        return lambda indices: cache[indices.to(cache.device)].float()

    def _suspects(self, patches: Tensor) -> Tensor:
        """Patches → (B, L) bool, the adaptive mask."""
        with self.machine.autocast():
            tokens, centres = self._trained().cluster(patches)
        return outliers(cluster_distance(tokens, centres), self.settings.sigma)


def create(name: str, settings: AmiNet, context: Context) -> AmiNetMasker:
    """As ``fader.maskers.create``."""
    return AmiNetMasker(name, settings, context)
