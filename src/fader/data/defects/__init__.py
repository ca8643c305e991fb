"""Synthetic defects on normal images, for selection and training without labelled anomalies.

Four kinds: texture inside a thresholded Perlin mask (after DRAEM, Zavrtanik et al., ICCV 2021),
CutPaste and its thin rotated variant, the scar (Li et al., CVPR 2021), and a structural swap, which
moves, turns or mirrors whole blocks so that the global layout breaks while local statistics stay.
Perlin noise is K. Perlin's gradient noise with the fade of "Improving Noise" (SIGGRAPH 2002).

Images are uint8 (3, H, W). A mask marks exactly the pixels of which some channel moved by
more than ``VISIBLE`` grey levels. A draw whose mask leaves ``AREA`` is discarded and drawn again
from the same generator, at most ``DRAWS`` times in all. The second half of the draws gets a growing
``force``, which raises the colour jitter or the opacity (a swap, otherwise free of jitter, gets
some), because on a flat image moving blocks changes nothing. Should every draw fail, a plain block
is shifted by ``LAST_RESORT`` grey levels towards mid-grey, which shows on any image: every call
ends, and no mask is empty.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from fader.errors import FaderError

KINDS = ("perlin", "cutpaste", "scar", "swap")

VISIBLE = 8  # grey levels of 255; a pixel is defective when some channel moved by more
AREA = (0.002, 0.15)  # visible area as a fraction of the image, enforced on every mask
MIN_SIDE = 32  # pixels; below, the smallest defects are thinner than a pixel
DRAWS = 24
LAST_RESORT = 64  # grey levels

# Ranges of the draws. Areas are fractions of the image; log-uniform, so that small ones are common.
PERLIN_AREA = (0.003, 0.15)
PERLIN_CELLS = (2, 4, 8, 16)  # lattice cells along a side
PERLIN_REACH = (1.0, 8.0)  # 1: one blob; 8: blobs scattered over the whole image
PERLIN_EDGE = (0.02, 0.6)  # width of the soft rim, as a fraction of the blob's height in the noise
OPACITY = (0.15, 1.0)  # of a texture; 0.15: a faint haze; 1: the texture hides the image
PASTE_OPACITY = (0.3, 1.0)  # of a patch or scar; the papers' are opaque, hence rarely faint
PATCH_AREA = (0.01, 0.10)
PATCH_ASPECT = (0.3, 3.3)
SCAR_AREA = (0.003, 0.02)
SCAR_ASPECT = (6.0, 24.0)
BLOCK_AREA = (0.015, 0.14)  # all moved blocks together
BLOCK_ASPECT = (0.5, 2.0)
JITTER = (0.02, 0.5)  # strength of the colour jitter; 0.02: hardly more than misplaced content

# A draw: (image, rng, force in [0, 1]) -> painted image. It may turn out invisible or too large.
Draw = Callable[[np.ndarray, np.random.Generator, float], np.ndarray]


def perlin_noise(
    shape: tuple[int, int], res: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Gradient noise (H, W) float32, about [-1, 1], on ``res`` = (rows, columns) lattice cells.

    Pixel i of H lies at i·rows/H lattice units, so any shape will do; the noise is zero at lattice
    points. Unit gradients (x, y) = (cos a, sin a) come from one draw
    a = ``rng.uniform(0, 2π, (rows + 1, columns + 1))``. The factor √2 brings the
    extremes ±√½ of unit gradients to ±1.
    """
    if min(shape) < 1 or min(res) < 1:
        raise FaderError(
            f"perlin_noise: shape {shape} and res {res} must be positive; give pixels and cells"
        )
    angle = rng.uniform(0, 2 * np.pi, (res[0] + 1, res[1] + 1))
    # The interpolated sum over a cell's corners, Σ w(y) w(x) (g_y Δy + g_x Δx), separates by axis.
    weight_y, offset_y = _lattice_weights(shape[0], res[0])
    weight_x, offset_x = _lattice_weights(shape[1], res[1])
    noise = offset_y @ np.sin(angle) @ weight_x.T + weight_y @ np.cos(angle) @ offset_x.T
    return (np.sqrt(2) * noise).astype(np.float32)


