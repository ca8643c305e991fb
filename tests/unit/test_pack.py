"""A category as arrays: exact on tiny trees, and damage is named."""

import hashlib
import math
import os
import shutil
import tracemalloc
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, noise, save, spot, write_chip, write_nut
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fader.data import layout, mvtec, visa
from fader.data.pack import Arrays, read_category

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    return write_nut(tmp_path)


def packed(root: Path, size: int = 8, masks: str = "present", **options) -> Arrays:
    """At one side, whose arrays are taken out."""
    arrays = read_category(mvtec.index(root, "nut", masks), [size], **options)
    return replace(arrays, train=arrays.train[size], test=arrays.test[size])


def refused(root: Path, size: int = 8, masks: str = "present", **options) -> str:
    return line_of(read_category, mvtec.index(root, "nut", masks), [size], **options)


# ---- arrays


def test_arrays_hold_the_files_pixels_in_index_order(nut):
    arrays = packed(nut)
    np.testing.assert_array_equal(arrays.train, [noise(i).transpose(2, 0, 1) for i in (0, 1)])
    np.testing.assert_array_equal(arrays.test, [noise(i).transpose(2, 0, 1) for i in (2, 3, 4, 5)])
    expected = [np.zeros((8, 8)), spot(7, 0, 1), spot(value=1), spot(value=1)]
    np.testing.assert_array_equal(arrays.mask, expected)
    np.testing.assert_array_equal(arrays.label, [0, 1, 1, 1])
    assert {a.dtype for a in (arrays.train, arrays.test, arrays.mask, arrays.label)} == {
        np.dtype(np.uint8)
    }
    assert arrays.train_names == ["train/good/000.png", "train/good/001.Tif"]
    assert arrays.test_names == [
        "test/good/000.bmp",
        "test/bent/000.PNG",
        "test/scratch/000.png",
        "test/scratch/001.png",
    ]
    assert arrays.defects == ["good", "bent", "scratch", "scratch"]
    assert (arrays.white, arrays.vanished, arrays.warnings) == (None, 0, [])


def test_absent_masks_leave_labels(nut):
    arrays = packed(nut, masks="absent")
    np.testing.assert_array_equal(arrays.label, [0, 1, 1, 1])
    assert arrays.mask.shape == (4, 8, 8)
    assert not arrays.mask.any()
    assert arrays.vanished == 0


def test_inverted_masks_say_what_is_normal(nut):
    expected = packed(nut).mask
    for path in (nut / "nut/ground_truth").rglob("*.png"):
        save(path, 255 * (np.asarray(Image.open(path)) == 0).astype(np.uint8))
    np.testing.assert_array_equal(packed(nut, masks="inverted").mask, expected)


def test_names_that_are_not_utf_8_are_text(nut):
    path = nut / "nut/train/good" / os.fsdecode(b"pr\xfcfling.png")
    save(nut / "nut/train/good/2.png", noise(9)).rename(path)
    assert packed(nut).train_names[-1] == r"train/good/pr\xfcfling.png"


# ---- resizing


@pytest.mark.parametrize("side", [4, 16])
def test_a_constant_image_stays_constant_at_any_size(nut, side):
    save(nut / "nut/train/good/000.png", np.full((8, 8, 3), (10, 128, 255), dtype=np.uint8))
    train = packed(nut, side, "absent").train[0]
    assert train.shape == (3, side, side)
    np.testing.assert_array_equal(train, np.broadcast_to([[[10]], [[128]], [[255]]], train.shape))


def test_downscaling_is_antialiased(nut):
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    save(nut / "nut/train/good/000.png", checkerboard)
    train = packed(nut).train[0]
    assert np.abs(train.astype(int) - 127.5).max() <= 2  # a point sampler would give 0 or 255


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(1, 24),
    points=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=32),
)
def test_mask_resize_takes_the_pixel_at_the_centre(nut, size, points):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[tuple(np.array(sorted(points)).T)] = 255
    save(nut / "nut/ground_truth/bent/000.png", mask)
    corners = np.zeros((8, 8), dtype=np.uint8)
    corners[4:, 4:] = 255  # something is left of it at any size
    save(nut / "nut/ground_truth/scratch/000_mask.png", corners)
    centres = [math.floor((i + Fraction(1, 2)) * Fraction(8, size)) for i in range(size)]
    expected = [[mask[row, column] > 0 for column in centres] for row in centres]
    np.testing.assert_array_equal(packed(nut, size).mask[1], expected)


def test_the_same_tree_gives_the_same_bytes(nut):
    for i in range(20):
        save(nut / f"nut/train/good/{i:03d}.png", noise(i, 30 + i, 40 - i))
    first, second = (packed(nut, 16) for _ in range(2))
    assert first.train.tobytes() == second.train.tobytes()
    one_by_one = [
        np.asarray(
            Image.fromarray(noise(i, 30 + i, 40 - i)).resize((16, 16), Image.Resampling.BICUBIC)
        )
        for i in (3, 17)
    ]
    index = [first.train_names.index(f"train/good/{i:03d}.png") for i in (3, 17)]
    np.testing.assert_array_equal(first.train[index].transpose(0, 2, 3, 1), one_by_one)


def test_few_images_are_in_memory_as_they_are_on_disk(nut):
    large = np.full((1000, 1000, 3), 7, dtype=np.uint8)
    for i in range(40):
        save(nut / f"nut/train/good/{i:03d}.png", large)
    tracemalloc.start()
    packed(nut)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * large.nbytes / 2


# ---- images and their masks


