"""The page and the example do as they say, on images and with a preset as small as they get."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from folders import save
from own_images import PATCHCORE, folder_of, mask, preset
from typer.testing import CliRunner

import fader
from fader.cli import app
from fader.model import settings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/own-images.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the images of the page, and in it the presets."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "presets").mkdir()
    detectors = {"detectors": {"patchcore": PATCHCORE}, "score": {"smooth": 3}}
    preset(folder / "presets", "real", **detectors)
    folder_of(folder / "good")
    folder_of(folder / "new", 3)
    folder_of(folder / "bad", 2, "scratch")
    save(folder / "masks/001_mask.png", 255 * mask(1, "scratch"))
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(settings, "PRESETS", place / "presets")
    return place


def test_the_pages_commands_run(here):
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "fader"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{command}: {result.output} {result.exception}"
    models = [here / name / "model.safetensors" for name in ("model", "again")]
    assert len({path.read_bytes() for path in models}) == 1
    assert (here / "found/scores.csv").is_file()
    assert fader.load("model").facts["detector"] == "patchcore"
    limits = [fader.load(name).threshold for name in ("careless", "model")]
    assert limits == sorted(limits)


def test_the_pages_python_runs(here, monkeypatch, tmp_path):
    (code,) = blocks("python")
    exec(code.replace('"model"', repr(str(tmp_path / "model"))), {})


@pytest.mark.parametrize("folders", [[], ["good", "bad"]])
def test_the_example_runs(folders, here, monkeypatch, capsys):
    options = ["--detector", "pca"]
    monkeypatch.setattr(sys, "argv", ["own_images.py", *folders, *options])
    runpy.run_path(str(ROOT / "examples/own_images.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (2 if folders else 6) + 1
    assert lines[-1].startswith("threshold ")
