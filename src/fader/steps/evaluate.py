"""Metrics and pictures of every method of a category and seed on its test images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fader import runtime
from fader.detectors import Detector, Scores
from fader.evaluation import metrics
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.pipeline.jobs import mask_job, trained_job
from fader.pipeline.methods import Method, methods
from fader.runtime import Machine
from fader.steps import inputs, models

MISSING = "missing"  # the fact of a method without masks: why


@dataclass(frozen=True)
class Result:
    """What is particular to a method: facts, pictures, and what may differ between equal runs."""

    facts: dict[str, Any]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    volatile: dict[str, Any] = field(default_factory=dict)


def evaluate(context: Context) -> None:
    """Measure every method on the test images, and keep pictures of some for the figures.

    A method without masks, because its optional masker's weights are missing, gets a record that
    says so.
    """
    machine = runtime.start(context.config.runtime)
    header = context.header(_about(context))
    for method in methods(context.config):
        result = _measure(context, method, machine)
        facts = {**header.facts, "method": str(method), **result.facts}
        of_method = replace(header, facts=facts)
        artifacts.write_tensors(context.output(f"maps {method}"), result.pictures, of_method)
        artifacts.write_json(context.output(f"metrics {method}"), of_method, result.volatile)


def _about(context: Context) -> dict[str, Any]:
    """What holds for every method of the category and seed."""
    tensors, packed = inputs.packed(context)
    labels = tensors["label"]
    return {
        "run": context.config.run,
        "place": context.job.place,
        "dataset": context.dataset,
        "category": context.category,
        "seed": context.job.seed,
        "data": {
            "synthetic": packed.facts["synthetic"],
            "paper_dataset": packed.facts["paper_dataset"],
            "train": len(tensors["train"]),
            "test_good": int((labels == 0).sum()),
            "test_defective": int((labels == 1).sum()),
            "size": context.config.image.size,
        },
        "labels": labels.tolist(),
        "defects": packed.facts["defects"],
    }


def _measure(context: Context, method: Method, machine: Machine) -> Result:
    if method.masker in context.config.missing:
        return Result({MISSING: context.config.missing[method.masker]})
    if method.stage == "mask":
        return _of_saliency(context, method.system)
    return _of_detector(context, method, models.trained(context, method, machine))


def _of_detector(context: Context, method: Method, detector: Detector) -> Result:
    """Anomaly maps of a trained detector."""
    tested = inputs.tested(context, method.masker)
    began = time.perf_counter()
    scores = detector.scores(tested)
    seconds = time.perf_counter() - began
    validation = _validation(context, method, detector)
    measured = _metrics(context, scores) | {
        "validation_image_auroc": validation["image_auroc"],
        "validation_pixel_auroc": validation["pixel_auroc"],
    }
    oracle = _oracle(context, method)
    if oracle:
        measured["oracle_gain"] = oracle["image_auroc"] - measured["image_auroc"]
    facts = _facts(measured, scores) | {
        "oracle": oracle,
        "validation": validation,
        "selected": _selected(context, method),
        "parameters": sum(p.numel() for p in detector.parameters()),
        "machine": detector.machine.facts(),
    }
    shown = _shown(context)
    pictures = _pictures(detector, tested[shown]) | {"map": scores.maps[shown].half()}
    timing = {"milliseconds_per_image": round(1000 * seconds / len(tested), 3)}
    return Result(facts, {"index": shown} | pictures, timing)


def _validation(context: Context, method: Method, detector: Detector) -> dict[str, float]:
    """The label-free criterion: that by which a grid point was picked, or measured now."""
    if not method.trained_on_ear:
        return inputs.label_free(context, method.masker).judge(detector)
    job = trained_job(context.config, context.job, method)
    facts = context.check(job, "weights").facts
    (picked,) = (p for p in facts["grid"] if facts["picked"].items() <= p.items())
    return {name: value for name, value in picked.items() if name not in facts["picked"]}


@torch.inference_mode()
def _pictures(detector: Detector, images: inputs.Images) -> dict[str, Tensor]:
    """What a detector shows of images beside their maps."""
    pixels = detector.machine.images(images.pixels)
    masks = None if images.masks is None else images.masks.to(pixels.device)
    pictures = {name: value.half() for name, value in detector.explain(pixels, masks).items()}
    reconstruction = detector.reconstruct(pixels, masks)
    if reconstruction is not None:
        pictures["reconstruction"] = (reconstruction * 255).round().to(torch.uint8)
    if images.masks is not None:
        pictures["mask"] = images.masks.to(torch.uint8)
    return pictures


def _of_saliency(context: Context, masker: str) -> Result:
    """A masker alone: its saliency as an anomaly map, and how much its binary masks cover."""
    job = mask_job(context.config, context.job, masker)
    header = context.check(job, "saliency")
    coarse = inputs.saliency(context, masker)["test"]
    size = (context.config.image.size, context.config.image.size)
    maps = F.interpolate(coarse.unsqueeze(1), size, mode="nearest").squeeze(1)
    scores = Scores(maps, maps.flatten(1).amax(1))
    masks = inputs.masks(context, masker, "test")
    truth = inputs.packed(context)[0]["mask"]
    measured = _metrics(context, scores) | metrics.mask_metrics(masks.numpy(), truth.numpy())
    facts = _facts(measured, scores) | {
        "weights": header.facts["weights"],
        "machine": header.facts["machine"],
    }
    shown = _shown(context)
    pictures = {
        "index": shown,
        "map": coarse[shown].half(),
        "mask": masks[shown].to(torch.uint8),
    }
    return Result(facts, pictures)


def _metrics(context: Context, scores: Scores) -> dict[str, float]:
    """Metrics of the test images' scores and maps."""
    tensors = inputs.packed(context)[0]
    of_images = metrics.image_metrics(scores.images.numpy(), tensors["label"].numpy())
    return of_images | metrics.pixel_metrics(scores.maps.numpy(), tensors["mask"].numpy())


