"""FADeR's η × schedule grid: shared frozen features against separate runs with the encoder in them.

Run alone: ``python benchmarks/fader_grid.py``. Ours is ``fader.detectors.fader.search`` itself: the
encoder's features are computed once and serve every epoch of every grid point. Two baselines train
every point by itself, the encoder in each step:

- recomputed: the project's own code and precision with ``cache_gib: 0``;
- plain: fp32, default layout, default Adam, PyTorch's own settings of determinism and TF32; each
  step hides, encodes (without gradients) and cuts the patches of its images anew. Same losses.

Measured are the seconds before the first epoch and of a few epochs of one grid point, after one
warm-up step; the cost of an epoch depends on neither η nor schedule. The grid is extrapolated
linearly. Validation, the same in all three, and checkpoints are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor
from training import pytorch_defaults

from fader import runtime
from fader.config import Config, parse
from fader.detectors import Context, Images
from fader.detectors.ear import Ear
from fader.detectors.fader import Fader, Point, train
from fader.detectors.fader.predictor import Mlp, soft_mask
from fader.detectors.fader.search import grid
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.losses import rank_loss, reconstruction_loss
from fader.vision.mosaic import obfuscate, patch_l2
from fader.vision.unet import UNet

PRESET = Path(__file__).parents[1] / "presets" / "bottle.yaml"
POINT = Point(1e-3, "fixed")
HIDDEN = 0.3  # share of the pixels behind the mosaic; the time does not depend on it
GOAL = 3.0


@dataclass(frozen=True)
class Cost:
    """Seconds before the first epoch, and of each measured epoch."""

    once: float
    epochs: list[float]

    @property
    def epoch(self) -> float:
        return statistics.median(self.epochs)


def configuration(args: argparse.Namespace, epochs: int, cache_gib: float) -> Config:
    values = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    values["image"]["size"] = args.size
    values["unet"]["widths"] = args.widths
    values["ear"]["scales"], values["mosaic"]["fixed"] = [args.patch], args.patch
    values["fader"] |= {
        "batch": args.batch,
        "steps": None,
        "epochs": epochs,
        "cache_gib": cache_gib,
    }
    values["runtime"] |= {"threads": args.threads, "device": args.device}
    return parse(values, PRESET.name)


def project(
    config: Config, machine: Machine, network: UNet, pixels: Tensor, masks: Tensor, patch: int
) -> Cost:
    """The project's own code; whether features are cached is in the configuration."""

    place = Context(machine, config.image.size, config.unet, config.loss, config.score)
    ear = Ear(place, config.ear, patch)
    ear.network = network

    def fit(points: list[Point], folder: str) -> None:
        run = Run(0, "fader", lambda stage: Checkpoint(Path(folder) / stage, "benchmark"))
        detector = Fader(ear, config.fader)
        normals = train.Normals.of(detector, Images(pixels, masks))
        for point in points:
            detector = Fader(ear, config.fader, point=point)
            train.fit(detector, normals, train.stage(detector, run))

    log = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(io.StringIO()),  # not a terminal: lines, no progress bar
    ):
        began = time.perf_counter()
        fit([], folder)
        synchronize(machine.device)
        once = time.perf_counter() - began
        fit([POINT], folder)
    return Cost(once, [json.loads(line)["seconds"] for line in log.getvalue().splitlines()])


