"""MemAE: memory-augmented deep autoencoder (Gong et al., ICCV 2019).

An encoder makes a feature of every 16 × 16 pixels; the decoder sees in its place what a memory of
normal features holds of it. A defect is not in the memory, so it is not reconstructed.

The public code, for video, fixes four convolutions of stride 2 to 96, 128, 256 and 256 channels,
their mirror image, batch normalisation, leaky ReLU (0.2) and DCGAN's fresh weights; N = 2000 items
addressed by softmax with hard shrinkage; images in [−1, 1], a linear output, mean squared error +
2e-4 × entropy of the addresses, Adam at 1e-4, batches of 14, 100 epochs. Its 3-D convolutions are
2-D here: 2.51 M parameters at 256 channels. It has no recipe for MVTec AD: the column of the
FADeR paper comes from re-runs.

With that entropy, addresses are known to end in one item for all, or in none, which the code reads
as zeros (lyn1874/memAE#6). Our choices: the shrinkage is 1/N, the lowest that the paper names, and
leaves the largest weight; similarity is a setting, the code's dot product or the paper's cosine.
The map is the squared error averaged over colours, the score of an image its mean, as in the paper;
the code averages the map's root. Scores are computed in full precision.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import MemAe as Settings
from fader.detectors.base import Context, Detector, Images
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.vision.memory import Memory, active, entropy

SLOPE = 0.2
SPREAD = 0.02  # standard deviation of fresh weights


def encoder(widths: Sequence[int]) -> nn.Sequential:
    """Images (B, 3, H, W) → features (B, C, H / 2ⁿ, W / 2ⁿ), n = len(widths)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([3, *widths]):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), *_activation(outputs)]
    return nn.Sequential(*layers)


def decoder(widths: Sequence[int]) -> nn.Sequential:
    """The encoder's mirror image; nothing follows its last layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([*widths[::-1], 3]):
        layers += [nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1), *_activation(outputs)]
    return nn.Sequential(*layers[:-2])


def _activation(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE, inplace=True)]


class AutoEncoder(nn.Module):
    """Encoder, memory, decoder."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.encoder = encoder(settings.widths)
        self.memory = Memory(
            settings.slots,
            settings.widths[-1],
            addressing=settings.addressing,
            temperature=settings.temperature,
            shrinkage=settings.shrinkage,
        )
        self.decoder = decoder(settings.widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, SPREAD)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, SPREAD)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [−1, 1] → reconstructions, and the addresses (Q, N) of their
        features."""
        features = self.encoder(images).movedim(1, -1)
        read, weights = self.memory(features.flatten(0, 2))
        return self.decoder(read.view(features.shape).movedim(-1, 1)), weights


def losses(images: Tensor, decoded: Tensor, weights: Tensor, share: float) -> dict[str, Tensor]:
    """Squared error + ``share`` × entropy under ``loss``, the two, and the items in use."""
    parts = {"reconstruction": F.mse_loss(decoded.float(), images), "entropy": entropy(weights)}
    loss = parts["reconstruction"] + share * parts["entropy"]
    return {"loss": loss, **parts, "active": active(weights)}


class MemAe(Detector):
    """``network`` reconstructs images in [−1, 1]."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        self.network = self._fresh()

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``reconstruction``; ``active`` counts the items that a batch reads."""
        settings = self.settings
        stage = run.stage("reconstruction", "lower the lr of this detector")
        self.network = self._fresh(stage.seed).train()
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = _signed(self.machine.images(pixels[indices.to(pixels.device)]))
            with self.machine.autocast():
                decoded, weights = self.network(images)
            update("adam", losses(images, decoded, weights, settings.entropy))

        adam = torch.optim.Adam(self.network.parameters(), settings.lr, fused=True)
        history = train(
            stage,
            modules={"network": self.network},
            optimizers={"adam": Optimizer(adam)},
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=steps_of(settings, len(normal)),
        )
        self.eval().requires_grad_(False)
        return {"reconstruction": history}

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Mean (x − x̂)² over the channels, x in [−1, 1]: (B, 3, H, W) in [0, 1] → (B, H, W)."""
        signed = _signed(images)
        decoded, _ = self.network(signed)
        return (signed - decoded).square().mean(1)

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """The map's mean (B,)."""
        return maps.flatten(1).mean(1)

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """x̂, (B, 3, H, W) clamped to [0, 1]."""
        decoded, _ = self.network(_signed(images))
        return ((decoded + 1) / 2).clamp(0, 1)

    def _fresh(self, seed: int | None = None) -> AutoEncoder:
        """Weights from torch's global generator; with a ``seed`` from their own, and the global one
        is left as it was."""
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            network = AutoEncoder(self.settings)
        return self.placed(network)


def _signed(images: Tensor) -> Tensor:
    """[0, 1] → [−1, 1]."""
    return 2 * images - 1


def create(settings: Settings, context: Context) -> MemAe:
    """As ``fader.detectors.create``."""
    return MemAe(context, settings).eval()