def _facts(measured: Mapping[str, float], scores: Scores) -> dict[str, Any]:
    """Metrics and image scores as kept: nine digits tell any two float32 numbers apart."""
    return {
        "metrics": {name: round(float(value), 6) for name, value in measured.items()},
        "scores": [float(f"{score:.9g}") for score in scores.images.tolist()],
    }


def _selected(context: Context, method: Method) -> dict[str, Any]:
    """What was chosen for a method without labels: m*, η and schedule."""
    if not method.masker:
        return {}
    selected: dict[str, Any] = {"mosaic": models.mosaic(context)}
    if method.trained:
        job = trained_job(context.config, context.job, method)
        selected |= context.check(job, "weights").facts["picked"]
    return selected


def _oracle(context: Context, method: Method) -> dict[str, Any]:
    """The best image AUROC that choosing by test labels would have given, and where: over the
    candidates of m* for EAR, over the η × schedule grid and the watched epochs for what is trained
    on it.

    From the scores that the very same trainings left behind; where m* was not searched, EAR has no
    other candidate.
    """
    labels = inputs.packed(context)[0]["label"].numpy()
    if method.trained_on_ear:
        return _oracle_of_fader(context, method, labels)
    of_mosaic = context.check(context.job.of("mosaic"), "scale").facts
    base = method == Method("ear", context.config.masks.base)
    if not base or models.SCORES not in of_mosaic:
        return {}
    candidates = {
        scale: metrics.auroc(np.array(scores), labels)
        for scale, scores in of_mosaic[models.SCORES].items()
    }
    best = max(candidates, key=lambda scale: candidates[scale])
    return {"image_auroc": round(candidates[best], 6), "mosaic": int(best)}


def _oracle_of_fader(context: Context, method: Method, labels: np.ndarray) -> dict[str, Any]:
    job = trained_job(context.config, context.job, method)
    path = context.path(job, "weights")
    grid = context.check(job, "weights").facts["grid"]
    scores = artifacts.read_arrays(path, {models.SCORES})[models.SCORES]
    aurocs = np.array([[metrics.auroc(epoch, labels) for epoch in point] for point in scores])
    point, epoch = np.unravel_index(aurocs.argmax(), aurocs.shape)
    epochs = context.config.fader.epochs
    return {
        "image_auroc": round(float(aurocs[point, epoch]), 6),
        "lr": grid[point]["lr"],
        "schedule": grid[point]["schedule"],
        "epoch": int(epoch) + 1 if aurocs.shape[1] == epochs else epochs,
    }


def _shown(context: Context) -> Tensor:
    """Indices of the defective images that figures show, evenly spaced over the defect types."""
    defects: Sequence[str] = inputs.packed(context)[1].facts["defects"]
    defective = [i for i, defect in enumerate(defects) if defect != "good"]
    count = min(context.config.report.images, len(defective))
    positions = np.linspace(0, len(defective) - 1, count).round().astype(int)
    return torch.tensor([defective[p] for p in dict.fromkeys(positions.tolist())])
