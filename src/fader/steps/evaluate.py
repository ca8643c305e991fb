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
from fader.evaluation.selection import Examples
from fader.evaluation.truth import Measured
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job, mask_job, trained_job
from fader.pipeline.methods import Method, methods
from fader.runtime import Machine
from fader.steps import inputs, models

MISSING = "missing"  # the fact of a method without masks: why
REDRAWN = 8  # test images whose scores are drawn again


@dataclass(frozen=True)
class Result:
    """What is particular to a method: facts, pictures, and what may differ between equal runs."""

    facts: dict[str, Any]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    volatile: dict[str, Any] = field(default_factory=dict)


def evaluate(context: Context) -> None:
    """Measure every method on the test images, and keep pictures of some for the figures.

    A method without masks, because its optional masker's weights are missing, and a detector whose
    training diverged get a record that says so. A metric that the test images do not let one
    measure, for want of masks, of good or of defective images, is not among a record's ``metrics``;
    ``unmeasured`` says why.
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
    if why := _diverged(context, method):
        return Result({models.DIVERGED: why})
    return _of_detector(context, method, models.trained(context, method, machine))


def _diverged(context: Context, method: Method) -> str | None:
    """Why there is no trained detector."""
    if method.stage != "detector":
        return None
    job = trained_job(context.config, context.job, method)
    return context.check(job, "weights").facts.get(models.DIVERGED)


def _of_detector(context: Context, method: Method, detector: Detector) -> Result:
    """Anomaly maps of a trained detector."""
    tested = inputs.tested(context, method.masker, models.side(context, method))
    began = time.perf_counter()
    scores = detector.scores(tested)
    seconds = time.perf_counter() - began
    validation = _checked(context, method).judge(detector)
    label_free = {f"validation_{name}": value for name, value in validation.items()}
    measured = _metrics(context, scores) | Measured(label_free, {})
    oracle, gain = _oracle(context, method, measured)
    facts = _facts(measured | gain | _inconsistency(detector, tested), scores) | {
        "oracle": oracle,
        "validation": validation,
        "selected": _selected(context, method),
        "length": _length(context, trained_job(context.config, context.job, method)),
        "parameters": sum(p.numel() for p in detector.parameters()),
        "machine": detector.machine.facts(),
    }
    shown = _shown(context)
    pictures = _pictures(detector, tested[shown]) | {"map": scores.maps[shown].half()}
    timing = {"milliseconds_per_image": round(1000 * seconds / len(tested), 3)}
    return Result(facts, {"index": shown} | pictures, timing)


def _checked(context: Context, method: Method) -> Examples:
    """The fold on which nothing was chosen; for a baseline that trains on some kinds of synthetic
    defect, with the other kinds alone."""
    side = models.side(context, method)
    examples = inputs.label_free(context, method.masker, fold="checked", side=side)
    if method.stage != "detector":
        return examples
    kinds = context.config.detectors[method.system].trained_on
    return inputs.without(context, examples, kinds, fold="checked") if kinds else examples


def _inconsistency(detector: Detector, tested: inputs.Images) -> Measured:
    """Of a detector that draws at test, how far chance moves the score of an image: its standard
    deviation over seeds, mean over some images, as a share of that over these images."""
    some = torch.linspace(0, len(tested) - 1, min(REDRAWN, len(tested))).long()
    scores = detector.redrawn(tested[some])
    if scores is None:
        return Measured({}, {})
    share = scores.std(0).mean() / scores.mean(0).std().clamp(min=1e-12)
    return Measured({"inconsistency": float(share)}, {})


def _length(context: Context, training: Job) -> dict[str, dict[str, int]]:
    """Stages of a training with their steps and epochs."""
    return context.check(training, "weights").facts["length"]


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
    measured = _metrics(context, scores) | inputs.truth(context).of_masks(masks.numpy())
    facts = _facts(measured, scores) | {
        "weights": header.facts["weights"],
        "length": _length(context, job) if context.config.masks.trained(masker) else {},
        "machine": header.facts["machine"],
    }
    shown = _shown(context)
    pictures = {
        "index": shown,
        "map": coarse[shown].half(),
        "mask": masks[shown].to(torch.uint8),
    }
    return Result(facts, pictures)


def _metrics(context: Context, scores: Scores) -> Measured:
    """Metrics of the test images' scores and maps."""
    truth = inputs.truth(context)
    return truth.of_scores(scores.images.numpy()) | truth.of_maps(scores.maps.numpy())


