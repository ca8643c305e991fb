"""Two-colour capsules in a foil pack."""

from dataclasses import replace

import numpy as np

from fader.data.synthetic.scene import Recipe, Rng, Scene, Surface
from fader.data.synthetic.shapes import (
    between,
    blot,
    dome,
    jitter,
    local,
    mix,
    partly,
    stadium,
    step,
    turned,
    window,
)

# A part is (x, y, angle, end): the capsule is kept where its long coordinate is below ``end``.
PILL_LENGTH, PILL_RADIUS, WHOLE, GONE = 0.15, 0.135, 1.0, -1.0
CAVITY_LENGTH, CAVITY_RADIUS = 0.185, 0.18


def _sample(rng: Rng) -> Scene:
    seats = np.array([(x, y) for y in (-0.68, -0.23, 0.23, 0.68) for x in (-0.43, 0.43)])
    loose = rng.uniform(-0.014, 0.014, (8, 2))
    parts = np.column_stack([seats + loose, rng.uniform(-0.07, 0.07, 8), np.full(8, WHOLE)])
    return replace(jitter(rng, shift=0.025, degrees=1.5, scale=0.012, colour=0.03), parts=parts)


def _build(scene: Scene, grid: int) -> Surface:
    u, v = local(scene, grid)
    first, second = (u + v) / 0.16 + scene.phase[0], (u - v) / 0.16 + scene.phase[1]
    knurl = 0.004 * np.cos(2 * np.pi * first) * np.cos(2 * np.pi * second)
    row = np.where(np.abs(v) < 0.455, 0.23, 0.68)
    cavity = stadium(np.abs(u) - 0.43, np.abs(v) - row, CAVITY_LENGTH, CAVITY_RADIUS)
    rim, floor = np.exp(-((cavity / 0.028) ** 2)), step(cavity, 0.03)
    height = knurl * (1 - floor) + 0.035 * rim
    foil = np.broadcast_to(np.float32([0.47, 0.49, 0.52]), (grid, grid, 3))
    albedo = mix(foil, (0.3, 0.32, 0.35), floor)
    gloss = 0.25 + 0.35 * rim
    for x, y, angle, end in scene.parts:
        near = window(scene, grid, x, y, 0.34)
        a, b = turned(u[near] - np.float32(x), v[near] - np.float32(y), angle)
        outline = stadium(a, b, PILL_LENGTH, PILL_RADIUS)
        fracture = a - end + 0.018 * np.sin(45 * b + 40 * end) + 0.01 * np.sin(110 * b)
        pill = (outline < 0) & (fracture < 0)
        overlap = 1.0 + 0.05 * step(np.abs(a) - 0.02, 0.02)  # the cap laps over the body
        height[near] = np.where(pill, 0.17 * dome(outline, PILL_RADIUS) * overlap, height[near])
        cap, body = np.float32([0.55, 0.07, 0.05]), np.float32([0.72, 0.64, 0.45])
        colour = np.where((a < 0)[..., None], cap, body) * scene.batch
        albedo[near] = np.where(pill[..., None], colour, albedo[near])
        gloss[near] = np.where(pill, 0.6, gloss[near])
    return Surface(height.astype(np.float32), albedo.astype(np.float32), gloss.astype(np.float32))


def _missing_pill(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """Up to three capsules missing from a plain pack; in a hard one a capsule has lost some of its
    filling, so that it is sunk and the seat shows through its shell."""
    parts = scene.parts.copy()
    parts[rng.choice(len(parts), 1 + round(2 * ease), replace=False), 3] = GONE
    gone = _build(replace(scene, parts=parts), grid)
    return partly(_build(scene, grid), gone, between(0.1, 1.0, ease))


def _broken_pill(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """Without an end; in a hard image the end is dented and still there."""
    parts = scene.parts.copy()
    pill = rng.integers(len(parts))
    parts[pill, 3] = between(0.22, -0.12, ease)
    broken = _build(replace(scene, parts=parts), grid)
    return partly(_build(scene, grid), broken, between(0.15, 1.0, ease))


def _misplaced_pill(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """Askew and off its seat; in an easy image also the wrong way round."""
    parts = scene.parts.copy()
    pill, side = rng.integers(len(parts)), rng.choice([-1.0, 1.0])
    parts[pill, 1] += side * between(0.01, 0.09, ease)
    parts[pill, 2] += side * between(0.04, 0.9, ease**1.5) + (np.pi if ease > 0.6 else 0.0)
    return _build(replace(scene, parts=parts), grid)


def _contaminated_blister(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    u, v = local(scene, grid)
    centre = tuple(rng.uniform(-0.7, 0.7, 2))
    distance = blot(u, v, centre, between(0.035, 0.17, ease), rng)
    spot = distance < 0
    albedo = mix(surface.albedo, (0.03, 0.03, 0.02), np.where(spot, 1.0, 0.0))
    dirty = replace(surface, albedo=albedo, gloss=np.where(spot, 0.1, surface.gloss))
    return partly(surface, dirty, between(0.12, 0.95, ease))


RECIPE = Recipe(
    layout="mvtec",
    kind="object",
    sample=_sample,
    build=_build,
    defects={
        "missing": _missing_pill,
        "broken": _broken_pill,
        "misplaced": _misplaced_pill,
        "contamination": _contaminated_blister,
    },
    shininess=45.0,
)
