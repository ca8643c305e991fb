"""Masks as meant: what is drawn is found through JPEG and resizing, and what is no mask is
refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, noise, spot
from PIL import Image, ImageDraw

from fader.data import masks
from fader.data.decode import read

BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


def drawn(side: int, shape: str) -> np.ndarray:
    """(side, side) bool: a shape of some tenths of the side."""
    image, s = Image.new("L", (side, side), 0), side / 100
    draw = ImageDraw.Draw(image)
    if shape == "rectangle":
        draw.rectangle([21 * s + 1, 33 * s + 2, 54 * s + 1, 53 * s + 2], fill=255)
    elif shape == "ellipse":
        draw.ellipse([21 * s + 1, 13 * s + 2, 71 * s + 1, 53 * s + 2], fill=255)
    elif shape == "line":
        draw.line([10 * s, 17 * s, 80 * s, 64 * s], fill=255, width=max(1, round(6 * s)))
    elif shape == "specks":
        for i in range(0, 80, 16):
            draw.rectangle([i * s, i * s, i * s + 1, i * s + 2], fill=255)
    return np.asarray(image) > 0


SHAPES = ["rectangle", "ellipse", "line", "specks"]


def white_on_black(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(255 * mask.astype(np.uint8))


def through(image: Image.Image, **options) -> Image.Image:
    """The image as a file gives it back."""
    content = io.BytesIO()
    image.save(content, **options)
    return Image.open(content)


def found(folder: Path, image: Image.Image, *, inverted: bool = False, name: str = "m.png"):
    """Pixels of the defect, or the one line that refuses the mask."""
    image.save(folder / name)
    mask = read(folder / name)
    return masks.defect(mask, mask, inverted=inverted)


def refused(folder: Path, image: Image.Image, *, inverted: bool = False, name: str = "m.png"):
    image.save(folder / name)
    mask = read(folder / name)
    line = line_of(masks.defect, mask, mask, inverted=inverted)
    assert line.startswith(f"{folder / name}: ")
    return line.removeprefix(f"{folder / name}: ")


# ---- two levels


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("file", ["JPEG", "WEBP"])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_mask_is_what_was_drawn_through_jpeg_and_webp(
    tmp_path, side, shape, quality, file, inverted
):
    mask = drawn(side, shape)
    image = through(white_on_black(mask ^ inverted), format=file, quality=quality)
    np.testing.assert_array_equal(found(tmp_path, image, inverted=inverted), mask)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 200, 40), (250, 250, 250)])
@pytest.mark.parametrize("quality", [50, 75, 95])
def test_so_is_one_in_colour(tmp_path, colour, quality):
    mask = drawn(256, "ellipse")
    coloured = mask[..., None] * np.array(colour, dtype=np.uint8)
    image = through(Image.fromarray(coloured), format="JPEG", quality=quality)
    area = found(tmp_path, image).sum() / mask.sum()
    assert 0.9 < area < 1.1


@pytest.mark.parametrize("side", [64, 256, 1024])
@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
@pytest.mark.parametrize("down", [BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_mask_keeps_its_area_through_resizing(tmp_path, side, shape, down, factor, inverted):
    mask = drawn(side, shape)
    small = white_on_black(mask ^ inverted).resize((side // factor,) * 2, down)
    area = found(tmp_path, small.resize((side,) * 2, BILINEAR), inverted=inverted).sum()
    assert 0.9 < area / mask.sum() < 1.1


@pytest.mark.parametrize("shape", ["rectangle", "ellipse", "line"])
@pytest.mark.parametrize("filter_", [BILINEAR, NEAREST, Image.Resampling.BICUBIC])
def test_a_small_mask_may_have_been_enlarged(tmp_path, shape, filter_):
    mask = drawn(64, shape)
    large = white_on_black(mask).resize((256, 256), filter_)
    assert 0.95 < found(tmp_path, large).sum() / mask.sum() / 16 < 1.05


@pytest.mark.parametrize(
    ("dtype", "levels"),
    [
        (np.uint8, (0, 255)),
        (np.uint8, (0, 1)),
        (np.uint8, (0, 127)),
        (np.uint8, (16, 235)),
        (np.uint16, (0, 1)),
        (np.uint16, (0, 255)),
        (np.uint16, (0, 65535)),
        (np.int32, (0, 1 << 20)),
        (np.float32, (0.0, 1.0)),
        (np.float32, (0.0, 0.5)),
        (bool, (0, 1)),
    ],
)
def test_two_levels_are_a_mask_whatever_they_are(tmp_path, dtype, levels):
    mask = drawn(64, "ellipse")
    image = Image.fromarray(np.array(levels, dtype=dtype)[mask.astype(int)])
    np.testing.assert_array_equal(found(tmp_path, image, name="m.tif"), mask)


# ---- labels


@pytest.mark.parametrize("codes", [[1], [1, 2, 3], [4, 7], [32], list(range(1, 16))])
def test_small_numbers_are_codes_of_defects(tmp_path, codes):
    image = np.zeros((32, 32), dtype=np.uint8)
    for i, code in enumerate(codes):
        image[2 * i, 3:9] = code
    np.testing.assert_array_equal(found(tmp_path, Image.fromarray(image)), image > 0)


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_colours_that_fill_areas_are_labels(tmp_path, mode):
    index = np.zeros((32, 32), dtype=np.uint8)
    index[2:8, 3:9], index[12:18, 3:9], index[22:28, 3:9] = 1, 2, 3
    image = Image.fromarray(index)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 64, 0, 255, 255, 255])
    np.testing.assert_array_equal(found(tmp_path, image.convert(mode)), index > 0)


def test_black_is_normal_whatever_its_index(tmp_path):
    image = Image.fromarray(1 - spot(value=1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(found(tmp_path, image), spot() > 0)


@pytest.mark.parametrize("level", [8, 20, 32])
@pytest.mark.parametrize("quality", [50, 95])
def test_jpeg_leaves_no_codes(tmp_path, level, quality):
    mask = drawn(64, "rectangle")
    image = Image.fromarray(level * mask.astype(np.uint8))
    image.save(tmp_path / "m.jpg", quality=quality)
    picture = read(tmp_path / "m.jpg")
    area = masks.defect(picture, picture, inverted=False).sum()
    assert 0.9 < area / mask.sum() < 1.1


# ---- what is no mask


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * values / values.max()).astype(np.uint8))


def distance(side: int) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side
    return np.hypot(x - 0.4, y - 0.45)


def photograph(side: int) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side] / side
    waves = (
        110 + 60 * np.sin(12 * x) * np.cos(9 * y) + np.random.default_rng(0).normal(0, 4, x.shape)
    )
    return Image.fromarray(np.dstack([waves, waves * 0.9 + 10, waves * 0.8 + 20]).astype(np.uint8))


NO_MASKS = {
    "a spot of light": lambda side: grey(np.exp(-0.5 * (distance(side) / 0.08) ** 2)),
    "a broad one": lambda side: grey(np.exp(-0.5 * (distance(side) / 0.3) ** 2)),
    "a cone": lambda side: grey(np.clip(0.4 - distance(side), 0, None)),
    "a ramp": lambda side: grey(np.tile(np.arange(side), (side, 1))),
    "noise": lambda side: Image.fromarray(noise(0, side, side)[..., 0]),
    "a photograph": photograph,
}


@pytest.mark.parametrize("side", [64, 256, 1024])
@pytest.mark.parametrize("kind", NO_MASKS)
def test_heat_maps_ramps_and_photographs_are_refused(tmp_path, side, kind):
    line = refused(tmp_path, NO_MASKS[kind](side))
    assert line.startswith(("not a mask of two levels: ", "marks "))


def test_the_share_of_odd_pixels_is_said(tmp_path):
    line = refused(tmp_path, NO_MASKS["a ramp"](256))
    assert "50.0% of the pixels are odd" in line
    assert "50.0% are marked" in line


@pytest.mark.parametrize(
    "levels", [(128, 255), (85, 170, 255), (40, 255), (15, 75), (1, 255), (1, 2, 255), (100, 160)]
)
@pytest.mark.parametrize("inverted", [False, True])
def test_a_third_level_is_refused(tmp_path, levels, inverted):
    """A class of defect, a border that does not count, or what one was not sure about."""
    image = np.zeros((64, 64), dtype=np.uint8)
    for i, level in enumerate(levels[:-1]):
        image[4 + 6 * i : 9 + 6 * i, 5:15] = level
    image[30:50, 10:60] = levels[-1]
    if inverted:
        image = levels[-1] - image
    line = refused(tmp_path, Image.fromarray(image), inverted=inverted)
    assert line.startswith(("a third level", "a spot of"))


def test_a_spot_that_would_be_lost_is_refused(tmp_path):
    image = 255 * drawn(256, "rectangle").astype(np.uint8)
    image[200:202, 40:42], image[200, 200] = 120, 100
    line = refused(tmp_path, Image.fromarray(image))
    assert line.startswith("a spot of 120, fainter than half of the lightest, 255")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    image = np.where(drawn(64, "ellipse"), value, 0).astype(np.float32)
    assert "no numbers" in refused(tmp_path, Image.fromarray(image), name="m.tif")


# ---- alpha


MASK = drawn(64, "ellipse")
WHITE, CLEAR, HALF = np.uint8(255), np.uint8(0), np.uint8(128)


def layers(colour: np.ndarray | tuple, alpha: np.ndarray | int) -> Image.Image:
    """RGBA of a colour or (H, W, 3) and an alpha or (H, W)."""
    image = np.empty((64, 64, 4), dtype=np.uint8)
    image[..., :3], image[..., 3] = colour, alpha
    return Image.fromarray(image)


def where(mask: np.ndarray, inside: tuple, outside: tuple) -> np.ndarray:
    return np.where(mask[..., None], inside, outside).astype(np.uint8)


ALPHA = {
    "white everywhere": layers((255, 255, 255), 255 * MASK),
    "black everywhere": layers((0, 0, 0), 255 * MASK),
    "opaque everywhere": layers(where(MASK, (255,) * 3, (0,) * 3), 255),
    "clear everywhere": layers(where(MASK, (255,) * 3, (0,) * 3), 0),
    "strokes on a clear black canvas": layers(where(MASK, (200, 0, 0), (0,) * 3), 255 * MASK),
    "strokes on a clear white canvas": layers(where(MASK, (200, 0, 0), (255,) * 3), 255 * MASK),
    "white within an opaque part": layers(
        where(MASK, (255,) * 3, (0,) * 3), 255 * drawn(64, "rectangle") | 255 * MASK
    ),
    "LA": Image.merge("LA", [Image.new("L", (64, 64), 255), white_on_black(MASK)]),
    "a clear black of a grey file": through(white_on_black(MASK), format="PNG", transparency=0),
}


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("kind", ALPHA)
def test_alpha_or_colours_are_the_mask(tmp_path, kind, inverted):
    options = {"transparency": 0} if kind.startswith("a clear black") else {}
    ALPHA[kind].save(tmp_path / "m.png", **options)
    mask = read(tmp_path / "m.png")
    defect = masks.defect(mask, mask, inverted=False)
    np.testing.assert_array_equal(defect, MASK)
    if inverted:  # of a mask that is small enough to be one
        assert "marks" in line_of(masks.defect, mask, mask, inverted=True) or MASK.mean() > 0.25


@pytest.mark.parametrize(
    "image",
    [
        layers(where(MASK, (0,) * 3, (255,) * 3), 255 * MASK),
        layers(where(MASK, (255,) * 3, (0,) * 3), 255 * drawn(64, "rectangle")),
    ],
    ids=["black strokes on a clear white canvas", "overlapping"],
)
def test_where_colours_and_alpha_contradict_the_mask_is_refused(tmp_path, image):
    assert refused(tmp_path, image).startswith("colours and alpha channel mark different pixels")


# ---- how much is marked


def square(share: float) -> Image.Image:
    """White on black over a share of the image."""
    image = np.zeros((100, 100), dtype=np.uint8)
    image[: round(100 * share)] = 255
    return Image.fromarray(image)


@pytest.mark.parametrize(
    ("share", "inverted", "remedy"),
    [
        (1.0, False, "datasets.<name>.masks: inverted; if whole images are defective"),
        (0.94, False, "datasets.<name>.masks: inverted; if whole images are defective"),
        (0.76, False, "datasets.<name>.masks: inverted; if whole images are defective"),
        (0.06, True, "remove datasets.<name>.masks: inverted"),
    ],
)
def test_a_mask_over_most_of_the_image_is_refused_with_the_remedy(
    tmp_path, share, inverted, remedy
):
    line = refused(tmp_path, square(share), inverted=inverted)
    assert line.startswith(f"marks {1 - share if inverted else share:.0%} of the image; ")
    assert remedy in line


@pytest.mark.parametrize(("share", "inverted"), [(0.75, False), (0.01, False), (0.9, True)])
def test_a_mask_of_three_quarters_is_not(tmp_path, share, inverted):
    defect = found(tmp_path, square(share), inverted=inverted)
    assert defect.mean() == pytest.approx(1 - share if inverted else share)


@pytest.mark.parametrize(("share", "inverted"), [(0, False), (1, True)])
def test_an_empty_mask_is_refused(tmp_path, share, inverted):
    assert refused(tmp_path, square(share), inverted=inverted).startswith("no defect pixel, but ")


@pytest.mark.parametrize(
    ("shares", "inverted", "remedy"),
    [
        ([0.6, 0.7, 0.1], False, "the masks are inverted: datasets.<name>.masks: inverted"),
        ([0.6, 0.7, 0.1], True, "remove datasets.<name>.masks: inverted"),
    ],
)
def test_a_category_with_most_of_its_images_marked_is_refused(shares, inverted, remedy):
    line = line_of(masks.check_typical, shares, inverted=inverted, folder="own/nut")
    assert line.startswith("own/nut: half of the masks mark 60% of the image or more; ")
    assert remedy in line


@pytest.mark.parametrize("shares", [[], [0.5], [0.7, 0.1, 0.2], [0.49, 0.4]])
def test_a_category_with_some_large_defects_is_not(shares):
    masks.check_typical(shares, inverted=False, folder="own/nut")
