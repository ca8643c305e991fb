"""A small synthetic inspection data set, rendered by code, in the layouts of MVTec AD and VisA.

It lets the whole pipeline run without a download. Each category is a parametric scene: parts on a
ground plane, described by three maps (height, albedo, gloss) and photographed from above by one
shading model (Blinn-Phong, cast shadows of the heightfield, ambient occlusion, illumination
gradient, sensor noise). A defect changes the maps or the parts, never the pixels, so its light and
shadow are right and its mask is known: the pixels whose material or cast shadow changed.

Lengths are in half image widths: the picture spans [-1, 1]², x to the right and y down, at every
size. Scenes are rendered at twice the size and averaged. A random stream is a SHA-256 hash of the
seed and the image's identity, so an image depends on nothing but its own name: asking for more
images, or adding a category, changes no other image.
"""

import csv
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fader.errors import FaderError

Map = np.ndarray
Rng = np.random.Generator

SUPERSAMPLING = 2
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Surface:
    """A scene before light: ``height`` (H,W), ``albedo`` (H,W,3) in [0,1], ``gloss`` (H,W)."""

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
class Light:
    """A distant key light in ``direction`` (unit vector towards it) over an ambient one."""

    direction: Map
    ambient: float
    key: float
    gradient: Map
    shininess: float


Sample = Callable[[Rng], Scene]
Build = Callable[[Scene, int], Surface]
Defect = Callable[[Scene, int, Rng, float], Surface]


class Recipe(NamedTuple):
    """How a category is made: draw a scene, build its surface, or build it with a defect."""

    sample: Sample
    build: Build
    defects: dict[str, Defect]
    shininess: float


@dataclass(frozen=True)
class CategorySpec:
    """``layout`` is 'mvtec' or 'visa', ``kind`` 'object' or 'texture', ``defects`` the types."""

    layout: str
    kind: str
    defects: tuple[str, ...]


