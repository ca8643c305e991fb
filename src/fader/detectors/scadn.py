"""SCADN: learning semantic context from normal samples for unsupervised anomaly detection (Yan,
Zhang, Xu, Hu and Heng, AAAI 2021).

Stripes hide half of an image, at several scales, lying and standing, in both phases; a generator
completes it from what is seen, and a defect behind a stripe is not what comes of its surroundings.
A discriminator tells real images from the generator's.

SCADN and its public code fix the masks, hidden pixels being one; the generator of EdgeConnect
(Nazeri et al. 2019) with a third halving, so that its eight residual blocks have 512 channels, and
with 3 × 3 convolutions after doubling to the nearest; a spectrally normalised PatchGAN; the loss
(MSE_seen + 4 · MSE_hidden) / mean(mask) + 0.001 · the non-saturating one; Adam at 1e-4 and 1e-5
with β = (0, 0.9), batches of 4, 200 epochs at 512². An image scores, per scale, by the largest
squared error that any of the four masks hides, less its mean over the training images; the scale
with the largest mean makes the map, and that mean is the score. Our choices: the image size of the
run (256² at paper scale), scales of 2, 4 and 8 bands (indices 1 to 3 in the code), a mask of its
own for each image of a batch, the last epoch instead of the one of least error, and no bias that a
normalisation would take away.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fader.config import Scadn as Settings
from fader.detectors.base import Context, Detector, Images
from fader.detectors.ganomaly import SLOPE, discriminator_loss, initialise
from fader.runtime import generator
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train


def stripes(size: int, bands: int) -> Tensor:
    """Masks of a scale: (4, size, size) bool, True = hidden.

    ``bands`` lying stripes and as many gaps, from the top; the same with stripes and gaps changed
    over; the same two standing, from the left. Each hides half of the image.
    """
    lying = (torch.arange(size) * 2 * bands // size % 2 == 0).view(-1, 1).expand(size, size)
    return torch.stack([lying, ~lying, lying.T, ~lying.T])


class Reflect(nn.Module):
    """Pads by ``edge`` mirrored pixels: ``nn.ReflectionPad2d``, whose gradient is not deterministic
    on a GPU."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H + 2·edge, W + 2·edge)."""
        for axis in (-1, -2):
            length = x.shape[axis]
            before = x.narrow(axis, 1, self.edge).flip(axis)
            after = x.narrow(axis, length - 1 - self.edge, self.edge).flip(axis)
            x = torch.cat([before, x, after], axis)
        return x


class Block(nn.Module):
    """EdgeConnect's residual block: 3 × 3 dilated by two, and 3 × 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Reflect(2),
            nn.Conv2d(width, width, 3, dilation=2, bias=False),
            *_normal(width),
            Reflect(1),
            nn.Conv2d(width, width, 3, bias=False),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The shape of ``x``, (B, width, H, W)."""
        return x + self.layers(x)


