"""Every tensor on an image's way through FADeR, for the figures that explain it (3, 4 and 5)."""

from typing import cast

import torch
from torch import Tensor

from fader import runtime
from fader.data.layout import GOOD
from fader.detectors import Images
from fader.detectors.fader import Fader
from fader.detectors.reconstruction import anomaly_map
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.pipeline.methods import Method
from fader.pipeline.reads import traced
from fader.steps import inputs, models
from fader.vision.losses import msgms_map
from fader.vision.mosaic import obfuscate, patch_l2
from fader.vision.unet import scale_mask

NORMAL, TESTED = "normal", "tested"


def trace_fader(context: Context) -> None:
    """Follow two images of the category with the run's first seed: a fitted normal, as in training,
    and the first defective test image, or the first where none is defective."""
    machine = runtime.start(context.config.runtime)
    base, of_fader = context.config.masks.base, context.of(traced(context.config, context.job))
    detector = cast(Fader, models.trained(of_fader, Method("fader", base), machine))
    defects = inputs.packed(of_fader)[1].facts["defects"]
    shown = next((row for row, defect in enumerate(defects) if defect != GOOD), 0)
    images = {
        NORMAL: inputs.fitted(of_fader, base)[:1],
        TESTED: inputs.tested(of_fader, base)[shown : shown + 1],
    }
    tensors = {
        f"{name} {part}": value
        for name, image in images.items()
        for part, value in follow(detector, image).items()
    }
    facts = {"place": context.job.place, "scale": detector.scale, "shown": shown}
    artifacts.write_tensors(context.output("trace"), tensors, context.header(facts))


@torch.inference_mode()
def follow(detector: Fader, image: Images) -> dict[str, Tensor]:
    """What FADeR makes of one image with its mask: on the CPU, without the axis of the batch.

    Returns
    -------
    ``image``, ``obfuscated`` and ``reconstruction`` (3, H, W) uint8; ``mask`` (H, W) uint8;
    ``predicted``, ``error`` and ``soft_mask`` (g, g): l̂, the mean squares of I − Î that Φ is
    trained on, and M_S; ``raw`` and ``map`` (H, W): 1 − MSGMS before and after smoothing; and of
    each skip, shallow first, ``before 0``, ``skip 0`` and ``after 0`` (h, w): the mean over
    channels of the features' absolute values, M_S at their size, and their product.
    """
    machine, score = detector.machine, detector.context.score
    pixels = machine.images(image.pixels)
    masks = image.masks.to(pixels.device)  # type: ignore[union-attr]  # FADeR is given masks
    obfuscated = obfuscate(pixels, masks, detector.scale)
    predicted = detector.predict(obfuscated)
    soft = detector.arrange(detector.phi.soft_mask(predicted), torch.Generator())
    skips, deepest = detector.encode(obfuscated)
    reconstruction = detector.decode(skips, deepest, soft)
    grid = soft.shape[1:]
    found = {
        "image": _bytes(pixels),
        "obfuscated": _bytes(obfuscated),
        "reconstruction": _bytes(reconstruction),
        "mask": masks.to(torch.uint8),
        "predicted": predicted.view(1, *grid),
        "error": patch_l2(pixels, reconstruction, detector.scale).view(1, *grid),
        "soft_mask": soft,
        "raw": msgms_map(pixels, reconstruction, score.scales, score.c),
        "map": anomaly_map(pixels, reconstruction, score),
    }
    for level, features in enumerate(skips):
        before = features.float().abs().mean(1)
        mask = scale_mask(soft, before.shape[1:], detector.path.scaling).squeeze(1)
        found |= {f"before {level}": before, f"skip {level}": mask, f"after {level}": before * mask}
    return {name: value[0].cpu().contiguous() for name, value in found.items()}


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)
