"""The whole report of a run whose artefacts are made up."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from factory import BOLT, NUT, REFERENCE, make_run, tiny

from fader.errors import FaderError
from fader.pipeline import artifacts, paths, phases
from fader.pipeline.jobs import Job
from fader.report import warnings
from fader.report.records import Records

CONFIG = tiny(
    (BOLT, NUT),
    maskers=("dinov2", "vit", "dsr"),
    detectors=("unet", "pca"),
    variants=("hard", "nomask"),
    seeds=(0, 1),
    masks__optional=["vit"],
)
MAKE = """
import sys
from pathlib import Path
from fader import config
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job
from fader.report import make_report
make_report(Context(config.load(Path("params.yaml")), Job("report")))
print([name for name in ("torch", "timm") if name in sys.modules])
"""


def python(code: str, folder: Path) -> str:
    """What a program prints that runs in a folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run of every kind of method, without its report."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "reference").symlink_to(REFERENCE)
    (folder / "params.yaml").write_text(yaml.safe_dump(CONFIG.plain), encoding="utf-8")
    with contextlib.chdir(folder):
        make_run(CONFIG)
    return folder


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """A copy with its report, and what its process printed."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("made") / "run", symlinks=True)
    return folder, python(MAKE, folder)


@pytest.fixture
def reported(made, monkeypatch):
    """The run with its report is the working folder."""
    monkeypatch.chdir(made[0])


@pytest.fixture
def own(run, tmp_path, monkeypatch):
    """A copy of the run without report, to be changed, is the working folder."""
    monkeypatch.chdir(shutil.copytree(run, tmp_path / "run", symlinks=True))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_files_are_written_and_no_other(run, made):
    assert files(made[0]) - files(run) == set(paths.report(CONFIG))


def test_the_report_does_without_torch(made):
    assert made[1] == "[]\n"


def test_warnings_are_read_from_the_validation_table(reported):
    assert [line.partition(" the validation")[0] for line in warnings(CONFIG)] == [
        "Warning: synthetic/bolt:",
        "Warning: synthetic/nut:",
    ]
    page = Path(paths.table(CONFIG.run, "validation")[1]).read_text(encoding="utf-8")
    assert all(f"- {line}\n" in page for line in warnings(CONFIG))
    assert warnings(tiny((BOLT, NUT), report__warn_below=0.6)) == []


def test_there_is_no_warning_before_there_is_a_report(own):
    assert warnings(CONFIG) == []


def test_what_is_asked_for_warnings_is_quick_to_import(tmp_path):
    code = "import sys, fader.report; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    assert python(code, tmp_path) == "set()\n"


def test_curves_and_losses_are_of_every_method_and_training(reported):
    def curves(kind, column):
        path = Path(paths.curve(CONFIG.run, kind, "synthetic-bolt"))
        with path.open(encoding="utf-8", newline="") as stream:
            return {row[column] for row in csv.DictReader(stream)}

    roc = curves("roc", "method")
    assert {"unet seed 0", "fader-dinov2-hard seed 1", "mask-dsr seed 0"} <= roc
    assert not any("vit" in name for name in roc)  # its weights are missing
    losses = curves("losses", "curve")
    assert {
        "ear seed 0 loss",
        "mask-dsr seed 1 loss",
        "fader-dsr seed 0 loss",
        "control-dinov2-nomask seed 0 loss",
        "pca seed 1 loss",
    } <= losses


def test_averages_for_dvc_are_per_data_set(reported):
    found = json.loads(Path(paths.numbers(CONFIG.run)[0]).read_text(encoding="utf-8"))
    assert found["average"]["synthetic"]["pca"]["image_auroc"] == 1.0
    assert found["pixel_auroc"]["fader-dinov2"] == {"synthetic/bolt": 0.8, "synthetic/nut": 0.8}
    assert "ear-vit" not in found["average"]["synthetic"]


def test_records_of_a_run_are_read_once_and_in_full(reported):
    found = Records.read(CONFIG)
    assert len(list(found)) == 2 * 2 * (3 * 3 + 2 + 2)
    assert found.machines == [("A processor", "fp32")]


def test_what_is_stale_anywhere_behind_the_records_is_refused(own):
    job = Job("ear", "synthetic-nut", seed=1)
    path = phases.outputs(CONFIG, job)["weights"]
    header = artifacts.read_header(path)
    other = artifacts.Header(header.kind, header.settings, header.inputs, {"another": 1})
    artifacts.write_tensors(path, {}, other)
    with pytest.raises(FaderError, match=r"stale, made from another .*ear"):
        Records.read(CONFIG)


def test_a_missing_metrics_file_is_named(own):
    job = Job("evaluate", "synthetic-bolt", seed=0)
    path = phases.outputs(CONFIG, job)["metrics pca"]
    Path(path).unlink()
    with pytest.raises(FaderError, match=f"{path}: no such file"):
        Records.read(CONFIG)
