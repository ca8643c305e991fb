"""Predictions on disk: whole, at the image's own size, under a name of their own; and what cannot
be read."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, save
from own_images import folder_of, pixels, preset, tree
from PIL import Image
from typer.testing import CliRunner

import fader
from fader.cli import app
from fader.model import pictures
from fader.model.images import find

FADER = Path(sys.executable).with_name("fader")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Directory of a fitted model."""
    folder = tmp_path_factory.mktemp("model")
    good = folder_of(folder / "good")
    options = {"detector": "pca", "preset": preset(folder), "progress": False}
    fader.fit(good, folder / "model", **options)
    return folder / "model"


def predicted(model, *images, out, options=()):
    arguments = ["predict", *map(str, images), "--model", str(model), "--out", str(out), *options]
    return CliRunner().invoke(app, arguments)


def rows(out):
    with (out / "scores.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


SIZES = {"a.png": (48, 48), "b.jpg": (31, 77), "deep/er/c.tif": (90, 20), "grey.bmp": (17, 17)}


def test_everything_is_at_the_images_own_size(model, tmp_path):
    for number, (name, size) in enumerate(SIZES.items()):
        array = np.asarray(Image.fromarray(pixels(number)).resize(size[::-1]))
        save(tmp_path / "in" / name, array.mean(2).astype(np.uint8) if "grey" in name else array)
    result = predicted(model, tmp_path / "in", out=tmp_path / "out", options=("--json",))
    assert result.exit_code == 0, result.output
    found = rows(tmp_path / "out")
    assert [row["file"] for row in found] == sorted(SIZES, key=lambda name: name.split("/"))
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [row["file"] for row in found]
    expected = fader.load(model).predict(tmp_path / "in")
    for row, line, score, values in zip(
        found, lines, expected.scores, expected.restored(), strict=True
    ):
        assert np.float32(row["score"]) == np.float32(line["score"]) == score
        assert row["verdict"] == ("defective" if score > expected.threshold else "good")
        size = SIZES[row["file"]]
        with Image.open(tmp_path / f"out/heatmaps/{row['file']}.png") as overlay:
            assert (overlay.size, overlay.mode) == (size[::-1], "RGB")
        with Image.open(tmp_path / f"out/maps/{row['file']}.png") as grey:
            assert grey.size == size[::-1]
            raw = np.asarray(grey).astype(np.float64) / 65535
        black, white = line["map_black"], line["map_white"]
        assert values.shape == size
        np.testing.assert_allclose(
            black + raw * (white - black), values, atol=1e-4 * (white - black)
        )


def test_equal_names_do_not_meet(model, tmp_path):
    for name in ("a/0.png", "b/0.png", "a/0.bmp"):
        save(tmp_path / "in" / name, pixels(0))
    given = (tmp_path / "in/a", tmp_path / "in/b/0.png")
    assert predicted(model, *given, out=tmp_path / "out").exit_code == 0
    names = ["a/0.bmp", "a/0.png", "b/0.png"]
    assert [row["file"] for row in rows(tmp_path / "out")] == names
    written = [f"{kind}/{name}.png" for kind in ("heatmaps", "maps") for name in names]
    assert sorted(tree(tmp_path / "out")) == sorted([*written, "scores.csv"])


UNREADABLE = {"1.png": b"no image", "1.heic": b"", "1.jpg": b"\xff\xd8\xff"}


def test_what_cannot_be_read_is_told_skipped_and_ends_with_status_1(model, tmp_path):
    folder_of(tmp_path / "in", 3)
    (tmp_path / "in/001.png").unlink()
    for name, content in UNREADABLE.items():
        (tmp_path / "in" / name).write_bytes(content)
    result = subprocess.run(
        [FADER, "predict", "in", "--model", model, "--out", "out", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 4
    for name in UNREADABLE:
        (line,) = [line for line in result.stderr.splitlines() if f"{name}:" in line]
        assert "(skipped)" in line
    assert "2 images, " in result.stderr and "3 could not be read" in result.stderr
    assert len(result.stdout.splitlines()) == len(rows(tmp_path / "out")) == 2


def test_in_the_library_it_is_an_error(model, tmp_path):
    (tmp_path / "0.png").write_bytes(b"no image")
    assert "0.png: unreadable" in line_of(fader.load(model).predict, tmp_path)


def test_nothing_is_written_among_the_images(model, tmp_path):
    folder_of(tmp_path / "in", 1)
    result = predicted(model, tmp_path / "in", out=tmp_path / "in/out")
    assert "among the images" in str(result.exception)
    assert sorted(tree(tmp_path)) == ["in/000.png"]


def test_sixteen_bits_are_read_by_the_models_own_white(tmp_path):
    """A darker folder would have another white of its own."""
    for number in range(8):
        grey = pixels(number).mean(2) * 16
        save(tmp_path / f"good/{number}.png", grey.round().astype(np.uint16))
    options = {"detector": "pca", "preset": preset(tmp_path), "progress": False}
    model = fader.fit(tmp_path / "good", **options)
    assert model.facts["images"]["white"] == 4095
    dark = save(tmp_path / "0.png", (pixels(0).mean(2) * 4).round().astype(np.uint16))
    half = np.repeat((pixels(0).mean(2) / 4).round().astype(np.uint8)[..., None], 3, 2)
    scores = [model.predict(given).scores for given in (dark, [half])]
    np.testing.assert_allclose(*scores, rtol=0.05)


def test_memory_does_not_grow_with_the_number_of_images(model):
    """Decoded images and maps are gone when their batch is."""
    loaded, array = fader.load(model), pixels(0, side=32)
    for count, limit in ((64, None), (512, 20_000)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        scored = sum(1 for _ in loaded.stream(find([array] * count)))
        assert scored == count
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert limit is None or grown < limit, f"{grown} KiB"


@pytest.mark.parametrize(("value", "share"), [(-1, 0), (1, 0), (2, 0.25), (3, 0.5), (5, 1), (9, 1)])
def test_colours_are_anchored_to_the_model(value, share):
    assert pictures.heat(np.array([[value]]), low=1, limit=3) == share


def test_what_is_usual_is_left_as_it_is():
    image = Image.fromarray(pixels(0))
    plain = pictures.overlay(image, np.zeros((48, 48)), 0, 1)
    assert (np.asarray(plain) == pixels(0)).all()
    hot = np.asarray(pictures.overlay(image, np.full((48, 48), 2.0), 0, 1)).astype(int)
    assert (hot[..., 0] > hot[..., 2]).all()


def test_a_flat_map_can_be_kept():
    grey, low, high = pictures.deep(np.full((3, 4), 2.5, np.float32))
    assert (np.asarray(grey) == 0).all() and low == high == 2.5
