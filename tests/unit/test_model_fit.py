"""A fitted model: the same bytes twice and after a kill, what it keeps, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from folders import line_of, save
from own_images import PATCHCORE, folder_of, pixels, preset, tree
from torch import Tensor

import fader
from fader.config.files import use_preset
from fader.detectors.base import Detector, Images, Scores
from fader.evaluation import cost
from fader.files import digest
from fader.maskers.attention import AttentionMasker
from fader.model import card, settings, system, trainings
from fader.model.settings import plan
from fader.model.trainings import Needs

DETECTORS = ["pca", "unet", "ear", "fader"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return preset(tmp_path_factory.mktemp("preset"))


@pytest.fixture(scope="module")
def models(good, tiny, tmp_path_factory):
    """A model a detector."""
    folder = tmp_path_factory.mktemp("models")
    for name in DETECTORS:
        fader.fit(good, folder / name, detector=name, preset=tiny, progress=False)
    return folder


def same_bytes(one, other):
    """Two models but for what they cost."""
    a, b = tree(one), tree(other)
    assert a.keys() == b.keys()
    assert a["model.safetensors"] == b["model.safetensors"]
    assert a["config.yaml"] == b["config.yaml"]
    facts = [json.loads(files["model.json"]) for files in (a, b)]
    for each in facts:
        del each["cost"], each["identity"]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("name", DETECTORS)
def test_its_own_file_makes_the_same_bytes(name, models, good, tmp_path):
    fader.fit(good, tmp_path / "again", preset=models / name / "config.yaml", progress=False)
    same_bytes(models / name, tmp_path / "again")


@pytest.mark.parametrize("name", DETECTORS)
def test_read_back_it_says_the_same(name, models, good):
    model = fader.load(models / name)
    first, second = model.predict(good), fader.load(models / name).predict(good, batch=5)
    np.testing.assert_allclose(first.scores, second.scores, rtol=1e-5)
    assert first.maps.shape == (12, 32, 32)
    assert (first.defective == (first.scores > model.threshold)).all()
    assert model.facts["images"]["given"] == 12
    assert next(first.restored()).shape == (48, 48)


def test_a_model_in_memory_is_the_one_that_is_saved(good, tiny, tmp_path):
    model = fader.fit(good, detector="ear", preset=tiny, progress=False)
    again = fader.load(model.save(tmp_path / "model"))
    assert (model.predict(good).maps == again.predict(good).maps).all()


def test_everything_is_chosen_and_known(models):
    facts = fader.load(models / "fader").facts
    assert facts["chosen"]["mosaic"] in (4, 8)
    assert facts["chosen"].keys() == {"mosaic", "lr", "schedule"}
    assert facts["steps"].keys() == {"ear", "fader"}
    assert {*facts["validation"]} == {"image_auroc", "pixel_auroc", "warning"}
    assert "dinov2" in facts["licences"]
    assert "DINOv2" in facts["weights"]["masker"]
    card = (models / "fader/README.md").read_text(encoding="utf-8")
    for words in ("FADeR on 12 images", "Threshold", "cannot attest", "licence", "versions"):
        assert words in card


@pytest.mark.parametrize("name", ["pca", "fader", "patchcore"])
def test_the_card_counts_parameters_as_the_table_of_costs(name, models, good, tmp_path):
    if name == "patchcore":  # its bank as full as in the table
        tiny = preset(tmp_path, detectors={"patchcore": PATCHCORE | {"most": 10}})
        model = fader.fit(good, detector=name, preset=tiny, progress=False)
        assert len(model.system.state()["detector/bank"]) == 10
    else:
        model = fader.load(models / name)
    system = f"{name}-dinov2" if name == "fader" else name
    patch = model.facts["chosen"].get("mosaic")  # Φ's
    rows = {row["name"]: row for row in cost.counts(model.plan.config, patch)}
    assert model.facts["parameters"] == rows[system]["parameters"]


@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "config.yaml"])
def test_a_flipped_bit_is_named(file, models, tmp_path):
    shutil.copytree(models / "pca", tmp_path / "model")
    path = tmp_path / "model" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"{file}: damaged" in line_of(fader.load, tmp_path / "model")


def test_a_file_that_is_gone_is_named(models, tmp_path):
    shutil.copytree(models / "pca", tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    assert "model.safetensors" in line_of(fader.load, tmp_path / "model")
    assert "no model in it" in line_of(fader.load, tmp_path)
    assert "no such folder" in line_of(fader.load, tmp_path / "nowhere")


def test_other_pretrained_weights_are_refused(models, tmp_path):
    shutil.copytree(models / "ear", tmp_path / "model")
    path = tmp_path / "model/model.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["identity"]
    facts["weights"]["masker"] = "others"
    path.write_text(json.dumps(facts | {"identity": digest(facts)}), encoding="utf-8")
    assert "was fitted on others" in line_of(fader.load, tmp_path / "model")


def test_nothing_is_overwritten(models, good, tiny, tmp_path):
    options = {"preset": tiny, "detector": "pca", "progress": False}
    assert "a model already" in line_of(fader.fit, good, models / "pca", **options)
    save(tmp_path / "taken/0.png", pixels(0))
    assert "other files" in line_of(fader.fit, good, tmp_path / "taken", **options)
    assert "a file" in line_of(fader.fit, good, tmp_path / "taken/0.png", **options)
    (tmp_path / "empty").mkdir()
    fader.fit(good, tmp_path / "empty", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "taken"]


KILLED = """
import os, sys
import fader
from fader.training import checkpoint, loop
loop.SHORT_SECONDS, loop.CHECKPOINT_SECONDS = -1.0, -1.0
save = checkpoint.Checkpoint.save
def once(self, epoch, *rest):
    save(self, epoch, *rest)
    if epoch == 2:
        os._exit(9)