def generate(
    target: Path, layout: str, *, seed: int, size: int, train: int, good: int, defective: int
) -> None:
    """Write every category of ``layout`` under ``target``, which appears only when it is complete.

    ``train`` and ``good`` count a category's normal images for training and testing, ``defective``
    the anomalous images of each defect type; pictures are RGB, ``size`` x ``size`` pixels.

    ``mvtec``: ``<category>/{train/good,test/good,test/<defect>}/NNN.png`` and
    ``<category>/ground_truth/<defect>/NNN_mask.png`` (0 or 255).
    ``visa``: ``<category>/Data/Images/{Normal,Anomaly}/NNNN.JPG``, ``Data/Masks/Anomaly/NNNN.png``
    (0, or the number of the defect type, from 1), ``<category>/image_anno.csv`` (the defect type of
    each image) and ``split_csv/1cls.csv``.

    Raises FaderError when ``layout`` is unknown, a number is out of range or ``target`` exists.
    """
    writers = {"mvtec": _write_mvtec, "visa": _write_visa}
    if layout not in writers:
        raise FaderError(f"synthetic data: unknown layout {layout!r}; choose mvtec or visa")
    least = {"size": 32, "train": 1, "good": 1, "defective": 1}
    given = {"size": size, "train": train, "good": good, "defective": defective}
    for name, value in given.items():
        if value < least[name]:
            raise FaderError(f"synthetic data: {name} is {value}; give at least {least[name]}")
    if target.exists():
        raise FaderError(f"synthetic data: {target} already exists; remove it or choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp's 0700 would hide a shared data set from everyone else
        writers[layout](partial, seed, size, train, good, defective)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def render(
    category: str, split: str, index: int, *, seed: int, size: int, defect: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Image ``index`` of ``split``, uint8 (size,size,3), and its defect mask, bool (size,size).

    Without ``defect`` it is the same picture before the damage (same pose, light and sensor noise)
    and the mask is empty.
    """
    identity = (seed, category, split, index)
    recipe, grid = _RECIPES[category], size * SUPERSAMPLING
    scene = recipe.sample(_stream(*identity, "scene"))
    light = _sample_light(_stream(*identity, "light"), recipe.shininess)
    surface = recipe.build(scene, grid)
    mask = np.zeros((size, size), dtype=bool)
    if defect is not None:
        ease = 1.0 - difficulty(category, defect, index, seed=seed)
        damaged = recipe.defects[defect](scene, grid, _stream(*identity, "defect"), ease)
        mask = _at_least_half(_changed(surface, damaged, light))
        surface = damaged
    return _photograph(surface, light, _stream(*identity, "sensor")), mask


def difficulty(category: str, defect: str, index: int, *, seed: int) -> float:
    """Of image ``index`` of a defect type: 0 (large, high contrast) to 1 (small, low contrast).

    A golden-ratio sequence with a random start: evenly spread for any number of images, while the
    value of one image does not depend on how many there are.
    """
    return float((_stream(seed, category, defect, "difficulty").random() + index * GOLDEN) % 1.0)


def _stream(*identity: object) -> Rng:
    digest = hashlib.sha256("\0".join(map(str, identity)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


# --- files ----------------------------------------------------------------------------------------


def _write_mvtec(root: Path, seed: int, size: int, train: int, good: int, defective: int) -> None:
    for category, defect, split, count in _splits("mvtec", train, good, defective):
        folder = _made(root / category / split)
        for index in range(count):
            image, mask = render(category, split, index, seed=seed, size=size, defect=defect)
            Image.fromarray(image).save(folder / f"{index:03d}.png")
            if defect is not None:
                masks = _made(root / category / "ground_truth" / defect)
                Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{index:03d}_mask.png")


def _splits(
    layout: str, train: int, good: int, defective: int
) -> Iterator[tuple[str, str | None, str, int]]:
    for category, spec in CATEGORIES.items():
        if spec.layout == layout:
            yield category, None, "train/good", train
            yield category, None, "test/good", good
            for defect in spec.defects:
                yield category, defect, f"test/{defect}", defective


def _write_visa(root: Path, seed: int, size: int, train: int, good: int, defective: int) -> None:
    split_rows = []
    for category, spec in CATEGORIES.items():
        if spec.layout != "visa":
            continue
        data = root / category / "Data"
        normal, anomaly = _made(data / "Images/Normal"), _made(data / "Images/Anomaly")
        masks = _made(data / "Masks/Anomaly")
        notes = []
        for index in range(train + good):
            path = normal / f"{index:04d}.JPG"
            _save_jpeg(render(category, "normal", index, seed=seed, size=size)[0], path)
            name = path.relative_to(root).as_posix()
            split_rows.append((category, "train" if index < train else "test", "normal", name, ""))
            notes.append((name, "normal", ""))
        # The types take turns, so that more images of each type only lengthen the list.
        for number in range(defective * len(spec.defects)):
            index, kind = divmod(number, len(spec.defects))
            defect = spec.defects[kind]
            image, mask = render(category, defect, index, seed=seed, size=size, defect=defect)
            path, mask_path = anomaly / f"{number:04d}.JPG", masks / f"{number:04d}.png"
            _save_jpeg(image, path)
            Image.fromarray(mask.astype(np.uint8) * (kind + 1)).save(mask_path)
            name, mask_name = (p.relative_to(root).as_posix() for p in (path, mask_path))
            split_rows.append((category, "test", "anomaly", name, mask_name))
            notes.append((name, defect, mask_name))
        _save_csv(root / category / "image_anno.csv", ("image", "label", "mask"), notes)
    header = ("object", "split", "label", "image", "mask")
    _save_csv(_made(root / "split_csv") / "1cls.csv", header, split_rows)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save_jpeg(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, format="JPEG", quality=95)


def _save_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


# --- light and camera -----------------------------------------------------------------------------


def _sample_light(rng: Rng, shininess: float) -> Light:
    azimuth = np.deg2rad(-125 + rng.uniform(-4, 4))
    elevation = np.deg2rad(52 + rng.uniform(-2, 2))
    flat = np.cos(elevation)
    direction = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    gradient = np.array([-0.09, -0.11]) + rng.uniform(-0.03, 0.03, 2)
    brightness = rng.uniform(0.96, 1.04)
    return Light(direction, 0.42 * brightness, 0.8 * brightness, gradient, shininess)


def _shadow(height: Map, light: Light) -> Map:
    """Share of the key light hidden by the heightfield, (H,W) in [0,1], with a soft edge."""
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
    """Linear radiance (H,W,3): ambient with occlusion, Lambert and Blinn-Phong key light."""
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
    x, y = _axes(grid)
    illumination = 1.0 + light.gradient[0] * x + light.gradient[1] * y - 0.06 * (x**2 + y**2)
    diffuse = light.ambient * (1.0 - 4.0 * occlusion) + light.key * facing * lit
    specular = surface.gloss * mirror**light.shininess * lit
    return (surface.albedo * diffuse[..., None] + specular[..., None]) * illumination[..., None]


def _photograph(surface: Surface, light: Light, rng: Rng) -> np.ndarray:
    """Expose, average the supersamples, apply display gamma, add sensor noise, quantise."""
    radiance = _binned(np.clip(_shade(surface, light), 0, 1))
    picture = radiance ** (1 / 2.2)
    noise = rng.normal(0.0, 0.007, picture.shape)
    return np.rint(np.clip(picture + noise, 0, 1) * 255).astype(np.uint8)


def _binned(values: Map) -> Map:
    n, k = len(values) // SUPERSAMPLING, SUPERSAMPLING
    return values.reshape(n, k, n, k, *values.shape[2:]).mean(axis=(1, 3))


def _changed(before: Surface, after: Surface, light: Light) -> Map:
    """Where a defect shows: another material, or a cast shadow that came or went by over 30 %."""
    material = (
        (np.abs(after.albedo - before.albedo).max(axis=-1) > 0.015)
        | (np.abs(after.height - before.height) > 0.004)
        | (np.abs(after.gloss - before.gloss) > 0.05)
    )
    shadow = np.abs(_shadow(after.height, light) - _shadow(before.height, light)) > 0.3
    # A displaced part can equal the old one along a line; such slits belong to the defect.
    width = max(1, len(shadow) // 80)
    closed = ndimage.binary_closing(np.pad(material | shadow, width), iterations=width)
    return ndimage.binary_fill_holes(closed[width:-width, width:-width])


def _at_least_half(covered: Map) -> Map:
    """Pixels covered by half or more; a defect thinner than that keeps its best-covered pixels."""
    share = _binned(covered.astype(np.float32))
    return share >= min(0.5, max(share.max(), 1e-6))


# --- shapes ---------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _axes(grid: int) -> tuple[Map, Map]:
    line = ((np.arange(grid) + 0.5) * (2.0 / grid) - 1.0).astype(np.float32)
    return line[None, :], line[:, None]


def _local(scene: Scene, grid: int) -> tuple[Map, Map]:
    """Coordinates (H,W) in the frame of the product."""
    x, y = _axes(grid)
    dx, dy = scene.shift
    return _turned((x - dx) / scene.scale, (y - dy) / scene.scale, scene.angle)


def _turned(x: Map, y: Map, angle: float) -> tuple[Map, Map]:
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * x + s * y, c * y - s * x


def _step(distance: Map, width: float) -> Map:
    """1 inside (negative distance), 0 outside, a smooth bevel of ``width`` inside the outline."""
    t = np.clip(-distance / width, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _stadium(u: Map, v: Map, half_length: float, radius: float) -> Map:
    """Signed distance to a capsule along u; ``half_length`` excludes the round ends."""
    return np.hypot(np.maximum(np.abs(u) - half_length, 0.0), v) - radius


def _dome(distance: Map, radius: float) -> Map:
    """Circular profile in [0,1] over a shape of inner radius ``radius``."""
    return np.sqrt(np.clip(1.0 - np.clip(distance / radius + 1.0, 0.0, 1.0) ** 2, 0.0, 1.0))


def _blot(x: Map, y: Map, centre: tuple[float, float], radius: float, rng: Rng) -> Map:
    """Signed distance, roughly, to an irregular round spot."""
    dx, dy = x - centre[0], y - centre[1]
    theta = np.arctan2(dy, dx)
    outline = np.full_like(theta, radius)
    for order, amplitude in ((2, 0.16), (3, 0.1), (5, 0.06), (8, 0.03)):
        outline += radius * amplitude * np.sin(order * theta + rng.uniform(0, 2 * np.pi))
    return np.hypot(dx, dy) - outline


def _stroke(x: Map, y: Map, centre: tuple[float, float], length: float, rng: Rng) -> Map:
    """Distance to a gently curved stroke, overstated towards its ends so that they taper."""
    bend, angle = rng.uniform(-0.15, 0.15), rng.uniform(0, np.pi)
    along, across = _turned(x - centre[0], y - centre[1], angle)
    t = along / (length / 2)
    wander = 0.06 * length * np.sin(3.1 * t + rng.uniform(0, 2 * np.pi))
    offset = np.abs(across - bend * length * (1 - t * t) - wander)
    taper = np.sqrt(np.clip(1.0 - t * t, 0.0, 1.0))
    return np.where(taper > 0.2, offset / np.maximum(taper, 0.2), np.inf)


def _mix(albedo: Map, colour: tuple[float, float, float], share: Map) -> Map:
    return albedo + share[..., None] * (np.asarray(colour, np.float32) - albedo)


def _lumps(rng: Rng, grid: int, cells: int) -> Map:
    """Irregular smooth bumps (H,W) in [0,1], about ``cells`` of them across the picture."""
    lattice = rng.random((cells, cells))
    bumps = ndimage.zoom(lattice, grid / cells, order=2, grid_mode=True, mode="nearest")
    return np.clip(bumps, 0, 1)


def _window(scene: Scene, grid: int, x: float, y: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the picture within ``reach`` of the product's point (x, y)."""
    dx, dy = _turned(scene.scale * x, scene.scale * y, -scene.angle)
    centre = np.array([scene.shift[1] + dy, scene.shift[0] + dx])
    low = np.clip(np.floor((centre - reach + 1) * grid / 2), 0, grid).astype(int)
    high = np.clip(np.ceil((centre + reach + 1) * grid / 2), 0, grid).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])


