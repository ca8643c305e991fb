"""Textures that detectors paint on normal images: generated, or read from a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fader.config import Dtd, GeneratedTextures, TextureFolder, Textures
from fader.data import decode, dtd
from fader.data.defects import procedural_texture
from fader.data.pack import resized


def read(settings: Textures, normals: Tensor, seed: int) -> Tensor:
    """Textures (N, 3, S, S) uint8 of the size of ``normals`` (n, 3, S, S) uint8.

    Raises
    ------
    FaderError : as ``dtd.images`` and ``dtd.extracted``; or an image cannot be read.
    """
    return SOURCES[settings.source](settings, normals, seed)


def _generated(settings: GeneratedTextures, normals: Tensor, seed: int) -> Tensor:
    return generate(settings.count, normals, seed)


def _of_folder(settings: TextureFolder, normals: Tensor, seed: int) -> Tensor:
    return _decoded(dtd.images(Path(settings.root)), settings.count, normals.shape[-1])


def _of_dtd(settings: Dtd, normals: Tensor, seed: int) -> Tensor:
    return _decoded(dtd.images(dtd.extracted(settings)), settings.count, normals.shape[-1])


SOURCES: dict[str, Callable[[Any, Tensor, int], Tensor]] = {
    "generated": _generated,
    "folder": _of_folder,
    "dtd": _of_dtd,
}


def generate(count: int, normals: Tensor, seed: int) -> Tensor:
    """Procedural textures (count, 3, S, S) uint8; half of their colours are those of ``normals``.

    Further textures change none of the earlier ones.
    """
    textures = np.empty((count, *normals.shape[1:]), np.uint8)
    for row in range(count):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(row,)))
        image = normals[row % len(normals)].numpy()
        textures[row] = np.clip(np.rint(procedural_texture(image, rng)), 0, 255)
    return torch.from_numpy(textures)


def _decoded(images: list[Path], count: int, size: int) -> Tensor:
    """At most ``count`` of the images, evenly spaced, (n, 3, size, size) uint8."""
    rows = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    chosen = [images[row] for row in rows]
    white = decode.measured_white(chosen)

    def one(path: Path) -> np.ndarray:
        return resized(decode.rgb(decode.read(path), white), size)

    return torch.from_numpy(np.stack(decode.each(one, chosen)))
