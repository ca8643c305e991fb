"""Anomaly maps, metrics and pictures of one method on the test images of a category."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fader import artifacts, metrics, runtime, scoring
from fader.artifacts import Header
from fader.config import Variant
from fader.detectors import ear, fader
from fader.errors import FaderError
from fader.phases.category import Category
from fader.phases.ear import network
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
            mask = fader.feature_mask(self.phi, obfuscated, self.patch, self.variant)
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
    if method not in config.methods():
        raise FaderError(
            f"method {method!r} is not one of this run's ({', '.join(config.methods())})"
        )
    machine = runtime.start(config.runtime)
    stage, _, system = method.partition("-")
    masker = system.partition("-")[0]
    trained = network(category, seed, machine)
    patch = category.mosaic(seed)
    selected: dict[str, Any] = {"mosaic": patch}
    used = [files.ear(seed), files.mosaic(seed), files.mask(masker)]
    phi, variant = None, config.variant(system)
    if stage != "ear":
        path = files.fader(seed, system)
        header = artifacts.check(path, "fader", category.system_settings("fader", system))
        phi = fader.load(trained, artifacts.read_tensors(path), patch, config.fader.hidden, machine)
        selected |= header.facts["picked"]
        used.append(path)
    return Model(trained, phi, patch, variant, machine), masker, selected, used


def evaluate(category: Category, seed: int, method: str) -> None:
    """Anomaly maps and metrics of one method on the test images, and pictures for the figures."""
    config, files = category.config, category.files
    model, masker, selected, used = load_model(category, seed, method)
    machine = model.machine
    packed, about = category.packed()
    masks = category.masks(masker, config.image.size)["test"]
    began = time.perf_counter()
    maps = scoring.maps_of(model.reconstruct, packed["test"], masks, config.score, machine)
    seconds = time.perf_counter() - began
    scores = scoring.image_scores(maps).numpy()
    labels = packed["label"].numpy()
    truth = packed["mask"].numpy()
    measured = metrics.image_metrics(scores, labels) | metrics.pixel_metrics(maps.numpy(), truth)
    used = [files.packed(), *used]
    defects = about.facts["defects"]
    facts = {
        "run": config.run,
        "dataset": category.dataset,
        "category": category.name,
        "seed": seed,
        "method": method,
        "status": "ok",
        "metrics": {name: round(float(value), 6) for name, value in measured.items()},
        "selected": selected,
        "data": {
            "synthetic": about.facts["synthetic"],
            "paper_dataset": about.facts["paper_dataset"],
            "train": len(packed["train"]),
            "test_good": int((labels == 0).sum()),
            "test_defective": int((labels == 1).sum()),
            "size": config.image.size,
        },
        "parameters": model.parameters(),
        "scores": [round(float(score), 6) for score in scores],
        "labels": labels.tolist(),
        "defects": defects,
        "machine": machine.facts(),
    }
    chosen = category.system_settings("evaluate", method.partition("-")[2])
    header = Header("evaluate", chosen, artifacts.inputs(*used), facts)
    shown = _shown(defects, config.figures.images)
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
    artifacts.write_tensors(files.maps(seed, method), pictures, header)
    volatile = {"milliseconds_per_image": round(1000 * seconds / len(maps), 3)}
    artifacts.write_json(files.metrics(seed, method), header, volatile)


def _shown(defects: Sequence[str], count: int) -> list[int]:
    """Indices of ``count`` defective images, evenly spaced over the test set's defect types."""
    defective = [i for i, defect in enumerate(defects) if defect != "good"]
    positions = np.linspace(0, len(defective) - 1, min(count, len(defective))).round().astype(int)
    return [defective[p] for p in dict.fromkeys(positions.tolist())]
