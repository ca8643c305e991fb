"""Decoding image files: upright, every depth and colour, and what is refused."""

import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, noise, spot
from PIL import Image

from fader.data.decode import White, measured_white, read, rgb

ORIENTATIONS = {  # EXIF orientation → the upright pixels (H, W, C) of those stored
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def saved(folder: Path, image: Image.Image | np.ndarray, name: str = "0.png", **options) -> Path:
    path = folder / name
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def pixels(path: Path, white: float | None = None) -> np.ndarray:
    """(H, W, 3) as they are read."""
    return np.asarray(rgb(read(path), White(white) if white else None))


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16-bit grey (H, W), grey and alpha, RGB or RGBA (H, W, C), which Pillow does not
    write."""
    height, width, *channels = values.shape
    colour = {(): 0, (2,): 4, (3,): 2, (4,): 6}[tuple(channels)]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---- upright


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("0.png", {}),
        ("0.tif", {}),
        ("0.tif", {"compression": "tiff_lzw"}),
        ("0.webp", {"lossless": True}),
    ],
)
def test_an_exif_orientation_is_applied(tmp_path, orientation, name, options):
    stored = noise(0, 6, 9)
    path = saved(tmp_path, stored, name, exif=exif(orientation), **options)
    picture = read(path)
    assert picture.orientation == orientation
    np.testing.assert_array_equal(pixels(path), ORIENTATIONS[orientation](stored))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.int32, np.float32])
def test_so_is_that_of_images_of_more_than_8_bits(tmp_path, orientation, dtype):
    stored = np.arange(54, dtype=dtype).reshape(6, 9)
    image = Image.fromarray(stored) if dtype != ">u2" else Image.frombytes("I;16B", (9, 6), stored)
    path = saved(tmp_path, image, "0.tif", exif=exif(orientation))
    np.testing.assert_array_equal(
        pixels(path, 255)[..., 0], ORIENTATIONS[orientation](stored).astype(np.uint8)
    )


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, orientation):
    stored = noise(0, 6, 9)
    path = saved(tmp_path, stored, exif=exif(orientation))
    assert read(path).orientation == 1
    np.testing.assert_array_equal(pixels(path), stored)


def test_an_exif_block_that_cannot_be_read_turns_nothing(tmp_path):
    stored = noise(0, 6, 9)
    path = saved(tmp_path, stored, exif=b"Exif\0\0no such block")
    np.testing.assert_array_equal(pixels(path), stored)


# ---- 8 bits


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("0.png", {}),
        ("0.bmp", {}),
        ("0.ppm", {}),
        ("0.webp", {"lossless": True}),
        ("0.jp2", {}),
        ("0.TIFF", {"format": "TIFF"}),
        ("0.gif", {"format": "PNG"}),  # the content decides, not the name
    ],
)
def test_every_format_gives_the_pixels_that_it_holds(tmp_path, name, options):
    image = noise(0, 6, 9)
    np.testing.assert_array_equal(pixels(saved(tmp_path, image, name, **options)), image)


@pytest.mark.parametrize("name", ["0.jpg", "0.jfif", "0.avif"])
def test_lossy_formats_come_close(tmp_path, name):
    y, x = np.mgrid[0:64, 0:96]
    image = np.stack([2 * x, 3 * y, x + y], axis=2).astype(np.uint8)
    difference = pixels(saved(tmp_path, image, name, quality=95)).astype(int) - image
    assert np.abs(difference).mean() < 3


COLOURS = np.array([[200, 10, 30], [0, 250, 90]], dtype=np.uint8)
INDEX = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
GREY = noise(9)[..., 0]


def palette() -> Image.Image:
    image = Image.fromarray(INDEX)
    image.putpalette(COLOURS.tobytes())
    return image


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.fromarray(GREY), "0.png", np.dstack([GREY] * 3)),
        (Image.fromarray(np.dstack([GREY, GREY.T])), "0.png", np.dstack([GREY] * 3)),
        (Image.fromarray(INDEX.astype(bool)), "0.png", np.dstack([255 * INDEX] * 3)),
        (palette(), "0.png", COLOURS[INDEX]),
        (palette(), "0.gif", COLOURS[INDEX]),
        (Image.fromarray(np.dstack([COLOURS[INDEX], INDEX])), "0.png", COLOURS[INDEX]),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "0.tif", np.full((8, 8, 3), (255, 0, 0))),
    ],
    ids=["L", "LA", "1", "P", "gif", "RGBA", "CMYK"],
)
def test_grey_palettes_and_other_colours_become_rgb_and_alpha_is_dropped(
    tmp_path, image, name, expected
):
    np.testing.assert_array_equal(pixels(saved(tmp_path, image, name)), expected)


def test_white_says_nothing_of_8_bits(tmp_path):
    image = noise(0)
    np.testing.assert_array_equal(pixels(saved(tmp_path, image), white=1000.0), image)


# ---- more than 8 bits


@pytest.mark.parametrize(
    ("largest", "bits"),
    [
        (0, 8),
        (1, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (1024, 12),
        (4095, 12),
        (4096, 14),
        (16383, 14),
        (16384, 16),
        (65535, 16),
    ],
)
def test_white_is_measured_in_bits(tmp_path, largest, bits):
    values = np.zeros((4, 4), dtype=np.uint16)
    dim = saved(tmp_path, values, "0.png")
    values[1, 2] = largest
    white = measured_white([dim, saved(tmp_path, values, "1.png")])
    assert white == White(2**bits - 1, bits)
    assert str(white) == f"white is {2**bits - 1} ({bits} bits, measured on the training images)"


def test_white_of_8_bits_is_not_measured(tmp_path):
    assert measured_white([saved(tmp_path, noise(0)), saved(tmp_path, spot(), "1.jpg")]) is None


def big_endian(values: np.ndarray) -> tuple[Image.Image, str]:
    height, width = values.shape
    return Image.frombytes("I;16B", (width, height), values.astype(">u2").tobytes()), "0.tif"


def pgm(values: np.ndarray) -> bytes:
    height, width = values.shape
    return f"P5\n{width} {height}\n65535\n".encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize("white", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["png", "tif", "lzw", "big-endian", "int32", "float32", "pgm"])
def test_values_are_scaled_to_white_and_clipped_there(tmp_path, white, kind):
    values = np.random.default_rng(0).integers(0, 1 << 16, (8, 8)).astype(np.uint16)
    values[0, :3] = 0, white, white // 2
    path = {
        "png": lambda: saved(tmp_path, values),
        "tif": lambda: saved(tmp_path, values, "0.tif"),
        "lzw": lambda: saved(tmp_path, values, "0.tif", compression="tiff_lzw"),
        "big-endian": lambda: saved(tmp_path, *big_endian(values)),
        "int32": lambda: saved(tmp_path, values.astype(np.int32), "0.tif"),
        "float32": lambda: saved(tmp_path, values.astype(np.float32), "0.tif"),
        "pgm": lambda: written(tmp_path / "0.pgm", pgm(values)),
    }[kind]()
    expected = np.rint(values.astype(float).clip(0, white) * 255 / white)
    assert read(path).deep
    np.testing.assert_array_equal(pixels(path, white), np.dstack([expected] * 3))


def test_a_pgm_says_itself_what_is_white(tmp_path):
    content = pgm(np.full((4, 4), 4095)).replace(b"65535", b"4095")
    path = written(tmp_path / "0.pgm", content)
    assert measured_white([path]) == White(65535, 16)
    assert pixels(path, 65535).min() == 255


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_that_needs_all_bits_keeps_the_upper_8(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 1 << 16, (8, 8, channels))
    values[0, 0] = 65535
    path = written(tmp_path / "0.png", png16(values))
    assert measured_white([path]) == White(65535, 16)
    colours = values[..., :1].repeat(3, axis=2) if channels == 2 else values[..., :3]
    np.testing.assert_array_equal(pixels(path, 65535), colours >> 8)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize(("bits", "stated"), [(8, None), (12, None), (14, None), (16, 4095.0)])
def test_16_bit_colour_of_fewer_bits_would_be_nearly_black_and_is_refused(
    tmp_path, channels, bits, stated
):
    values = np.full((8, 8, channels), 2**bits - 1)
    if channels % 2 == 0:
        values[..., -1] = 65535  # opaque
    path = written(tmp_path / "0.png", png16(values))
    white = White(stated) if stated else measured_white([path])
    line = line_of(rgb, read(path), white)
    assert line.startswith(f"{path}: 16-bit colour, of which only the upper 8 bits can be read")
    assert f"white is {white.value:g} (" in line


def test_16_bit_tiff_colour_is_known_as_such(tmp_path):
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + struct.pack("<I", 0)
    assert len(head) == 122
    content = head + struct.pack("<3H", 16, 16, 16) + struct.pack("<12H", *range(4084, 4096))
    path = written(tmp_path / "0.tif", content)
    assert measured_white([path]) == White(4095, 12)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.ones((4, 4), np.float32), "floating-point pixels, up to 1; state which value is white"),
        (np.full((4, 4), 1 << 20, np.int32), "more than 16 bits, up to 1048576; state which value"),
        (np.full((4, 4), np.nan, np.float32), "pixels that are no numbers"),
    ],
)
def test_where_white_cannot_be_measured_it_must_be_stated(tmp_path, values, named):
    path = saved(tmp_path, values, "0.tif")
    assert line_of(measured_white, [path]).startswith(f"{path}: ")
    assert named in line_of(measured_white, [path])


@pytest.mark.parametrize(
    ("values", "white", "named"),
    [
        (np.ones((4, 4), np.uint16), None, "more than 8 bits, but no training image has so many"),
        (np.full((4, 4), -5, np.int32), White(255, 8), "negative pixels, down to -5"),
        (np.full((4, 4), -0.1, np.float32), White(1), "negative pixels, down to -0.1"),
        (np.full((4, 4), np.inf, np.float32), White(1), "pixels that are no numbers"),
    ],
)
def test_pixels_without_a_grey_level_are_named(tmp_path, values, white, named):
    path = saved(tmp_path, values, "0.tif")
    assert line_of(rgb, read(path), white).startswith(f"{path}: {named}")


def test_a_rounding_error_below_zero_is_black(tmp_path):
    path = saved(tmp_path, np.full((4, 4), -1e-6, np.float32), "0.tif")
    assert pixels(path, 1.0).max() == 0


# ---- damage


@pytest.mark.parametrize("name", ["0.png", "0.jpg", "0.bmp", "0.tif", "0.webp", "0.gif"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_file_is_named(tmp_path, name, keep):
    path = saved(tmp_path, noise(0, 64, 64), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert line_of(read, path).startswith(f"{path}: unreadable image (")


@pytest.mark.parametrize("content", [b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 1000])
def test_what_is_no_image_is_named_without_an_address_in_memory(tmp_path, content):
    path = written(tmp_path / "0.png", content)
    assert re.fullmatch(rf"{path}: unreadable image \(none of PNG, [^@]*", line_of(read, path))


def test_a_picture_too_large_for_pillow_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    line = line_of(read, saved(tmp_path, noise(0)))
    assert "exceeds limit" in line
    assert line.endswith("; make it smaller or cut it up")


def test_a_missing_file_is_named(tmp_path):
    assert line_of(read, tmp_path / "0.png").startswith(f"{tmp_path / '0.png'}: unreadable image")


@pytest.mark.parametrize("name", ["0.gif", "0.tif", "0.webp", "0.png"])
def test_several_pictures_in_a_file_are_refused(tmp_path, name):
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert line_of(read, tmp_path / name).startswith(f"{tmp_path / name}: 3 pictures in one file")


def test_of_a_cameras_jpeg_with_a_preview_the_picture_is_read(tmp_path):
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (200, 0)]
    content = io.BytesIO()
    frames[0].save(content, "MPO", save_all=True, append_images=frames[1:])
    assert pixels(written(tmp_path / "0.jpg", content.getvalue())).min() >= 198


def test_a_file_with_other_bytes_than_listed_is_refused(tmp_path):
    path = saved(tmp_path, noise(0))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    read(path, sha256)
    saved(tmp_path, noise(1))
    assert line_of(read, path, sha256) == (
        f"{path}: changed while the run was under way; run again"
    )
