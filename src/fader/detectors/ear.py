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
from fader.detectors.reconstruction import ReconstructionDetector, build_unet
from fader.training import schedules
from fader.training.loop import History, Optimizer, Run, Stage, Update, batches_per_epoch, train
from fader.vision.mosaic import obfuscate


class Ear(ReconstructionDetector):
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
        self.network = build_unet(context)

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """Train on normal images with their masks; the run's seed is that of the weights, the order
        and the mosaic scales."""
        stage = Stage(run.label, run.seed, run.checkpoint("ear"), "lower ear.lr")
        self.network = build_unet(self.context, stage.seed)
        optimizer = torch.optim.Adam(self.network.parameters(), self.settings.lr, fused=True)
        pixels = normal.pixels.to(self.machine.device)
        masks = normal.masks.to(self.machine.device)  # type: ignore[union-attr]  # EAR is given masks
        scales = torch.tensor(self.settings.scales)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            scale = int(scales[torch.randint(len(scales), (1,), generator=random)])
            batch = indices.to(self.machine.device)
            images = self.machine.images(pixels[batch])
            with self.machine.autocast():
                reconstruction = self.network(obfuscate(images, masks[batch], scale))
            update("adam", self.loss(images, reconstruction))

        total = batches_per_epoch(len(normal), self.settings.batch) * self.settings.epochs
        schedule = (
            schedules.one_cycle(total)
            if self.settings.schedule == "onecycle"
            else schedules.step_decay(total)
        )
        history = train(
            stage,
            modules={"unet": self.network},
            optimizers={"adam": Optimizer(optimizer, schedule)},
            step=step,
            count=len(normal),
            batch=self.settings.batch,
            epochs=self.settings.epochs,
        )
        self.eval().requires_grad_(False)
        return {"ear": history}

    def reconstruct(self, images: Tensor, masks: Tensor) -> Tensor:  # type: ignore[override]  # with masks only
        """Images (B, 3, H, W) in [0, 1] and their masks (B, H, W) bool → (B, 3, H, W) in [0, 1]."""
        with self.machine.autocast():
            return self.network(obfuscate(images, masks, self.scale))
