"""A baseline whose training diverges: the run goes on, tables say why, and the gate fails."""

from pathlib import Path

import pytest
from chain import PLACE, alone, file, make, record, run

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import paths
from fader.pipeline.artifacts import read_header, read_tensors
from fader.pipeline.jobs import Job
from fader.report.expected import EXPECTED, Expected
from fader.report.gate import compare, passed, render, update
from fader.report.records import Records

ROOT = Path(__file__).parents[2]
WHY = "the loss or a weight is not finite in epoch 1; lower the lr of this detector"
GANOMALY = {"kind": "ganomaly", "latent": 4, "width": 4, "steps": None, "epochs": 2, "batch": 4}


@pytest.fixture(scope="module")
def config() -> Config:
    heavy = {"lr": 0.001, "adversarial": 1.0, "contextual": 1e39, "latent_weight": 1.0}
    pca = {"kind": "pca", "components": 4}
    return alone(detectors={"pca": pca, "ganomaly": GANOMALY | heavy})


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("diverged")
    with pytest.MonkeyPatch.context() as patch:
        (made / "reference").symlink_to(ROOT / "reference")
        patch.chdir(made)
        make(config)
        for job in (Job("cost"), Job("report")):
            run(config, job)
    return made


@pytest.fixture(autouse=True)
def there(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


def test_it_keeps_the_reason_and_no_weights(config):
    weights = file(config, Job("detector", PLACE, "ganomaly", seed=0), "weights")
    assert read_header(weights).facts["diverged"] == WHY
    assert read_tensors(weights) == {}
    assert not list(Path("work").rglob("*ganomaly*/*"))


def test_its_record_is_the_reason_and_others_are_measured(config):
    assert record(config, "ganomaly")["diverged"] == WHY
    assert "metrics" not in record(config, "ganomaly")
    assert record(config, "pca")["metrics"]["image_auroc"] >= 0
    records = Records.read(config)
    assert {str(each.method) for each in records if each.diverged} == {"ganomaly"}


@pytest.mark.parametrize("name", ["table1", "validation", "metrics", "statistics"])
def test_tables_say_why_and_show_no_number(name, config):
    (page,) = (Path(p) for p in paths.table(config.run, name) if p.endswith(".md"))
    text = page.read_text()
    assert f"training diverged: {WHY}" in text
    for other in paths.table(config.run, name):
        assert "nan" not in Path(other).read_text().lower()


def test_the_gate_fails_with_the_reason(config):
    key = ("synthetic_small", "bolt", "pca", "image_auroc")
    value = record(config, "pca")["metrics"]["image_auroc"]
    row = Expected(config.run, *key, value, 0.01, (0,), "measured", "by hand")
    cells = compare(Records.read(config), [row])
    found = {cell.key[2:]: cell.verdict for cell in cells}
    assert found["ganomaly", "image_auroc"] == found["ganomaly", "pixel_auroc"] == "diverged"
    assert found["pca", "image_auroc"] == "ok"
    assert not passed(cells)
    assert passed(cell for cell in cells if cell.key[2] != "ganomaly")
    assert f"diverged: training diverged: {WHY}" in render(cells, colour=False)


def test_nothing_is_expected_of_it(config):
    with pytest.raises(FaderError, match="seed"):
        update(Records.read(config), ROOT / EXPECTED)
