"""Every tensor on an image's way through FADeR, for the figures that explain it (3, 4 and 5)."""

from typing import Any

import torch
from torch import Tensor

from fader.data.layout import GOOD
from fader.detectors import Images
from fader.detectors.fader import Fader
from fader.detectors.reconstruction import anomaly_map
from fader.pipeline.context import Context
from fader.steps import inputs
from fader.vision.losses import msgms_map
from fader.vision.mosaic import obfuscate, patch_l2
from fader.vision.unet import scale_mask

NORMAL, TESTED = "normal", "tested"


def trace(context: Context, detector: Fader) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Follow two images of the category through its FADeR: a fitted normal, as in training, and the
    first defective test image, or the first where none is defective.

    Returns
    -------
    What ``follow`` finds of each, and facts: the mosaic's ``scale``, the test image ``shown``.
    """
    base = context.config.masks.base
    defects = inputs.packed(context)[1].facts["defects"]
    shown = next((row for row, defect in enumerate(defects) if defect != GOOD), 0)
    images = {
        NORMAL: inputs.fitted(context, base)[:1],
        TESTED: inputs.tested(context, base)[shown : shown + 1],
    }
    tensors = {
        f"{name} {part}": value
        for name, image in images.items()
        for part, value in follow(detector, image).items()
    }
    return tensors, {"scale": detector.scale, "shown": shown}


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
        "image": as_bytes(pixels),
        "obfuscated": as_bytes(obfuscated),
        "reconstruction": as_bytes(reconstruction),
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


def as_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8."""
    return (images * 255).round().to(torch.uint8)
