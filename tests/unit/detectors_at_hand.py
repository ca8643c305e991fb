"""What the tests of detectors share: a tiny place to work in, settings, images, runs."""

from pathlib import Path

import torch
from torch import Tensor

from fader.config import (
    Daad,
    Draem,
    Ganomaly,
    GeneratedTextures,
    Jnld,
    Loss,
    MemAe,
    Mscam,
    OmniAl,
    Pca,
    PlainUNet,
    Riad,
    Scadn,
    Score,
    UNet,
)
from fader.detectors import Context
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run

SIZE = 32
_SYNTHESIS = {
    "width": 2,
    "segmentation": 8,
    "textures": GeneratedTextures(source="generated", count=6),
    "epochs": 3,
    "batch": 9,
    "lr": 0.01,
}
_NOTICEABLE = {"levels": [0.2, 0.6], "similar": 0.9} | _SYNTHESIS
SETTINGS = {
    "unet": PlainUNet(kind="unet", epochs=3, batch=4, lr=0.002, schedule="onecycle"),
    "riad": Riad(
        kind="riad", cells=[2, 4, 8], subsets=3, epochs=3, batch=4, lr=0.002, weight_decay=1e-5
    ),
    "ganomaly": Ganomaly(
        kind="ganomaly",
        latent=8,
        width=8,
        epochs=3,
        batch=4,
        lr=0.001,
        adversarial=1.0,
        contextual=50.0,
        latent_weight=1.0,
    ),
    "memae": MemAe(
        kind="memae",
        widths=[8, 16, 16],
        slots=20,
        addressing="dot",
        temperature=1.0,
        shrinkage=1.0,
        epochs=3,
        batch=4,
        lr=0.005,
        entropy=0.0002,
    ),
    "daad": Daad(
        kind="daad",
        widths=[8, 16, 16],
        slots=12,
        sides=[4, 4, 4],
        groups=[2, 2, 2],
        addressing="dot",
        temperature=1.0,
        shrinkage=1.0,
        epochs=3,
        batch=4,
        lr=0.005,
        adversarial=0.001,
        latent=0.01,
    ),
    "scadn": Scadn(
        kind="scadn",
        bands=[1, 4],
        width=4,
        blocks=1,
        epochs=3,
        batch=4,
        lr=0.002,
        discriminator_lr=0.0002,
        hidden=4.0,
        adversarial=0.001,
    ),
    "mscam": Mscam(
        kind="mscam",
        width=8,
        latent=8,
        reduction=4,
        epochs=3,
        batch=4,
        lr=0.001,
        adversarial=1.0,
        contextual=50.0,
        consistency=1.0,
        erasing=0.5,
        erased=[0.02, 0.4],
    ),
    "draem": Draem(kind="draem", **_SYNTHESIS),
    "jnld": Jnld(kind="jnld", smooth=3, **_NOTICEABLE),
    "omnial": OmniAl(kind="omnial", smooths=[3, 1], dilation=2, reduction=2, **_NOTICEABLE),
    "pca": Pca(kind="pca", components=4),
}
TRAINED = [name for name in SETTINGS if name != "pca"]


def place(precision: str = "fp32", size: int = SIZE) -> Context:
    return Context(
        Machine(torch.device("cpu"), precision),
        size,
        UNet(widths=[8, 16, 16], output="sigmoid"),
        Loss(l2=1.0, ssim=1.0, msgms=1.0, scales=3),
        Score(scales=3, c=0.0026, smooth=5, batch=4),
    )


def changed(name: str, **values):
    """Settings of a detector with other ``values``."""
    return SETTINGS[name].model_copy(update=values)


def normals(count: int = 18, seed: int = 0) -> Tensor:
    """Soft stripes, a little shifted, with a little noise: (count, 3, 32, 32) uint8."""
    random = torch.Generator().manual_seed(seed)
    phase = 0.2 * torch.rand(count, 1, 1, 1, generator=random)
    across = torch.arange(SIZE).view(1, 1, 1, -1) / 16
    colour = torch.tensor([0.2, 0.15, 0.1]).view(1, 3, 1, 1)
    images = 0.5 + colour * torch.sin(2 * torch.pi * (across + phase))
    noise = 0.01 * torch.randn(count, 3, SIZE, SIZE, generator=random)
    return ((images + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def defective(count: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Normals with a chequered square on each, and the squares' masks (count, 32, 32)."""
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    yellow, blue = torch.tensor([[255, 255, 0], [0, 60, 255]]).view(2, 3, 1, 1)
    board = torch.where((rows // 3 + columns // 3) % 2 == 0, yellow, blue).to(torch.uint8)
    shift = 2 * torch.arange(count).view(-1, 1, 1)
    masks = ((rows - 9 - shift).abs() < 6) & ((columns - 20 + shift).abs() < 6)
    return torch.where(masks.unsqueeze(1), board, normals(count, seed)), masks


def run_in(folder: Path, seed: int = 1, checkpoint: type[Checkpoint] = Checkpoint) -> Run:
    """A run whose checkpoints lie in ``folder``."""
    return Run(seed, "tiny", lambda stage: checkpoint(folder / f"{stage}.ckpt", "run"))
