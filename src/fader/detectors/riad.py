"""RIAD: reconstruction by inpainting for visual anomaly detection (Zavrtanik, Kristan and Skočaj,
Pattern Recognition 2021).

A grid of k × k cells falls at random into n disjoint sets; the network sees the image n times, each
time without one of the sets, and what it puts into the gaps makes the inpainted image
I_r = Σ_i M̄_i ⊙ U(M_i ⊙ I), no pixel of which was seen by the pass that made it.

RIAD fixes k ∈ {2, 4, 8, 16}, drawn anew at every step, n = 3, the sum of L2, MSGMS and SSIM losses
at equal weights, Adam at 1e-4 with weight decay 1e-5, batches of 4, 300 epochs at 256², and for a
score the MSGMS maps averaged over k, a 21 × 21 mean filter and the maximum. × 0.1 at 5/6 of the
epochs is that of the public re-implementations. Our choices: EAR's U-Net and losses (on colour
images in [0, 1]) instead of RIAD's own, a grid of its own for each image of a batch, the last epoch
instead of early stopping, and the same sets for every image at test, so that an image's map does
not depend on the others.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from fader.config import Riad as Settings
from fader.detectors.base import Context, Images
from fader.detectors.reconstruction import UNetDetector, anomaly_map
from fader.runtime import generator
from fader.seeds import derive_seed
from fader.training.loop import History, Run, Update
from fader.training.schedules import step_decay
from fader.vision.losses import reconstruction_loss

TEST_SEED = 0  # of the sets at test
SEEDS = 5  # of sets whose scores are compared


def disjoint_sets(
    count: int, size: int, cell: int, subsets: int, random: torch.Generator
) -> Tensor:
    """Grids of ``cell`` × ``cell`` pixels whose cells fall at random into disjoint sets.

    Returns
    -------
    (count, subsets, size, size) bool, True = in the set. In each of the ``count`` grids the sets
    cover the image, none overlaps another, and they differ by at most one cell.
    """
    side = size // cell
    order = torch.rand(count, side * side, generator=random).argsort(dim=1)
    of_cell = (order % subsets).view(count, 1, side, side)
    sets = of_cell == torch.arange(subsets).view(-1, 1, 1)
    return sets.repeat_interleave(cell, dim=-2).repeat_interleave(cell, dim=-1)


# Kept for the whole process, for they are constants: a traced graph holds them.
@cache
@torch.inference_mode(False)
def sets_at_test(size: int, cell: int, subsets: int, seed: int, device: torch.device) -> Tensor:
    """The sets (1, subsets, size, size) bool that every image is seen with at test."""
    random = generator(derive_seed(seed, "riad", str(cell)))
    return disjoint_sets(1, size, cell, subsets, random).to(device)


class Riad(UNetDetector):
    """``network`` reconstructs images (B, 3, H, W) in [0, 1] whose hidden pixels are zero."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``inpainting``."""
        settings = self.settings
        stage = run.stage("inpainting", "lower the lr of this detector")
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = self.machine.images(pixels[indices.to(pixels.device)])
            drawn = int(torch.randint(len(settings.cells), (1,), generator=random))
            hidden = self._sets(len(images), settings.cells[drawn], random)
            update("adam", reconstruction_loss(images, self.inpaint(images, hidden)))

        decay = settings.weight_decay
        history = self.train_network(stage, settings, step, len(normal), step_decay, decay)
        return {"inpainting": history}

    def inpaint(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Every pixel of images (B, 3, H, W) as the pass that did not see it would have it.

        Parameters
        ----------
        hidden : (B or 1, n, H, W) bool, disjoint sets that cover the image; one pass each.
        """
        inpainted = torch.zeros_like(images)
        with self.machine.autocast():
            for gaps in hidden.unsqueeze(2).unbind(1):
                inpainted = inpainted + gaps * self.network(images * ~gaps)
        return inpainted

    def inpaintings(self, images: Tensor, seed: int = TEST_SEED) -> Iterator[Tensor]:
        """Inpainted images (B, 3, H, W), one for each k."""
        size, subsets = self.context.size, self.settings.subsets
        for cell in self.settings.cells:
            hidden = sets_at_test(size, cell, subsets, seed, self.machine.device)
            yield self.inpaint(images, hidden)

    def anomaly_map(
        self, images: Tensor, masks: Tensor | None = None, seed: int = TEST_SEED
    ) -> Tensor:
        """Mean over k of the maps (B, H, W) of the inpainted images."""
        score = self.context.score
        maps = [anomaly_map(images, made, score) for made in self.inpaintings(images, seed)]
        return torch.stack(maps).mean(0)

    @torch.inference_mode()
    def redrawn(self, images: Images) -> Tensor:
        """Scores (5, N) by five draws of the sets, the first the one that is used at test."""
        parts = []
        for part in images.batches(self.context.score.batch):
            pixels = self.machine.images(part.pixels)
            maps = [self.anomaly_map(pixels, seed=TEST_SEED + n) for n in range(SEEDS)]
            parts.append(torch.stack([self.image_score(pixels, each) for each in maps]))
        return torch.cat(parts, dim=1).float().cpu()

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """The mean over k of the inpainted images, for pictures: our choice."""
        return torch.stack(list(self.inpaintings(images))).mean(0)

    def _sets(self, count: int, cell: int, random: torch.Generator) -> Tensor:
        sets = disjoint_sets(count, self.context.size, cell, self.settings.subsets, random)
        return sets.to(self.machine.device)


def create(settings: Settings, context: Context) -> Riad:
    """As ``fader.detectors.create``."""
    return Riad(context, settings).eval()