def stored(pixels: np.ndarray) -> np.ndarray:
    """Pixels as a camera stores them that is held at orientation 6."""
    return np.ascontiguousarray(np.rot90(pixels))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("side", [8, 12])
@pytest.mark.parametrize("mask_turned", [True, False])
def test_image_and_mask_are_turned_each_by_its_own_orientation(nut, side, mask_turned):
    upright, mask = noise(9, 8, side), np.zeros((8, side), dtype=np.uint8)
    mask[1, 2:4] = 255
    save(nut / "nut/test/scratch/000.png", stored(upright), exif=exif(6))
    path = nut / "nut/ground_truth/scratch/000_mask.png"
    save(path, stored(mask), exif=exif(6)) if mask_turned else save(path, mask)
    arrays = packed(nut)
    expected = Image.fromarray(upright).resize((8, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(arrays.test[2].transpose(1, 2, 0), expected)
    centres = (2 * np.arange(8) + 1) * side // 16
    np.testing.assert_array_equal(arrays.mask[2], mask[:, centres] > 0)
    told = "images of another EXIF orientation than their masks"
    assert [line.startswith(told) for line in arrays.warnings] == [True] * (not mask_turned)


def test_a_mask_drawn_on_the_picture_as_stored_is_named(nut):
    save(nut / "nut/test/scratch/000.png", stored(noise(9, 8, 12)), exif=exif(6))
    mask = np.zeros((12, 8), dtype=np.uint8)
    mask[1, 2:4] = 255
    path = save(nut / "nut/ground_truth/scratch/000_mask.png", mask)
    line = refused(nut)
    assert line.startswith(f"{path}: mask of 8 x 12 pixels, but ")
    assert "has 12 x 8 as its EXIF orientation turns it upright" in line
    assert "drawn on the picture as stored" in line


@pytest.mark.parametrize("shape", [(8, 9), (9, 8), (16, 16)])
def test_a_mask_of_another_size_is_named(nut, shape):
    mask = np.zeros(shape, dtype=np.uint8)
    mask[0, 0] = 255
    path = save(nut / "nut/ground_truth/bent/000.png", mask)
    assert refused(nut).startswith(f"{path}: mask of {shape[1]} x {shape[0]} pixels, but ")
    assert "EXIF" not in refused(nut)


def test_an_empty_mask_is_named(nut):
    path = save(nut / "nut/ground_truth/bent/000.png", np.zeros((8, 8), dtype=np.uint8))
    assert refused(nut).startswith(f"{path}: no defect pixel, but {nut / 'nut/test/bent/000.PNG'}")


def test_masks_that_mark_more_than_half_of_most_images_are_refused(nut):
    for path in (nut / "nut/ground_truth").rglob("*.png"):
        save(path, np.repeat([255, 0], [40, 24]).astype(np.uint8).reshape(8, 8))
    assert refused(nut).startswith(f"{nut / 'nut'}: half of the masks mark 62% of the image")


# ---- files


@pytest.mark.parametrize(
    "damaged", ["train/good/000.png", "test/good/000.bmp", "ground_truth/bent/000.png"]
)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_file_is_named(nut, damaged, keep):
    path = nut / "nut" / damaged
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert refused(nut).startswith(f"{path}: unreadable image")


def test_a_truncated_jpeg_is_named(tmp_path):
    path = write_chip(tmp_path) / "chip/Data/Images/Anomaly/001.JPG"
    path.write_bytes(path.read_bytes()[:-60])
    line = line_of(read_category, visa.index(tmp_path, "chip"), [8])
    assert line.startswith(f"{path}: unreadable image")


def test_of_several_bad_files_the_first_is_reported(nut):
    for path in (nut / "nut/test/scratch").iterdir():
        path.write_bytes(b"not an image")
    assert "scratch/000.png" in refused(nut)


def listing(root: Path) -> dict[str, str]:
    category = mvtec.index(root, "nut")
    return {
        category.path(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in layout.files(category.folder)
    }


def test_files_that_are_as_listed_are_read(nut):
    arrays = packed(nut, digests=listing(nut))
    np.testing.assert_array_equal(arrays.test, packed(nut).test)


@pytest.mark.parametrize(
    "changed",
    ["train/good/000.png", "test/scratch/001.png", "ground_truth/scratch/001_mask.png"],
)
@pytest.mark.parametrize("new", [True, False])
def test_a_file_that_is_not_as_listed_is_named(nut, changed, new):
    digests = listing(nut)
    if new:
        del digests[changed]
    else:
        shutil.copy(nut / "nut/test/scratch/000.png", nut / "nut" / changed)
    assert refused(nut, digests=digests) == (
        f"{nut / 'nut' / changed}: changed while the run was under way; run again"
    )


# ---- real images


@pytest.mark.shared
@needs_shared
def test_real_bottle_is_read_whole():
    arrays = read_category(mvtec.index(SHARED / "mvtec_ad", "bottle"), [256])
    assert arrays.train[256].shape == (209, 3, 256, 256)
    assert arrays.test[256].shape == (83, 3, 256, 256)
    assert Counter(arrays.defects) == {
        "good": 20,
        "broken_large": 20,
        "broken_small": 22,
        "contamination": 21,
    }
    np.testing.assert_array_equal(arrays.label, np.arange(83) >= 20)
    np.testing.assert_array_equal(arrays.mask.any(axis=(1, 2)), arrays.label == 1)
    assert np.unique(arrays.mask).tolist() == [0, 1]
    assert arrays.warnings == []
