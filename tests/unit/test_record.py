"""What ties Snakemake and DVC together, piece by piece; tests/integration/test_dvc.py runs both."""

import json
import os
import re
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from fader.config import Config, load
from fader.errors import FaderError
from fader.pipeline import phases, record

PRESET = Path(__file__).resolve().parents[2] / "presets" / "ci.yaml"
BOLT = "synthetic_small-bolt"


@pytest.fixture
def loaded() -> Config:
    return load(PRESET)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)


def recorded(path: str, seconds: float) -> None:
    """A file, and Snakemake's record of it ``seconds`` after its modification."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("made")
    entry = Path(".snakemake/metadata") / urlsafe_b64encode(path.encode()).decode()
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(json.dumps({"endtime": file.stat().st_mtime + seconds}))


@pytest.mark.parametrize(("seconds", "expected"), [(0, True), (-5, False), (5, False)])
def test_a_file_is_vouched_for_only_as_it_was_when_recorded(seconds, expected):
    recorded("results/x.json", seconds)
    assert record.vouched("results/x.json") is expected


def test_neither_a_file_without_record_nor_a_record_without_file_is_vouched_for():
    Path("x.json").write_text("")
    recorded("y.json", 0)
    Path("y.json").unlink()
    assert not record.vouched("x.json")
    assert not record.vouched("y.json")


def test_images_replaced_after_their_manifest_are_noticed():
    recorded("data/made/set/manifest.json", 0)
    manifest = Path("data/made/set/manifest.json")
    image = manifest.parent / "images" / "0.png"
    image.parent.mkdir()
    image.write_text("")
    made = manifest.stat().st_mtime
    os.utime(image.parent, (made - 1, made - 1))
    os.utime(image, (made - 1, made - 1))
    assert record.vouched("data/made/set/manifest.json")
    os.utime(image, (made + 1, made + 1))
    assert not record.vouched("data/made/set/manifest.json")


def test_only_files_of_stale_stages_that_snakemake_cannot_judge_are_forced(loaded):
    (ear,) = phases.jobs(loaded, "ear")
    (mosaic,) = phases.jobs(loaded, "mosaic")
    made = list(phases.outputs(loaded, ear).values())
    for path in made:
        recorded(path, 0)
    assert record.forced(loaded, {f"ear@{BOLT}": []}) == []
    recorded(made[0], 5)
    stale = {f"ear@{BOLT}": [], f"mosaic@{BOLT}": [], "ear@elsewhere": [], "inputs": []}
    scale = list(phases.outputs(loaded, mosaic).values())
    assert record.forced(loaded, stale) == [made[0], *scale]


def test_what_is_forced_of_a_system_is_its_own(loaded):
    masks = {job.system: job for job in phases.jobs(loaded, "mask")}
    for system in ("dinov2", "dsr"):
        files = list(phases.outputs(loaded, masks[system]).values())
        assert record.forced(loaded, {f"mask@{BOLT}-{system}": []}) == files
    report = next(iter(phases.jobs(loaded, "report")))
    assert record.forced(loaded, {"report": []}) == list(phases.outputs(loaded, report).values())


@pytest.mark.parametrize(
    ("phase", "place", "system", "words"),
    [
        ("trian", None, None, "no phase 'trian'"),
        ("ear", "nowhere", None, "has no place 'nowhere'"),
        ("ear", None, None, "has no place None"),
        ("report", "x", None, "takes no place"),
        ("mask", BOLT, None, "needs a system"),
        ("ear", BOLT, "dinov2", "takes no system"),
        ("mask", BOLT, "dino", "has no system 'dino'"),
    ],
)
def test_a_stage_that_does_not_exist_is_one_line(loaded, phase, place, system, words):
    with pytest.raises(FaderError, match=words) as error:
        record.targets(loaded, phase, place, system)
    assert "\n" not in str(error.value)


def test_a_stage_asks_for_all_files_of_all_its_seeds(loaded):
    two = loaded.model_copy(update={"seeds": [0, 1]})
    made = [phases.outputs(two, job).values() for job in phases.jobs(two, "ear")]
    assert len(made) == 2
    assert record.targets(two, "ear", BOLT) == [path for paths in made for path in paths]
    # The base masker is no plug-in of itself: DVC has that stage, the run no such job.
    assert record.targets(two, "plugin", BOLT, "dinov2") == []


@pytest.mark.parametrize(("name", "said"), [("a {x} b", "a {x} b"), ("a\udcffb", r"a\xffb")])
def test_below_a_name_that_dvc_trips_over_it_is_refused(tmp_path, monkeypatch, name, said):
    record.require_dvc()
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(FaderError, match=re.escape(f"{said}: DVC cannot work below a name")):
        record.require_dvc()
