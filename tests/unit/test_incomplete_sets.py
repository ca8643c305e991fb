"""The chain on test sets without masks, without good and without defective images, beside a whole
one: what each of them lets one measure is measured, as on the whole one."""

import contextlib
import shutil
from pathlib import Path

import pytest
from chain import file, make, run, small
from incomplete import NO_DEFECTIVE, NO_GOOD, NO_MASKS, images, sections
from sklearn.metrics import roc_auc_score

from fader.config import Config, parse
from fader.errors import FaderError
from fader.pipeline.artifacts import read_header, read_tensors
from fader.pipeline.jobs import Job
from fader.pipeline.methods import methods
from fader.report.records import Records

WHY = {  # category → why it has no image metrics, and why no pixel metrics
    "whole": ("", ""),
    "bare": ("", NO_MASKS),
    "bad": (NO_GOOD, ""),
    "good": (NO_DEFECTIVE, NO_DEFECTIVE),
}
IMAGE = {"image_auroc", "image_ap", "image_f1max"}
PIXEL = {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"}
COVERAGE = {"mask_recall", "mask_precision", "mask_complete"}
VALIDATION = {"validation_image_auroc", "validation_pixel_auroc"}


def configured(root: Path, policy: str = "search") -> Config:
    """Four categories of two data sets; one masker, one grid point, a control and a baseline."""
    values = small(mosaic={"policy": policy}, ear={"steps": None, "epochs": 1})
    values["masks"]["maskers"] = {"dinov2": values["masks"]["maskers"]["dinov2"]}
    values["fader"] |= {
        "steps": None,
        "epochs": 1,
        "lrs": [0.01],
        "schedules": ["fixed"],
        "tuning": "each",
    }
    values["variants"] = {"nomask": values["variants"]["nomask"]}
    return parse(values | sections(root, WHY), "incomplete")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Config, Path]:
    """Configuration and folder of the finished run; no test changes it."""
    folder = tmp_path_factory.mktemp("incomplete")
    images(folder / "own", WHY)
    config = configured(folder / "own")
    with contextlib.chdir(folder):
        make(config)
    return config, folder


@pytest.fixture
def config(made, monkeypatch) -> Config:
    """Of the finished run, whose folder is the working folder."""
    monkeypatch.chdir(made[1])
    return made[0]


def record(config: Config, place: str, method: str) -> dict:
    job = Job("evaluate", place, seed=0)
    return dict(read_header(file(config, job, f"metrics {method}")).facts)


@pytest.mark.parametrize("place", WHY)
def test_what_can_be_measured_is_and_the_rest_says_why_not(config, place):
    image, pixel = WHY[place]
    for method in map(str, methods(config)):
        found = record(config, place, method)
        alone, trained = method.startswith("mask"), method.startswith(("fader", "control"))
        wanted = dict.fromkeys(IMAGE, image) | dict.fromkeys(PIXEL, pixel)
        wanted |= {"aupimo": pixel or image}  # it needs good images too
        wanted |= dict.fromkeys(COVERAGE, pixel) if alone else dict.fromkeys(VALIDATION, "")
        wanted |= {"oracle_gain": image} if trained or method == "ear-dinov2" else {}
        if alone:
            lacking = {"good": NO_GOOD, "defective": NO_DEFECTIVE}
            wanted |= {f"mask_area_{k}": why if why == image else "" for k, why in lacking.items()}
            wanted |= {"mask_area": ""}
        assert found["metrics"].keys() == {name for name, why in wanted.items() if not why}
        assert found["unmeasured"] == {name: why for name, why in wanted.items() if why}
        assert len(found["scores"]) == len(found["labels"]) > 0
        assert bool(found.get("oracle")) == ("oracle_gain" in found["metrics"])


@pytest.mark.parametrize("place", ["whole", "bare"])
def test_image_metrics_need_no_masks(config, place):
    found = record(config, place, "fader-dinov2")
    auroc = roc_auc_score(found["labels"], found["scores"])
    assert found["metrics"]["image_auroc"] == pytest.approx(auroc, abs=1e-6)


def test_pixel_metrics_of_defective_images_alone_are_those_of_their_pixels(config):
    shown = read_tensors(file(config, Job("evaluate", "bad", seed=0), "maps mask-dinov2"))
    packed = read_tensors(file(config, Job("pack", "bad"), "packed"))
    masks = packed["mask"]
    assert masks.flatten(1).any(1).all() and packed["label"].all()
    found = record(config, "bad", "mask-dinov2")["metrics"]
    saliency = read_tensors(file(config, Job("mask", "bad", "dinov2"), "saliency"))["test"]
    side = 32 // saliency.shape[-1]
    maps = saliency.repeat_interleave(side, 1).repeat_interleave(side, 2)
    auroc = roc_auc_score(masks.flatten(), maps.flatten())
    assert found["pixel_auroc"] == pytest.approx(auroc, abs=1e-6)
    assert len(shown["index"]) == config.report.images


@pytest.mark.parametrize("place", WHY)
def test_pictures_are_of_defective_images_where_there_are_any(config, place):
    shown = read_tensors(file(config, Job("evaluate", place, seed=0), "maps fader-dinov2"))
    labels = read_tensors(file(config, Job("pack", place), "packed"))["label"]
    assert len(shown["index"]) == config.report.images
    assert labels[shown["index"]].bool().all() == (place != "good")


@pytest.mark.parametrize("place", WHY)
def test_the_label_free_criterion_is_there_for_every_set(config, place):
    held = read_tensors(file(config, Job("pack", place), "split"))
    for fold in ("held", "checked"):
        assert len(held[f"{fold}_defects"]) > 0
        assert held[f"{fold}_masks"].flatten(1).any(1).all()
    for method in ("ear-dinov2", "fader-dinov2", "pca"):
        found = record(config, place, method)
        assert all(0 <= value <= 1 for value in found["validation"].values())
        for name in ("image_auroc", "pixel_auroc"):
            kept = found["metrics"][f"validation_{name}"]
            assert kept == pytest.approx(found["validation"][name], abs=1e-6)


def test_the_records_of_all_are_read_together(config):
    found = Records.read(config)
    assert {place: found.lacking(place, "image_auroc") or "" for place in WHY} == {
        place: image for place, (image, _) in WHY.items()
    }
    assert {place: found.lacking(place, "pixel_auroc") or "" for place in WHY} == {
        place: pixel for place, (_, pixel) in WHY.items()
    }
    sources = found.sources.items()
    assert {place: (s.train, s.good, sum(s.defects.values())) for place, s in sources} == {
        "whole": (10, 3, 6),
        "bare": (10, 3, 6),
        "bad": (10, 0, 6),
        "good": (10, 3, 0),
    }


@pytest.mark.parametrize("place", ["bare", "bad", "good"])
def test_the_oracle_policy_needs_what_it_chooses_by(made, tmp_path, monkeypatch, place):
    folder = shutil.copytree(made[1], tmp_path / "run")
    monkeypatch.chdir(folder)
    config = configured(made[1] / "own", policy="oracle")
    lacking = next(filter(None, WHY[place]))
    with pytest.raises(FaderError) as error:
        run(config, Job("mosaic", place, seed=0))
    dataset = "unmasked" if place == "bare" else "masked"
    assert f"mosaic.policy: oracle chooses by test labels and masks, but {dataset}/{place}" in str(
        error.value
    )
    assert lacking in str(error.value) and "\n" not in str(error.value)
    scale = read_header(file(config, Job("mosaic", place, seed=0), "scale"))
    assert scale.facts["policy"] == "search"  # what was there stays