def _facts(measured: Measured, scores: Scores) -> dict[str, Any]:
    """Metrics and image scores as kept: nine digits tell any two float32 numbers apart."""
    return {
        "metrics": {name: round(float(value), 6) for name, value in measured.values.items()},
        "unmeasured": measured.unmeasured,
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


def _oracle(
    context: Context, method: Method, measured: Measured
) -> tuple[dict[str, Any], Measured]:
    """What choosing by test labels would have given: see ``_oracle_of_ear`` and
    ``_oracle_of_fader``; and ``oracle_gain``, how much higher its image AUROC is."""
    scale = context.check(context.job.of("mosaic"), "scale").facts
    of_ear = method == Method("ear", context.config.masks.base) and models.SCORES in scale
    if not (of_ear or method.trained_on_ear):
        return {}, Measured({}, {})
    if "image_auroc" in measured.unmeasured:
        return {}, Measured({}, {"oracle_gain": measured.unmeasured["image_auroc"]})
    labels = inputs.packed(context)[0]["label"].numpy()
    if of_ear:
        best = _oracle_of_ear(scale[models.SCORES], labels)
    else:
        best = _oracle_of_fader(context, method, labels)
    gain = best["image_auroc"] - measured.values["image_auroc"]
    return best, Measured({"oracle_gain": gain}, {})


def _oracle_of_ear(scores: Mapping[str, Sequence[float]], labels: np.ndarray) -> dict[str, Any]:
    """The best image AUROC over the candidates of m*, and which has it; where m* was not searched,
    there is no other candidate, and no oracle."""
    candidates = {scale: metrics.auroc(np.array(each), labels) for scale, each in scores.items()}
    best = max(candidates, key=lambda scale: candidates[scale])
    return {"image_auroc": round(candidates[best], 6), "mosaic": int(best)}


def _oracle_of_fader(context: Context, method: Method, labels: np.ndarray) -> dict[str, Any]:
    """The best image AUROC over the η × schedule grid and the watched epochs, and where, from the
    scores that the very same trainings left behind."""
    job = trained_job(context.config, context.job, method)
    path, facts = context.path(job, "weights"), context.check(job, "weights").facts
    grid, epochs = facts["grid"], facts["length"]["fader"]["epochs"]
    scores = artifacts.read_arrays(path, {models.SCORES})[models.SCORES]
    aurocs = np.array([[metrics.auroc(epoch, labels) for epoch in point] for point in scores])
    point, epoch = np.unravel_index(aurocs.argmax(), aurocs.shape)
    return {
        "image_auroc": round(float(aurocs[point, epoch]), 6),
        "lr": grid[point]["lr"],
        "schedule": grid[point]["schedule"],
        "epoch": int(epoch) + 1 if aurocs.shape[1] == epochs else epochs,
    }


def _shown(context: Context) -> Tensor:
    """Indices of the images that figures show: defective ones, evenly spaced over the defect types;
    good ones where the test set has no other."""
    defects: Sequence[str] = inputs.packed(context)[1].facts["defects"]
    defective = [i for i, defect in enumerate(defects) if defect != "good"]
    choice = defective or list(range(len(defects)))
    count = min(context.config.report.images, len(choice))
    positions = np.linspace(0, len(choice) - 1, count).round().astype(int)
    return torch.tensor([choice[p] for p in dict.fromkeys(positions.tolist())])
