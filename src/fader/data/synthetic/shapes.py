"""Outlines, profiles and patterns that scenes are put together from.

Coordinates are maps (H, W); an outline is a signed distance, negative inside.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage

from fader.data.synthetic.scene import Map, Rng, Scene, Surface


@lru_cache(maxsize=4)
def axes(grid: int) -> tuple[Map, Map]:
    """Coordinates x (1, grid) and y (grid, 1) of the pixels' centres."""
    line = ((np.arange(grid) + 0.5) * (2.0 / grid) - 1.0).astype(np.float32)
    return line[None, :], line[:, None]


def local(scene: Scene, grid: int) -> tuple[Map, Map]:
    """Coordinates (H, W) in the frame of the product."""
    x, y = axes(grid)
    dx, dy = scene.shift
    return turned((x - dx) / scene.scale, (y - dy) / scene.scale, scene.angle)


def turned(x: Any, y: Any, angle: float) -> tuple[Any, Any]:
    """Coordinates along and across a direction, ``angle`` radians from x to y: maps or numbers."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def step(distance: Map, width: float) -> Map:
    """1 inside (negative distance), 0 outside, a smooth bevel of ``width`` inside the outline."""
    t = np.clip(-distance / width, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def stadium(u: Map, v: Map, half_length: float, radius: float) -> Map:
    """Signed distance to a capsule along u; ``half_length`` excludes the round ends."""
    return np.hypot(np.maximum(np.abs(u) - half_length, 0.0), v) - radius


def dome(distance: Map, radius: float) -> Map:
    """Circular profile in [0, 1] over a shape of inner radius ``radius``."""
    return np.sqrt(np.clip(1.0 - np.clip(distance / radius + 1.0, 0.0, 1.0) ** 2, 0.0, 1.0))


def blot(x: Map, y: Map, centre: Map | tuple[float, float], radius: float, rng: Rng) -> Map:
    """Signed distance, roughly, to an irregular round spot."""
    dx, dy = x - centre[0], y - centre[1]
    theta = np.arctan2(dy, dx)
    outline = np.full_like(theta, radius)
    for order, amplitude in ((2, 0.16), (3, 0.1), (5, 0.06), (8, 0.03)):
        outline += radius * amplitude * np.sin(order * theta + rng.uniform(0, 2 * np.pi))
    return np.hypot(dx, dy) - outline


def stroke(x: Map, y: Map, centre: tuple[float, float], length: float, rng: Rng) -> Map:
    """Distance to a gently curved stroke, overstated towards its ends so that they taper."""
    bend, angle = rng.uniform(-0.15, 0.15), rng.uniform(0, np.pi)
    along, across = turned(x - centre[0], y - centre[1], angle)
    t = along / (length / 2)
    wander = 0.06 * length * np.sin(3.1 * t + rng.uniform(0, 2 * np.pi))
    offset = np.abs(across - bend * length * (1 - t * t) - wander)
    taper = np.sqrt(np.clip(1.0 - t * t, 0.0, 1.0))
    return np.where(taper > 0.2, offset / np.maximum(taper, 0.2), np.inf)


def mix(albedo: Map, colour: tuple[float, float, float], share: Map) -> Map:
    """Albedo (H, W, 3) with a ``share`` (H, W) of another colour."""
    return albedo + share[..., None] * (np.asarray(colour, np.float32) - albedo)


def lumps(rng: Rng, grid: int, cells: int) -> Map:
    """Irregular smooth bumps (H, W) in [0, 1], about ``cells`` of them across the picture."""
    lattice = rng.random((cells, cells))
    bumps = ndimage.zoom(lattice, grid / cells, order=2, grid_mode=True, mode="nearest")
    return np.clip(bumps, 0, 1)


def window(scene: Scene, grid: int, x: float, y: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the picture within ``reach`` of the product's point (x, y)."""
    dx, dy = turned(scene.scale * x, scene.scale * y, -scene.angle)
    centre = np.array([scene.shift[1] + dy, scene.shift[0] + dx])
    low = np.clip(np.floor((centre - reach + 1) * grid / 2), 0, grid).astype(int)
    high = np.clip(np.ceil((centre + reach + 1) * grid / 2), 0, grid).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])


def between(hard: float, easy: float, ease: float) -> float:
    """A size or a contrast of a defect, from ``hard`` to ``easy`` to see."""
    return hard + (easy - hard) * ease


def partly(before: Surface, after: Surface, share: float) -> Surface:
    """A defect that has gone only a ``share`` of its way from the sound to the damaged surface."""
    old, new = (np.dstack([s.height, s.albedo, s.gloss]) for s in (before, after))
    mixed = (old + np.float32(share) * (new - old)).astype(np.float32)
    return Surface(mixed[..., 0], mixed[..., 1:4], mixed[..., 4])


def jitter(rng: Rng, shift: float, degrees: float, scale: float, colour: float) -> Scene:
    """A product without parts, placed and coloured within these tolerances."""
    dx, dy = rng.uniform(-shift, shift, 2)
    angle, size = np.deg2rad(rng.uniform(-degrees, degrees)), 1.0 + rng.uniform(-scale, scale)
    batch = (1.0 + rng.uniform(-colour, colour, 3)).astype(np.float32)
    return Scene((dx, dy), angle, size, tuple(rng.random(2)), batch)
