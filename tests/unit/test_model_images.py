"""Images of one's own: every kind of file and folder, arrays, and what is said of them."""

import os

import numpy as np
import pytest
from folders import line_of, save
from own_images import pixels
from PIL import Image

from fader.model import images
from fader.model.images import find, read

GREY = pixels(0).mean(2)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # stored a quarter turn to the left
KINDS = {
    "a.png": (pixels(0), {}),
    "a.jpg": (pixels(0), {"quality": 95}),
    "a.JPEG": (pixels(0), {"quality": 95}),
    "a.bmp": (pixels(0), {}),
    "a.tif": (pixels(0), {}),
    "a.webp": (pixels(0), {"lossless": True}),
    "grey.png": (GREY.round().astype(np.uint8), {}),
    "deep.png": ((GREY * 257).round().astype(np.uint16), {}),
    "deep.tiff": ((GREY * 257).round().astype(np.uint16), {}),
    "alpha.png": (np.dstack([pixels(0), np.full((48, 48), 9, np.uint8)]), {}),
    "turned.jpg": (np.rot90(pixels(0)).copy(), {"quality": 95, "exif": EXIF}),
    "wide.png": (pixels(0)[8:40], {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_the_same_picture(name, tmp_path):
    array, options = KINDS[name]
    save(tmp_path / "deep/er" / name, array, **options)
    found = read(find(tmp_path), [32])
    assert found.names == [f"deep/er/{name}"]
    like = pixels(0) if "wide" not in name else pixels(0)[8:40]
    if name.startswith(("grey", "deep")):
        like = np.repeat(GREY.round().astype(np.uint8)[..., None], 3, 2)
    expected = read(find([like]), [32])
    assert found.sizes == expected.sizes
    difference = found.pixels[32].int() - expected.pixels[32].int()
    assert difference.abs().float().mean() < (3 if options.get("quality") else 0.6)
    assert (found.white is not None) == name.startswith("deep")


def test_files_that_are_no_images_are_counted(tmp_path):
    for name in ("b/2.png", "a/1.png", "0.png"):
        save(tmp_path / name, pixels(0))
    for name in ("notes.txt", "a/list.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    found = find(tmp_path)
    assert found.names == ["0.png", "a/1.png", "b/2.png"]
    assert str(found) == "3 images; ignored: 3 files (.txt 2, hidden 1)"


def test_equal_names_in_different_folders_stay_apart(tmp_path):
    places = ["a/x/0.png", "b/x/0.png", "c.png"]
    for name in places:
        save(tmp_path / name, pixels(0))
    given = [tmp_path / "a/x", tmp_path / "b", tmp_path / "c.png", tmp_path / "b/x/0.png"]
    assert find(given).names == places  # the last is there already


def test_arrays_are_images(tmp_path):
    stack = np.stack([pixels(0), pixels(1)])
    for given in (stack, list(stack)):
        found = read(find(given), [16])
        assert found.names == ["0", "1"]
        assert found.sizes == [(48, 48)] * 2
    save(tmp_path / "0.png", stack[1])
    assert read(find(str(tmp_path)), [16]).pixels[16][0].equal(found.pixels[16][1])


WRONG = {
    "grey": np.zeros((2, 8, 8), np.uint8),
    "floats": np.zeros((2, 8, 8, 3)),
    "channels first": np.zeros((2, 3, 8, 8), np.uint8),
    "none": np.zeros((0, 8, 8, 3), np.uint8),
    "a mixture": [np.zeros((8, 8, 3), np.uint8), "a.png"],
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_of_another_kind_are_refused(name):
    assert "uint8" in line_of(find, WRONG[name])


def test_what_is_not_there_is_named(tmp_path):
    assert "nowhere: no such" in line_of(find, tmp_path / "nowhere")
    assert "no image in it" in line_of(find, tmp_path)
    (tmp_path / "0.png").write_bytes(b"no image")
    assert "0.png: unreadable" in line_of(read, find(tmp_path), [16])


def test_formats_that_are_not_read_end_a_fit_but_not_a_prediction(tmp_path):
    save(tmp_path / "0.png", pixels(0))
    (tmp_path / "1.heic").write_bytes(b"")
    assert "1.heic" in line_of(find, tmp_path)
    assert find(tmp_path, tolerant=True).names == ["0.png", "1.heic"]


def test_sizes_and_copies_are_told(tmp_path):
    arrays = [pixels(0), pixels(1), pixels(0), pixels(2)[:40]]
    size, copies = read(find(arrays), [16]).remarks()
    assert "2 sizes" in size and "48 x 48 (3)" in size and "48 x 40 (1)" in size
    assert "(1): 2 = 0" in copies
    assert list(read(find(arrays[:2]), [16]).remarks()) == []


def test_a_name_that_is_no_text_can_be_shown(tmp_path):
    save(tmp_path / "0.png", pixels(0))
    os.rename(tmp_path / "0.png", os.fsencode(tmp_path) + b"/\xff.png")  # noqa: PTH104
    assert find(tmp_path).names == ["\\xff.png"]
    assert len(read(find(tmp_path), [16])) == 1


def test_pixels_are_those_of_a_run(tmp_path):
    """As ``fader.data.pack`` reads a category."""
    from fader.data.pack import resized

    path = save(tmp_path / "0.png", pixels(0))
    expected = resized(images.opened(path, None), 20)
    assert (read(find(tmp_path), [20]).pixels[20][0].numpy() == expected).all()
