"""DRAEM, JNLD, OmniAL: the share of a training step that goes into painting its anomalies.

Run alone: ``python benchmarks/synthesis.py``. The widths are those of ``presets/paper.yaml``; the
images are generated, and so are the textures, whose content does not matter to the time. A step is
what the detector's ``fit`` does with a batch: anomalies on a batch of normal images
(``fader.data.defects.batches``), both networks, the losses, their gradients and Adam's update. Half
of the images stay normal, at random, so the time of synthesis is the mean over many batches; that
of the rest hardly varies. One batch precedes the clock; the rest takes so long that its first step
is as good as another.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fader import detectors, runtime
from fader.config import Config, load
from fader.data import synthetic, textures
from fader.data.defects import batches
from fader.detectors import Context
from fader.detectors.draem import Draem

PRESET = Path(__file__).parents[1] / "presets" / "paper.yaml"
NAMES = ("draem", "jnld", "omnial")
TEXTURES = 16
GOAL = 0.2


def seconds(run: Callable[[], object], times: int) -> float:
    """Mean over ``times`` runs."""
    began = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - began) / times


def normals(count: int, size: int) -> Tensor:
    """(count, 3, size, size) uint8."""
    pixels = [synthetic.render("bolt", "train", i, seed=0, size=size)[0] for i in range(count)]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pixels])


def shares(detector: Draem, images: Tensor, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds of synthesis and of the rest of a step."""
    detector.train()
    random = runtime.generator(0)
    overlays = textures.generate(TEXTURES, images, 0)
    adam = torch.optim.Adam(detector.parameters(), 1e-4, fused=True)
    kept = batches.synthesise(images, overlays, random, detector.paint)

    def synthesis() -> None:
        batches.synthesise(images, overlays, random, detector.paint)

    def rest() -> None:
        loss = detector.losses(detector.moved(kept))["loss"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        loss.item()  # waits for the device

    return seconds(synthesis, args.batches), seconds(rest, args.steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20, help="of which synthesis is timed")
    parser.add_argument("--steps", type=int, default=1, help="of which the rest is timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    args = parser.parse_args()

    config: Config = load(PRESET)
    about = {"threads": args.threads, "device": args.device}
    machine = runtime.start(config.runtime.model_copy(update=about))
    print("; ".join(f"{key}: {value}" for key, value in machine.facts().items()))
    print(f"{args.size}², batch {args.batch}, published widths")
    images = normals(args.batch, args.size)
    place = Context(machine, args.size, config.unet, config.loss, config.score)
    print(f"\n{'':10}{'synthesis':>12}{'the rest':>12}{'share':>9}", flush=True)
    worst = 0.0
    for name in NAMES:
        detector = detectors.create(config.detectors[name], place)
        assert isinstance(detector, Draem)
        painting, rest = shares(detector, images, args)
        share = painting / (painting + rest)
        worst = max(worst, share)
        print(f"{name:10}{painting:10.3f} s{rest:10.2f} s{share:9.1%}", flush=True)
    verdict = "met" if worst <= GOAL else "MISSED"
    print(f"\nSHARE {worst:.1%} at most (goal ≤ {GOAL:.0%}: {verdict})")


if __name__ == "__main__":
    main()
