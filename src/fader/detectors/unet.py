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
from fader.detectors.reconstruction import ReconstructionDetector, build_unet
from fader.training import schedules
from fader.training.loop import History, Optimizer, Run, Update, batches_per_epoch, train

SCHEDULES = {"step": schedules.step_decay, "onecycle": schedules.one_cycle}


class PlainUNet(ReconstructionDetector):
    """``network`` reconstructs images (B, 3, H, W) in [0, 1]."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        self.network = build_unet(context)

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``reconstruction``."""
        settings = self.settings
        stage = run.stage("reconstruction", "lower the lr of this detector")
        self.network = build_unet(self.context, stage.seed)
        self.train()
        adam = torch.optim.Adam(self.network.parameters(), settings.lr, fused=True)
        total = batches_per_epoch(len(normal), settings.batch) * settings.epochs
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = self.machine.images(pixels[indices.to(pixels.device)])
            update("adam", self.loss(images, self.reconstruct(images)))

        history = train(
            stage,
            modules={"network": self.network},
            optimizers={"adam": Optimizer(adam, SCHEDULES[settings.schedule](total))},
            step=step,
            count=len(normal),
            batch=settings.batch,
            epochs=settings.epochs,
        )
        self.eval().requires_grad_(False)
        return {"reconstruction": history}

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """The network's output, (B, 3, H, W) in [0, 1]."""
        with self.machine.autocast():
            return self.network(images)


def create(settings: Settings, context: Context) -> PlainUNet:
    """As ``fader.detectors.create``."""
    return PlainUNet(context, settings).eval()