def _between(hard: float, easy: float, ease: float) -> float:
    return hard + (easy - hard) * ease


def _jitter(rng: Rng, shift: float, degrees: float, scale: float) -> Scene:
    dx, dy = rng.uniform(-shift, shift, 2)
    return Scene(
        (dx, dy), np.deg2rad(rng.uniform(-degrees, degrees)), 1.0 + rng.uniform(-scale, scale)
    )


# --- bolt: a hexagon bolt with its washer on a brushed table --------------------------------------

HEX_APOTHEM, HEX_TOP, WASHER_TOP = 0.45, 0.26, 0.05
WASHER_OUTER = 0.74


def _sample_bolt(rng: Rng) -> Scene:
    return _jitter(rng, shift=0.025, degrees=3.0, scale=0.015)


@lru_cache(maxsize=2)
def _brushed_table(grid: int) -> Map:
    """The one table of the station: streaks along x, the same in every picture. (H,W), mean 1."""
    streaks = _stream("bolt", "table").normal(size=(96, 6))
    zoom = (grid / 96, grid / 6)
    table = ndimage.zoom(streaks, zoom, order=1, grid_mode=True, mode="nearest")
    return (1.0 + 0.06 * table).astype(np.float32)


def _hexagon(u: Map, v: Map) -> Map:
    sides = [np.abs(u * np.cos(a) + v * np.sin(a)) for a in np.deg2rad([15, 75, 135])]
    return np.maximum.reduce(sides) - HEX_APOTHEM