def plain(
    config: Config, device: torch.device, network: UNet, pixels: Tensor, masks: Tensor, patch: int
) -> Cost:
    """A plain loop over whole images."""
    settings, weights = config.fader, config.loss
    began = time.perf_counter()
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    encoder = network.encoder.eval().requires_grad_(False)
    decoder = network.decoder.train().requires_grad_(True)
    torch.manual_seed(0)
    phi = Mlp(patch, settings.hidden).to(device)
    images, masks = (pixels.float() / 255).to(device), masks.to(device)
    optimizer = torch.optim.Adam(
        [
            {"params": phi.parameters(), "lr": POINT.lr},
            {"params": decoder.parameters(), "lr": settings.decoder_ratio * POINT.lr},
        ]
    )
    side = images.shape[-1] // patch
    half = side * side // 2

    def step(chosen: Tensor) -> Tensor:
        target = images[chosen]
        obfuscated = obfuscate(target, masks[chosen], patch)
        with torch.no_grad():
            skips, deepest = encoder(obfuscated)
        predicted = phi(obfuscated)
        attenuation = soft_mask(predicted.detach()).view(-1, side, side)
        reconstruction = decoder(skips, deepest, attenuation)
        loss = reconstruction_loss(
            target,
            reconstruction,
            l2=weights.l2,
            ssim_weight=weights.ssim,
            msgms=weights.msgms,
            scales=weights.scales,
        )["loss"]
        error = patch_l2(target, reconstruction.detach(), patch)
        pairs = torch.randperm(side * side, device=device)[: 2 * half].view(2, half)
        loss = loss + rank_loss(predicted, error, *pairs, settings.margin)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    synchronize(device)
    once = time.perf_counter() - began
    seconds = []
    for _ in range(settings.epochs):
        began = time.perf_counter()
        order = torch.randperm(len(images), device=device)
        float(sum(step(part) for part in order.split(settings.batch) if len(part) > 1))
        seconds.append(time.perf_counter() - began)
    return Cost(once, seconds)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def cache_bytes(config: Config, images: int, precision: str) -> int:
    per_image = sum(
        width * (config.image.size >> level) ** 2 for level, width in enumerate(config.unet.widths)
    )
    return images * per_image * (2 if precision == "bf16" else 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--images", type=int, default=188)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the extrapolated grid")
    parser.add_argument("--measured", type=int, default=2, help="epochs measured")
    parser.add_argument("--cache-gib", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()

    def configured(cache_gib: float) -> tuple[Config, Config]:
        """For the measurement, and for the warm-up step."""
        return configuration(args, args.measured, cache_gib), configuration(args, 1, cache_gib)

    cached, uncached = configured(args.cache_gib), configured(0.0)
    config = cached[0]
    machine = runtime.start(config.runtime)
    points = len(grid(config.fader))
    size = cache_bytes(config, args.images, machine.precision) / 2**30
    if size > args.cache_gib:
        parser.error(f"the features take {size:.2f} GiB: raise --cache-gib, or nothing is cached")
    print("; ".join(f"{key}: {value}" for key, value in machine.facts().items()))
    print(
        f"U-Net {args.widths}, {args.images} images of {args.size}², batch {args.batch}, patch "
        f"{args.patch}; features take {size:.2f} GiB"
    )
    print(
        f"measured: {args.measured} epochs of one point (median); extrapolated linearly: "
        f"{points} points × {args.epochs} epochs"
    )

    torch.manual_seed(0)
    place = Context(machine, config.image.size, config.unet, config.loss, config.score)
    network = Ear(place, config.ear, args.patch).network.eval().requires_grad_(False)
    pixels = torch.randint(256, (args.images, 3, args.size, args.size), dtype=torch.uint8)
    masks = torch.rand(args.images, args.size, args.size) < HIDDEN
    few = pixels[: args.batch], masks[: args.batch], args.patch
    whole = pixels, masks, args.patch

    def row(name: str, cost: Cost, preparations: int) -> float:
        total = preparations * cost.once + points * args.epochs * cost.epoch
        print(
            f"{name:34}{cost.once:8.2f} × {preparations}{cost.epoch:12.2f}{total:14.1f}", flush=True
        )
        return total

    print(f"\n{'':34}{'once [s]':>12}{'epoch [s]':>12}{'grid [s]':>14}", flush=True)
    project(cached[1], machine, network, *few)
    name = f"ours: {machine.precision}, cached once"
    ours = row(name, project(cached[0], machine, network, *whole), 1)
    project(uncached[1], machine, network, *few)
    name = f"(a) recomputed: {machine.precision}, cache 0"
    recomputed = row(name, project(uncached[0], machine, network, *whole), points)
    with pytorch_defaults():
        plain(cached[1], machine.device, network, *few)
        cost = plain(cached[0], machine.device, network, *whole)
        simple = row("(b) plain: fp32, default layout", cost, points)
    print()
    for name, seconds in (("(a) recomputed", recomputed), ("(b) plain", simple)):
        ratio = seconds / ours
        verdict = "met" if ratio >= GOAL else "MISSED"
        print(f"RATIO {ratio:.2f}, {name} over ours (goal ≥ {GOAL:g}: {verdict})")


if __name__ == "__main__":
    main()
