"""Which detector: a ranking without a label, or by a few defective images."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folders import line_of, save
from own_images import SIZE, folder_of, mask, preset
from scipy.stats import spearmanr
from typer.testing import CliRunner

import fader
from fader.cli import app
from fader.detectors.ear import Ear
from fader.evaluation.metrics import auroc
from fader.model import system, trainings
from fader.model.choosing import TRUST, Candidate, by_defects
from fader.model.images import find, read
from fader.model.settings import plan
from fader.model.system import divided
from fader.model.trainings import Needs
from fader.training.loop import Diverged

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choose")
    folder_of(folder / "good")
    folder_of(folder / "bad", 4, "scratch")
    for number in range(3):
        save(folder / f"masks/{number:03}_mask.png", 255 * mask(number, "scratch"))
    preset(folder)
    return folder


def reduced(mask):
    """At ``SIZE``, by the pixel under each centre."""
    at = (2 * np.arange(SIZE) + 1) * len(mask) // (2 * SIZE)
    return mask[np.ix_(at, at)]


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


def test_the_trust_is_what_the_real_run_measured():
    page = (ROOT / TRUST.source).read_text(encoding="utf-8")
    said = re.findall(r"Rank .* test (\w+) AUROC over the (\d+) cells .*: (-?[\d.]+)\.", page)
    assert said == [
        ("image", str(TRUST.cells), f"{TRUST.image:.2f}"),
        ("pixel", str(TRUST.cells), f"{TRUST.pixel:.2f}"),
    ]
    cells = pd.read_csv((ROOT / TRUST.source).with_suffix(".csv"))
    for category, value in TRUST.within.items():
        own = cells[cells.category == category]
        assert len(own) == 14
        found = spearmanr(own.validation_image_mean, own.test_image_mean).statistic
        assert round(found, 2) == value
    assert {*TRUST.within, "average"} == {*cells.category}


def test_or_by_defective_images(place):
    ranking = chosen(place, defects=place / "bad")
    values = [one.defects_auroc for one in ranking.candidates]
    assert values == sorted(values, reverse=True)
    assert (ranking.by, ranking.trust) == ("defects_auroc", None)
    text = "\n".join(ranking.lines())
    assert "against the defects given" in text and "how far" not in text


def test_masks_give_pixel_auroc(place):
    """Of all held-out normals and the three defects with a mask."""
    ranking = chosen(place, detectors=["pca"], defects=place / "bad", masks=place / "masks")
    assert (ranking.defects, ranking.masked) == (4, 3)
    tiny, good = place / "tiny.yaml", place / "good"
    held_out = divided(read(find(good), [SIZE]).pixels, plan(tiny, detector="pca")).out
    model = fader.fit(good, detector="pca", preset=tiny, progress=False)
    normal, bad = (model.predict(place / name).maps for name in ("good", "bad"))
    maps = np.concatenate([normal[held_out], bad[:3]])
    truth = np.zeros(maps.shape, np.uint8)
    truth[-3:] = [reduced(mask(number, "scratch")) for number in range(3)]
    (pca,) = ranking.candidates
    assert pca.defects_pixel_auroc == pytest.approx(auroc(maps.ravel(), truth.ravel()), abs=1e-6)
    text = "\n".join(ranking.lines())
    assert "their pixels" in text
    assert "against the defects given (4), then by pixel AUROC on the 3 with a mask" in text
    assert "give --defects as well" in line_of(chosen, place, masks=place / "masks")


def test_of_equal_image_auroc_that_of_pixels_decides():
    facts = {"image_auroc": 1.0, "trained": None, "fit_seconds": 1.0, "parameters": 1}
    facts |= {"milliseconds_per_image": 1.0}
    ranked = {  # defects, their pixels, pixels of synthetic ones
        "first": (0.9, 0.2, 0.1),
        "second": (0.8, 0.7, 0.1),
        "third": (0.8, 0.6, 0.3),
        "fourth": (0.8, 0.6, 0.2),
    }
    names = ("defects_auroc", "defects_pixel_auroc", "pixel_auroc")
    for given in (ranked, {name: (v[0], None, -i) for i, (name, v) in enumerate(ranked.items())}):
        every = [
            Candidate(detector=name, label=name, **facts, **dict(zip(names, values, strict=True)))
            for name, values in reversed(given.items())
        ]
        assert [one.label for one in sorted(every, key=by_defects)] == list(ranked)


def test_what_does_not_fit_the_time_is_left_out(place, monkeypatch):
    monkeypatch.setattr(trainings, "needs", lambda *arguments, suspects: Needs(1e5, 1))
    ranking = chosen(place, minutes=1)
    assert [one.detector for one in ranking.candidates] == ["pca"]
    assert "of its training fit into" in ranking.left_out["U-Net"]
    assert "left out: U-Net" in "\n".join(ranking.lines())
    line = line_of(chosen, place, detectors=["unet"], minutes=1)
    assert "no detector is left" in line


def test_where_no_time_is_left_nothing_is_measured(place, monkeypatch):
    """Neither masks are made nor steps timed once what is not trained has taken the time."""
    monkeypatch.setattr(trainings, "needs", None)
    monkeypatch.setattr(system.System, "masker", None)
    ranking = chosen(place, detectors=["pca", "unet", "ear", "fader"], minutes=1e-6)
    assert [one.detector for one in ranking.candidates] == ["pca"]
    assert all("give more minutes" in reason for reason in ranking.left_out.values())
    assert len(ranking.left_out) == 3


def trainings_of(place, monkeypatch, **options):
    """A ranking of EAR and FADeR, and the trainings that were done for it."""
    done = []
    fit = Ear.fit

    def counted(self, *arguments):
        done.append(self)
        return fit(self, *arguments)

    monkeypatch.setattr(Ear, "fit", counted)
    ranking = chosen(place, detectors=["fader", "ear"], **options)
    return {one.detector: one for one in ranking.candidates}, len(done)


def test_ear_is_trained_once_for_itself_and_fader(place, monkeypatch):
    found, trained = trainings_of(place, monkeypatch, defects=place / "bad")
    assert trained == 1
    tiny = place / "tiny.yaml"
    facts = fader.fit(place / "good", detector="fader", preset=tiny, progress=False).facts
    for name in ("image_auroc", "pixel_auroc"):
        assert getattr(found["fader"], name) == facts["validation"][name]
    assert found["fader"].parameters == facts["parameters"]
    assert plan(tiny, detector="ear") == replace(plan(tiny, detector="fader"), detector="ear")
    assert found["fader"].fit_seconds > found["ear"].fit_seconds


def test_ear_and_fader_are_cut_down_alike(place, monkeypatch):
    monkeypatch.setattr(trainings, "needs", lambda *arguments, suspects: Needs(192, 18))
    found, trained = trainings_of(place, monkeypatch, minutes=2)
    assert trained == 1
    shares = {one.trained for one in found.values()}
    assert len(shares) == 1 and 0.4 < shares.pop() < 0.5  # of 0.95 · 120 s less 18


def test_what_ear_cannot_fader_cannot(place, monkeypatch):
    def diverged(*arguments, **options):
        raise Diverged("EAR", "the loss is not finite", [])

    monkeypatch.setattr(Ear, "fit", diverged)
    ranking = chosen(place, detectors=["ear", "pca", "fader"])
    assert [one.detector for one in ranking.candidates] == ["pca"]
    assert ranking.left_out.keys() == {"EAR", "FADeR"}
    monkeypatch.undo()
    monkeypatch.setattr(system, "search", diverged)
    ranking = chosen(place, detectors=["ear", "fader"])
    assert [one.detector for one in ranking.candidates] == ["ear"]
    assert ranking.left_out.keys() == {"FADeR"}


def test_on_the_command_line(place):
    arguments = ["choose", "--images", str(place / "good"), "--preset", str(place / "tiny.yaml")]
    arguments += ["--detector", "pca", "--json"]
    bad = ["--defects", str(place / "bad"), "--masks", str(place / "masks")]
    for more in ([], bad):
        result = CliRunner().invoke(app, arguments + more)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout.splitlines()[-1])
        (pca,) = found["candidates"]
        assert pca["detector"] == "pca" and found["masked"] == (3 if more else 0)
        assert (pca["defects_pixel_auroc"] is None) == (found["trust"] is not None) == (not more)
