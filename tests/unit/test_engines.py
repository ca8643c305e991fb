"""What ties DVC and Snakemake together, piece by piece; tests/integration/test_dvc.py runs both."""

import fcntl
import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from fader import config
from fader.errors import FaderError
from fader.pipeline import record as engines
from fader.pipeline.phases import PHASES

PRESET = Path(__file__).resolve().parents[2] / "presets" / "ci.yaml"


@pytest.fixture
def loaded() -> config.Config:
    return config.load(PRESET)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)


def recorded(path: str, seconds: float) -> None:
    """A file, and Snakemake's record of it ``seconds`` after its modification."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("made")
    record = Path(".snakemake/metadata") / urlsafe_b64encode(path.encode()).decode()
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"endtime": file.stat().st_mtime + seconds}))


@pytest.mark.parametrize(("seconds", "expected"), [(0, True), (-5, False), (5, False)])
def test_a_file_is_vouched_for_only_as_it_was_when_recorded(seconds, expected):
    recorded("results/x.json", seconds)
    assert engines.vouched("results/x.json") is expected


def test_neither_a_file_without_record_nor_a_record_without_file_is_vouched_for():
    Path("x.json").write_text("")
    recorded("y.json", 0)
    Path("y.json").unlink()
    assert not engines.vouched("x.json")
    assert not engines.vouched("y.json")


def test_images_replaced_after_their_manifest_are_noticed():
    recorded("data/raw/set/manifest.json", 0)
    manifest = Path("data/raw/set/manifest.json")
    image = manifest.parent / "images" / "0.png"
    image.parent.mkdir()
    image.write_text("")
    made = manifest.stat().st_mtime
    os.utime(image.parent, (made - 1, made - 1))
    os.utime(image, (made - 1, made - 1))
    assert engines.vouched("data/raw/set/manifest.json")
    os.utime(image, (made + 1, made + 1))
    assert not engines.vouched("data/raw/set/manifest.json")


def test_only_stale_files_that_snakemake_cannot_judge_are_forced(loaded):
    stage = next(iter(loaded.categories))
    ear, mosaic = (engines.targets(loaded, phase, stage)[0] for phase in ("ear", "mosaic"))
    recorded(ear, 0)
    stale = {f"ear@{stage}": [], f"mosaic@{stage}": [], "report": []}
    assert engines.forced(loaded, stale) == [mosaic, "table", "figure", "numbers"]


def test_a_phase_or_stage_that_does_not_exist_is_one_line(loaded):
    for phase, stage in (("trian", None), ("ear", "nowhere"), ("ear", None), ("report", "x")):
        with pytest.raises(FaderError) as error:
            engines.targets(loaded, phase, stage)
        assert "\n" not in str(error.value)


def test_every_phase_has_targets_for_every_stage(loaded):
    for phase in PHASES:
        alone = {"dataset": loaded.datasets} | {key: [None] for key in engines.OF_RUN}
        stages = alone.get(phase, loaded.categories)
        for stage in stages:
            assert engines.targets(loaded, phase, stage)


def holders(process: int) -> None:
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"read": {}, "write": {"x": {"pid": process, "cmd": "dvc repro"}}}))


def test_snakemake_stays_out_while_dvc_is_at_work_unless_dvc_asked(monkeypatch):
    holders(os.getppid())
    with pytest.raises(FaderError, match=r"DVC .* is at work here"):
        engines.refuse_beside_dvc()
    monkeypatch.setenv("DVC_STAGE", "ear@x")
    engines.refuse_beside_dvc()


def test_a_lock_left_by_a_dead_process_does_not_matter():
    holders(2**22 + 1)  # beyond the largest process number
    engines.refuse_beside_dvc()


def test_a_direct_run_does_not_start_while_dvc_holds_its_lock():
    Path(".dvc/tmp").mkdir(parents=True)
    with Path(".dvc/tmp/lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(FaderError, match="one engine at a time"):
            engines.hold_dvc()
    engines.hold_dvc()
    with Path(".dvc/tmp/lock").open() as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
