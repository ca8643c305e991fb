"""A folder of one's own: damage ends in one line that names the file, and nothing is written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_project import tiny

from fader import steps
from fader.config import parse
from fader.data import synthetic
from fader.errors import FaderError
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A good folder with one category, bolt."""
    root = tmp_path_factory.mktemp("images") / "own"
    synthetic.generate(root, "mvtec", seed=0, size=64, train=10, good=3, defective=2)
    return root


def truncated(root: Path) -> Path:
    path = root / "bolt/train/good/003.png"
    path.write_bytes(path.read_bytes()[:200])
    return path


def not_an_image(root: Path) -> Path:
    path = root / "bolt/test/good/001.png"
    path.write_text("no image")
    return path


def mask_of_another_size(root: Path) -> Path:
    path = root / "bolt/ground_truth/scratch/000_mask.png"
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(path)
    return path


def no_mask(root: Path) -> Path:
    (root / "bolt/ground_truth/scratch/001_mask.png").unlink()
    return root / "bolt/test/scratch/001.png"


def empty_split(root: Path) -> Path:
    shutil.rmtree(root / "bolt/train/good")
    (root / "bolt/train/good").mkdir()
    return root / "bolt/train/good"


@pytest.mark.parametrize(
    "damage", [truncated, not_an_image, mask_of_another_size, no_mask, empty_split]
)
def test_damage_is_named_in_one_line_and_nothing_is_written(images, tmp_path, monkeypatch, damage):
    root = tmp_path / "own"
    shutil.copytree(images, root)
    damaged = damage(root)
    monkeypatch.chdir(tmp_path)
    config = parse(
        tiny()
        | {
            "categories": {"mine": {"dataset": "mine", "category": "bolt"}},
            "datasets": {
                "mine": {
                    "source": "folder",
                    "layout": "mvtec",
                    "root": str(root),
                    "paper": None,
                    "complete": False,
                }
            },
        },
        "params.yaml",
    )
    steps.run(Context(config, Job("dataset", "mine")))
    with pytest.raises(FaderError) as error:
        steps.run(Context(config, Job("pack", "mine")))
    assert str(damaged) in str(error.value)
    assert "\n" not in str(error.value)
    assert not [path for path in Path("results").rglob("*") if path.is_file()]
