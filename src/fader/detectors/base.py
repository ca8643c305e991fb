"""What a detector is: fitted on normal images, it scores images and their pixels.

EAR, FADeR and every baseline are ``Detector``s, and ``fader evaluate`` knows no other type. To add
one, write a module here with a ``create`` function of the signature of ``fader.detectors.create``,
a settings class in ``fader.config.detectors`` whose ``kind`` is the module's name, and a block
under ``detectors`` in a preset. ``docs/adding-a-detector.md`` shows one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fader.config import Config, Loss, Score, UNet
from fader.runtime import Machine
from fader.training.loop import History, Run

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Context:
    """Where a detector works, and the settings that several detectors share.

    Parameters
    ----------
    machine : device and precision.
    size : side of the images, pixels.
    unet, loss : EAR's network and reconstruction loss, for the detectors of its line.
    score : from a reconstruction to an anomaly map.
    weights_dir : local directory of pretrained weights; None reads ``$FADER_WEIGHTS``.
    random : draw pretrained weights instead of loading them, on torch's current device: for what
        depends on shapes alone, as cost does.
    """

    machine: Machine
    size: int
    unet: UNet
    loss: Loss
    score: Score
    weights_dir: Path | None = None
    random: bool = False

    @classmethod
    def of(cls, config: Config, machine: Machine, *, random: bool = False) -> Context:
        """That of the detectors of a run."""
        return cls(
            machine,
            config.image.size,
            config.unet,
            config.loss,
            config.score,
            config.weights_folder,
            random,
        )


@dataclass(frozen=True)
class Images:
    """Images of a category.

    Parameters
    ----------
    pixels : (N, 3, H, W) uint8.
    masks : (N, H, W) bool, what a masker suspects; None for detectors that have no masker.
    """

    pixels: Tensor
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.masks is not None and len(self.masks) != len(self.pixels):
            raise ValueError(f"{len(self.pixels)} images, {len(self.masks)} masks")

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices) -> Images:
        masks = None if self.masks is None else self.masks[indices]
        return Images(self.pixels[indices], masks)

    def batches(self, size: int) -> Iterator[Images]:
        """Consecutive parts of at most ``size`` images."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(frozen=True)
class Scores:
    """What a detector says of images: ``maps`` (N, H, W) and ``images`` (N,), float32 on the CPU,
    higher = more anomalous."""

    maps: Tensor
    images: Tensor


class Detector(nn.Module):
    """Base of all detectors.

    Subclasses give ``fit`` and ``anomaly_map``, and may give ``image_score``, ``judge``,
    ``reconstruct``, ``explain``, ``redrawn`` and ``frozen``.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    # The pretrained weights it works with, in words and with their digest.
    weights: str | None = None

    @property
    def machine(self) -> Machine:
        """Device and precision."""
        return self.context.machine

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Networks that came pretrained."""
        return ()

    def fit(self, normal: Images, run: Run) -> Mapping[str, History]:
        """Learn from normal images; leaves the detector in evaluation mode.

        Returns
        -------
        Name of each training stage → its losses per epoch.
        """
        raise NotImplementedError

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) float32 in [0, 1], on the device → (B, H, W), higher = more
        anomalous. The map of an image does not depend on the others."""
        raise NotImplementedError

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """Score (B,) of images (B, 3, H, W) with their ``maps`` (B, H, W): the map's maximum."""
        return maps.flatten(1).amax(1)

    def judge(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``anomaly_map`` of images and ``image_score`` of both."""
        maps = self.anomaly_map(images, masks)
        return maps, self.image_score(images, maps)

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor | None:
        """What the detector would have normal: (B, 3, H, W) in [0, 1]; None where it makes none."""
        return None

    def explain(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        """What figures show beside map and reconstruction, by name, on the CPU."""
        return {}

    def redrawn(self, images: Images) -> Tensor | None:
        """Scores (seeds, N) of images when what a detector draws at test is drawn with other seeds,
        on the CPU; None where it draws nothing."""
        return None

    def placed(self, network: Network) -> Network:
        """A network on the machine's device, channels last."""
        return network.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares no such pair

    def state(self) -> dict[str, Tensor]:
        """What is kept of a training."""
        return self.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the ``state`` of an equal detector; leaves this one in evaluation mode."""
        self.load_state_dict(dict(state))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def scores(self, images: Images) -> Scores:
        """Maps and image scores of any number of images, in batches of ``score.batch``."""
        maps, scores = [], []
        for part in images.batches(self.context.score.batch):
            pixels = self.machine.images(part.pixels)
            masks = None if part.masks is None else part.masks.to(pixels.device)
            of_part = self.judge(pixels, masks)
            maps.append(of_part[0].float().cpu())
            scores.append(of_part[1].float().cpu())
        return Scores(torch.cat(maps), torch.cat(scores))
