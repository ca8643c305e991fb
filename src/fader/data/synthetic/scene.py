"""What a picture shows: surfaces, scenes, and recipes that make them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Map = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True)
class Surface:
    """A scene before light: ``height`` (H, W), ``albedo`` (H, W, 3) in [0, 1], ``gloss`` (H, W)."""

    height: Map
    albedo: Map
    gloss: Map


@dataclass(frozen=True)
class Scene:
    """The pose of the product, and one row a part (its columns are the category's)."""

    shift: tuple[float, float]
    angle: float
    scale: float
    parts: Map = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True)
class Recipe:
    """How a category is made.

    Parameters
    ----------
    layout, kind : of the data set, and of the category.
    sample : draw a scene.
    build : its surface on a grid.
    defects : by type: the surface with a defect; the number says how easy it is to see, in [0, 1].
    shininess : exponent of the highlights.
    """

    layout: Literal["mvtec", "visa"]
    kind: Literal["object", "texture"]
    sample: Callable[[Rng], Scene]
    build: Callable[[Scene, int], Surface]
    defects: Mapping[str, Callable[[Scene, int, Rng, float], Surface]]
    shininess: float


def stream(*identity: object) -> Rng:
    """Random numbers that depend on nothing but an identity."""
    digest = hashlib.sha256("\0".join(map(str, identity)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
