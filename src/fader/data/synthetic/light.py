"""Light and camera: one shading model for all scenes.

Blinn–Phong with cast shadows of the heightfield, ambient occlusion, an illumination gradient,
defocus and sensor noise.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fader.data.synthetic.scene import Map, Rng, Surface
from fader.data.synthetic.shapes import axes

SUPERSAMPLING = 2
DEFOCUS = 0.009  # widest blur, standard deviation in half image widths


@dataclass(frozen=True)
class Light:
    """A distant key light in ``direction`` (unit vector towards it) over an ambient one, both of
    one ``colour`` (3,)."""

    direction: Map
    ambient: float
    key: float
    gradient: Map
    shininess: float
    colour: Map


def sample_light(rng: Rng, shininess: float) -> Light:
    """The station's lamp, up and to the left, as it happens to hang and burn this time."""
    azimuth = np.deg2rad(-125 + rng.uniform(-8, 8))
    elevation = np.deg2rad(52 + rng.uniform(-3, 3))
    flat = np.cos(elevation)
    direction = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    gradient = np.array([-0.09, -0.11]) + rng.uniform(-0.05, 0.05, 2)
    brightness, warmth = rng.uniform(0.92, 1.06), rng.uniform(-0.02, 0.02)
    colour = np.array([1.0 + warmth, 1.0, 1.0 - warmth])
    return Light(direction, 0.42 * brightness, 0.8 * brightness, gradient, shininess, colour)


def _shadow(height: Map, light: Light) -> Map:
    """Share of the key light hidden by the heightfield, (H, W) in [0, 1], with a soft edge."""
    pixel = 2.0 / len(height)
    towards = light.direction[:2] / np.hypot(*light.direction[:2])
    rise = light.direction[2] / np.hypot(*light.direction[:2])
    hidden = np.zeros_like(height)
    for distance in np.arange(0.02, 0.26, 0.02):
        dx, dy = np.rint(towards * distance / pixel).astype(int)
        blocker = _shifted(height, dx, dy)
        np.maximum(hidden, (blocker - height - distance * rise) / 0.03, out=hidden)
    return ndimage.gaussian_filter(np.clip(hidden, 0, 1), 0.012 / pixel, truncate=2.5)


def _shifted(values: Map, dx: int, dy: int) -> Map:
    """``values[y + dy, x + dx]``, repeating the border."""
    rows = np.clip(np.arange(values.shape[0]) + dy, 0, values.shape[0] - 1)
    columns = np.clip(np.arange(values.shape[1]) + dx, 0, values.shape[1] - 1)
    return values[rows][:, columns]


def _shade(surface: Surface, light: Light) -> Map:
    """Linear radiance (H, W, 3): ambient with occlusion, Lambert and Blinn-Phong key light."""
    height = surface.height
    grid = len(height)
    pixel = 2.0 / grid
    slope_y, slope_x = np.gradient(height, pixel)
    norm = np.sqrt(1.0 + slope_x**2 + slope_y**2)
    halfway = light.direction + np.array([0.0, 0.0, 1.0])  # the camera looks straight down
    vectors = (light.direction, halfway / np.linalg.norm(halfway))
    facing, mirror = (
        np.clip((vz - slope_x * vx - slope_y * vy) / norm, 0, 1) for vx, vy, vz in vectors
    )
    lit = 1.0 - 0.85 * _shadow(height, light)
    surroundings = ndimage.gaussian_filter(height, 0.04 / pixel, truncate=2.5)
    occlusion = np.clip(surroundings - height, 0, 0.1)
    x, y = axes(grid)
    illumination = 1.0 + light.gradient[0] * x + light.gradient[1] * y - 0.06 * (x**2 + y**2)
    diffuse = light.ambient * (1.0 - 4.0 * occlusion) + light.key * facing * lit
    specular = surface.gloss * mirror**light.shininess * lit
    radiance = surface.albedo * diffuse[..., None] + specular[..., None]
    return radiance * illumination[..., None] * light.colour


def photograph(surface: Surface, light: Light, rng: Rng) -> np.ndarray:
    """Focus more or less well, expose, average the supersamples, apply display gamma, add sensor
    noise, quantise."""
    blur = rng.uniform(0.0, DEFOCUS) * len(surface.height) / 2
    focused = ndimage.gaussian_filter(_shade(surface, light), (blur, blur, 0), truncate=3)
    picture = _binned(np.clip(focused, 0, 1)) ** (1 / 2.2)
    noise = rng.normal(0.0, 0.007, picture.shape)
    return np.rint(np.clip(picture + noise, 0, 1) * 255).astype(np.uint8)


def _binned(values: Map) -> Map:
    n, k = len(values) // SUPERSAMPLING, SUPERSAMPLING
    return values.reshape(n, k, n, k, *values.shape[2:]).mean(axis=(1, 3))


def changed(before: Surface, after: Surface, light: Light) -> Map:
    """Where a defect shows: another material, or a cast shadow that came or went by over 30 %."""
    material = (
        (np.abs(after.albedo - before.albedo).max(axis=-1) > 0.006)
        | (np.abs(after.height - before.height) > 0.002)
        | (np.abs(after.gloss - before.gloss) > 0.03)
    )
    moved = np.abs(_shadow(after.height, light) - _shadow(before.height, light)) > 0.3
    # A displaced part can equal the old one along a line; such slits belong to the defect.
    width = max(1, len(moved) // 80)
    closed = ndimage.binary_closing(np.pad(material | moved, width), iterations=width)
    return ndimage.binary_fill_holes(closed[width:-width, width:-width])


def at_least_half(covered: Map) -> Map:
    """Pixels covered by half or more; a defect thinner than that keeps its best-covered pixels."""
    share = _binned(covered.astype(np.float32))
    return share >= min(0.5, max(share.max(), 1e-6))
