"""EAR training: images per second of this project and of a plain fp32 PyTorch loop.

Run alone: ``python benchmarks/training.py``. Both train the same U-Net with the same loss, mosaic,
masks, batch and threads on the same images. Ours is ``fader.detectors.ear.Ear`` itself: uint8
images decoded once and kept on the device, bf16 where the hardware has it, channels last, fused
Adam, deterministic algorithms. The plain loop has a DataLoader of two processes that opens and
resizes PNG files in every epoch, PyTorch's default layout, precision and Adam, and PyTorch's own
settings of determinism and TF32. In between, ours with precision and layout changed one by one.

One warm-up step precedes every clock. Ours does not count the decoding (once per category, printed)
nor checkpoints (one in 20 s at most). The plain loop has no log, no checkpoint and no check of its
weights.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fader import runtime
from fader.config import Config, parse
from fader.data import synthetic
from fader.detectors import Context, Images, ear, reconstruction
from fader.detectors.reconstruction import build_unet
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.losses import reconstruction_loss
from fader.vision.mosaic import obfuscate
from fader.vision.unet import UNet

PRESET = Path(__file__).parents[1] / "presets" / "bottle.yaml"
FILE_SIZE = 256
HIDDEN = 0.3  # share of the pixels behind the mosaic; the time does not depend on it
GOAL = 3.0


class Files(Dataset):
    """PNG files as (image (3, size, size) in [0, 1], mask (size, size)), opened at every access."""

    def __init__(self, paths: list[Path], masks: Tensor):
        size = masks.shape[-2:]
        self.paths, self.masks = paths, masks
        self.transform = transforms.Compose([transforms.Resize(tuple(size)), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.masks[index]


class DefaultLayout(Machine):
    """A machine whose images are not channels last."""

    def images(self, pixels: Tensor) -> Tensor:
        return super().images(pixels).contiguous()


def build_default_layout(context: Context, seed: int | None = None) -> UNet:
    return build_unet(context, seed).to(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def pytorch_defaults() -> Iterator[None]:
    """PyTorch's own settings instead of those of ``runtime.start``."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.allow_tf32 = False


def configuration(args: argparse.Namespace, epochs: int) -> Config:
    values = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    values["image"]["size"] = args.size
    values["unet"]["widths"] = args.widths
    scales = [m for m in values["ear"]["scales"] if m < args.size]
    values["ear"] |= {"batch": args.batch, "steps": None, "epochs": epochs, "scales": scales}
    values["runtime"] |= {"threads": args.threads, "device": args.device}
    return parse(values, PRESET.name)


def write_images(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index:04d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        pixels, _ = synthetic.render("bolt", "train", index, seed=0, size=FILE_SIZE)
        Image.fromarray(pixels).save(path)
    return paths


def decode(paths: list[Path], size: int) -> Tensor:
    """(N, 3, size, size) uint8, what the project keeps of the files."""
    resize = transforms.Resize((size, size))
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(resize(image.convert("RGB"))).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(images))


def plain(config: Config, device: torch.device, files: Files) -> list[float]:
    """Seconds of every epoch of the plain loop."""
    torch.manual_seed(0)
    network = UNet(config.unet.widths, config.unet.output).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.ear.lr)
    batch = config.ear.batch
    loader = DataLoader(files, batch, shuffle=True, num_workers=2, persistent_workers=True)
    weights = config.loss

    def step(images: Tensor, masks: Tensor) -> Tensor:
        images, masks = images.to(device), masks.to(device)
        reconstruction = network(obfuscate(images, masks, random.choice(config.ear.scales)))
        loss = reconstruction_loss(
            images,
            reconstruction,
            l2=weights.l2,
            ssim_weight=weights.ssim,
            msgms=weights.msgms,
            scales=weights.scales,
        )["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    first = [files[index] for index in range(batch)]
    step(
        torch.stack([image for image, _ in first]), torch.stack([mask for _, mask in first])
    ).item()
    seconds = []
    for _ in range(config.ear.epochs):
        began = time.perf_counter()
        float(sum(step(images, masks) for images, masks in loader))
        seconds.append(time.perf_counter() - began)
    return seconds


def ours(config: Config, machine: Machine, pixels: Tensor, masks: Tensor) -> list[float]:
    """Seconds of every epoch, as the training loop logs them."""
    log = io.StringIO()
    place = Context(machine, config.image.size, config.unet, config.loss, config.score)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(io.StringIO()),  # not a terminal: lines, no progress bar
    ):
        run = Run(0, "ear", lambda stage: Checkpoint(Path(folder) / stage, "benchmark"))
        ear.Ear(place, config.ear, config.ear.scales[0]).fit(Images(pixels, masks), run)
    return [json.loads(line)["seconds"] for line in log.getvalue().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=192, help="a multiple of the batch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()
    if args.images % args.batch:
        parser.error("--images must be a multiple of --batch: every step then costs the same")

    config, one_step = configuration(args, args.epochs), configuration(args, 1)
    machine = runtime.start(config.runtime)
    print("; ".join(f"{key}: {value}" for key, value in machine.facts().items()))
    print(
        f"U-Net {args.widths}, {args.images} images of {args.size}², batch {args.batch}, "
        f"{args.epochs} epochs"
    )
    random.seed(0)
    masks = torch.rand(args.images, args.size, args.size) < HIDDEN

    def row(name: str, seconds: list[float]) -> float:
        rate = args.images * len(seconds) / sum(seconds)
        print(f"{name:52}{rate:9.2f}", flush=True)
        return rate

    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), args.images)
        began = time.perf_counter()
        pixels = decode(paths, args.size)
        print(f"decoding all files once, one process: {time.perf_counter() - began:.2f} s")
        print(f"\n{'':52}images/s", flush=True)
        with pytorch_defaults():
            name = "plain: PNG DataLoader, fp32, default layout, Adam"
            baseline = row(name, plain(config, machine.device, Files(paths, masks)))

    for precision in dict.fromkeys(["fp32", machine.precision]):
        chosen = replace(machine, precision=precision)
        other = DefaultLayout(machine.device, precision)
        for layout, where, build in (
            ("default layout", other, build_default_layout),
            ("channels last", chosen, build_unet),
        ):
            with mock.patch.object(reconstruction, "build_unet", build):
                ours(one_step, where, pixels[: args.batch], masks[: args.batch])
                rate = row(f"ours: {precision}, {layout}", ours(config, where, pixels, masks))
    ratio = rate / baseline
    verdict = "met" if ratio >= GOAL else "MISSED"
    print(f"\nRATIO {ratio:.2f}, the last row over the first (goal ≥ {GOAL:g}: {verdict})")


if __name__ == "__main__":
    main()
