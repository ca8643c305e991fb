"""EAR: reconstruction by inpainting of what an attention mask hides (arXiv 2310.04010 v2, paper
section 2.1).

The network sees I′ = K ⊙ I + (1 − K) ⊙ mosaic_m(I) and learns to give I back, on normal images
only, with each image's own deterministic mask. The mosaic scale is drawn at random per batch, so
that one network serves every candidate of the m* search (our choice: one network per category
instead of one per scale).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fader.config import Config
from fader.runtime import Machine
from fader.training import schedules
from fader.training.loop import Optimizer, Stage, Update, batches_per_epoch, train
from fader.vision.losses import reconstruction_loss
from fader.vision.mosaic import obfuscate
from fader.vision.unet import UNet


def build(config: Config, machine: Machine, weights: Mapping[str, Tensor] | None = None) -> UNet:
    """EAR's U-Net on the machine's device, channels last; with ``weights`` as trained, in eval
    mode."""
    network = UNet(config.unet.widths, config.unet.output)
    if weights is not None:
        network.load_state_dict(dict(weights))
        network.eval().requires_grad_(False)
    return network.to(machine.device, memory_format=torch.channels_last)


def reconstruct(network: UNet, scale: int, machine: Machine):
    """Callable (images (B, 3, H, W) in [0, 1], masks (B, H, W)) → reconstructions, at mosaic
    ``scale``."""

    def forward(images: Tensor, masks: Tensor) -> Tensor:
        with machine.autocast():
            return network(obfuscate(images, masks, scale))

    return forward


def fit(
    config: Config,
    machine: Machine,
    pixels: Tensor,
    masks: Tensor,
    *,
    stage: Stage,
) -> tuple[UNet, list[dict[str, float]]]:
    """Pre-train EAR on normal images.

    Parameters
    ----------
    pixels : (N, 3, H, W) uint8, moved to the device whole.
    masks : (N, H, W) bool, True = hidden behind the mosaic.
    stage : its seed is that of initialisation, order and mosaic scales.

    Returns
    -------
    The trained network in train mode, and one dictionary of losses per epoch.
    """
    torch.manual_seed(stage.seed)
    network = build(config, machine)
    optimizer = torch.optim.Adam(network.parameters(), config.ear.lr, fused=True)
    pixels, masks = pixels.to(machine.device), masks.to(machine.device)
    scales = torch.tensor(config.ear.scales)
    loss = config.loss

    def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
        scale = int(scales[torch.randint(len(scales), (1,), generator=random)])
        chosen = indices.to(machine.device)
        images = machine.images(pixels[chosen])
        with machine.autocast():
            reconstruction = network(obfuscate(images, masks[chosen], scale))
        losses = reconstruction_loss(
            images,
            reconstruction,
            l2=loss.l2,
            ssim_weight=loss.ssim,
            msgms=loss.msgms,
            scales=loss.scales,
        )
        update("adam", losses)

    per_epoch = batches_per_epoch(len(pixels), config.ear.batch)
    total = per_epoch * config.ear.epochs
    by_name = {"step": schedules.step_decay, "onecycle": schedules.one_cycle}
    history = train(
        stage,
        modules={"unet": network},
        optimizers={"adam": Optimizer(optimizer, by_name[config.ear.schedule](total))},
        step=step,
        count=len(pixels),
        batch=config.ear.batch,
        epochs=config.ear.epochs,
    )
    return network, history