checkpoint.Checkpoint.save = once
fader.fit(sys.argv[1], sys.argv[2], preset=sys.argv[3], detector="unet", epochs=4)
"""


def test_a_killed_fit_goes_on_to_the_same_bytes(good, tiny, tmp_path, capfd):
    out = tmp_path / "model"
    command = [sys.executable, "-c", KILLED, str(good), str(out), str(tiny)]
    assert subprocess.run(command, capture_output=True).returncode == 9
    assert [path.name for path in tmp_path.iterdir()] == ["model.work"]
    options = {"preset": tiny, "detector": "unet", "epochs": 4}
    fader.fit(good, out, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    epochs = [line for line in capfd.readouterr().err.splitlines() if '"epoch"' in line]
    assert len(epochs) == 2  # the third and the fourth
    fader.fit(good, tmp_path / "whole", **options, progress=False)
    same_bytes(out, tmp_path / "whole")


NOT_OURS = (".model.notes", ".model.1.abcd1234", ".model.999999999.abcd1234", ".other.1.abcd1234")


def killed(model, out, monkeypatch):
    """Save a model in a process of its own, which is killed before the last file."""
    with monkeypatch.context() as patched:
        patched.setattr(card, "text", lambda facts: os.kill(os.getpid(), signal.SIGKILL))
        process = os.fork()
        if not process:
            model.save(out)
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL


def test_what_a_kill_leaves_while_saving_is_gone_after_the_next(models, tmp_path, monkeypatch):
    """A folder of a living process, of another name, or with other files in it stays."""
    killed(fader.load(models / "pca"), tmp_path / "model", monkeypatch)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".model.") and (left / "model.safetensors").is_file()
    for name in NOT_OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    fader.load(models / "pca").save(tmp_path / "model")
    same_bytes(models / "pca", tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NOT_OURS, "model"])


def test_steps_are_cut_to_the_minutes_and_kept(good, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "needs", lambda *arguments, suspects: Needs(120, 9))
    model = fader.fit(
        good, tmp_path / "m", detector="unet", preset=tiny, epochs=50, minutes=1, progress=False
    )
    length = model.plan.config.detectors["unet"].epochs
    assert 10 <= length <= 20  # of 57 seconds, 9 to judge and 120 for all 50
    assert model.facts["steps"] == {"reconstruction": 2 * length}
    fader.fit(good, tmp_path / "again", preset=tmp_path / "m/config.yaml", progress=False)
    same_bytes(tmp_path / "m", tmp_path / "again")


def test_a_steps_time_is_measured(good, tiny):
    for name in ("unet", "fader"):
        options = {"preset": tiny, "detector": name, "minutes": 5, "progress": False}
        assert fader.fit(good, **options).plan == plan(tiny, detector=name)
    line = line_of(fader.fit, good, preset=tiny, detector="unet", minutes=1e-6, progress=False)
    assert "give more minutes" in line


@pytest.mark.parametrize("name", ["unet", "ear", "fader"])
def test_a_fit_scores_as_many_images_as_it_reckons_with(name, good, tiny, monkeypatch):
    reckoned, scored = [], []
    needs, scores = trainings.needs, Detector.scores

    def kept(*arguments, **options):
        reckoned.append(needs(*arguments, **options))
        return reckoned[-1]

    def counted(self: Detector, images: Images) -> Scores:
        scored.append(len(images))
        return scores(self, images)

    monkeypatch.setattr(trainings, "needs", kept)
    monkeypatch.setattr(trainings, "_measured", lambda *arguments: (1.0, 1.0))
    monkeypatch.setattr(Detector, "scores", counted)
    fader.fit(good, detector=name, preset=tiny, minutes=100, progress=False)
    assert [each.judging for each in reckoned] == [sum(scored)]


def test_the_milliseconds_of_an_image_are_of_its_masks_too(good, tiny, monkeypatch):
    saliency = AttentionMasker.saliency

    def slow(self: AttentionMasker, images: Tensor) -> Tensor:
        time.sleep(0.05 * len(images))
        return saliency(self, images)

    monkeypatch.setattr(AttentionMasker, "saliency", slow)
    options = {"detector": "ear", "preset": tiny, "progress": False}
    cost = fader.fit(good, **options).facts["cost"]
    assert cost["milliseconds_per_image"] > 50
    monkeypatch.setattr(system.System, "learning", None)  # the masks of all take 0.05 s each
    assert "give more minutes" in line_of(fader.fit, good, minutes=0.01, **options)


def test_an_image_unlike_the_rest_is_named(tmp_path, tiny, capfd):
    folder_of(tmp_path / "good", 16)
    save(
        tmp_path / "good/odd.png", np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    )
    model = fader.fit(tmp_path / "good", detector="pca", preset=tiny)
    assert model.facts["suspects"][0]["name"] == "odd.png"
    assert "least like the rest: odd.png" in capfd.readouterr().err


WRONG = {
    "no such detector": ({"detector": "uent"}, "did you mean `unet`"),
    "no such preset": ({"preset": "botle"}, "did you mean `bottle`"),
    "a preset that is not there": ({"preset": "nowhere/x.yaml"}, "nowhere/x.yaml"),
    "steps and epochs": ({"detector": "unet", "steps": 3, "epochs": 2}, "one of the two"),
    "steps of PCA": ({"detector": "pca", "steps": 3}, "not trained step by step"),
    "a size that does not fit": ({"detector": "ear", "size": 40}, "with --size 40: image.size"),
    "no steps": ({"detector": "unet", "steps": 0}, "with --steps 0"),
    "no epochs": ({"detector": "ear", "epochs": 0}, "with --epochs 0"),
    "no seed": ({"detector": "pca", "seed": -1}, "with --seed -1"),
    "no white": ({"detector": "pca", "white": 0.0}, "with --white 0"),
    "two of them": ({"detector": "ear", "size": 40, "seed": 3}, "with --size 40, --seed 3: image"),
    "no false alarms": ({"detector": "pca", "false_alarms": 0.0}, "between 0 and 1"),
    "all false alarms": ({"detector": "pca", "false_alarms": 1.0}, "between 0 and 1"),
    "no minutes": ({"detector": "pca", "minutes": 0}, "more than 0"),
    "the default is not there": ({}, "no detector 'patchcore'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_line(case, tiny):
    options, named = WRONG[case]
    assert named in line_of(fader.Model, **{"preset": tiny} | options)


def test_a_preset_that_is_not_there_is_said_as_everywhere(tmp_path):
    presets = settings.PRESETS
    expected = line_of(use_preset, "botle", tmp_path / "params.yaml", presets)
    assert line_of(fader.Model, preset="botle") == expected


def test_faders_length_follows_ears(tiny):
    """EAR's two epochs and FADeR's two in the preset."""
    for options in ({"epochs": 7}, {"steps": 7}):
        config = fader.Model("fader", preset=tiny, **options).plan.config
        for section in (config.ear, config.fader):
            kept = {"steps": section.steps, "epochs": section.epochs}
            assert kept == {"steps": None, "epochs": None} | options


def test_too_few_images_are_refused(tmp_path, tiny):
    folder_of(tmp_path, 5)
    options = {"preset": tiny, "detector": "pca", "progress": False}
    assert "at least 6 images" in line_of(fader.fit, tmp_path, **options)


def test_a_masker_that_learns_is_refused(tmp_path):
    tiny = preset(tmp_path, masks={"base": "dsr"})
    assert "attention masker" in line_of(fader.Model, "ear", preset=tiny)


def test_before_a_fit_nothing_is_said(good, tiny, tmp_path):
    model = fader.Model("pca", preset=tiny)
    calls = [lambda: model.predict(good), lambda: model.save(tmp_path / "m"), lambda: model.facts]
    calls += [lambda: model.threshold, lambda: model.export(tmp_path / "m.onnx")]
    for call in calls:
        with pytest.raises(fader.NotFittedError, match="call fit"):
            call()
    assert issubclass(fader.NotFittedError, ValueError | AttributeError)


def test_the_library_needs_no_workflow_engine():
    code = (
        "import sys\n"
        "sys.modules |= {'snakemake': None, 'dvc': None}\n"
        "import fader\n"
        "assert 'torch' not in sys.modules\n"
        "fader.Model, fader.choose\n"
        "import fader.model.predicting\n"
        "assert 'fader.pipeline.context' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
