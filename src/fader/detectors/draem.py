"""DRAEM: a discriminatively trained reconstruction embedding for surface anomaly detection
(Zavrtanik, Kristan and Skočaj, ICCV 2021).

An auto-encoder makes anomalous images normal again; a U-Net sees image and reconstruction and
segments the anomalies. Both learn from normal images alone, on which textures are painted
(``fader.data.defects.batches``). Images stay in [0, 1], without ImageNet's normalisation.

DRAEM and its public code (VitjanZ/DRAEM, MIT) fix layers and widths, the losses (mean squared error
+ 1 − SSIM of the reconstruction + focal loss of the segmentation, γ = 2), Adam at 1e-4, a fifth of
that from 80 % and again from 90 % of the training, batches of 8, 700 epochs, and the scores: the
softmax of the anomalous class, and the maximum of its 21 × 21 mean. Our choices: no biases before
batch normalisation, doubling as products of matrices, which is deterministic, batches that go
through all images instead of drawing them anew, focal loss on labels that are not smoothed, and the
mean filter of ``score.smooth``, which is 21 at 256².
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Synthesis as Settings
from fader.data import textures
from fader.data.defects import batches
from fader.data.defects.batches import Batch
from fader.detectors.base import Context, Detector, Images
from fader.detectors.ganomaly import initialise
from fader.errors import FaderError
from fader.maskers.dsr.networks import Double, focal
from fader.runtime import generator
from fader.seeds import derive_seed
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.training.schedules import step_decays
from fader.vision.losses import ssim

Block = Callable[[int, int, int], nn.Module]
"""Input, middle and output channels → the two convolutions of a level."""


def layer(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Convolution 3×3 → batch normalisation → ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def plain(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    """DRAEM's ``Block``: two layers."""
    return nn.Sequential(layer(inputs, middle), layer(middle, outputs))


class Encoder(nn.Module):
    """A block a level, maxima of 2 × 2 in between; ``deepest`` makes that of the last level."""

    def __init__(self, channels: int, widths: Sequence[int], block: Block, deepest: Block) -> None:
        super().__init__()
        *others, last = pairwise([channels, *widths])
        blocks = [block(inputs, width, width) for inputs, width in others]
        self.blocks = nn.ModuleList([*blocks, deepest(last[0], last[1], last[1])])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, channels, S, S) → features (B, width, S / 2^level, S / 2^level), shallow first."""
        features: list[Tensor] = []
        for block in self.blocks:
            features.append(block(F.max_pool2d(features[-1], 2) if features else x))
        return features


class Reconstruction(nn.Module):
    """The auto-encoder: widths w, 2w, 4w, 8w, 8w, and no connection but through the last.

    Parameters
    ----------
    channels : of input and output.
    block, deepest : of every level, and of the encoder's last one, where others put a block of
        their own (SSPCAB).
    """

    def __init__(self, channels: int, width: int, block: Block, deepest: Block) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.encoder = Encoder(channels, widths, block, deepest)
        levels = pairwise([8 * width, 4 * width, 2 * width, width, width])
        self.decoder = nn.Sequential(
            *(nn.Sequential(Double(), layer(i, i), block(i, i, o)) for i, o in levels),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, seen: Tensor) -> Tensor:
        """(B, channels, S, S) → likewise, not bounded."""
        return self.decoder(self.encoder(seen)[-1])


class Segmentation(nn.Module):
    """The U-Net on what is seen and its reconstruction together: widths w, 2w, 4w, 8w, 8w, 8w."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.widths = [width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.encoder = Encoder(self.inputs(channels), self.widths, plain, plain)
        outputs = [width, width, 2 * width, 4 * width, 8 * width]
        deeper = [*outputs[1:], 8 * width]
        self.up = nn.ModuleList(
            nn.Sequential(Double(), layer(i, o)) for i, o in zip(deeper, outputs, strict=True)
        )
        self.merge = nn.ModuleList(
            plain(o + skip, o, o) for o, skip in zip(outputs, self.widths[:-1], strict=True)
        )
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def inputs(self, channels: int) -> int:
        """Channels that the encoder sees."""
        return 2 * channels

    def features(self, seen: Tensor, made: Tensor) -> list[Tensor]:
        """Of every level, shallow first, from (B, channels, S, S) each."""
        return self.encoder(torch.cat([seen, made], dim=1))

    def forward(self, seen: Tensor, made: Tensor) -> Tensor:
        """(B, channels, S, S) each → logits (B, 2, S, S) of normal and anomalous."""
        *skips, x = self.features(seen, made)
        for level in reversed(range(len(skips))):
            x = self.merge[level](torch.cat([self.up[level](x), skips[level]], dim=1))
        return self.head(x)


