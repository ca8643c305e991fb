"""The step that packs a category: what its log and its facts say of the user's files."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
from folders import move, noise, save, spot, write_nut
from tiny import PRESET

from fader import steps
from fader.config import parse
from fader.pipeline.artifacts import read_arrays, read_header
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job


@pytest.fixture
def nut(tmp_path: Path, monkeypatch) -> Path:
    """Root of a category with training images enough to hold some out; one is at work beside it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for i in range(2, 8):
        save(tmp_path / f"own/nut/train/good/{i:03d}.png", noise(10 + i, 64, 64))
    return write_nut(tmp_path / "own")


def made(root: Path, capsys, **settings) -> tuple[dict, dict, list[str]]:
    """Facts, arrays and log of a pack."""
    values = copy.deepcopy(PRESET)
    values["categories"] = {"mine-nut": {"dataset": "mine", "category": "nut"}}
    folder = {"source": "folder", "layout": "mvtec", "root": str(root), "paper": None}
    values["datasets"] = {"mine": folder | {"complete": False} | settings}
    values["image"]["size"] = 32
    config = parse(values, "own")
    steps.run(Context(config, Job("dataset", "mine")))
    capsys.readouterr()
    job = Job("pack", "mine-nut")
    steps.run(Context(config, job))
    path = Context(config, job).output("packed")
    return dict(read_header(path).facts), read_arrays(path), capsys.readouterr().out.splitlines()


def test_the_log_counts_what_is_there(nut, capsys):
    (nut / "nut/notes.txt").touch()
    facts, arrays, log = made(nut, capsys)
    assert log[0] == "train 8, test good 1, bent 1, scratch 2; ignored: 1 file (.txt)"
    assert not [line for line in log if "warning" in line]
    assert facts["counts"] == {"train": 8, "test": {"good": 1, "bent": 1, "scratch": 2}}
    assert facts["ignored"] == {".txt": 1}
    assert (facts["masks"], facts["white"], facts["vanished"]) == ("present", None, 0)
    assert facts["warnings"] == []
    assert len(arrays["train"]) == len(facts["train"]) == 8


def test_the_log_and_the_facts_warn(nut, capsys):
    save(nut / "nut/test/good/9.png", noise(0))
    save(nut / "nut/test/scratch/000.png", noise(4, 256, 256))
    mask = np.zeros((256, 256), dtype=np.uint8)
    mask[0, 0] = 255
    save(nut / "nut/ground_truth/scratch/000_mask.png", mask)
    (nut / "nut/test/dent").mkdir()
    facts, _, log = made(nut, capsys)
    assert facts["warnings"] == [
        "test/dent is empty",
        "masks without a pixel at 32 x 32 (1 of 3): test/scratch/000.png;"
        " raise image.size if they matter",
        "normal test images that are training images as well (1):"
        " test/good/9.png = train/good/000.png",
    ]
    assert log[1:4] == [f"warning: {line}" for line in facts["warnings"]]
    assert facts["vanished"] == 1


@pytest.mark.parametrize(
    ("stated", "value", "how"),
    [(None, 4095, "12 bits, measured on the training images"), (5000.0, 5000, "as stated")],
)
def test_white_is_in_the_log_and_the_facts(nut, capsys, stated, value, how):
    for i, path in enumerate(sorted((nut / "nut/train/good").iterdir())):
        save(path, np.full((8, 8), 4000 - i, dtype=np.uint16))
    facts, arrays, log = made(nut, capsys, white=stated)
    assert f"16-bit images: white is {value} ({how})" in log
    assert facts["white"] == value
    assert arrays["train"].max() == round(4000 * 255 / value)


@pytest.mark.parametrize("masks", ["present", "absent", "inverted"])
def test_how_masks_are_read_is_in_the_facts(nut, capsys, masks):
    if masks == "inverted":
        for path in (nut / "nut/ground_truth").rglob("*.png"):
            save(path, 255 - spot())
    facts, arrays, log = made(nut, capsys, masks=masks)
    assert facts["masks"] == masks
    assert arrays["label"].tolist() == [0, 1, 1, 1]
    assert arrays["mask"].any() == (masks != "absent")
    assert log[0].endswith("ignored: 3 files (ground_truth)") == (masks == "absent")


def test_names_that_are_not_utf_8_are_written_as_text(nut, capsys):
    name = os.fsdecode(b"pr\xfcf")
    move(nut / "nut/test", "bent", name)
    move(nut / "nut/ground_truth", "bent", name)
    move(nut / "nut", "train/good/000.png", f"train/good/{name}.png")
    (nut / f"nut/notes.{name}").touch()
    facts, _, log = made(nut, capsys)
    assert facts["defects"] == ["good", r"pr\xfcf", "scratch", "scratch"]
    assert r"train/good/pr\xfcf.png" in facts["train"]
    assert facts["ignored"] == {r".pr\xfcf": 1}
    assert json.dumps(facts, ensure_ascii=False).encode()
    assert "\n".join(log).encode()
