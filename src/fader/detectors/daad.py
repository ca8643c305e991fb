"""DAAD: divide and assemble, learning block-wise memory (Hou et al., ICCV 2021).

A U-Net whose links from encoder to decoder are cut: each feature map is divided into blocks, a
memory of normal blocks is read in the place of each, and what is read is assembled again. Coarse
blocks reconstruct little, fine ones everything; in between lies a rate at which normal images come
back and defects do not. A discriminator tells real images from reconstructed ones, and the distance
of its features of the two enters the score.

There is no public code, and the paper's full text was not at hand. What is known of it: 256², 500
items a memory, addressed as MemAE's (softmax, hard shrinkage), squared error + adversarial loss +
latent distance, and the discriminator's features in the score. The rest is re-derived, our choices:
EAR's layers at widths 64, 128, 256, 512; a memory at the deepest level too, so that no link passes
by; the division rates, 4 × 4 blocks and as many parts of the channels as make blocks of every level
equally long; DCGAN's layers at the same widths for the discriminator, which judges windows; the
weights of the losses; Adam at 1e-4, 200 epochs, batches of 16. The map is the squared error
averaged over colours. The score of an image is the map's mean plus the latent distance, each
standardised on the fitted normals. Scores are computed in full precision.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Daad as Settings
from fader.detectors.base import Context, Detector, Images
from fader.detectors.ganomaly import Encoder, discriminator_loss
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.vision.memory import BlockMemory, active
from fader.vision.unet import UNet

EPS = 1e-12  # least standard deviation that a distance is divided by


class Network(nn.Module):
    """EAR's U-Net with a block-wise memory in each link from encoder to decoder.

    Parameters
    ----------
    size : side of the images, pixels.
    """

    def __init__(self, settings: Settings, size: int) -> None:
        super().__init__()
        self.unet = UNet(settings.widths, "sigmoid")
        rates = zip(settings.widths, settings.sides, settings.groups, strict=True)
        self.memories = nn.ModuleList(
            BlockMemory(
                settings.slots,
                width,
                size >> level,
                side=side,
                groups=groups,
                addressing=settings.addressing,
                temperature=settings.temperature,
                shrinkage=settings.shrinkage,
            )
            for level, (width, side, groups) in enumerate(rates)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, H, W) in [0, 1] → reconstructions likewise, and the addresses (Q, N) of
        each level's blocks, shallow first."""
        skips, deepest = self.unet.encoder(images)
        levels = zip(self.memories, [*skips, deepest], strict=True)
        read, weights = zip(*(memory(features) for memory, features in levels), strict=True)
        return self.unet.decoder(read[:-1], read[-1]), list(weights)


def generator_losses(
    settings: Settings, images: Tensor, decoded: Tensor, real: Tensor, made: Tensor, logits: Tensor
) -> dict[str, Tensor]:
    """Weighted sum of squared error, adversarial loss and latent distance, and the three.

    Parameters
    ----------
    images, decoded : x and x̂ (B, 3, H, W) in [0, 1].
    real, made : the discriminator's features of x and x̂; no gradient reaches ``real``.
    logits : what it says of x̂.
    """
    logits = logits.float()
    parts = {
        "reconstruction": distance(images, decoded).mean(),
        "adversarial": F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)),
        "latent": distance(real.detach(), made).mean(),
    }
    loss = (
        parts["reconstruction"]
        + settings.adversarial * parts["adversarial"]
        + settings.latent * parts["latent"]
    )
    return {"loss": loss, **parts}


def distance(real: Tensor, made: Tensor) -> Tensor:
    """Mean squared difference (B,) of images or features (B, C, h, w)."""
    return (real.float() - made.float()).square().flatten(1).mean(1)


class Daad(Detector):
    """``network`` reconstructs images (B, 3, H, W) in [0, 1]; ``critic``, the discriminator, stays,
    for its features enter the score.

    ``centre`` and ``spread`` (2,): mean and standard deviation, over the fitted normals, of the two
    distances that make the score of an image.
    """

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        self.settings = settings
        self._build()
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(2, device=context.machine.device))
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(2, device=context.machine.device))

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """One stage, ``adversarial``, of a step of the network and one of the discriminator a
        batch; ``active`` counts the items that a batch reads, over all memories."""
        settings = self.settings
        stage = run.stage("adversarial", "lower the lr of this detector")
        self._build(stage.seed)
        self.train()
        pixels = normal.pixels.to(self.machine.device)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = self.machine.images(pixels[indices.to(pixels.device)])
            with self.machine.autocast():
                decoded, addresses = self.network(images)
                real, of_real = self.critic(images)
                made, of_made = self.critic(decoded)
            losses = generator_losses(settings, images, decoded, real, made, of_made)
            items = torch.stack([active(weights) for weights in addresses]).sum()
            update("network", {**losses, "active": items})
            with self.machine.autocast():
                _, of_made = self.critic(decoded.detach())
            update("discriminator", discriminator_loss(of_real, of_made))

        history = train(
            stage,
            modules={"network": self.network, "discriminator": self.critic},
            optimizers={
                "network": Optimizer(self._adam(self.network)),
                "discriminator": Optimizer(self._adam(self.critic)),
            },
            step=step,
            count=len(normal),
            batch=settings.batch,
            steps=steps_of(settings, len(normal)),
        )
        self.eval().requires_grad_(False)
        self._standardise(normal)
        return {"adversarial": history}

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Mean (x − x̂)² over the channels: (B, 3, H, W) in [0, 1] → (B, H, W)."""
        return (images - self.reconstruct(images)).square().mean(1)

    def image_score(self, images: Tensor, maps: Tensor) -> Tensor:
        """Sum (B,) of the squared error and the latent distance, both standardised."""
        found = self._distances(images, self.reconstruct(images))
        return ((found - self.centre) / self.spread.clamp(min=EPS)).sum(1)

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """x̂, (B, 3, H, W) in [0, 1]."""
        decoded, _ = self.network(images)
        return decoded

    def _distances(self, images: Tensor, decoded: Tensor) -> Tensor:
        """Of x and x̂ (B, 3, H, W), in pixels and in the discriminator's features: (B, 2)."""
        real, _ = self.critic(images)
        made, _ = self.critic(decoded)
        return torch.stack([distance(images, decoded), distance(real, made)], 1)

    @torch.inference_mode()
    def _standardise(self, normal: Images) -> None:
        found = []
        for part in normal.batches(self.context.score.batch):
            images = self.machine.images(part.pixels)
            found.append(self._distances(images, self.reconstruct(images)))
        distances = torch.cat(found)
        self.centre.copy_(distances.mean(0))
        self.spread.copy_(distances.std(0, correction=0))

    def _build(self, seed: int | None = None) -> None:
        """Fresh weights from torch's global generator; with a ``seed`` from their own, and the
        global one is left as it was."""
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.network = self.placed(Network(self.settings, self.context.size))
            self.critic = self.placed(Encoder(self.settings.widths, 1))

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), self.settings.lr, fused=True)


def create(settings: Settings, context: Context) -> Daad:
    """As ``fader.detectors.create``."""
    return Daad(context, settings).eval()
