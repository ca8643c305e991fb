"""EAR: reconstruction by inpainting of what an attention mask hides (arXiv 2310.04010 v2, paper
section 2.1).

The network sees I′ = K ⊙ I + (1 − K) ⊙ mosaic_m(I) and learns to give I back, on normal images
only, with each image's own deterministic mask. The mosaic scale is drawn at random per batch, so
that one network serves every candidate of the m* search (our choice: one network per category
instead of one per scale).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fader.config import Ear as Settings
from fader.detectors.base import Context, Images
from fader.detectors.reconstruction import SCHEDULES, UNetDetector
from fader.training.loop import History, Run, Stage, Update
from fader.vision.mosaic import obfuscate


class Ear(UNetDetector):
    """EAR's U-Net, which inpaints what the masks hide.

    Parameters
    ----------
    settings : of the training.
    scale : m, side of a cell of the mosaic behind the masks, pixels; divides the image size. After
        training any scale may be set.
    """

    def __init__(self, context: Context, settings: Settings, scale: int) -> None:
        super().__init__(context)
        self.settings, self.scale = settings, scale

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """Train on normal images with their masks; the run's seed is that of the weights, the order
        and the mosaic scales."""
        stage = Stage(run.label, run.seed, run.checkpoint("ear"), "lower ear.lr")
        settings = self.settings
        pixels = normal.pixels.to(self.machine.device)
        masks = normal.masks.to(self.machine.device)  # type: ignore[union-attr]  # EAR is given masks
        scales = torch.tensor(settings.scales)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            scale = int(scales[torch.randint(len(scales), (1,), generator=random)])
            batch = indices.to(self.machine.device)
            images = self.machine.images(pixels[batch])
            with self.machine.autocast():
                reconstruction = self.network(obfuscate(images, masks[batch], scale))
            update("adam", self.loss(images, reconstruction))

        schedule = SCHEDULES[settings.schedule]
        return {"ear": self.train_network(stage, settings, step, len(normal), schedule)}

    def reconstruct(self, images: Tensor, masks: Tensor) -> Tensor:  # type: ignore[override]  # with masks only
        """Images (B, 3, H, W) in [0, 1] and their masks (B, H, W) bool → (B, 3, H, W) in [0, 1]."""
        with self.machine.autocast():
            return self.network(obfuscate(images, masks, self.scale))
