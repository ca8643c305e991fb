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
    """One product as it lies before the camera.

    Parameters
    ----------
    shift, angle, scale : its pose.
    phase : where its periodic textures begin, two shares of a period in [0, 1).
    batch : gain of its colours (3,), around 1.
    parts : one row a part; the columns are the category's.
    """

    shift: tuple[float, float]
    angle: float
    scale: float
    phase: tuple[float, float] = (0.0, 0.0)
    batch: Map = field(default_factory=lambda: np.ones(3, np.float32))
    parts: Map = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True)
class Recipe:
    """How a category is made.

    Parameters
    ----------
    layout, kind : of the data set, and of the category.
    sample : draw a scene.
    build : its surface on a grid.
    defects : by type: the surface with a defect; the number, its ease, says how plain it is: 0 is
        small and of little contrast, barely visible, 1 is large and of full contrast.
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
