"""What looks odd in a category's images is said, and what cannot be meant is refused: bit depths,
defects that vanish, copies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, noise, remove, save, spot, write_nut
from PIL import Image

from fader.data import mvtec
from fader.data.decode import White
from fader.data.pack import Arrays, read_category


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    return write_nut(tmp_path)


def packed(root: Path, size: int = 8, masks: str = "present", **options) -> Arrays:
    """At one side, whose arrays are taken out."""
    arrays = read_category(mvtec.index(root, "nut", masks), [size], **options)
    return replace(arrays, train=arrays.train[size], test=arrays.test[size])


def refused(root: Path, size: int = 8) -> str:
    return line_of(read_category, mvtec.index(root, "nut"), [size])


# ---- more than 8 bits


def deep(seed: int, largest: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, largest, (8, 8), dtype=np.uint16)
    values[seed % 8, 0] = largest
    return values


def make_deep(root: Path, train: int, test: int) -> None:
    """Every image with 16 bits, up to these values."""
    for i, path in enumerate(mvtec.index(root, "nut").train):
        save(path.image, deep(i, train))
    for i, sample in enumerate(mvtec.index(root, "nut", "absent").test):
        sample.image.unlink()
        save(sample.image.with_suffix(".png"), deep(i + 2, test))


@pytest.mark.parametrize(
    ("train", "test", "bits"),
    [(4095, 4095, 12), (1000, 65535, 10), (65535, 255, 16), (3000, 5000, 12)],
)
def test_one_white_is_measured_on_the_training_images_and_used_for_all(nut, train, test, bits):
    make_deep(nut, train, test)
    arrays = packed(nut)
    white = 2**bits - 1
    assert arrays.white == White(white, bits)
    for images, largest, first in ((arrays.train, train, 0), (arrays.test, test, 2)):
        for i, image in enumerate(images, start=first):
            scaled = np.rint(deep(i, largest).astype(float).clip(0, white) * 255 / white)
            np.testing.assert_array_equal(image, [scaled] * 3)
    assert arrays.warnings == []


def test_white_that_is_stated_is_not_measured(nut):
    make_deep(nut, 3000, 3000)
    arrays = packed(nut, white=6000.0)
    assert arrays.white == White(6000)
    assert arrays.train.max() == 128


def test_white_of_8_bits_is_none_even_where_stated(nut):
    arrays = packed(nut, white=4095.0)
    assert arrays.white is None
    np.testing.assert_array_equal(arrays.train, packed(nut).train)


def test_8_and_16_bits_in_one_category_are_said(nut):
    save(nut / "nut/train/good/000.png", deep(0, 4095))
    assert packed(nut).warnings == [
        "images of more than 8 bits among others, which are taken as they are (1 of 6):"
        " train/good/000.png"
    ]


def test_a_test_image_of_16_bits_alone_is_refused(nut):
    path = save(nut / "nut/test/scratch/000.png", deep(0, 4095))
    assert refused(nut).startswith(f"{path}: more than 8 bits, but no training image has so many")
    assert packed(nut, white=4095.0).white == White(4095)


# ---- defects that vanish


def test_defects_that_vanish_are_named_and_counted(nut):
    save(nut / "nut/ground_truth/bent/000.png", spot(0, 0))
    save(nut / "nut/ground_truth/scratch/001_mask.png", spot(0, 0))
    save(nut / "nut/ground_truth/scratch/000_mask.png", spot(2, 6))
    arrays = packed(nut, 2)
    np.testing.assert_array_equal(arrays.label, [0, 1, 1, 1])
    assert [bool(mask.any()) for mask in arrays.mask] == [False, False, True, False]
    assert arrays.vanished == 2
    assert arrays.warnings == [
        "masks without a pixel at 2 x 2 (2 of 3): test/bent/000.PNG, test/scratch/001.png;"
        " raise image.size if they matter"
    ]


def test_five_names_are_enough(nut):
    for i in range(9):
        save(nut / f"nut/test/scratch/{i:03d}.png", noise(10 + i))
        save(nut / f"nut/ground_truth/scratch/{i:03d}_mask.png", spot(0, 0))
    save(nut / "nut/ground_truth/bent/000.png", spot(2, 6))
    (line,) = packed(nut, 2).warnings
    assert line.count("test/scratch/") == 5
    assert line.endswith("test/scratch/004.png and 4 more; raise image.size if they matter")


def test_where_no_defect_is_left_the_size_is_refused(nut):
    for path in (nut / "nut/ground_truth").rglob("*.png"):
        save(path, spot(0, 0))
    line = refused(nut, 2)
    assert line.startswith(f"{nut / 'nut'}: no defect is left of the masks at 2 x 2 pixels")
    assert "raise image.size" in line
    assert packed(nut, 2, "absent").warnings == []


def test_without_defects_nothing_vanishes(nut):
    for kind in ("bent", "scratch"):
        remove(nut / "nut", f"test/{kind}/*")
        remove(nut / "nut", f"ground_truth/{kind}/*")
    assert packed(nut).vanished == 0


# ---- copies


@pytest.mark.parametrize(
    ("source", "target", "line"),
    [
        (
            "train/good/000.png",
            "test/good/9.webp",
            "normal test images that are training images as well (1): test/good/9.webp ="
            " train/good/000.png",
        ),
        (
            "test/scratch/000.png",
            "train/good/defect.png",
            "defective images that are training images as well (1): test/scratch/000.png ="
            " train/good/defect.png",
        ),
        (
            "test/scratch/000.png",
            "test/good/9.png",
            "defective images that are normal test images as well (1): test/scratch/000.png ="
            " test/good/9.png",
        ),
        ("train/good/000.png", "train/good/9.bmp", "training images that are copies of others: 1"),
        (
            "test/good/000.bmp",
            "test/good/deep/9.png",
            "normal test images that are copies of others: 1",
        ),
    ],
)
def test_images_with_the_same_pixels_are_said(nut, source, target, line):
    path = nut / "nut" / target
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"lossless": True} if target.endswith("webp") else {}
    Image.open(nut / "nut" / source).save(path, **options)
    assert packed(nut).warnings == [line]


def test_images_that_are_equal_only_when_small_are_no_copies(nut):
    pixels = noise(0).repeat(2, axis=0).repeat(2, axis=1)
    save(nut / "nut/test/good/9.png", pixels)
    assert packed(nut).warnings == []
