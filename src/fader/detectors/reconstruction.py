"""What detectors that reconstruct the image share: EAR's network, their loss, and the smoothed
1 − MSGMS map (paper section 4.1).

The filter, its size and the maximum are not given by the paper: they are RIAD's, and our choice.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fader.config import Score
from fader.detectors.base import Context, Detector
from fader.training import schedules
from fader.training.loop import History, Lasting, Optimizer, Stage, Step, steps_of, train
from fader.training.schedules import Multiplier
from fader.vision.losses import msgms_map, reconstruction_loss
from fader.vision.unet import UNet

SCHEDULES = {"step": schedules.step_decay, "onecycle": schedules.one_cycle}


def anomaly_map(images: Tensor, reconstructions: Tensor, score: Score) -> Tensor:
    """Smoothed 1 − MSGMS of images and reconstructions (B, 3, H, W) in [0, 1]: (B, H, W)."""
    raw = msgms_map(images, reconstructions, score.scales, score.c).unsqueeze(1)
    return F.avg_pool2d(raw, score.smooth, stride=1, padding=score.smooth // 2).squeeze(1)


class ReconstructionDetector(Detector):
    """Scores an image by how its reconstruction differs from it; subclasses give
    ``reconstruct``."""

    def loss(self, images: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
        """The run's reconstruction loss of images (B, 3, H, W) in [0, 1]: the weighted sum under
        ``loss``, and its parts."""
        weights = self.context.loss
        return reconstruction_loss(
            images,
            reconstructions,
            l2=weights.l2,
            ssim_weight=weights.ssim,
            msgms=weights.msgms,
            scales=weights.scales,
        )

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """1 − MSGMS of images (B, 3, H, W) in [0, 1] and their reconstructions: (B, H, W)."""
        return anomaly_map(images, self.reconstruct(images, masks), self.context.score)  # type: ignore[arg-type]  # it does


class UNetSettings(Lasting, Protocol):
    """What a training of EAR's network is told, whichever detector it is of."""

    @property
    def lr(self) -> float:
        """Adam's learning rate."""


class UNetDetector(ReconstructionDetector):
    """A detector whose only network is EAR's; subclasses give ``fit`` and ``reconstruct``."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.network = build_unet(context)

    def train_network(
        self,
        stage: Stage,
        settings: UNetSettings,
        step: Step,
        count: int,
        schedule: Callable[[int], Multiplier],
        weight_decay: float = 0.0,
    ) -> History:
        """Train fresh weights with Adam, and leave the detector in evaluation mode.

        Parameters
        ----------
        stage : its seed is that of the weights, the order and all that ``step`` draws.
        step : updates ``adam`` with a loss of ``self.network`` (see ``training.loop.train``).
        count : training images.
        schedule : iterations in all → schedule of the learning rate.
        """
        self.network = build_unet(self.context, stage.seed)
        self.train()
        adam = torch.optim.Adam(
            self.network.parameters(), settings.lr, weight_decay=weight_decay, fused=True
        )
        total = steps_of(settings, count)
        history = train(
            stage,
            modules={"network": self.network},
            optimizers={"adam": Optimizer(adam, schedule(total))},
            step=step,
            count=count,
            batch=settings.batch,
            steps=total,
        )
        self.eval().requires_grad_(False)
        return history


def build_unet(context: Context, seed: int | None = None) -> UNet:
    """EAR's U-Net with fresh weights, on the machine's device, channels last.

    Weights come from torch's global generator; with a ``seed`` from their own, and the global one
    is left as it was.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network = UNet(context.unet.widths, context.unet.output)
    return network.to(context.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares no such pair