class Draem(Detector):
    """``reconstruction`` and ``segmentation``. Others of its line give what they see (``seen``,
    ``channels`` of it), what they paint (``paint``), and networks of their own (``block``,
    ``deepest``, ``segmenter``)."""

    channels = 3
    segmenter: type[Segmentation] = Segmentation

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        made = Reconstruction(self.channels, settings.width, self.block, self.deepest)
        self.reconstruction = self.placed(made)
        self.segmentation = self.placed(self.segmenter(self.channels, settings.segmentation))

    def block(self, inputs: int, middle: int, outputs: int) -> nn.Module:
        """``Block`` of the reconstruction."""
        return plain(inputs, middle, outputs)

    def deepest(self, inputs: int, middle: int, outputs: int) -> nn.Module:
        """The same of the last level of its encoder."""
        return self.block(inputs, middle, outputs)

    def seen(self, images: Tensor) -> Tensor:
        """What both networks see of images (B, 3, H, W) in [0, 1]: (B, channels, H, W), the image
        first."""
        return images

    def paint(
        self, images: Tensor, overlays: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Anomalies, as ``fader.data.defects.batches.Paint``."""
        return batches.paint_textures(images, overlays, random)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] → the reconstruction of what is seen of them (B, channels,
        H, W) and the segmentation's logits (B, 2, H, W), float32."""
        seen = self.seen(images)
        with self.machine.autocast():
            made = self.reconstruction(seen)
            logits = self.segmentation(seen, made)
        return made.float(), logits.float()

    def moved(self, batch: Batch) -> Batch:
        """A batch on the machine's device, images channels last."""
        device = self.machine.device
        normal, anomalous = (
            images.to(device, memory_format=torch.channels_last)
            for images in (batch.normal, batch.anomalous)
        )
        return Batch(normal, anomalous, batch.masks.to(device))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Their sum under ``loss``, and its parts: ``l2`` and ``ssim`` of the reconstruction,
        ``focal`` of the segmentation."""
        normal = self.seen(batch.normal)
        made, logits = self(batch.anomalous)
        parts = {
            "l2": F.mse_loss(made, normal),
            "ssim": 1 - ssim(normal, made),
            "focal": focal(logits, batch.masks),
        }
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``synthesis``, on at least two images."""
        if len(normal) < 2:
            raise FaderError(f"{run.label}: {len(normal)} training image(s); at least 2 are needed")
        settings = self.settings
        stage = run.stage("synthesis", "lower the lr of this detector")
        self.requires_grad_(True).train()
        initialise(self, generator(stage.seed))
        seed = derive_seed(stage.seed, "textures")
        overlays = textures.read(settings.textures, normal.pixels, seed)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            batch = batches.synthesise(normal.pixels[indices], overlays, random, self.paint)
            update("adam", self.losses(self.moved(batch)))

        adam = torch.optim.Adam(self.parameters(), settings.lr, fused=True)
        total = steps_of(settings, len(normal))
        history = train(
            stage,
            modules={"reconstruction": self.reconstruction, "segmentation": self.segmentation},
            optimizers={"adam": Optimizer(adam, step_decays(total, (0.8, 0.9), 0.2))},
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=total,
        )
        self.eval().requires_grad_(False)
        return {"synthesis": history}

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Softmax of the anomalous class: (B, 3, H, W) in [0, 1] → (B, H, W) in (0, 1)."""
        _, logits = self(images)
        return logits.softmax(1)[:, 1]

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """Maximum (B,) of the map's mean over squares of ``score.smooth``."""
        side = self.context.score.smooth
        return F.avg_pool2d(maps.unsqueeze(1), side, 1, side // 2).flatten(1).amax(1)

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """x̂, (B, 3, H, W), clamped to [0, 1]."""
        with self.machine.autocast():
            made = self.reconstruction(self.seen(images))
        return made[:, :3].float().clamp(0, 1)


def create(settings: Settings, context: Context) -> Draem:
    """As ``fader.detectors.create``."""
    return Draem(context, settings).eval()
