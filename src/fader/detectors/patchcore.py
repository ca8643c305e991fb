"""PatchCore: how far each patch of an image is from the nearest patch of the normal images (Roth et
al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022).

Nothing is trained. Patches are the tokens of some blocks of a pretrained ViT, after its final norm,
averaged over their neighbours; the paper takes two levels of a Wide ResNet-50. A greedy k-centre
coreset of the normals' patches is kept, the memory bank, found on random projections of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import (  # type: ignore[import-untyped]
    gaussian_blur,
)

from fader.config import PatchCore as Settings
from fader.detectors.base import Context, Detector, Images
from fader.errors import FaderError
from fader.runtime import generator
from fader.seeds import derive_seed
from fader.training.loop import History, Run
from fader.vision import backbones


class PatchCore(Detector):
    """Memory bank (rows, channels) of patch features, and the frozen ViT that makes them.

    Raises
    ------
    FaderError : the backbone is no ViT, has no such block, or another patch size.
    MissingWeights : its weights cannot be had.
    """

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        entry = backbones.backbone(settings.backbone)
        if not entry.patch_size or settings.input_size % entry.patch_size:
            raise FaderError(
                f"patchcore: input_size {settings.input_size} is no multiple of the patch size of"
                f" {settings.backbone!r}: {entry.patch_size or 'none, it is no vision transformer'}"
            )
        model: Any
        model, info = backbones.load(settings.backbone, context.weights_dir, random=context.random)
        if max(settings.blocks) >= len(model.blocks):
            raise FaderError(
                f"patchcore: block {max(settings.blocks)} of {settings.backbone!r}, which has"
                f" {len(model.blocks)}, counted from 0"
            )
        self.weights = str(info)
        self.backbone = model.to(self.machine.device)
        # Cost is measured with a full bank.
        rows = settings.most if context.random else 0
        self.memory = Memory(torch.zeros(rows, len(settings.blocks) * model.embed_dim))
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(entry.mean).view(3, 1, 1), persistent=False)
        self.std: Tensor
        self.register_buffer("std", torch.tensor(entry.std).view(3, 1, 1), persistent=False)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """As ``Detector.frozen``: the ViT."""
        return (self.backbone,)

    @torch.inference_mode()
    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """Fill the bank; the run's seed is that of the projection and of the first patch. There are
        no epochs.

        Raises
        ------
        FaderError : fewer than two images.
        """
        if len(normal) < 2:
            raise FaderError(f"{run.label}: {len(normal)} training image(s); at least 2 are needed")
        parts = [
            self.patches(self.machine.images(part.pixels)).flatten(0, 2).cpu()
            for part in normal.batches(self.context.score.batch)
        ]
        patches = torch.cat(parts)
        count = min(self.settings.most, math.ceil(self.settings.coreset * len(patches)))
        random = generator(derive_seed(run.seed, "coreset"))
        self.memory.bank = patches[coreset(patches, count, self.settings.projection, random)].to(
            self.machine.device
        )
        self.eval()
        return {}

    def patches(self, images: Tensor) -> Tensor:
        """Features (B, g, g, channels), float32, of images (B, 3, H, W) in [0, 1], resized to
        ``input_size`` where they have another side."""
        side = self.settings.input_size
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        with self.machine.autocast():
            levels = self.backbone.forward_intermediates(
                (images - self.mean) / self.std,
                indices=self.settings.blocks,
                norm=True,
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        around = self.settings.neighbourhood
        pooled = F.avg_pool2d(
            torch.cat(levels, 1).float(), around, 1, around // 2, count_include_pad=False
        )
        return pooled.permute(0, 2, 3, 1)

    def judge(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps (B, S, S), S the run's side, and scores (B,) of images (B, 3, H, W) in [0, 1]."""
        patches = self.patches(images)
        found, nearest = self.memory.nearest(patches.flatten(0, 2))
        maps = found.view(patches.shape[:3])
        scores = self._reweighted(patches.flatten(1, 2), maps.flatten(1), nearest)
        size, sigma = self.context.size, self.settings.sigma
        maps = F.interpolate(maps.unsqueeze(1), (size, size), mode="bilinear")
        maps = gaussian_blur(maps, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        return maps.squeeze(1), scores

    def _reweighted(self, patches: Tensor, distances: Tensor, nearest: Tensor) -> Tensor:
        """Image scores (B,), equation 7: the largest distance s* of a patch, less where its nearest
        m* of the bank lies apart from m*'s own neighbours.

        Parameters
        ----------
        patches : (B, n, channels).
        distances : (B, n) to the bank; ``nearest`` (B·n,) rows of it.
        """
        largest, at = distances.max(1)
        at = at.unsqueeze(1)
        patch = patches.gather(1, at.unsqueeze(2).expand(-1, -1, patches.shape[2])).squeeze(1)
        centre = self.memory.bank[nearest.view_as(distances).gather(1, at).squeeze(1)]
        count = min(self.settings.neighbours, len(self.memory.bank))
        around = self.memory.bank[self.memory.order(centre).topk(count, largest=False).indices]
        apart = (around - patch.unsqueeze(1)).square().sum(2).sqrt()
        # The paper's quotient of exponentials, as a softmax that cannot overflow; m* is at distance
        # ``largest``.
        share = (largest - apart.logsumexp(1)).exp()
        return (1 - share) * largest

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """As ``Detector.anomaly_map``."""
        return self.judge(images)[0]

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """As ``Detector.image_score``; not a function of the smoothed maps."""
        return self.judge(images)[1]

    def state(self) -> dict[str, Tensor]:
        """The bank; the ViT comes with its package."""
        return {"bank": self.memory.bank}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """As ``Detector.load``; a bank has as many rows as were kept."""
        self.memory.bank = state["bank"].to(self.machine.device)
        self.eval().requires_grad_(False)


class Memory(nn.Module):
    """The bank (rows, channels)."""

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.bank: Tensor
        self.register_buffer("bank", bank)

    def order(self, patches: Tensor) -> Tensor:
        """What ranks the bank by its distance to patches (n, channels): the squared distances (n,
        rows), less the squared length of each patch."""
        return torch.addmm(self.bank.square().sum(1), patches, self.bank.T, alpha=-2)

    def nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (n,) of each patch (n, channels) to the bank, and the row of the nearest."""
        rows = self.order(patches).argmin(1)
        # Anew, free of the rounding of larger terms.
        return (patches - self.bank[rows]).square().sum(1).sqrt(), rows


def coreset(patches: Tensor, count: int, projection: int, random: torch.Generator) -> Tensor:
    """Rows (count,) of patches (n, channels): each is the farthest from those before it, the first
    is drawn (greedy k-centre).

    Distances are those of random Gaussian projections to ``projection`` values, which keep them
    roughly (Johnson and Lindenstrauss).
    """
    matrix = torch.randn(patches.shape[1], projection, generator=random) / math.sqrt(projection)
    points = (patches - patches.mean(0)) @ matrix
    lengths = points.square().sum(1)
    farthest = int(torch.randint(len(points), (1,), generator=random))
    remote = torch.full_like(lengths, torch.inf)
    rows = []
    for _ in range(count):
        rows.append(farthest)
        products = torch.addmv(lengths, points, points[farthest], alpha=-2)
        torch.minimum(remote, products.add_(lengths[farthest]), out=remote)
        remote[farthest] = -torch.inf  # not twice, whatever the rounding
        farthest = int(remote.argmax())
    return torch.tensor(rows)


def create(settings: Settings, context: Context) -> PatchCore:
    """As ``fader.detectors.create``."""
    return PatchCore(context, settings).to(context.machine.device).eval()
