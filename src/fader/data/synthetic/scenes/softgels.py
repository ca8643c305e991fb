"""Loose translucent capsules, several to a picture."""

from dataclasses import replace

import numpy as np

from fader.data.synthetic.scene import Recipe, Rng, Scene, Surface
from fader.data.synthetic.shapes import (
    axes,
    between,
    blot,
    dome,
    jitter,
    mix,
    partly,
    stadium,
    step,
    turned,
    window,
)

# A part is (x, y, angle, brown): ``brown`` mixes in the colour of a spoilt filling.
GEL_LENGTH, GEL_RADIUS = 0.13, 0.16


def _sample(rng: Rng) -> Scene:
    """Seven capsules thrown until none overlap."""
    centres: list[np.ndarray] = []
    while len(centres) < 7:
        centre = rng.uniform(-0.68, 0.68, 2)
        if all(np.hypot(*(centre - other)) > 0.58 for other in centres):
            centres.append(centre)
        elif rng.random() < 0.005:
            centres.clear()  # a dead end: start the throw again
    aged = rng.uniform(0.0, 0.08, 7)
    parts = np.column_stack([np.array(centres), rng.uniform(0, np.pi, 7), aged])
    return replace(jitter(rng, shift=0.0, degrees=0.0, scale=0.0, colour=0.03), parts=parts)


def _build(scene: Scene, grid: int) -> Surface:
    x, y = axes(grid)
    height, gloss = np.zeros((grid, grid), np.float32), np.full((grid, grid), 0.03, np.float32)
    albedo = np.tile(np.float32([0.5, 0.55, 0.58]), (grid, grid, 1))
    for cx, cy, angle, brown in scene.parts:
        near = window(scene, grid, cx, cy, 0.31)
        dx, dy = x[:, near[1]] - np.float32(cx), y[near[0]] - np.float32(cy)
        outline = stadium(*turned(dx, dy, angle), GEL_LENGTH, GEL_RADIUS)
        inside, bulge = outline < 0, dome(outline, GEL_RADIUS)
        # Light focused by the gel collects on the side away from the lamp.
        caustic = np.clip(0.5 + (0.57 * dx + 0.82 * dy) / 0.3, 0, 1) * bulge
        gel = mix(np.float32([0.36, 0.14, 0.015]), (0.95, 0.6, 0.1), caustic)
        gel = mix(gel, (0.1, 0.05, 0.03), np.full_like(bulge, brown)) * scene.batch
        height[near] = np.where(inside, 0.2 * bulge, height[near])
        albedo[near] = np.where(inside[..., None], gel, albedo[near])
        gloss[near] = np.where(inside, 0.9, gloss[near])
    return Surface(height, albedo, gloss)


def _discoloured_gel(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    parts = scene.parts.copy()
    gel = rng.integers(len(parts))
    parts[gel, 3] += between(0.1, 1.0, ease) * (0.95 - parts[gel, 3])
    return _build(replace(scene, parts=parts), grid)


def _bubble_in_gel(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    x, y = axes(grid)
    cx, cy, angle, _ = scene.parts[rng.integers(len(scene.parts))]
    along = rng.uniform(-0.1, 0.1)
    radius = between(0.035, 0.12, ease)
    distance = (
        np.hypot(x - cx - along * np.cos(angle), y - cy - along * np.sin(angle)) - radius
    ).astype(np.float32)
    inside = distance < 0
    rim = np.exp(-(((distance + 0.02) / 0.015) ** 2))
    pale = mix(surface.albedo, (0.9, 0.85, 0.7), np.where(inside, 0.75, 0.0))
    bubbled = Surface(
        surface.height + np.where(inside, 0.05 * dome(distance, radius), 0.0).astype(np.float32),
        mix(pale, (0.12, 0.05, 0.02), np.where(inside, 0.8 * rim, 0.0)),
        surface.gloss,
    )
    return partly(surface, bubbled, between(0.12, 1.0, ease))


def _leaking_gel(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    x, y = axes(grid)
    cx, cy, angle, _ = scene.parts[rng.integers(len(scene.parts))]
    middle = np.array([cx, cy])
    reach = (GEL_LENGTH + GEL_RADIUS) * np.array([np.cos(angle), np.sin(angle)])
    # It leaks at the end nearer to the middle of the picture, so that the puddle is in view.
    centre = min((middle + reach, middle - reach), key=np.linalg.norm)
    distance = blot(x, y, centre, between(0.07, 0.26, ease), rng)
    puddle = (distance < 0) & (surface.height < 0.001)
    leaked = Surface(
        np.where(puddle, 0.03 * step(distance, 0.05), surface.height).astype(np.float32),
        mix(surface.albedo, (0.55, 0.27, 0.04), np.where(puddle, 0.9, 0.0)),
        np.where(puddle, 0.8, surface.gloss),
    )
    return partly(surface, leaked, between(0.1, 1.0, ease))


RECIPE = Recipe(
    layout="visa",
    kind="object",
    sample=_sample,
    build=_build,
    defects={"bubble": _bubble_in_gel, "discolour": _discoloured_gel, "leak": _leaking_gel},
    shininess=60.0,
)