def _build_bolt(scene: Scene, grid: int) -> Surface:
    u, v = _local(scene, grid)
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    table = _brushed_table(grid)
    albedo = np.float32([0.115, 0.135, 0.16]) * table[..., None]
    washer, hexagon = r - WASHER_OUTER, _hexagon(u, v)
    on_washer, on_head = washer < 0, hexagon < 0
    head = HEX_TOP - 0.55 * np.maximum(r - 0.435, 0.0)  # turned chamfer: cuts the corners round
    head = head - 0.03 * _step(r - 0.3, 0.02)  # shallow recess in the head
    marks = np.minimum.reduce(
        [_stadium(*_mark(u, v, a), 0.05, 0.022) for a in np.deg2rad([-90, 30, 150])]
    )
    head = head + 0.025 * _step(marks, 0.015)  # raised grade marks
    height = WASHER_TOP * _step(washer, 0.035) + np.where(
        on_head, (head - WASHER_TOP) * _step(hexagon, 0.02), 0.0
    )
    # Turned faces shine along the direction whose grooves lie across the light.
    sheen = np.exp(-((np.sin(theta + scene.angle + 0.96) / 0.32) ** 2))
    rings = 1.0 + 0.05 * np.cos(2 * np.pi * r / 0.085)
    steel = np.float32([0.36, 0.365, 0.37]) * (0.72 + 0.75 * sheen * rings)[..., None]
    zinc = np.float32([0.42, 0.37, 0.25]) * (0.85 + 0.4 * sheen)[..., None]
    albedo = np.where(on_washer[..., None], zinc, albedo)
    albedo = np.where(on_head[..., None], steel, albedo)
    gloss = np.where(on_head, 0.55, np.where(on_washer, 0.4, 0.05))
    return Surface(height.astype(np.float32), albedo.astype(np.float32), gloss.astype(np.float32))


