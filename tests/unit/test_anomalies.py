"""Synthetic defects: Perlin noise by hand, masks equal the visible change, rows are independent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.data import defects
from fader.data.defects import (
    AREA,
    KINDS,
    VISIBLE,
    cutpaste,
    paint,
    perlin_noise,
    perlin_texture,
    scar,
    structural_swap,
)
from fader.errors import FaderError

examples = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**63)
PAINTERS = {
    "perlin": lambda image, rng: perlin_texture(image, None, rng),
    "cutpaste": cutpaste,
    "scar": scar,
    "swap": structural_swap,
}


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A bright disc on a dark gradient with fine grain: an object, a background and a texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    disc = (y / height - 0.5) ** 2 + (x / width - 0.5) ** 2 < 0.1
    grey = 40 + 60 * x / width + 90 * disc
    return np.clip(grey + rng.normal(0, 6, (3, height, width)), 0, 255).astype(np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (abs(before.astype(int) - after.astype(int)) > VISIBLE).any(axis=-3)


@examples
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), step=st.integers(1, 7), seed=seeds)
def test_perlin_noise_vanishes_at_lattice_points(rows, columns, step, seed):
    noise = perlin_noise(
        (rows * step, columns * step), (rows, columns), np.random.default_rng(seed)
    )
    assert (noise[::step, ::step] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_perlin_noise_of_one_cell_worked_by_hand(seed):
    """Pixels of a 4×4 image over one cell lie at quarters. fade(1/4) = 53/512, fade(1/2) = 1/2."""
    noise = perlin_noise((4, 4), (1, 1), np.random.default_rng(seed))
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, (2, 2))
    x, y = np.cos(angle), np.sin(angle)
    centre = (
        (x[0, 0] + y[0, 0]) + (-x[0, 1] + y[0, 1]) + (x[1, 0] - y[1, 0]) + (-x[1, 1] - y[1, 1])
    ) / 8
    assert noise[2, 2] == pytest.approx(np.sqrt(2) * centre, abs=1e-6)
    edge = 459 / 512 * x[0, 0] / 4 - 53 / 512 * x[0, 1] * 3 / 4
    assert noise[0, 1] == pytest.approx(np.sqrt(2) * edge, abs=1e-6)


def test_perlin_noise_agrees_with_the_textbook_loop():
    shape, res = (23, 31), (3, 4)
    noise = perlin_noise(shape, res, np.random.default_rng(7))
    angle = np.random.default_rng(7).uniform(0, 2 * np.pi, (res[0] + 1, res[1] + 1))

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    def lerp(a, b, t):
        return a + fade(t) * (b - a)

    for i in range(shape[0]):
        for j in range(shape[1]):
            y, x = i * res[0] / shape[0], j * res[1] / shape[1]
            r, c = int(y), int(x)
            u, v = y - r, x - c
            dot = [
                [
                    np.cos(angle[r + p, c + q]) * (v - q) + np.sin(angle[r + p, c + q]) * (u - p)
                    for q in (0, 1)
                ]
                for p in (0, 1)
            ]
            expected = np.sqrt(2) * lerp(lerp(*dot[0], v), lerp(*dot[1], v), u)
            assert noise[i, j] == pytest.approx(expected, abs=1e-5)


@examples
@given(height=st.integers(1, 90), width=st.integers(1, 90), cells=st.integers(1, 20), seed=seeds)
def test_perlin_noise_takes_any_shape_and_stays_in_range(height, width, cells, seed):
    noise = perlin_noise((height, width), (cells, cells), np.random.default_rng(seed))
    assert noise.shape == (height, width)
    assert noise.dtype == np.float32
    assert abs(noise).max() <= 1 + 1e-6


@examples
@given(seed=seeds)
def test_perlin_noise_is_continuous(seed):
    """Halving the pixel halves the largest step, across cell borders too; slope ≤ √2 (1 + 15/4)."""
    pixels = 160
    noise = perlin_noise((pixels, pixels), (4, 4), np.random.default_rng(seed))
    bound = np.sqrt(2) * (1 + 15 / 4) * 4 / pixels
    assert abs(np.diff(noise, axis=0)).max() < bound
    assert abs(np.diff(noise, axis=1)).max() < bound
    fine = perlin_noise((2 * pixels, 2 * pixels), (4, 4), np.random.default_rng(seed))
    assert np.array_equal(fine[::2, ::2], noise)


@examples
@given(
    kind=st.sampled_from(KINDS),
    height=st.sampled_from([64, 100, 256]),
    width=st.sampled_from([64, 131, 256]),
    seed=seeds,
)
def test_mask_is_the_visible_change_within_the_area_limits(kind, height, width, seed):
    image = scene(height, width)
    kept = image.copy()
    painted, mask = PAINTERS[kind](image, np.random.default_rng(seed))
    assert painted.dtype == mask.dtype == np.uint8
    assert painted.shape == image.shape
    assert np.array_equal(image, kept)
    assert np.array_equal(mask, changed(image, painted))
    assert AREA[0] <= mask.mean() <= AREA[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_flat_images_get_visible_defects_too(kind, size, grey):
    images = np.full((6, 3, size, size), grey, np.uint8)
    painted, masks, _ = paint(images, kinds=[kind], seed=3)
    assert np.array_equal(masks, changed(images, painted))
    assert ((masks.mean(axis=(1, 2)) >= AREA[0]) & (masks.mean(axis=(1, 2)) <= AREA[1])).all()


@pytest.mark.parametrize("value", [0, 100, 127, 128, 255])
def test_a_draw_that_never_shows_ends_in_the_last_resort(value):
    image = np.full((3, 64, 64), value, np.uint8)
    calls = []

    def invisible(image, rng, force):
        calls.append(force)
        return image

    painted, mask = defects._until_visible(invisible, image, np.random.default_rng(0))
    assert len(calls) == defects.DRAWS
    assert calls == sorted(calls)
    assert AREA[0] <= mask.mean() <= AREA[1]
    assert np.array_equal(mask, changed(image, painted))
    assert set(np.unique(painted[:, mask == 1])) == {value + 64 if value < 128 else value - 64}


def test_structural_swap_only_moves_pixels():
    image = scene(96, 80)

    def colours(picture):
        return np.sort((1, 256, 65536) @ picture.reshape(3, -1).astype(int))

    for seed in range(200):
        painted, _ = structural_swap(image, np.random.default_rng(seed))
        assert np.array_equal(colours(painted), colours(image))


@pytest.mark.parametrize("seed", range(8))
def test_cutpaste_is_one_upright_block_and_a_scar_is_thin(seed):
    image = np.random.default_rng(seed).integers(0, 256, (3, 128, 128), np.uint8)
    _, block = cutpaste(image, np.random.default_rng(seed))
    y, x = np.nonzero(block)
    height, width = np.ptp(y) + 1, np.ptp(x) + 1
    assert block.sum() > 0.8 * height * width
    assert 0.25 < height / width < 4
    _, line = scar(image, np.random.default_rng(seed))
    spread = np.linalg.eigvalsh(np.cov(np.nonzero(line)))
    assert spread[1] > 16 * spread[0]


@pytest.mark.parametrize("kind", KINDS)
def test_contrast_runs_from_hard_to_easy(kind):
    images = np.repeat(scene(128, 128)[None], 120, axis=0)
    painted, masks, _ = paint(images, kinds=[kind], seed=0)
    change = (np.maximum(images, painted) - np.minimum(images, painted)).max(axis=1)
    contrast = np.array([c[m == 1].mean() for c, m in zip(change, masks, strict=True)])
    assert np.mean(contrast < 30) > 0.1
    assert np.mean(contrast > 50) > 0.1


def test_areas_run_from_small_to_large():
    _, masks, _ = paint(np.repeat(scene(128, 128)[None], 120, axis=0), seed=0)
    area = masks.mean(axis=(1, 2))
    assert np.mean(area < 0.01) > 0.1
    assert np.mean(area > 0.03) > 0.1


def test_textures_of_other_images_are_used():
    image = np.full((3, 64, 64), 60, np.uint8)
    other = np.stack([np.full((64, 64), value, np.uint8) for value in (60, 60, 220)])
    for seed in range(5):
        painted, mask = perlin_texture(image, [other], np.random.default_rng(seed))
        moved = painted[:, mask == 1].astype(int) - 60
        assert np.argmax(abs(moved).mean(axis=1)) == 2
        assert np.array_equal(mask, changed(image, painted))


def test_paint_is_deterministic_and_depends_on_the_seed():
    images = np.stack([scene(64, 64, seed) for seed in range(4)])
    first, again, other = (paint(images, per_image=2, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert first[2] == again[2]
    assert (first[0] != other[0]).any(axis=(1, 2, 3)).all()


@examples
@given(per_image=st.integers(1, 5), seed=seeds)
def test_further_images_change_no_earlier_row(per_image, seed):
    images = np.stack([scene(64, 64, k) for k in range(3)])
    few = paint(images[:2], per_image=per_image, seed=seed)
    many = paint(images, per_image=per_image, seed=seed)
    rows = 2 * per_image
    assert np.array_equal(many[0][:rows], few[0])
    assert np.array_equal(many[1][:rows], few[1])
    assert many[2][:rows] == few[2]


def test_copies_of_one_image_differ():
    images = np.repeat(scene(64, 64)[None], 2, axis=0)
    _, masks, _ = paint(images, kinds=["cutpaste"], per_image=3, seed=0)
    assert len(np.unique(masks, axis=0)) == 6


@pytest.mark.parametrize(("count", "per_image"), [(8, 1), (4, 3), (1, 4), (6, 2)])
def test_kinds_appear_equally_often(count, per_image):
    images = np.repeat(scene(64, 64)[None], count, axis=0)
    painted, masks, kinds = paint(images, per_image=per_image, seed=1)
    assert painted.shape == (count * per_image, 3, 64, 64)
    assert masks.shape == (count * per_image, 64, 64)
    assert {kinds.count(kind) for kind in KINDS} == {count * per_image // 4}


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (np.zeros((2, 3, 64, 64), np.uint8), {"kinds": ["blur"]}, "kinds"),
        (np.zeros((2, 3, 64, 64), np.uint8), {"kinds": []}, "kinds"),
        (np.zeros((2, 3, 64, 64), np.uint8), {"per_image": 0}, "per_image"),
        (np.zeros((2, 3, 64, 64), np.uint8), {"seed": -1}, "seed"),
        (np.zeros((2, 3, 64, 64), np.float32), {}, "float32"),
        (np.zeros((2, 1, 64, 64), np.uint8), {}, "3, H, W"),
        (np.zeros((2, 3, 16, 64), np.uint8), {}, "at least 32"),
        (np.zeros((3, 64, 64), np.uint8), {}, "images"),
    ],
)
def test_wrong_arguments_are_named(images, arguments, message):
    with pytest.raises(FaderError, match=message):
        paint(images, **{"seed": 0} | arguments)


def test_wrong_textures_and_lattices_are_named():
    image, rng = scene(64, 64), np.random.default_rng(0)
    with pytest.raises(FaderError, match="texture_source"):
        perlin_texture(image, [], rng)
    with pytest.raises(FaderError, match="texture_source"):
        perlin_texture(image, [scene(64, 65)], rng)
    with pytest.raises(FaderError, match="res"):
        perlin_noise((8, 8), (0, 2), rng)
