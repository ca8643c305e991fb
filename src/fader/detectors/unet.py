"""Plain U-Net: EAR's network as an auto-encoder with skip connections, without mask and mosaic.

The paper has it in Table 1 (0.819 on average over MVTec AD) and says nothing of its training. Our
choice is EAR's network, losses, optimiser and schedule with M = 0: the input is the image itself.
The identity solves that task, so the score depends on where training stops; the last epoch of the
settings is what counts.
"""

import torch
from torch import Tensor

from fader.config import PlainUNet as Settings
from fader.detectors.base import Context, Images
from fader.detectors.reconstruction import SCHEDULES, UNetDetector
from fader.training.loop import History, Run, Update


class PlainUNet(UNetDetector):
    """``network`` reconstructs images (B, 3, H, W) in [0, 1]."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``reconstruction``."""
        stage = run.stage("reconstruction", "lower the lr of this detector")
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = self.machine.images(pixels[indices.to(pixels.device)])
            update("adam", self.loss(images, self.reconstruct(images)))

        schedule = SCHEDULES[self.settings.schedule]
        history = self.train_network(stage, self.settings, step, len(normal), schedule)
        return {"reconstruction": history}

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """The network's output, (B, 3, H, W) in [0, 1]."""
        with self.machine.autocast():
            return self.network(images)


def create(settings: Settings, context: Context) -> PlainUNet:
    """As ``fader.detectors.create``."""
    return PlainUNet(context, settings).eval()
