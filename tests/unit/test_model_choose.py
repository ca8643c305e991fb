"""Which detector: a ranking without a label, or by a few defective images."""

import json
import re
from pathlib import Path

import pytest
from folders import line_of
from own_images import folder_of, preset
from typer.testing import CliRunner

import fader
from fader.cli import app
from fader.model import trainings
from fader.model.choosing import TRUST

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choose")
    folder_of(folder / "good")
    folder_of(folder / "bad", 4, "scratch")
    preset(folder)
    return folder


def chosen(place, **options):
    options = {"detectors": ["unet", "pca"], "preset": place / "tiny.yaml"} | options
    return fader.choose(place / "good", progress=False, **options)


def test_detectors_are_ranked_by_validation(place):
    ranking = chosen(place)
    assert {one.detector for one in ranking.candidates} == {"pca", "unet"}
    values = [one.image_auroc for one in ranking.candidates]
    assert values == sorted(values, reverse=True)
    assert (ranking.by, ranking.trust, ranking.left_out) == ("image_auroc", TRUST, {})
    alone = fader.fit(
        place / "good", detector="pca", preset=place / "tiny.yaml", progress=False
    ).facts
    pca = next(one for one in ranking.candidates if one.detector == "pca")
    assert pca.image_auroc == alone["validation"]["image_auroc"]
    assert (pca.trained, pca.parameters) == (None, alone["parameters"])
    assert "how far to trust" in "\n".join(ranking.lines())


def test_or_by_defective_images(place):
    ranking = chosen(place, defects=place / "bad")
    values = [one.defects_auroc for one in ranking.candidates]
    assert values == sorted(values, reverse=True)
    assert (ranking.by, ranking.trust) == ("defects_auroc", None)
    text = "\n".join(ranking.lines())
    assert "against the defects given" in text and "how far" not in text


def test_what_does_not_fit_the_time_is_left_out(place, monkeypatch):
    monkeypatch.setattr(trainings, "seconds_of", lambda *arguments: 1e5)
    ranking = chosen(place, minutes=1)
    assert [one.detector for one in ranking.candidates] == ["pca"]
    assert "of its training fit into" in ranking.left_out["U-Net"]
    assert "left out: U-Net" in "\n".join(ranking.lines())
    line = line_of(chosen, place, detectors=["unet"], minutes=1)
    assert "no detector is left" in line


def test_on_the_command_line(place):
    arguments = ["choose", "--images", str(place / "good"), "--preset", str(place / "tiny.yaml")]
    arguments += ["--detector", "pca", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["candidates"][0]["detector"] == "pca"
    assert found["trust"]["cells"] == TRUST.cells


def test_the_trust_is_what_the_benchmark_measured():
    text = (ROOT / TRUST.source).read_text(encoding="utf-8")
    for level, value in (("image", TRUST.image), ("pixel", TRUST.pixel)):
        pattern = rf"test {level} AUROC over the (\d+) cells .*: ([\d.]+)\."
        cells, found = re.search(pattern, text).groups()
        assert (int(cells), float(found)) == (TRUST.cells, value)
