"""Methods: their names there and back, for every preset."""

import copy
from pathlib import Path

import pytest
from tiny import PRESET

from fader.config import load, parse
from fader.errors import FaderError
from fader.pipeline.jobs import Job, method_of, trained_job
from fader.pipeline.methods import Method, methods, of_variant

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.yaml"))
every_preset = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)

PCA = {"kind": "pca", "components": 4}


def few():
    """Two maskers, a control, an ablation and a baseline."""
    values = copy.deepcopy(PRESET)
    maskers = values["masks"]["maskers"]
    values["masks"] |= {"maskers": {name: maskers[name] for name in ("dinov2", "msflow")}}
    values["masks"]["optional"] = []
    values["variants"] = {name: values["variants"][name] for name in ("nomask", "hard")}
    return parse(values | {"detectors": {"pca": PCA}}, "few")


@every_preset
def test_a_methods_name_says_all_of_it(path):
    found = methods(load(path))
    assert [Method.parse(str(method)) for method in found] == found
    assert len({str(method) for method in found}) == len(found)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (Method("mask", "dino"), "mask-dino"),
        (Method("ear", "dino"), "ear-dino"),
        (Method("fader", "dino"), "fader-dino"),
        (Method("fader", "dino", "vit-b"), "fader-dino-vit-b"),
        (Method("control", "dino", "nomask"), "control-dino-nomask"),
        (Method("detector", "riad"), "riad"),
        (Method("detector", "ear"), "ear"),
    ],
)
def test_names_by_hand(method, name):
    assert str(method) == name
    assert Method.parse(name) == method


@pytest.mark.parametrize("name", ["detector-riad", "winclip-dino", "-dino", "Fader-dino"])
def test_a_name_that_begins_with_no_stage_is_none(name):
    with pytest.raises(FaderError, match=rf"^method '{name}' is none"):
        Method.parse(name)


def test_the_methods_of_a_run_in_order():
    config = few()
    assert [str(method) for method in methods(config)] == [
        *("mask-dinov2", "ear-dinov2", "fader-dinov2"),
        *("mask-msflow", "ear-msflow", "fader-msflow"),
        *("control-dinov2-nomask", "fader-dinov2-hard"),
        "pca",
    ]
    assert str(of_variant(config, "nomask")) == "control-dinov2-nomask"
    assert str(of_variant(config, "hard")) == "fader-dinov2-hard"


def test_what_a_method_is():
    facts = {
        str(m): (m.masker, m.trained, m.trained_on_ear)
        for m in methods(few())
        if m.system != "msflow"
    }
    assert facts == {
        "mask-dinov2": ("dinov2", False, False),
        "ear-dinov2": ("dinov2", False, False),
        "fader-dinov2": ("dinov2", True, True),
        "control-dinov2-nomask": ("dinov2", True, True),
        "fader-dinov2-hard": ("dinov2", True, True),
        "pca": (None, True, False),
    }


@every_preset
def test_the_job_that_trains_a_method_knows_it(path):
    config = load(path)
    evaluating = Job("evaluate", next(iter(config.categories)), seed=config.seeds[0])
    trained = [method for method in methods(config) if method.trained]
    training = [trained_job(config, evaluating, method) for method in trained]
    assert len(set(training)) == len(trained)
    assert [method_of(config, job) for job in training] == trained
    assert all((job.place, job.seed) == (evaluating.place, evaluating.seed) for job in training)


def test_the_jobs_that_train_by_hand():
    config, job = few(), Job("evaluate", "a", seed=3)
    names = {str(m): str(trained_job(config, job, m)) for m in methods(config) if m.trained}
    assert names == {
        "fader-dinov2": "fader.a.seed3",
        "fader-msflow": "plugin.a.msflow.seed3",
        "control-dinov2-nomask": "variant.a.nomask.seed3",
        "fader-dinov2-hard": "variant.a.hard.seed3",
        "pca": "detector.a.pca.seed3",
    }
