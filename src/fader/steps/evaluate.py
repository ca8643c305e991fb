"""Metrics and pictures of one method, or of a masker alone, on the test images of a category."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fader import runtime
from fader.config import Variant
from fader.detectors import ear, fader
from fader.errors import FaderError
from fader.evaluation import metrics, scoring
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.steps import examples
from fader.steps.category import Category
from fader.steps.ear import network
from fader.steps.fader import TEST_SCORES
from fader.vision.mosaic import obfuscate


@dataclass(frozen=True)
class Model:
    """A method ready to reconstruct: EAR with its m*, or FADeR on top of it."""

    network: torch.nn.Module
    phi: torch.nn.Module | None
    patch: int
    variant: Variant
    machine: runtime.Machine

    def reconstruct(self, images: Tensor, masks: Tensor) -> Tensor:
        if self.phi is None:
            return ear.reconstruct(self.network, self.patch, self.machine)(images, masks)
        return fader.reconstruct(self.network, self.phi, self.patch, self.variant, self.machine)(
            images, masks
        )

    def soft_mask(self, images: Tensor, masks: Tensor) -> Tensor:
        """M_S (N, g, g) of images (N, 3, H, W) in [0, 1]; ones where the method has none."""
        grid = images.shape[-1] // self.patch
        mask = None
        if self.phi is not None:
            obfuscated = obfuscate(images, masks, self.patch)
            mask = fader.feature_mask(
                self.network, self.phi, obfuscated, self.variant, self.machine
            )
        return torch.ones(len(images), grid, grid) if mask is None else mask.cpu()

    def parameters(self) -> int:
        modules = [self.network] if self.phi is None else [self.network, self.phi]
        return sum(p.numel() for module in modules for p in module.parameters())


def load_model(
    category: Category, seed: int, method: str
) -> tuple[Model, str, dict[str, Any], list[str]]:
    """(model, masker, what was selected for it, artefacts read) of a method such as
    ``fader-dinov2``."""
    config, files = category.config, category.files
    machine = runtime.start(config.runtime)
    stage, _, system = method.partition("-")
    masker = system.partition("-")[0]
    trained = network(category, seed, machine)
    patch = category.mosaic(seed)
    selected: dict[str, Any] = {"mosaic": patch}
    used = [files.validation(), files.ear(seed), files.mosaic(seed)]
    used.append(category.mask_path(masker, seed))
    phi, variant = None, config.variant(system)
    if stage != "ear":
        path = files.fader(seed, system)
        header = artifacts.check(path, "fader", category.system_settings("fader", system))
        phi = fader.load(trained, artifacts.read_tensors(path), patch, variant, config, machine)
        selected |= header.facts["picked"]
        used.append(path)
    return Model(trained, phi, patch, variant, machine), masker, selected, used


def evaluate(category: Category, seed: int, method: str) -> None:
    """Metrics of one method on the test images, and pictures of some for the figures.

    A method without masks, because its optional masker's weights are missing, gets a record that
    says so.
    """
    config, files = category.config, category.files
    if method not in config.methods():
        raise FaderError(
            f"method {method!r} is not one of this run's ({', '.join(config.methods())})"
        )
    stage, _, system = method.partition("-")
    masker = system.partition("-")[0]
    reason = category.missing(masker, seed)
    if reason is not None:
        found = Result({"status": "missing", "reason": reason}, [category.mask_path(masker, seed)])
    elif stage == "mask":
        found = _of_saliency(category, seed, masker)
    else:
        found = _of_reconstruction(category, seed, method)
    packed, about = category.packed()
    labels = packed["label"]
    facts = {
        "run": config.run,
        "dataset": category.dataset,
        "category": category.name,
        "seed": seed,
        "method": method,
        "data": {
            "synthetic": about.facts["synthetic"],
            "paper_dataset": about.facts["paper_dataset"],
            "train": len(packed["train"]),
            "test_good": int((labels == 0).sum()),
            "test_defective": int((labels == 1).sum()),
            "size": config.image.size,
        },
        "labels": labels.tolist(),
        "defects": about.facts["defects"],
    } | found.facts
    used = artifacts.inputs(files.packed(), *found.used)
    header = Header("evaluate", category.system_settings("evaluate", system), used, facts)
    artifacts.write_tensors(files.maps(seed, method), found.pictures, header)
    artifacts.write_json(files.metrics(seed, method), header, found.volatile)


@dataclass(frozen=True)
class Result:
    """What is particular to a method: facts, artefacts read, pictures, and what may differ between
    equal runs."""

    facts: dict[str, Any]
    used: list[str]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    volatile: dict[str, Any] = field(default_factory=dict)


def _of_reconstruction(category: Category, seed: int, method: str) -> Result:
    """EAR, FADeR or a variant: anomaly maps of the reconstruction."""
    config = category.config
    model, masker, selected, used = load_model(category, seed, method)
    machine = model.machine
    packed, about = category.packed()
    masks = category.masks(masker, seed, config.image.size)["test"]
    judged = examples.label_free(category, masker, seed)
    began = time.perf_counter()
    maps = scoring.maps_of(model.reconstruct, packed["test"], masks, config.score, machine)
    seconds = time.perf_counter() - began
    facts = _measured(maps, packed) | {
        "oracle": _oracle(category, seed, method, packed["label"].numpy()),
        "validation": judged.judge(model.reconstruct, config.score, machine),
        "selected": selected,
        "parameters": model.parameters(),
        "machine": machine.facts(),
    }
    if facts["oracle"]:
        gain = facts["oracle"]["image_auroc"] - facts["metrics"]["image_auroc"]
        facts["metrics"] |= _rounded({"oracle_gain": gain})
    facts["metrics"] |= _rounded(
        {
            "validation_image_auroc": facts["validation"]["image_auroc"],
            "validation_pixel_auroc": facts["validation"]["pixel_auroc"],
        }
    )
    shown = _shown(about.facts["defects"], config.report.images)
    images = machine.images(packed["test"][shown])
    suspected = masks[shown].to(machine.device)
    with torch.inference_mode():
        reconstruction = model.reconstruct(images, suspected)
        soft = model.soft_mask(images, suspected)
    pictures = {
        "index": torch.tensor(shown),
        "reconstruction": (reconstruction * 255).round().to(torch.uint8),
        "soft_mask": soft.half(),
        "map": maps[shown].half(),
        "mask": masks[shown].to(torch.uint8),
    }
    return Result(
        facts, used, pictures, {"milliseconds_per_image": round(1000 * seconds / len(maps), 3)}
    )


def _oracle(category: Category, seed: int, method: str, labels: np.ndarray) -> dict[str, Any]:
    """The best image AUROC that choosing by test labels would have given, and where: over the
    candidates of m* for EAR, over the η × schedule grid and the epochs for what is trained on it.

    From the scores that the very same trainings left behind; where m* was not searched, EAR has no
    other candidate.
    """
    files, stage, system = category.files, *method.partition("-")[::2]
    if stage == "ear":
        facts = category.checked(files.mosaic(seed), "mosaic").facts
        if system != category.config.masks.base or "test_scores" not in facts:
            return {}
        found = {m: metrics.auroc(np.array(s), labels) for m, s in facts["test_scores"].items()}
        best = max(found, key=lambda m: found[m])
        return {"image_auroc": round(found[best], 6), "mosaic": int(best)}
    path = files.fader(seed, system)
    grid = artifacts.read_header(path).facts["grid"]
    scores = artifacts.read_tensors(path, lambda name: name == TEST_SCORES)[TEST_SCORES].numpy()
    found = np.array([[metrics.auroc(epoch, labels) for epoch in point] for point in scores])
    point, epoch = np.unravel_index(found.argmax(), found.shape)
    return {
        "image_auroc": round(float(found[point, epoch]), 6),
        "lr": grid[point]["lr"],
        "schedule": grid[point]["schedule"],
        "epoch": int(epoch) + 1,
    }


def _of_saliency(category: Category, seed: int, masker: str) -> Result:
    """A masker alone: its saliency as an anomaly map, and how much its binary masks cover."""
    config = category.config
    path = category.mask_path(masker, seed)
    header = category.checked(path, "mask", masker=masker)
    coarse = artifacts.read_tensors(path)["saliency/test"].float()
    size = (config.image.size, config.image.size)
    maps = F.interpolate(coarse.unsqueeze(1), size, mode="nearest").squeeze(1)
    masks = category.masks(masker, seed, config.image.size)["test"]
    packed, about = category.packed()
    facts = _measured(maps, packed)
    facts["metrics"] |= _rounded(metrics.mask_metrics(masks.numpy(), packed["mask"].numpy()))
    facts |= {"weights": header.facts["weights"], "machine": header.facts["machine"]}
    shown = _shown(about.facts["defects"], config.report.images)
    pictures = {
        "index": torch.tensor(shown),
        "map": coarse[shown].half(),
        "mask": masks[shown].to(torch.uint8),
    }
    return Result(facts, [path], pictures)


def _measured(maps: Tensor, packed: dict[str, Tensor]) -> dict[str, Any]:
    """Metrics of anomaly maps (N, H, W), and the image scores behind them."""
    scores = scoring.image_scores(maps).numpy()
    found = metrics.image_metrics(scores, packed["label"].numpy())
    found |= metrics.pixel_metrics(maps.numpy(), packed["mask"].numpy())
    return {
        "status": "ok",
        "metrics": _rounded(found),
        "scores": [round(float(score), 6) for score in scores],
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in values.items()}


def _shown(defects: Sequence[str], count: int) -> list[int]:
    """Indices of ``count`` defective images, evenly spaced over the test set's defect types."""
    defective = [i for i, defect in enumerate(defects) if defect != "good"]
    positions = np.linspace(0, len(defective) - 1, min(count, len(defective))).round().astype(int)
    return [defective[p] for p in dict.fromkeys(positions.tolist())]