def _mark(u: Map, v: Map, angle: float) -> tuple[Map, Map]:
    along, across = _turned(u, v, angle)
    return along - 0.19, across


def _on_bolt(rng: Rng, low: float, high: float) -> tuple[float, float]:
    radius, angle = rng.uniform(low, high), rng.uniform(0, 2 * np.pi)
    return radius * np.cos(angle), radius * np.sin(angle)


def _scratched_bolt(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_bolt(scene, grid)
    u, v = _local(scene, grid)
    length, width = _between(0.35, 1.2, ease), _between(0.018, 0.038, ease)
    distance = _stroke(u, v, _on_bolt(rng, 0.1, 0.5), length, rng)
    inside = (distance < width) & (np.hypot(u, v) < WASHER_OUTER)
    groove = np.where(inside, 1.0 - (np.minimum(distance, width) / width) ** 2, 0.0)
    share = np.where(inside, _between(0.5, 0.9, ease), 0.0)
    return Surface(
        surface.height - 0.3 * width * groove,
        _mix(surface.albedo, (0.05, 0.045, 0.045), share),
        surface.gloss + np.where(inside, 0.2, 0.0),
    )


def _rusted_bolt(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_bolt(scene, grid)
    u, v = _local(scene, grid)
    centre = _on_bolt(rng, 0.15, 0.62)
    distance = _blot(u, v, centre, _between(0.07, 0.24, ease), rng)
    for _ in range(2):
        near = tuple(np.add(centre, rng.normal(0, _between(0.08, 0.2, ease), 2)))
        distance = np.minimum(distance, _blot(u, v, near, _between(0.03, 0.1, ease), rng))
    spots = (distance < 0) & (np.hypot(u, v) < WASHER_OUTER)
    lumps = _lumps(rng, grid, 44)
    rust = np.float32([0.22, 0.085, 0.03]) * (0.4 + 1.1 * lumps)[..., None]
    share = np.where(spots, _between(0.45, 0.95, ease), 0.0)[..., None]
    return Surface(
        surface.height + np.where(spots, 0.006 * lumps, 0.0),
        surface.albedo + share * (rust - surface.albedo),
        np.where(spots, 0.02, surface.gloss),
    )


def _chipped_bolt(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_bolt(scene, grid)
    u, v = _local(scene, grid)
    corner = np.deg2rad(45 + 60 * rng.integers(6)) + rng.uniform(-0.12, 0.12)
    along, across = _turned(u, v, corner)
    rough = _lumps(rng, grid, 24)
    cut = HEX_APOTHEM / np.cos(np.pi / 6) - _between(0.09, 0.26, ease)
    depth = along - cut - 0.5 * across**2 + 0.06 * (rough - 0.5)
    broken = (depth > 0) & (_hexagon(u, v) < 0)
    facet = WASHER_TOP + 0.09 * np.exp(-depth / 0.05) + 0.03 * rough
    return Surface(
        np.where(broken, np.minimum(surface.height, facet), surface.height),
        _mix(surface.albedo, (0.06, 0.06, 0.065), np.where(broken, _between(0.6, 1.0, ease), 0.0)),
        np.where(broken, 0.35, surface.gloss),
    )


# --- blister: two-colour capsules in a foil pack --------------------------------------------------

# A part is (x, y, angle, end): the capsule is kept where its long coordinate is below ``end``.
PILL_LENGTH, PILL_RADIUS, WHOLE, GONE = 0.15, 0.135, 1.0, -1.0
CAVITY_LENGTH, CAVITY_RADIUS = 0.185, 0.18


def _sample_blister(rng: Rng) -> Scene:
    seats = np.array([(x, y) for y in (-0.68, -0.23, 0.23, 0.68) for x in (-0.43, 0.43)])
    loose = rng.uniform(-0.012, 0.012, (8, 2))
    parts = np.column_stack([seats + loose, rng.uniform(-0.05, 0.05, 8), np.full(8, WHOLE)])
    return replace(_jitter(rng, shift=0.015, degrees=1.0, scale=0.01), parts=parts)


def _build_blister(scene: Scene, grid: int) -> Surface:
    u, v = _local(scene, grid)
    knurl = 0.004 * np.cos(2 * np.pi * (u + v) / 0.16) * np.cos(2 * np.pi * (u - v) / 0.16)
    row = np.where(np.abs(v) < 0.455, 0.23, 0.68)
    cavity = _stadium(np.abs(u) - 0.43, np.abs(v) - row, CAVITY_LENGTH, CAVITY_RADIUS)
    rim, floor = np.exp(-((cavity / 0.028) ** 2)), _step(cavity, 0.03)
    height = knurl * (1 - floor) + 0.035 * rim
    foil = np.broadcast_to(np.float32([0.47, 0.49, 0.52]), (grid, grid, 3))
    albedo = _mix(foil, (0.3, 0.32, 0.35), floor)
    gloss = 0.25 + 0.35 * rim
    for x, y, angle, end in scene.parts:
        near = _window(scene, grid, x, y, 0.34)
        a, b = _turned(u[near] - np.float32(x), v[near] - np.float32(y), angle)
        outline = _stadium(a, b, PILL_LENGTH, PILL_RADIUS)
        fracture = a - end + 0.018 * np.sin(45 * b + 40 * end) + 0.01 * np.sin(110 * b)
        pill = (outline < 0) & (fracture < 0)
        overlap = 1.0 + 0.05 * _step(np.abs(a) - 0.02, 0.02)  # the cap laps over the body
        height[near] = np.where(pill, 0.17 * _dome(outline, PILL_RADIUS) * overlap, height[near])
        cap, body = np.float32([0.55, 0.07, 0.05]), np.float32([0.72, 0.64, 0.45])
        colour = np.where((a < 0)[..., None], cap, body)
        albedo[near] = np.where(pill[..., None], colour, albedo[near])
        gloss[near] = np.where(pill, 0.6, gloss[near])
    return Surface(height.astype(np.float32), albedo.astype(np.float32), gloss.astype(np.float32))


def _missing_pill(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """One capsule missing from a hard pack, three from an easy one."""
    parts = scene.parts.copy()
    parts[rng.choice(len(parts), 1 + round(2 * ease), replace=False), 3] = GONE
    return _build_blister(replace(scene, parts=parts), grid)


def _broken_pill(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    parts = scene.parts.copy()
    pill = rng.integers(len(parts))
    parts[pill, 3] = _between(0.19, -0.12, ease)
    return _build_blister(replace(scene, parts=parts), grid)


def _misplaced_pill(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    """Askew and off its seat; in an easy image also the wrong way round."""
    parts = scene.parts.copy()
    pill, side = rng.integers(len(parts)), rng.choice([-1.0, 1.0])
    parts[pill, 1] += side * _between(0.03, 0.09, ease)
    parts[pill, 2] += side * _between(0.3, 0.9, ease) + (np.pi if ease > 0.6 else 0.0)
    return _build_blister(replace(scene, parts=parts), grid)


def _contaminated_blister(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_blister(scene, grid)
    u, v = _local(scene, grid)
    centre = tuple(rng.uniform(-0.7, 0.7, 2))
    distance = _blot(u, v, centre, _between(0.05, 0.17, ease), rng)
    spot = distance < 0
    share = np.where(spot, _between(0.6, 0.95, ease), 0.0)
    albedo = _mix(surface.albedo, (0.03, 0.03, 0.02), share)
    return replace(surface, albedo=albedo, gloss=np.where(spot, 0.1, surface.gloss))


# --- weave: a plain-woven textile -----------------------------------------------------------------

# A part is a run of missing weft: (thread number, from, to).
THREAD = 2.0 / 13


def _sample_weave(rng: Rng) -> Scene:
    return replace(_jitter(rng, shift=0.02, degrees=0.6, scale=0.005), parts=np.zeros((0, 3)))


def _build_weave(scene: Scene, grid: int) -> Surface:
    u, v = _local(scene, grid)
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
    blue, cream = np.float32([0.07, 0.15, 0.3]), np.float32([0.55, 0.5, 0.4])
    albedo = np.where((warp > weft)[..., None], blue, cream) * twist[..., None]
    height = np.maximum(warp, weft)
    albedo = np.where((height <= -0.05)[..., None], np.float32(0.02), albedo)
    gloss = np.full((grid, grid), 0.05, np.float32)
    return Surface(height.astype(np.float32), albedo.astype(np.float32), gloss)


def _torn_weave(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_weave(scene, grid)
    u, v = _local(scene, grid)
    radius = _between(0.06, 0.24, ease)
    distance = _blot(u, v, tuple(rng.uniform(-0.65, 0.65, 2)), radius, rng)
    warp_end, weft_end = radius * rng.uniform(-0.25, 0.25, (2, 32))  # no two threads tear alike
    column, row = (np.floor(c / THREAD).astype(int) % 32 for c in (u, v))
    on_warp = (column + row) % 2 == 0
    hole = distance + np.where(on_warp, warp_end[column], weft_end[row]) < 0
    return Surface(
        np.where(hole, -0.12, surface.height),
        _mix(surface.albedo, (0.015, 0.013, 0.012), np.where(hole, 1.0, 0.0)),
        np.where(hole, 0.0, surface.gloss),
    )


def _stained_weave(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_weave(scene, grid)
    u, v = _local(scene, grid)
    distance = _blot(u, v, tuple(rng.uniform(-0.6, 0.6, 2)), _between(0.08, 0.36, ease), rng)
    share = _step(distance, 0.03) * _between(0.32, 0.9, ease)
    return replace(surface, albedo=_mix(surface.albedo, (0.09, 0.045, 0.02), share))


def _missing_thread(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    length, start = _between(0.32, 1.7, ease), rng.uniform(-0.95, -0.75)
    start += rng.uniform(0, 1.7 - length) if length < 1.7 else 0.0
    first = rng.integers(-5, 4)
    threads = range(first, first + 1 + round(ease))
    parts = np.array([(thread, start, start + length) for thread in threads])
    return _build_weave(replace(scene, parts=parts), grid)


# --- softgels: loose translucent capsules, several to a picture -----------------------------------

# A part is (x, y, angle, brown): ``brown`` mixes in the colour of a spoilt filling.
GEL_LENGTH, GEL_RADIUS = 0.13, 0.16


def _sample_softgels(rng: Rng) -> Scene:
    """Seven capsules thrown until none overlap."""
    centres: list[np.ndarray] = []
    while len(centres) < 7:
        centre = rng.uniform(-0.68, 0.68, 2)
        if all(np.hypot(*(centre - other)) > 0.58 for other in centres):
            centres.append(centre)
        elif rng.random() < 0.005:
            centres.clear()  # a dead end: start the throw again
    parts = np.column_stack([np.array(centres), rng.uniform(0, np.pi, 7), np.zeros(7)])
    return Scene((0.0, 0.0), 0.0, 1.0, parts)


def _build_softgels(scene: Scene, grid: int) -> Surface:
    x, y = _axes(grid)
    height, gloss = np.zeros((grid, grid), np.float32), np.full((grid, grid), 0.03, np.float32)
    albedo = np.tile(np.float32([0.5, 0.55, 0.58]), (grid, grid, 1))
    for cx, cy, angle, brown in scene.parts:
        near = _window(scene, grid, cx, cy, 0.31)
        dx, dy = x[:, near[1]] - np.float32(cx), y[near[0]] - np.float32(cy)
        outline = _stadium(*_turned(dx, dy, angle), GEL_LENGTH, GEL_RADIUS)
        inside, dome = outline < 0, _dome(outline, GEL_RADIUS)
        # Light focused by the gel collects on the side away from the lamp.
        caustic = np.clip(0.5 + (0.57 * dx + 0.82 * dy) / 0.3, 0, 1) * dome
        gel = _mix(np.float32([0.36, 0.14, 0.015]), (0.95, 0.6, 0.1), caustic)
        gel = _mix(gel, (0.1, 0.05, 0.03), np.full_like(dome, brown))
        height[near] = np.where(inside, 0.2 * dome, height[near])
        albedo[near] = np.where(inside[..., None], gel, albedo[near])
        gloss[near] = np.where(inside, 0.9, gloss[near])
    return Surface(height, albedo, gloss)


def _discoloured_gel(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    parts = scene.parts.copy()
    parts[rng.integers(len(parts)), 3] = _between(0.35, 0.95, ease)
    return _build_softgels(replace(scene, parts=parts), grid)


def _bubble_in_gel(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_softgels(scene, grid)
    x, y = _axes(grid)
    cx, cy, angle, _ = scene.parts[rng.integers(len(scene.parts))]
    along = rng.uniform(-0.1, 0.1)
    radius = _between(0.045, 0.12, ease)
    distance = (
        np.hypot(x - cx - along * np.cos(angle), y - cy - along * np.sin(angle)) - radius
    ).astype(np.float32)
    inside = distance < 0
    rim = np.exp(-(((distance + 0.02) / 0.015) ** 2))
    pale = _mix(surface.albedo, (0.9, 0.85, 0.7), np.where(inside, _between(0.4, 0.75, ease), 0.0))
    return Surface(
        surface.height + np.where(inside, 0.05 * _dome(distance, radius), 0.0).astype(np.float32),
        _mix(pale, (0.12, 0.05, 0.02), np.where(inside, 0.8 * rim, 0.0)),
        surface.gloss,
    )


def _leaking_gel(scene: Scene, grid: int, rng: Rng, ease: float) -> Surface:
    surface = _build_softgels(scene, grid)
    x, y = _axes(grid)
    cx, cy, angle, _ = scene.parts[rng.integers(len(scene.parts))]
    middle = np.array([cx, cy])
    reach = (GEL_LENGTH + GEL_RADIUS) * np.array([np.cos(angle), np.sin(angle)])
    # It leaks at the end nearer to the middle of the picture, so that the puddle is in view.
    centre = min((middle + reach, middle - reach), key=np.linalg.norm)
    distance = _blot(x, y, centre, _between(0.11, 0.26, ease), rng)
    puddle = (distance < 0) & (surface.height < 0.001)
    share = np.where(puddle, _between(0.45, 0.9, ease), 0.0)
    return Surface(
        np.where(puddle, 0.03 * _step(distance, 0.05), surface.height).astype(np.float32),
        _mix(surface.albedo, (0.55, 0.27, 0.04), share),
        np.where(puddle, 0.8, surface.gloss),
    )


# --- the categories -------------------------------------------------------------------------------

_RECIPES: dict[str, Recipe] = {
    "bolt": Recipe(
        _sample_bolt,
        _build_bolt,
        {"scratch": _scratched_bolt, "rust": _rusted_bolt, "chip": _chipped_bolt},
        shininess=30.0,
    ),
    "blister": Recipe(
        _sample_blister,
        _build_blister,
        {
            "missing": _missing_pill,
            "broken": _broken_pill,
            "misplaced": _misplaced_pill,
            "contamination": _contaminated_blister,
        },
        shininess=45.0,
    ),
    "weave": Recipe(
        _sample_weave,
        _build_weave,
        {"hole": _torn_weave, "stain": _stained_weave, "missing_thread": _missing_thread},
        shininess=20.0,
    ),
    "softgels": Recipe(
        _sample_softgels,
        _build_softgels,
        {"bubble": _bubble_in_gel, "discolour": _discoloured_gel, "leak": _leaking_gel},
        shininess=60.0,
    ),
}

CATEGORIES: dict[str, CategorySpec] = {
    "bolt": CategorySpec("mvtec", "object", tuple(_RECIPES["bolt"].defects)),
    "blister": CategorySpec("mvtec", "object", tuple(_RECIPES["blister"].defects)),
    "weave": CategorySpec("mvtec", "texture", tuple(_RECIPES["weave"].defects)),
    "softgels": CategorySpec("visa", "object", tuple(_RECIPES["softgels"].defects)),
}
