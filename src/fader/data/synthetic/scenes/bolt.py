"""A hexagon bolt with its washer on a brushed table."""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from fader.data.synthetic.scene import Map, Recipe, Rng, Scene, Surface, stream
from fader.data.synthetic.shapes import (
    between,
    blot,
    jitter,
    local,
    lumps,
    mix,
    partly,
    stadium,
    step,
    stroke,
    turned,
)

HEX_APOTHEM, HEX_TOP, WASHER_TOP = 0.45, 0.26, 0.05
WASHER_OUTER = 0.74


def _sample(rng: Rng) -> Scene:
    return jitter(rng, shift=0.03, degrees=3.0, scale=0.015, colour=0.02)


@lru_cache(maxsize=2)
def _brushed_table(grid: int) -> Map:
    """The one table of the station: streaks along x, which the phase of a scene moves along y.
    (H, W), mean 1."""
    streaks = stream("bolt", "table").normal(size=(96, 6))
    zoom = (grid / 96, grid / 6)
    table = ndimage.zoom(streaks, zoom, order=1, grid_mode=True, mode="nearest")
    return (1.0 + 0.06 * table).astype(np.float32)


def _hexagon(u: Map, v: Map) -> Map:
    sides = [np.abs(u * np.cos(a) + v * np.sin(a)) for a in np.deg2rad([15, 75, 135])]
    return np.maximum.reduce(sides) - HEX_APOTHEM


def _build(scene: Scene, grid: int) -> Surface:
    u, v = local(scene, grid)
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    table = np.roll(_brushed_table(grid), round(scene.phase[0] * grid), axis=0)
    albedo = np.float32([0.115, 0.135, 0.16]) * table[..., None]
    washer, hexagon = r - WASHER_OUTER, _hexagon(u, v)
    on_washer, on_head = washer < 0, hexagon < 0
    head = HEX_TOP - 0.55 * np.maximum(r - 0.435, 0.0)  # turned chamfer: cuts the corners round
    head = head - 0.03 * step(r - 0.3, 0.02)  # shallow recess in the head
    marks = np.minimum.reduce(
        [stadium(*_mark(u, v, a), 0.05, 0.022) for a in np.deg2rad([-90, 30, 150])]
    )
    head = head + 0.025 * step(marks, 0.015)  # raised grade marks
    height = WASHER_TOP * step(washer, 0.035) + np.where(
        on_head, (head - WASHER_TOP) * step(hexagon, 0.02), 0.0
    )
    # Turned faces shine along the direction whose grooves lie across the light.
    sheen = np.exp(-((np.sin(theta + scene.angle + 0.96) / 0.32) ** 2))
    rings = 1.0 + 0.03 * np.cos(2 * np.pi * (r / 0.085 + scene.phase[1]))
    steel = np.float32([0.36, 0.365, 0.37]) * (0.72 + 0.75 * sheen * rings)[..., None]
    zinc = np.float32([0.42, 0.37, 0.25]) * (0.85 + 0.4 * sheen)[..., None]
    albedo = np.where(on_washer[..., None], zinc * scene.batch, albedo)
    albedo = np.where(on_head[..., None], steel * scene.batch, albedo)
    gloss = np.where(on_head, 0.55, np.where(on_washer, 0.4, 0.05))
    return Surface(height.astype(np.float32), albedo.astype(np.float32), gloss.astype(np.float32))


def _mark(u: Map, v: Map, angle: float) -> tuple[Map, Map]:
    along, across = turned(u, v, angle)
    return along - 0.19, across


def _on_bolt(rng: Rng, low: float, high: float) -> tuple[float, float]:
    radius, angle = rng.uniform(low, high), rng.uniform(0, 2 * np.pi)
    return radius * np.cos(angle), radius * np.sin(angle)


def _scratched_bolt(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    u, v = local(scene, grid)
    length, width = between(0.14, 1.2, ease), between(0.016, 0.038, ease)
    distance = stroke(u, v, _on_bolt(rng, 0.1, 0.5), length, rng)
    inside = (distance < width) & (np.hypot(u, v) < WASHER_OUTER)
    groove = np.where(inside, 1.0 - (np.minimum(distance, width) / width) ** 2, 0.0)
    scratched = Surface(
        surface.height - 0.3 * width * groove,
        mix(surface.albedo, (0.05, 0.045, 0.045), np.where(inside, 0.9, 0.0)),
        surface.gloss + np.where(inside, 0.2, 0.0),
    )
    return partly(surface, scratched, between(0.12, 1.0, ease))


def _rusted_bolt(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    u, v = local(scene, grid)
    centre = _on_bolt(rng, 0.15, 0.62)
    distance = blot(u, v, centre, between(0.045, 0.24, ease), rng)
    for _ in range(2):
        near = tuple(np.add(centre, rng.normal(0, between(0.05, 0.2, ease), 2)))
        distance = np.minimum(distance, blot(u, v, near, between(0.02, 0.1, ease), rng))
    spots = (distance < 0) & (np.hypot(u, v) < WASHER_OUTER)
    grain = lumps(rng, grid, 44)
    rust = np.float32([0.22, 0.085, 0.03]) * (0.4 + 1.1 * grain)[..., None]
    rusted = Surface(
        surface.height + np.where(spots, 0.006 * grain, 0.0),
        np.where(spots[..., None], rust, surface.albedo),
        np.where(spots, 0.02, surface.gloss),
    )
    return partly(surface, rusted, between(0.12, 0.95, ease))


def _chipped_bolt(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    u, v = local(scene, grid)
    corner = np.deg2rad(45 + 60 * rng.integers(6)) + rng.uniform(-0.12, 0.12)
    along, across = turned(u, v, corner)
    rough = lumps(rng, grid, 24)
    cut = HEX_APOTHEM / np.cos(np.pi / 6) - between(0.07, 0.26, ease)
    depth = along - cut - 0.5 * across**2 + 0.06 * (rough - 0.5)
    broken = (depth > 0) & (_hexagon(u, v) < 0)
    facet = WASHER_TOP + 0.09 * np.exp(-depth / 0.05) + 0.03 * rough
    chipped = Surface(
        np.where(broken, np.minimum(surface.height, facet), surface.height),
        mix(surface.albedo, (0.06, 0.06, 0.065), np.where(broken, 1.0, 0.0)),
        np.where(broken, 0.35, surface.gloss),
    )
    return partly(surface, chipped, between(0.15, 1.0, ease))


RECIPE = Recipe(
    layout="mvtec",
    kind="object",
    sample=_sample,
    build=_build,
    defects={"scratch": _scratched_bolt, "rust": _rusted_bolt, "chip": _chipped_bolt},
    shininess=30.0,
)