class Generator(nn.Sequential):
    """Images (B, 3, H, W) → images in [0, 1]; H and W are multiples of 8, from 24 on."""

    def __init__(self, width: int, blocks: int) -> None:
        widths = [width << level for level in range(4)]
        layers = [Reflect(3), nn.Conv2d(3, width, 7, bias=False), *_normal(width)]
        for shallow, deep in pairwise(widths):
            layers += [nn.Conv2d(shallow, deep, 4, 2, 1, bias=False), *_normal(deep)]
        layers += [Block(widths[-1]) for _ in range(blocks)]
        for deep, shallow in pairwise(widths[::-1]):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(deep, shallow, 3, padding=1, bias=False),
                *_normal(shallow),
            ]
        super().__init__(*layers, Reflect(3), nn.Conv2d(width, 3, 7))

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1] of which some pixels are hidden, completed."""
        # Not channels last, in which instance normalisation copies what it is given.
        return (super().forward(images.contiguous()).float().tanh() + 1) / 2


class Discriminator(nn.Sequential):
    """PatchGAN, spectrally normalised: images (B, 3, H, W) → logits (B, 1, H / 8 − 2, W / 8 − 2),
    each of a patch of 70 × 70."""

    def __init__(self, width: int) -> None:
        strides = ((3, 2), (width, 2), (2 * width, 2), (4 * width, 1))
        layers: list[nn.Module] = []
        for level, (inputs, stride) in enumerate(strides):
            convolution = nn.Conv2d(inputs, width << level, 4, stride, 1, bias=False)
            layers += [spectral_norm(convolution), nn.LeakyReLU(SLOPE, inplace=True)]
        last = nn.Conv2d(8 * width, 1, 4, 1, 1, bias=False)
        super().__init__(*layers, spectral_norm(last))


def generator_losses(
    settings: Settings, images: Tensor, made: Tensor, hidden: Tensor, judged: Tensor
) -> dict[str, Tensor]:
    """Weighted sum of the squared errors behind and beside the masks, by the masks' mean, and of
    the adversarial loss; and the three.

    Parameters
    ----------
    images, made : (B, 3, H, W) in [0, 1], the images and their completions.
    hidden : (B, 1, H, W) bool, what the generator did not see.
    judged : the discriminator's logits of ``made``.
    """
    errors = (made - images).square()
    judged = judged.float()
    parts = {
        "hidden": (errors * hidden).mean(),
        "seen": (errors * ~hidden).mean(),
        "adversarial": F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged)),
    }
    reconstruction = (parts["seen"] + settings.hidden * parts["hidden"]) / hidden.float().mean()
    return {"loss": reconstruction + settings.adversarial * parts["adversarial"], **parts}


class Scadn(Detector):
    """``generator``, and ``normal``, (scales,): the mean error of each scale over the fitted
    normals. The discriminator ends with the training."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        self.generator = Generator(settings.width, settings.blocks).to(self.machine.device)
        self.normal: Tensor
        self.register_buffer("normal", torch.zeros(len(settings.bands)))
        self.masks: Tensor
        masks = [stripes(context.size, bands) for bands in settings.bands]
        self.register_buffer("masks", torch.stack(masks), persistent=False)

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``adversarial``, of a generator and a discriminator step a batch."""
        settings = self.settings
        stage = run.stage("adversarial", "lower the lr of this detector")
        self.requires_grad_(True).train()
        initialise(self.generator, generator(stage.seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stage.seed)  # spectral normalisation draws from the global generator
            critic = Discriminator(settings.width).to(self.machine.device)
        pixels = normal.pixels.to(self.machine.device)
        masks = self.masks.flatten(0, 1).unsqueeze(1)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = self.machine.images(pixels[indices.to(pixels.device)])
            drawn = torch.randint(len(masks), (len(images),), generator=random)
            hidden = masks[drawn.to(masks.device)]
            made = self.complete(images, hidden)
            with self.machine.autocast():
                judged = critic(made)
            update("generator", generator_losses(settings, images, made, hidden, judged))
            with self.machine.autocast():
                real, false = critic(torch.cat([images, made.detach()])).chunk(2)
            update("discriminator", discriminator_loss(real, false))

        history = train(
            stage,
            modules={"generator": self.generator, "discriminator": critic},
            optimizers={
                "generator": Optimizer(_adam(self.generator, settings.lr)),
                "discriminator": Optimizer(_adam(critic, settings.discriminator_lr)),
            },
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=steps_of(settings, len(normal)),
        )
        self.eval().requires_grad_(False)
        self.normal.copy_(self._mean_errors(normal))
        return {"adversarial": history}

    def complete(self, images: Tensor, hidden: Tensor) -> Tensor:
        """What the generator makes, (B, 3, H, W) in [0, 1], of images without their ``hidden``
        pixels, (B or 1, 1, H, W) bool."""
        with self.machine.autocast():
            return self.generator(images.masked_fill(hidden, 1.0))

    def errors(self, images: Tensor) -> Tensor:
        """Squared errors, averaged over colours, behind stripes of each scale: images (B, 3, H, W)
        in [0, 1] → (B, scales, H, W), the larger of the lying and the standing ones'."""
        of_scales = []
        for masks in self.masks:
            behind = [
                hidden * (self.complete(images, hidden[None, None]) - images).square().mean(1)
                for hidden in masks
            ]
            of_scales.append(torch.stack(behind).amax(0))
        return torch.stack(of_scales, 1)

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Errors (B, H, W) of the scale at which an image is farthest above the fitted normals,
        less their mean at that scale: below zero where it is better than they are."""
        excess = self.errors(images) - self.normal.view(-1, 1, 1)
        farthest = excess.mean((2, 3)).argmax(1).view(-1, 1, 1, 1)
        return excess.gather(1, farthest.expand(-1, 1, *excess.shape[2:])).squeeze(1)

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """The map's mean, (B,)."""
        return maps.mean((1, 2))

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """What was made of each pixel behind stripes, on average over them, for pictures: our
        choice."""
        hidden = self.masks.flatten(0, 1).unsqueeze(1)
        made = sum(mask * self.complete(images, mask.unsqueeze(0)) for mask in hidden)
        return made / hidden.sum(0)

    @torch.no_grad()
    def _mean_errors(self, normal: Images) -> Tensor:
        """Mean error of each scale, (scales,), over all pixels of ``normal``."""
        of_images = [
            self.errors(self.machine.images(part.pixels)).mean((2, 3))
            for part in normal.batches(self.context.score.batch)
        ]
        return torch.cat(of_images).mean(0)


def _normal(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]


def _adam(network: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr, betas=(0.0, 0.9), fused=True)


def create(settings: Settings, context: Context) -> Scadn:
    """As ``fader.detectors.create``."""
    return Scadn(context, settings).to(context.machine.device).eval()
