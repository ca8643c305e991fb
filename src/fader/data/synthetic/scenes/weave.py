"""A plain-woven textile."""

from dataclasses import replace

import numpy as np

from fader.data.synthetic.scene import Recipe, Rng, Scene, Surface
from fader.data.synthetic.shapes import between, blot, jitter, local, mix, partly, step

# A part is a run of missing weft: (thread number, from, to).
THREAD = 2.0 / 13


def _sample(rng: Rng) -> Scene:
    return replace(
        jitter(rng, shift=THREAD, degrees=1.2, scale=0.012, colour=0.03), parts=np.zeros((0, 3))
    )


def _build(scene: Scene, grid: int) -> Surface:
    u, v = local(scene, grid)
    column, row = np.floor(u / THREAD), np.floor(v / THREAD)
    over = np.where((column + row) % 2 == 0, 1.0, -1.0)  # warp over weft, or under
    across_warp, across_weft = (u / THREAD - column) * 2 - 1, (v / THREAD - row) * 2 - 1
    wave_warp, wave_weft = np.cos(across_weft * np.pi / 2), np.cos(across_warp * np.pi / 2)
    warp = 0.05 * np.sqrt(np.clip(1 - (across_warp / 0.92) ** 2, 0, 1)) + 0.03 * over * wave_warp
    weft = 0.05 * np.sqrt(np.clip(1 - (across_weft / 0.92) ** 2, 0, 1)) - 0.03 * over * wave_weft
    no_warp, no_weft = np.abs(across_warp) > 0.92, np.abs(across_weft) > 0.92
    for thread, start, end in scene.parts:
        no_weft = no_weft | ((row == thread) & (u > start) & (u < end))
    warp, weft = np.where(no_warp, -0.05, warp), np.where(no_weft, -0.05, weft)
    twist = 1.0 + 0.07 * np.sin(2 * np.pi * (u + v) / (THREAD / 2))
    # No two threads took the dye alike; the golden angle keeps neighbours apart.
    lots = [
        1.0 + 0.06 * np.cos(2.4 * thread + 2 * np.pi * phase)
        for thread, phase in zip((column, row), scene.phase, strict=True)
    ]
    blue, cream = np.float32([0.07, 0.15, 0.3]), np.float32([0.55, 0.5, 0.4])
    dyed = (colour * lot[..., None] for colour, lot in zip((blue, cream), lots, strict=True))
    albedo = np.where((warp > weft)[..., None], *dyed) * twist[..., None] * scene.batch
    height = np.maximum(warp, weft)
    albedo = np.where((height <= -0.05)[..., None], np.float32(0.02), albedo)
    gloss = np.full((grid, grid), 0.05, np.float32)
    return Surface(height.astype(np.float32), albedo.astype(np.float32), gloss)


def _torn_weave(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """A hole; in a hard image the threads are only worn."""
    surface = _build(scene, grid)
    u, v = local(scene, grid)
    radius = between(0.05, 0.24, ease)
    distance = blot(u, v, tuple(rng.uniform(-0.65, 0.65, 2)), radius, rng)
    warp_end, weft_end = radius * rng.uniform(-0.25, 0.25, (2, 32))  # no two threads tear alike
    column, row = (np.floor(c / THREAD).astype(int) % 32 for c in (u, v))
    on_warp = (column + row) % 2 == 0
    hole = distance + np.where(on_warp, warp_end[column], weft_end[row]) < 0
    torn = Surface(
        np.where(hole, -0.12, surface.height),
        mix(surface.albedo, (0.015, 0.013, 0.012), np.where(hole, 1.0, 0.0)),
        np.where(hole, 0.0, surface.gloss),
    )
    return partly(surface, torn, between(0.12, 1.0, ease))


def _stained_weave(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build(scene, grid)
    u, v = local(scene, grid)
    distance = blot(u, v, tuple(rng.uniform(-0.6, 0.6, 2)), between(0.06, 0.36, ease), rng)
    share = step(distance, 0.03) * between(0.08, 0.9, ease)
    return replace(surface, albedo=mix(surface.albedo, (0.09, 0.045, 0.02), share))


def _missing_thread(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """A weft or two that broke; in a hard image it is thin."""
    length, start = between(0.3, 1.7, ease), rng.uniform(-0.95, -0.75)
    start += rng.uniform(0, 1.7 - length) if length < 1.7 else 0.0
    first = rng.integers(-5, 4)
    threads = range(first, first + 1 + round(ease))
    parts = np.array([(thread, start, start + length) for thread in threads])
    broken = _build(replace(scene, parts=parts), grid)
    return partly(_build(scene, grid), broken, between(0.12, 1.0, ease))


RECIPE = Recipe(
    layout="mvtec",
    kind="texture",
    sample=_sample,
    build=_build,
    defects={"hole": _torn_weave, "stain": _stained_weave, "missing_thread": _missing_thread},
    shininess=20.0,
)
