"""GANomaly: semi-supervised anomaly detection via adversarial training (Akcay, Atapour-Abarghouei
and Breckon, ACCV 2018).

A generator encodes an image to z, decodes z to an image and encodes that again to ẑ; an image is
anomalous as far as ẑ is from z. A discriminator tells real images from decoded ones, and the
generator matches its features.

GANomaly and its public code fix DCGAN's layers (4 × 4 kernels, stride 2, widths doubling from 64
on, down to 4 × 4 pixels) and initialisation, |z| = 100, images in [−1, 1], the losses (feature
matching 1, contextual L1 50, latent L2 1), Adam at 2e-4 with β₁ = 0.5, batches of 64, 15 epochs,
the score mean (z − ẑ)², and that a discriminator whose loss falls below 1e-5 starts anew. Our
choices: widths end at 512 (at 256² they would double to 2048 and the generator have 144 M weights),
batch normalisation in evaluation mode at test (theirs takes the statistics of the test batch), no
scaling by the scores' range over the test set, and the map |x − x̂| averaged over colours, since the
paper localises nothing. Scores are computed in full precision: they are small differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Ganomaly as Settings
from fader.detectors.base import Context, Detector, Images
from fader.runtime import generator
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train

WIDEST = 512
SLOPE = 0.2
SPREAD = 0.02  # standard deviation of fresh weights
RESTART = 1e-5  # loss below which the discriminator starts anew


def channels(size: int, first: int) -> list[int]:
    """Channels from ``size`` / 2 down to 4 × 4: doubling, at most ``WIDEST``."""
    return [min(first << level, WIDEST) for level in range(size.bit_length() - 3)]


class Encoder(nn.Module):
    """DCGAN's discriminator without its sigmoid; ``side`` is that of its deepest features."""

    def __init__(self, widths: Sequence[int], outputs: int, side: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 4, 2, 1, bias=False),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        for inputs, width in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], outputs, side, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [−1, 1] → features (B, C, side, side) and outputs (B, n)."""
        features = self.features(images)
        return features, self.head(features).flatten(1)


def decoder(widths: Sequence[int], latent: int, side: int = 4) -> nn.Sequential:
    """DCGAN's generator: (B, latent, 1, 1) → images in [−1, 1]; ``widths`` and ``side`` as the
    encoder's."""
    deepest_first = widths[::-1]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[-1], side, bias=False)]
    for inputs, width in pairwise(deepest_first):
        layers += [
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(inputs, width, 4, 2, 1, bias=False),
        ]
    last = nn.ConvTranspose2d(widths[0], 3, 4, 2, 1, bias=False)
    return nn.Sequential(*layers, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), last, nn.Tanh())


class Generator(nn.Module):
    """Encoder, decoder, encoder."""

    def __init__(self, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.encoder = Encoder(widths, latent)
        self.decoder = decoder(widths, latent)
        self.second = Encoder(widths, latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images x in [−1, 1] → z (B, latent), x̂ in [−1, 1], ẑ (B, latent)."""
        _, latent = self.encoder(images)
        decoded = self.decoder(latent[..., None, None])
        _, again = self.second(decoded)
        return latent, decoded, again


@torch.no_grad()
def initialise(network: nn.Module, random: torch.Generator) -> None:
    """DCGAN's fresh weights: N(0, 0.02²), those of batch normalisation N(1, 0.02²); no bias."""
    for module in network.modules():
        mean = 0.0
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            mean = 1.0
        elif not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        # Drawn on the CPU: the same on every device.
        weights = torch.randn(module.weight.shape, generator=random)
        module.weight.copy_(mean + SPREAD * weights)
        if module.bias is not None:
            module.bias.zero_()


@dataclass(frozen=True)
class Pass:
    """What the generator made of images x (B, 3, H, W) in [−1, 1]: z, x̂ and ẑ."""

    images: Tensor
    latent: Tensor
    decoded: Tensor
    again: Tensor


def generator_losses(
    settings: Settings, made: Pass, real: Tensor, decoded: Tensor
) -> dict[str, Tensor]:
    """Weighted sum of feature matching (L2), contextual (L1) and latent loss (L2), and the three.

    Parameters
    ----------
    made : the generator's pass over x.
    real, decoded : the discriminator's features of x and x̂; no gradient reaches ``real``.
    """
    parts = {
        "adversarial": F.mse_loss(decoded.float(), real.detach().float()),
        "contextual": F.l1_loss(made.decoded.float(), made.images),
        "latent": F.mse_loss(made.again.float(), made.latent.float()),
    }
    loss = (
        settings.adversarial * parts["adversarial"]
        + settings.contextual * parts["contextual"]
        + settings.latent_weight * parts["latent"]
    )
    return {"loss": loss, **parts}


def discriminator_loss(real: Tensor, decoded: Tensor) -> Tensor:
    """Mean of the cross-entropies of real against 1 and of decoded against 0; logits (B, 1)."""
    real, decoded = real.float(), decoded.float()
    of_real = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    of_decoded = F.binary_cross_entropy_with_logits(decoded, torch.zeros_like(decoded))
    return (of_real + of_decoded) / 2


class Ganomaly(Detector):
    """``generator`` is what is kept; the discriminator ends with the training."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        self.widths = channels(context.size, settings.width)
        self.generator = self.placed(Generator(self.widths, settings.latent))

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``adversarial``, of a generator and a discriminator step a batch."""
        settings = self.settings
        stage = run.stage("adversarial", "lower the lr of this detector")
        self.requires_grad_(True).train()
        critic = self.placed(Encoder(self.widths, 1))
        fresh = generator(stage.seed)
        initialise(self.generator, fresh)
        initialise(critic, fresh)
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = signed(self.machine.images(pixels[indices.to(pixels.device)]))
            with self.machine.autocast():
                made = Pass(images, *self.generator(images))
                features, real = critic(images)
                matched, _ = critic(made.decoded)
            update("generator", generator_losses(settings, made, features, matched))
            with self.machine.autocast():
                _, decoded = critic(made.decoded.detach())
            loss = discriminator_loss(real, decoded)
            update("discriminator", loss)
            if loss.item() < RESTART:
                initialise(critic, random)

        history = train(
            stage,
            modules={"generator": self.generator, "discriminator": critic},
            optimizers={
                "generator": Optimizer(adam(self.generator, settings.lr)),
                "discriminator": Optimizer(adam(critic, settings.lr)),
            },
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=steps_of(settings, len(normal)),
        )
        self.eval().requires_grad_(False)
        return {"adversarial": history}

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Mean |x − x̂| over the channels: (B, 3, H, W) in [0, 1] → (B, H, W) in [0, 1]."""
        return (images - self.reconstruct(images)).abs().mean(1)

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """Mean squared distance (B,) of z and ẑ."""
        latent, _, again = self.generator(signed(images))
        return (again - latent).square().mean(1)

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """x̂, (B, 3, H, W) in [0, 1]."""
        _, decoded, _ = self.generator(signed(images))
        return (decoded + 1) / 2


def adam(network: nn.Module, lr: float) -> torch.optim.Adam:
    """DCGAN's optimiser."""
    return torch.optim.Adam(network.parameters(), lr, betas=(0.5, 0.999), fused=True)


def signed(images: Tensor) -> Tensor:
    """[0, 1] → [−1, 1]."""
    return 2 * images - 1


def create(settings: Settings, context: Context) -> Ganomaly:
    """As ``fader.detectors.create``."""
    return Ganomaly(context, settings).eval()
