"""MS-CAM: a generative adversarial network with dual attention and a consistency loss for
industrial inspection (Li, Zheng, Chen and Zheng, Sensors 22(14):5141, 2022).

**Re-derived from the abstract**: the paper's text and code were not at hand. An encoder with
attention and a decoder reconstruct images of which rectangles were erased; a discriminator, trained
in turn, tells real images from reconstructed ones.

The abstract fixes the dual attention in the encoder, the multi-scale channel attention of AFF (Dai
et al., WACV 2021) beside a pixel attention, added and multiplied with the feature; Random Erasing
(Zhong et al., AAAI 2020); and a consistency loss over several modalities of an image. All else is
re-derived: four stages of DCGAN's layers (4 × 4, stride 2, widths 64 to 512), each followed by
attention, a latent vector of 100, DCGAN's decoder and discriminator, the loss feature matching
+ 50 · L1 + consistency (L1 of grey and of gradient images, L2 of latent vectors), Adam at 2e-4 with
β₁ = 0.5, batches of 32, 300 epochs, and the score, the mean residual of the grey image. One encoder
reads images and reconstructions, so its statistics of normalisation are of both. Scores are
computed in full precision, as GANomaly's.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Mscam as Settings
from fader.detectors.base import Context, Detector, Images
from fader.detectors.ganomaly import (
    SLOPE,
    Encoder,
    Pass,
    adam,
    decoder,
    discriminator_loss,
    initialise,
    signed,
)
from fader.runtime import generator
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.vision.losses import gradient_magnitude

STAGES = 4
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
ASPECT = 0.3  # of an erased rectangle, at least; at most its inverse


class DualAttention(nn.Module):
    """Y = X ⊗ (σ(L(X) ⊕ G(pool X)) ⊕ σ(P X)).

    L and G, AFF's multi-scale channel attention, are 1 × 1 convolutions to C / ``reduction``
    channels and back, each with batch normalisation; L reads every pixel, (C, H, W), G the mean of
    all, (C, 1, 1). P, the pixel attention, is a 1 × 1 convolution to one channel, (1, H, W). ⊕ adds
    what it broadcasts, ⊗ multiplies.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.local = _squeeze(width, width // reduction)
        self.pooled = _squeeze(width, width // reduction)
        self.pixel = nn.Conv2d(width, 1, 1)

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Channel attention, the shape of ``x`` (B, C, H, W), and pixel attention (B, 1, H, W), in
        (0, 1)."""
        channel = self.local(x) + self.pooled(x.mean((2, 3), keepdim=True))
        return channel.sigmoid(), self.pixel(x).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """The shape of ``x``."""
        channel, pixel = self.weights(x)
        return x * (channel + pixel)


def _squeeze(width: int, middle: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, width, 1, bias=False),
        nn.BatchNorm2d(width),
    )


class Generator(nn.Module):
    """Encoder with attention, and decoder; ``side`` is that of the deepest features."""

    def __init__(self, widths: Sequence[int], latent: int, side: int, reduction: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in pairwise([3, *widths]):
            layers += [
                nn.Conv2d(inputs, width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(SLOPE, inplace=True),
                DualAttention(width, reduction),
            ]
        head = nn.Conv2d(widths[-1], latent, side, bias=False)
        self.encoder = nn.Sequential(*layers, head)
        self.decoder = decoder(widths, latent, side)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images x (B, 3, H, W) in [−1, 1] → z (B, latent, 1, 1), x̂ in [−1, 1]."""
        latent = self.encoder(images)
        return latent, self.decoder(latent)


def erase(images: Tensor, settings: Settings, random: torch.Generator) -> Tensor:
    """Random Erasing of square images (B, 3, S, S) in [0, 1]: a rectangle of noise in some.

    A rectangle that is longer than the image is cut to it; theirs is drawn again.
    """
    count, _, _, size = images.shape
    chance, share, shape, top, left = torch.rand(5, count, 1, generator=random)
    least, most = settings.erased
    area = least + (most - least) * share
    aspect = torch.exp((2 * shape - 1) * math.log(ASPECT))
    centres = (torch.arange(size) + 0.5) / size
    high, wide = (side.sqrt().clamp(max=1) for side in (area * aspect, area / aspect))
    rows, columns = (
        (centres >= start * (1 - side)) & (centres < start * (1 - side) + side)
        for start, side in ((top, high), (left, wide))
    )
    erased = rows.unsqueeze(2) & columns.unsqueeze(1) & (chance < settings.erasing).unsqueeze(2)
    noise = torch.rand(images.shape, generator=random)
    return torch.where(erased.unsqueeze(1).to(images.device), noise.to(images.device), images)


def grey(images: Tensor) -> Tensor:
    """Luma of images (B, 3, H, W): (B, 1, H, W)."""
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def generator_losses(
    settings: Settings, made: Pass, real: Tensor, decoded: Tensor
) -> dict[str, Tensor]:
    """Weighted sum of feature matching (L2), reconstruction (L1) and consistency; and its parts,
    those of the consistency (``grey`` and ``gradient``, L1; ``latent``, L2) one by one.

    Parameters
    ----------
    made : the whole images x in [−1, 1], z of what was left of them, x̂, and ẑ, the encoder's of x̂.
    real, decoded : the discriminator's features of x and x̂; no gradient reaches ``real``.
    """
    reconstructed = made.decoded.float()
    ours, theirs = grey(reconstructed), grey(made.images)
    parts = {
        "adversarial": F.mse_loss(decoded.float(), real.detach().float()),
        "contextual": F.l1_loss(reconstructed, made.images),
        "grey": F.l1_loss(ours, theirs),
        "gradient": F.l1_loss(gradient_magnitude(ours), gradient_magnitude(theirs)),
        "latent": F.mse_loss(made.again.float(), made.latent.float()),
    }
    consistency = parts["grey"] + parts["gradient"] + parts["latent"]
    loss = (
        settings.adversarial * parts["adversarial"]
        + settings.contextual * parts["contextual"]
        + settings.consistency * consistency
    )
    return {"loss": loss, **parts}


class Mscam(Detector):
    """``generator`` is what is kept; the discriminator ends with the training."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        self.widths = [settings.width << level for level in range(STAGES)]
        self.side = context.size >> STAGES
        fresh = Generator(self.widths, settings.latent, self.side, settings.reduction)
        self.generator = self.placed(fresh)

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``adversarial``, of a generator and a discriminator step a batch."""
        settings = self.settings
        stage = run.stage("adversarial", "lower the lr of this detector")
        self.requires_grad_(True).train()
        critic = self.placed(Encoder(self.widths, 1, self.side))
        fresh = generator(stage.seed)
        initialise(self.generator, fresh)
        initialise(critic, fresh)
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            whole = self.machine.images(pixels[indices.to(pixels.device)])
            images, erased = signed(whole), signed(erase(whole, settings, random))
            with self.machine.autocast():
                latent, decoded = self.generator(erased)
                made = Pass(images, latent, decoded, self.generator.encoder(decoded))
                features, real = critic(images)
                matched, _ = critic(decoded)
            update("generator", generator_losses(settings, made, features, matched))
            with self.machine.autocast():
                _, false = critic(decoded.detach())
            update("discriminator", discriminator_loss(real, false))

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
        """Residual of the grey images: (B, 3, H, W) in [0, 1] → (B, H, W) in [0, 1]."""
        return (grey(images) - grey(self.reconstruct(images))).abs().squeeze(1)

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """The map's mean, (B,)."""
        return maps.mean((1, 2))

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """x̂, (B, 3, H, W) in [0, 1]."""
        _, decoded = self.generator(signed(images))
        return (decoded + 1) / 2


def create(settings: Settings, context: Context) -> Mscam:
    """As ``fader.detectors.create``."""
    return Mscam(context, settings).eval()