def perlin_texture(
    image: np.ndarray,
    texture_source: Sequence[np.ndarray] | np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Blend a texture into Perlin-shaped blobs: image uint8 (3, H, W), mask uint8 0/1 (H, W).

    Area, opacity and the softness of the rim follow ``PERLIN_AREA``, ``OPACITY``, ``PERLIN_EDGE``.

    Parameters
    ----------
    texture_source : other normal images, uint8 of the same shape, of which one is flipped, rolled
        and colour-jittered; or None for procedural textures (flat, clouds, stripes, grain) in muted
        colours or colours of the image itself.

    Raises
    ------
    FaderError : a wrong image or texture.
    """
    _check_image(image)
    if texture_source is not None:
        if len(texture_source) == 0:
            raise FaderError("texture_source: holds no image; pass None to use procedural textures")
        for texture in texture_source:
            if texture.shape != image.shape or texture.dtype != np.uint8:
                raise FaderError(
                    f"texture_source: {texture.dtype} {texture.shape} beside an image "
                    f"{image.shape}; give uint8 textures of the image's shape"
                )

    def draw(image: np.ndarray, rng: np.random.Generator, force: float) -> np.ndarray:
        alpha = _perlin_alpha(image.shape[1:], rng) * max(rng.uniform(*OPACITY), force)
        if texture_source is None:
            texture = procedural_texture(image, rng)
        else:
            texture = _other_texture(texture_source[rng.integers(len(texture_source))], rng)  # type: ignore[call-overload]  # an index
        return _to_uint8(image + alpha * (texture - image))

    return _until_visible(draw, image, rng)


def cutpaste(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paste a colour-jittered patch of the image elsewhere.

    Returns image uint8 (3, H, W), mask uint8 0/1 (H, W). Patch and jitter follow
    ``PATCH_AREA``, ``PATCH_ASPECT`` (height : width), ``JITTER`` and
    ``PASTE_OPACITY``.
    """
    _check_image(image)
    return _until_visible(_draw_cutpaste, image, rng)


def scar(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paste a long thin patch, turned by any angle.

    Returns image uint8 (3, H, W), mask uint8 0/1 (H, W). Patch and jitter follow
    ``SCAR_AREA``, ``SCAR_ASPECT`` (length : thickness), ``JITTER`` and
    ``PASTE_OPACITY``.
    """
    _check_image(image)
    return _until_visible(_draw_scar, image, rng)


def structural_swap(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Swap two blocks, or turn or mirror one.

    Returns image uint8 (3, H, W), mask uint8 0/1 (H, W). The pixels are only permuted,
    unless the image is so flat that this stays invisible (see the module). Block sizes follow
    ``BLOCK_AREA`` and ``BLOCK_ASPECT``.
    """
    _check_image(image)
    return _until_visible(_draw_swap, image, rng)


def paint(
    images: np.ndarray, *, kinds: Sequence[str] = KINDS, per_image: int = 1, seed: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Defective copies of normal images (N, 3, H, W) uint8, with masks and the kind of each.

    Returns images (N·per_image, 3, H, W) uint8, masks (N·per_image, H, W) uint8 0/1 and kinds; row
    i·per_image + c is copy c of image i. Kinds cycle over the rows. The generator of a row
    derives from (seed, i, c) alone, so that further images change none of the earlier rows.
    ``perlin`` uses procedural textures for the same reason. Raises FaderError on wrong arguments.
    """
    if images.ndim != 4:
        raise FaderError(f"images: shape {images.shape}; give (N, 3, H, W)")
    unknown = [kind for kind in kinds if kind not in _PAINTERS]
    if unknown or not kinds:
        raise FaderError(f"kinds: {list(kinds)}; choose one or more of {', '.join(KINDS)}")
    if per_image < 1:
        raise FaderError(f"per_image: {per_image}; give at least 1")
    if seed < 0:
        raise FaderError(f"seed: {seed}; give an integer of 0 or more")
    count = len(images) * per_image
    painted = np.empty((count, *images.shape[1:]), np.uint8)
    masks = np.empty((count, *images.shape[2:]), np.uint8)
    names = [kinds[row % len(kinds)] for row in range(count)]
    for row, name in enumerate(names):
        i, copy = divmod(row, per_image)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i, copy)))
        painted[row], masks[row] = _PAINTERS[name](images[i], rng)
    return painted, masks, names


def _perlin_procedural(
    image: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    return perlin_texture(image, None, rng)


_PAINTERS = {
    "perlin": _perlin_procedural,
    "cutpaste": cutpaste,
    "scar": scar,
    "swap": structural_swap,
}


def _until_visible(
    draw: Draw, image: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    for attempt in range(DRAWS):
        # The first half is drawn as stated; only then does an image prove too flat for it.
        force = max(0.0, 2 * attempt / DRAWS - 1)
        painted = draw(image, rng, force)
        mask = _visible_change(image, painted)
        if AREA[0] <= mask.mean() <= AREA[1]:
            return painted, mask
    painted = image.copy()
    window = _window(image.shape[1:], _size(image.shape[1:], PATCH_AREA, PATCH_ASPECT, rng), rng)
    block = image[window].astype(np.int16)
    painted[window] = block + np.where(block < 128, LAST_RESORT, -LAST_RESORT)
    return painted, _visible_change(image, painted)


def _visible_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    change = np.maximum(before, after) - np.minimum(before, after)
    return (change.max(axis=0) > VISIBLE).astype(np.uint8)


def _draw_cutpaste(image: np.ndarray, rng: np.random.Generator, force: float) -> np.ndarray:
    size = _size(image.shape[1:], PATCH_AREA, PATCH_ASPECT, rng)
    source, target = (_window(image.shape[1:], size, rng) for _ in range(2))
    painted = image.copy()
    painted[target] = _pasted(image[target], image[source], rng, force)
    return painted


def _draw_scar(image: np.ndarray, rng: np.random.Generator, force: float) -> np.ndarray:
    height, width = image.shape[1:]
    area, aspect = _log_uniform(SCAR_AREA, rng), _log_uniform(SCAR_ASPECT, rng)
    thickness = max(1.0, np.sqrt(area * height * width / aspect))
    length = area * height * width / thickness
    angle = rng.uniform(0, np.pi)
    centre = rng.uniform((0.1, 0.1), (0.9, 0.9)) * (height, width)
    source = rng.uniform((0.1, 0.1), (0.9, 0.9)) * (height, width)
    y, x = np.ogrid[:height, :width]
    y, x = y - centre[0], x - centre[1]
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    inside = (abs(along) <= length / 2) & (abs(across) <= thickness / 2)
    at = np.stack([source[0] + across[inside], source[1] + along[inside]])
    patch = np.stack([map_coordinates(c, at, np.float32, order=1, mode="reflect") for c in image])
    painted = image.copy()
    if patch.size:
        painted[:, inside] = _pasted(image[:, inside], patch, rng, force)
    return painted


def _draw_swap(image: np.ndarray, rng: np.random.Generator, force: float) -> np.ndarray:
    shape = image.shape[1:]
    painted = image.copy()
    move = rng.choice(["swap", "turn", "mirror"])
    if move == "swap":
        size = _size(shape, tuple(a / 2 for a in BLOCK_AREA), BLOCK_ASPECT, rng)
        one, two = (_window(shape, size, rng) for _ in range(2))
        if all(abs(a.start - b.start) < n for a, b, n in zip(one[1:], two[1:], size, strict=True)):
            return painted  # overlapping blocks cannot be exchanged: an invisible draw
        moved = [(one, image[two]), (two, image[one])]
    elif move == "turn":
        side = min(*_size(shape, BLOCK_AREA, (1.0, 1.0), rng))
        window = _window(shape, (side, side), rng)
        moved = [(window, np.rot90(image[window], rng.integers(1, 4), axes=(1, 2)))]  # type: ignore[call-overload]  # an integer
    else:
        window = _window(shape, _size(shape, BLOCK_AREA, BLOCK_ASPECT, rng), rng)
        moved = [(window, np.flip(image[window], axis=rng.integers(1, 3)))]  # type: ignore[call-overload]  # an integer
    for window, block in moved:
        painted[window] = _jitter(block, force * JITTER[1], rng) if force else block
    return painted


def _perlin_alpha(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Blob shapes (H, W) in [0, 1]; nonzero on a fraction of the image drawn from PERLIN_AREA."""
    area = _log_uniform(PERLIN_AREA, rng)
    cells = rng.choice(PERLIN_CELLS, 2)
    field = perlin_noise(shape, tuple(cells), rng) + 0.5 * perlin_noise(
        shape, tuple(2 * cells), rng
    )
    # Most defects are local: sinking the noise with the distance from a centre gathers the blobs.
    y, x = np.ogrid[: shape[0], : shape[1]]
    centre = rng.uniform(size=2) * shape
    radius = np.sqrt(area * shape[0] * shape[1] / np.pi) * _log_uniform(PERLIN_REACH, rng)
    field -= (((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2).astype(np.float32)
    threshold = np.quantile(field, 1 - area)
    rim = rng.uniform(*PERLIN_EDGE) * (field.max() - threshold)
    return np.clip((field - threshold) / rim, 0, 1).astype(np.float32)


def procedural_texture(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of four patterns between two colours: float32 (3, H, W) about [0, 255]."""
    height, width = image.shape[1:]
    pattern = rng.choice(["flat", "clouds", "stripes", "grain"])
    if pattern == "flat":
        level = np.zeros((height, width))
    elif pattern == "clouds":
        level = 0.5 + 0.5 * perlin_noise((height, width), tuple(rng.choice(PERLIN_CELLS, 2)), rng)
    elif pattern == "stripes":
        y, x = np.ogrid[:height, :width]
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.2) * max(height, width)
        phase = (np.cos(angle) * x + np.sin(angle) * y) / period
        level = 0.5 + 0.5 * np.sin(2 * np.pi * phase)
    else:
        level = rng.random((height, width))
    first, second = (_colour(image, rng)[:, None, None] for _ in range(2))
    return (first + (second - first) * level).astype(np.float32)


def _colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half the time the colour of some pixel of the image (hard), else a muted random one."""
    if rng.random() < 0.5:
        return image[:, rng.integers(image.shape[1]), rng.integers(image.shape[2])].astype(float)
    return np.clip(rng.uniform(0, 255) + rng.normal(0, 25, 3), 0, 255)


def _other_texture(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A texture image flipped, rolled and colour-jittered: float32 (3, H, W)."""
    flips: Any = tuple(np.flatnonzero(rng.random(2) < 0.5) + 1)
    shift = [rng.integers(n) for n in texture.shape[1:]]
    texture = np.roll(np.flip(texture, flips), shift, axis=(1, 2))
    return _jitter(texture, _log_uniform(JITTER, rng), rng).astype(np.float32)


def _jitter(patch: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, brightness and, more weakly, tint: patch (3, ...) → uint8.

    At strength s contrast moves by up to a factor 1 ± s, brightness by ± s/2 and each channel by a
    further ± s/6 of the full range.
    """
    axes = tuple(range(1, patch.ndim))
    mean = patch.mean(axis=axes, keepdims=True)
    tint = rng.uniform(-1, 1, len(patch)).reshape(mean.shape)
    gain = 1 + strength * rng.uniform(-1, 1)
    shift = 255 * strength * (rng.uniform(-1, 1) / 2 + tint / 6)
    return _to_uint8(mean + gain * (patch - mean) + shift)


def _pasted(
    under: np.ndarray, patch: np.ndarray, rng: np.random.Generator, force: float
) -> np.ndarray:
    over = _jitter(patch, max(_log_uniform(JITTER, rng), force * JITTER[1]), rng)
    opacity = max(rng.uniform(*PASTE_OPACITY), force)
    return _to_uint8((1 - opacity) * under + opacity * over)


def _size(
    shape: tuple[int, int],
    area: tuple[float, ...],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Height and width in pixels of a block; area fraction and height : width log-uniform."""
    pixels, ratio = _log_uniform(area, rng) * shape[0] * shape[1], _log_uniform(aspect, rng)
    sides = np.sqrt(pixels * ratio), np.sqrt(pixels / ratio)
    height, width = (max(2, min(round(s), n)) for s, n in zip(sides, shape, strict=True))
    return height, width


def _window(
    shape: tuple[int, int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[slice, slice, slice]:
    """Index of a uniformly placed block of ``size`` in a (3, *shape) image."""
    top, left = (int(rng.integers(n - k + 1)) for n, k in zip(shape, size, strict=True))
    return slice(None), slice(top, top + size[0]), slice(left, left + size[1])


def _lattice_weights(pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Fade weights of the lattice lines, and weight × signed distance: (pixels, cells + 1)."""
    distance = (np.arange(pixels) * cells / pixels)[:, None] - np.arange(cells + 1)
    t = np.clip(1 - abs(distance), 0, 1)
    weight = t**3 * (t * (6 * t - 15) + 10)
    return weight, weight * distance


def _log_uniform(bounds: tuple[float, ...], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise FaderError(f"image: {image.dtype} {image.shape}; give uint8 (3, H, W)")
    if min(image.shape[1:]) < MIN_SIDE:
        raise FaderError(f"image: {image.shape}; give sides of at least {MIN_SIDE} pixels")
