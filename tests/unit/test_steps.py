"""The steps of the chain: what they write, and on what it rests.

Everything is measured again here from other files: scores from the trainings' own records, AUROCs
by scikit-learn, choices from the criteria that they were made by.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from chain import (
    CONFIG,
    EAR,
    EVALUATE,
    FADER,
    MOSAIC,
    PACK,
    PLACE,
    alone,
    copied,
    facts,
    file,
    make,
    record,
    small,
)
from sklearn.metrics import roc_auc_score
from tiny import PRESET

from fader import runtime
from fader.config import parse
from fader.errors import FaderError, MissingWeights
from fader.maskers.threshold import binarise, enlarge
from fader.pipeline import phases
from fader.pipeline.artifacts import read_header, read_tensors
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job, trained_job
from fader.pipeline.methods import Method, methods
from fader.steps import evaluate, inputs, models

# What is trained on EAR, and over how many grid points.
POINTS = {
    "fader-dinov2": 4,
    "fader-dsr": 1,  # as the base masker's: tuning is base
    "control-dinov2-nomask": 1,  # it inherits
    "fader-dinov2-hard": 4,
}


@pytest.fixture
def there(whole, monkeypatch) -> None:
    """In the folder of the finished run."""
    monkeypatch.chdir(whole)


def training(name: str) -> Job:
    return trained_job(CONFIG, EVALUATE, Method.parse(name))


def as_float32(scores: list[float]) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def same_scores(one: list[float], other: list[float]) -> bool:
    """Of the same images in other batches, for which a processor may have another kernel."""
    return np.allclose(as_float32(one), as_float32(other), rtol=1e-6, atol=0)


# What is written


@pytest.mark.usefixtures("there")
def test_every_job_writes_its_files_and_no_others():
    made = [job for job in phases.jobs(CONFIG) if job.phase not in ("cost", "report")]
    expected = {path for job in made for path in phases.outputs(CONFIG, job).values()}
    found = {str(path) for path in Path().rglob("*") if path.is_file()}
    assert {path for path in found if "/images/" not in path} == expected
    Context(CONFIG, EVALUATE).verify()


@pytest.mark.usefixtures("there")
def test_every_method_has_a_record_of_every_test_image():
    packed = read_tensors(file(CONFIG, PACK, "packed"))
    count = len(packed["label"])
    for method in methods(CONFIG):
        found = record(CONFIG, str(method))
        assert found["method"] == str(method)
        assert "missing" not in found
        assert (found["place"], found["category"], found["seed"]) == (PLACE, "bolt", 0)
        assert found["labels"] == packed["label"].tolist()
        assert len(found["scores"]) == len(found["defects"]) == count
        assert found["data"]["test_good"] + found["data"]["test_defective"] == count
        assert found["data"]["train"] == 12
        auroc = roc_auc_score(found["labels"], found["scores"])
        assert found["metrics"]["image_auroc"] == pytest.approx(auroc, abs=1e-6)


@pytest.mark.usefixtures("there")
def test_scores_have_nine_digits_which_tell_float32_apart():
    scale = facts(MOSAIC, "scale")
    for name, expected in (
        ("ear-dinov2", scale["test_scores"][str(scale["mosaic"])]),
        ("fader-dinov2", picked("fader-dinov2")[-1].tolist()),
    ):
        scores = record(CONFIG, name)["scores"]
        assert all(float(f"{score:.9g}") == score for score in scores)
        assert same_scores(scores, expected)


@pytest.mark.usefixtures("there")
def test_losses_stand_beside_the_weights():
    for job, stages, epochs in (
        (EAR, ["ear"], 2),
        (FADER, ["fader"], 2),
        (Job("codebook"), None, 1),
        (Job("mask", PLACE, "dsr", 0), None, 1),
    ):
        lines = Path(file(CONFIG, job, "losses")).read_text().splitlines()
        assert lines[0].startswith("stage,epoch,step,lr,loss")
        found = [line.split(",")[0] for line in lines[1:]]
        assert stages is None or sorted(set(found)) == stages
        assert len(found) == epochs * len(set(found))


@pytest.mark.usefixtures("there")
def test_pictures_are_of_defective_images_as_they_were_scored():
    packed = read_tensors(file(CONFIG, PACK, "packed"))
    for name, extra in (
        ("mask-dinov2", {"mask"}),
        ("ear-dinov2", {"mask", "reconstruction"}),
        ("fader-dinov2", {"mask", "reconstruction", "soft_mask"}),
    ):
        shown = read_tensors(file(CONFIG, EVALUATE, f"maps {name}"))
        assert shown.keys() == {"index", "map"} | extra
        assert len(shown["index"]) == CONFIG.report.images
        assert packed["label"][shown["index"]].all()
        scores = torch.tensor(record(CONFIG, name)["scores"])[shown["index"]]
        peaks = shown["map"].float().flatten(1).amax(1)
        assert peaks.allclose(scores, rtol=1e-3, atol=1e-4)


# Masks


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("masker", ["dinov2", "dsr"])
def test_the_masks_of_a_masker_are_of_every_image_and_measured_as_they_are(masker):
    job = Job("mask", PLACE, masker, 0 if masker == "dsr" else None)
    saliency = read_tensors(file(CONFIG, job, "saliency"))
    packed = read_tensors(file(CONFIG, PACK, "packed"))
    held = read_tensors(file(CONFIG, PACK, "split"))
    counts = {name: len(values) for name, values in saliency.items()}
    expected = {
        "train": len(packed["train"]),
        "held_defects": len(held["held_defects"]),
        "checked_defects": len(held["checked_defects"]),
        "test": len(packed["test"]),
    }
    if masker == "dsr":  # it segments
        expected |= {f"native_{name}": count for name, count in expected.items()}
        assert torch.equal(saliency["native_test"].bool(), saliency["test"] > 0.5)
    assert counts == expected
    found = record(CONFIG, f"mask-{masker}")
    cells = torch.arange(32) * saliency["test"].shape[-1] // 32  # nearest neighbours
    peaks = saliency["test"][:, cells][:, :, cells].flatten(1).amax(1)
    assert np.array_equal(as_float32(found["scores"]), peaks.numpy())
    masks = enlarge(binarise(saliency["test"], "mass", 0.6), 32)
    assert found["metrics"]["mask_area"] == pytest.approx(masks.float().mean().item(), abs=1e-6)
    hit = (masks & packed["mask"].bool()).sum() / packed["mask"].sum()
    assert found["metrics"]["mask_recall"] == pytest.approx(hit.item(), abs=1e-6)
    shown = read_tensors(file(CONFIG, EVALUATE, f"maps ear-{masker}"))
    assert shown["mask"].bool().equal(masks[shown["index"]])
    assert found["weights"]


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(("fold", "count"), [("held", 3), ("checked", 2)])
def test_choices_and_checks_are_on_images_that_nothing_was_fitted_on(fold, count):
    packed, held = (read_tensors(file(CONFIG, PACK, name)) for name in ("packed", "split"))
    job = Job("mask", PLACE, "dinov2")
    saliency = read_tensors(file(CONFIG, job, "saliency"))
    masks = {name: enlarge(binarise(values, "mass", 0.6), 32) for name, values in saliency.items()}
    context = Context(CONFIG, EAR)
    fitted, judged = inputs.fitted(context, "dinov2"), inputs.label_free(context, "dinov2", fold)
    out, other = torch.zeros(2, 12, dtype=torch.bool)
    out[held[fold]] = True
    other[held["checked" if fold == "held" else "held"]] = True
    assert out.sum() == count and not (out & other).any()
    for images, rows in ((fitted, ~(out | other)), (judged.normal, out)):
        assert images.pixels.equal(packed["train"][rows])
        assert images.masks.equal(masks["train"][rows])
    # Two defects on each of the held-out normals, and masks of their own.
    assert judged.defective.masks.equal(masks[f"{fold}_defects"])
    assert len(judged.defective) == len(judged.truth) == 2 * count
    assert judged.truth.flatten(1).any(1).all()
    originals = packed["train"][out].repeat_interleave(2, 0)
    changed = (judged.defective.pixels != originals).any(1)
    assert changed.flatten(1).any(1).all()
    assert (changed & ~judged.truth.bool()).float().mean() < 0.05


# Baselines


@pytest.mark.usefixtures("there")
def test_a_baseline_has_neither_masks_nor_choices():
    found = record(CONFIG, "pca")
    assert (found["selected"], found["oracle"]) == ({}, {})
    assert found["validation"].keys() == {"image_auroc", "pixel_auroc"}
    shown = read_tensors(file(CONFIG, EVALUATE, "maps pca"))
    assert shown.keys() == {"index", "map", "reconstruction"}


@pytest.mark.usefixtures("there")
def test_a_baseline_that_trains_on_a_kind_of_defect_is_judged_on_the_others():
    config = parse(small(detectors={"draem": PRESET["detectors"]["draem"]}), "small")
    context = Context(config, EVALUATE)
    kinds = read_header(file(CONFIG, PACK, "split")).facts["kinds"]["checked"]
    assert kinds == ["perlin", "cutpaste", "scar", "swap"]
    whole = inputs.label_free(context, fold="checked")
    judged = evaluate._checked(context, Method.parse("draem"))
    assert judged.normal.pixels.equal(whole.normal.pixels)
    assert judged.defective.pixels.equal(whole.defective.pixels[1:])
    assert judged.truth.equal(whole.truth[1:])
    for other in ("pca", "ear-dinov2"):
        assert len(evaluate._checked(context, Method.parse(other)).defective) == 4
    with pytest.raises(FaderError, match=r"^validation.kinds: every defect of the fold checked"):
        inputs.without(context, whole, kinds, "checked")


# Choices


@pytest.mark.usefixtures("there")
def test_the_mosaic_scale_is_the_best_by_the_label_free_criterion():
    scale = facts(MOSAIC, "scale")
    values = {int(m): result["value"] for m, result in scale["candidates"].items()}
    assert (scale["policy"], set(values)) == ("search", {4, 8})
    assert values[scale["best"]] == max(values.values())
    ties = [int(m) for m, result in scale["candidates"].items() if result["tie"] >= 0.05]
    assert scale["mosaic"] == max(ties)  # the larger of those that tie
    assert record(CONFIG, "ear-dinov2")["selected"] == {"mosaic": scale["mosaic"]}


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(("name", "points"), list(POINTS.items()))
def test_the_grid_point_is_the_best_by_the_label_free_criterion_or_the_base_maskers(name, points):
    found, base = facts(training(name)), facts(FADER)["picked"]
    assert len(found["grid"]) == points
    assert max(point["tie"] for point in found["grid"]) == 1
    best = next(point for point in found["grid"] if point["tie"] >= 0.05)
    assert found["picked"] == {"lr": best["lr"], "schedule": best["schedule"]}
    assert points == 4 or found["picked"] == base
    measured = record(CONFIG, name)
    assert measured["selected"] == {"mosaic": facts(MOSAIC, "scale")["mosaic"]} | found["picked"]


@pytest.mark.usefixtures("there")
def test_the_validation_auroc_is_of_the_fold_that_chose_nothing():
    context = Context(CONFIG, EVALUATE)
    method = Method.parse("fader-dinov2")
    machine = runtime.start(CONFIG.runtime)
    detector = models.trained(context, method, machine)
    judged = inputs.label_free(context, "dinov2", "checked").judge(detector)
    assert record(CONFIG, "fader-dinov2")["validation"] == pytest.approx(judged, abs=1e-9)


# Oracles, a diagnostic


def watched(name: str) -> np.ndarray:
    """Image scores (points, epochs, images) that a training left behind."""
    return read_tensors(file(CONFIG, training(name), "weights"))["test_scores"].numpy()


def picked(name: str) -> np.ndarray:
    """Those of the point that was picked, (epochs, images)."""
    found = facts(training(name))
    points = [{"lr": point["lr"], "schedule": point["schedule"]} for point in found["grid"]]
    return watched(name)[points.index(found["picked"])]


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("name", POINTS)
def test_the_oracle_of_fader_is_the_best_of_all_points_and_epochs(name):
    found = record(CONFIG, name)
    aurocs = {
        (point["lr"], point["schedule"], epoch): roc_auc_score(found["labels"], scores)
        for point, of_point in zip(facts(training(name))["grid"], watched(name), strict=True)
        for epoch, scores in enumerate(of_point, start=1)
    }
    assert len(aurocs) == 2 * len(facts(training(name))["grid"])
    oracle, best = found["oracle"], max(aurocs.values())
    assert oracle["image_auroc"] == pytest.approx(best, abs=1e-6)
    assert aurocs[oracle["lr"], oracle["schedule"], oracle["epoch"]] == best
    gain = best - roc_auc_score(found["labels"], found["scores"])
    assert found["metrics"]["oracle_gain"] == pytest.approx(gain, abs=2e-6)
    assert found["metrics"]["oracle_gain"] >= 0


@pytest.mark.usefixtures("there")
def test_the_oracle_of_ear_is_the_best_of_the_mosaic_scales():
    found, scores = record(CONFIG, "ear-dinov2"), facts(MOSAIC, "scale")["test_scores"]
    aurocs = {int(m): roc_auc_score(found["labels"], values) for m, values in scores.items()}
    assert found["oracle"]["image_auroc"] == pytest.approx(max(aurocs.values()), abs=1e-6)
    assert aurocs[found["oracle"]["mosaic"]] == max(aurocs.values())
    assert record(CONFIG, "ear-dsr")["oracle"] == {}


def test_watching_the_last_epoch_only_leaves_the_oracle_the_choice_of_the_point(lone, monkeypatch):
    monkeypatch.chdir(lone)
    config = alone()
    scores = read_tensors(file(config, FADER, "weights"))["test_scores"]
    found = record(config, "fader-dinov2")
    assert scores.shape == (1, 1, len(found["labels"]))
    assert same_scores(found["scores"], scores[0, 0].tolist())
    assert found["oracle"] == {
        "image_auroc": found["metrics"]["image_auroc"],
        "lr": 0.01,
        "schedule": "fixed",
        "epoch": 1,
    }
    assert found["metrics"]["oracle_gain"] == 0


def test_the_oracle_policy_takes_the_mosaic_scale_by_test_labels(lone, tmp_path, monkeypatch):
    copied(lone, tmp_path / "oracle", monkeypatch)
    config = alone("oracle")
    make(config, "mosaic")
    found = facts(MOSAIC, "scale", config)
    labels = read_tensors(file(config, PACK, "packed"))["label"]
    for scale, result in found["candidates"].items():
        auroc = roc_auc_score(labels, found["test_scores"][scale])
        assert result["image_auroc"] == pytest.approx(auroc)
    best = max(found["candidates"].values(), key=lambda result: result["value"])
    assert found["policy"] == "oracle"
    assert found["candidates"][str(found["mosaic"])] == best


def test_the_fixed_policy_searches_nothing(lone, tmp_path, monkeypatch):
    copied(lone, tmp_path / "fixed", monkeypatch)
    config = alone("fixed")
    make(config, "mosaic", "fader", "plugin", "evaluate")
    found = facts(MOSAIC, "scale", config)
    assert found == {"policy": "fixed", "seed": 0, "mosaic": 8, "candidates": {}}
    ear = record(config, "ear-dinov2")
    assert (ear["selected"], ear["oracle"]) == ({"mosaic": 8}, {})
    assert "oracle_gain" not in ear["metrics"]


# Weights that cannot be had


def test_a_masker_without_weights_gets_records_that_say_so(lone, monkeypatch):
    monkeypatch.chdir(lone)
    config = alone()
    for name in ("mask-dsr", "ear-dsr", "fader-dsr"):
        found = record(config, name)
        assert found["missing"].startswith("absent.pckl: no such file (codebook.file)")
        assert not {"metrics", "scores"} & found.keys()
        assert read_tensors(file(config, EVALUATE, f"maps {name}")) == {}
    assert "missing" not in record(config, "fader-dinov2")


def test_where_it_is_not_optional_the_run_ends_with_one_line(lone, tmp_path, monkeypatch):
    copied(lone, tmp_path / "missing", monkeypatch)
    with pytest.raises(MissingWeights, match=r"^absent\.pckl: no such file") as error:
        make(alone(optional=()), "codebook")
    assert "\n" not in str(error.value)


def test_a_masker_that_is_optional_no_more_ends_the_run_that_was_made_without_it(
    lone, tmp_path, monkeypatch
):
    copied(lone, tmp_path / "needed", monkeypatch)
    for phase in ("plugin", "evaluate"):
        # Its saliency is missing, and so are the images at the side that it wants.
        with pytest.raises(FaderError, match=r"(masks/dsr/seed0|packed/.*)\.safetensors: "):
            make(alone(optional=()), phase)


# ---- what figures 3, 4 and 5 are drawn from


@pytest.mark.usefixtures("there")
def test_a_trace_is_of_the_detector_that_was_measured():
    followed = read_tensors(file(CONFIG, Job("gallery", PLACE), "trace"))
    kept = read_tensors(file(CONFIG, EVALUATE, "maps fader-dinov2"))
    shown = kept["index"].tolist().index(facts(Job("gallery", PLACE), "trace")["shown"])
    for part in ("map", "soft_mask", "mask", "reconstruction"):
        tolerance = 1 if part == "reconstruction" else 2e-3  # half precision
        found, expected = followed[f"tested {part}"].float(), kept[part][shown].float()
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["normal", "tested"])
@pytest.mark.usefixtures("there")
def test_a_trace_holds_the_equations(name):
    found = {
        part.removeprefix(f"{name} "): value.float()
        for part, value in read_tensors(file(CONFIG, Job("gallery", PLACE), "trace")).items()
        if part.startswith(name)
    }
    scale = facts(Job("gallery", PLACE), "trace")["scale"]
    squares = ((found["image"] - found["reconstruction"]) / 255).square().mean(0)
    side = squares.shape[0] // scale
    patches = squares.view(side, scale, side, scale).mean((1, 3))
    torch.testing.assert_close(found["error"], patches, rtol=0.05, atol=2e-4)
    low, high = found["predicted"].min(), found["predicted"].max()
    torch.testing.assert_close(found["soft_mask"], 1 - (found["predicted"] - low) / (high - low))
    torch.testing.assert_close(found["after 0"], found["before 0"] * found["skip 0"])
    hidden = found["mask"].bool()
    assert (found["obfuscated"] == found["image"])[:, ~hidden].all()
