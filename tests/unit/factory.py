"""The one tiny configuration and the one factory of records that the tests of the report share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from fader.config import Config, parse
from fader.files import write_text
from fader.pipeline import artifacts, phases
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job, of_method
from fader.pipeline.methods import Method, methods
from fader.report.records import Record, Records

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reference"
PRESET = yaml.safe_load((ROOT / "presets/ci.yaml").read_text(encoding="utf-8"))

Pair = tuple[str, str]
BOLT, NUT = ("synthetic", "bolt"), ("synthetic", "nut")

SYNTHETIC = PRESET["datasets"]["synthetic_small"]
DATASETS = {
    "synthetic": SYNTHETIC,
    "mvtec_ad": {"source": "mvtec_ad", "layout": "mvtec", "mirrors": []},
    "visa": {"source": "visa", "layout": "visa", "mirrors": []},
    "own": {"source": "folder", "layout": "mvtec", "root": "x", "paper": None, "complete": False},
}
MASKERS = PRESET["masks"]["maskers"] | {
    "dino": {"kind": "attention", "backbone": "dino", "input_size": 64, "batch": 16},
}
DETECTORS = PRESET["detectors"]

LABELS = (0, 0, 1, 1)
SCORES = (0.1, 0.2, 0.3, 0.4)


def tiny(
    places: Sequence[Pair] = (BOLT,),
    maskers: Iterable[str] | Mapping[str, Any] = ("dinov2",),
    detectors: Iterable[str] = (),
    variants: Iterable[str] = (),
    seeds: Sequence[int] = (0,),
    run: str = "demo",
    **changes: Any,
) -> Config:
    """The ci preset with these categories, maskers (the first is the base), baselines, variants.

    Parameters
    ----------
    maskers : names of ``MASKERS``, or settings by name.
    changes : dotted key with ``__`` for the dot → value.
    """
    if not isinstance(maskers, Mapping):
        maskers = {name: MASKERS[name] for name in maskers}
    values = PRESET | {
        "run": run,
        "seeds": list(seeds),
        "categories": {f"{d}-{c}": {"dataset": d, "category": c} for d, c in places},
        "datasets": {dataset: DATASETS[dataset] for dataset, _ in places},
        "masks": PRESET["masks"]
        | {"base": next(iter(maskers)), "optional": [], "maskers": dict(maskers)},
        "detectors": {name: DETECTORS[name] for name in detectors},
        "variants": {name: PRESET["variants"][name] for name in variants},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section] = values[section] | {name: value}
    return parse(values, "tiny")


def ok(
    pair: Pair,
    method: str,
    seed: int = 0,
    image: float | None = 0.9,
    pixel: float | None = 0.8,
    scores: Sequence[float] = SCORES,
    labels: Sequence[int] = LABELS,
    data: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    unmeasured: Mapping[str, str] | None = None,
    length: Mapping[str, Mapping[str, int]] | None = None,
    **metrics: float,
) -> Record:
    """A record of a method that ran; ``records`` fills in the data where they are not given."""
    return Record(
        place="-".join(pair),
        method=Method.parse(method),
        seed=seed,
        data=data,
        metrics={"image_auroc": image, "pixel_auroc": pixel} | metrics,
        unmeasured=unmeasured or {},
        scores=scores,
        labels=labels,
        machine=machine,
        length=length or {},
    )


def missing(pair: Pair, method: str, reason: str, seed: int = 0) -> Record:
    return Record("-".join(pair), Method.parse(method), seed, None, missing=reason)


def records(config: Config, given: Iterable[Record]) -> Records:
    """Records of a run: those given; all others are missing, because they are "not run"."""
    given = list(given)
    keys = {(record.place, record.method, record.seed) for record in given}
    others = [
        Record(place, method, seed, None, missing="not run")
        for place in config.categories
        for method in methods(config)
        for seed in config.seeds
        if (place, method, seed) not in keys
    ]
    return Records(config, [_with_data(config, record) for record in [*given, *others]])


def _with_data(config: Config, record: Record) -> Record:
    if record.data is not None or record.place not in config.categories:
        return record
    dataset = config.categories[record.place].dataset
    return replace(
        record,
        data={
            "synthetic": config.datasets[dataset].source == "synthetic",
            "paper_dataset": config.public_set(dataset),
            "size": config.image.size,
        },
    )


def row(frame, **where):
    """The one row of a frame with these values."""
    for name, value in where.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


# A run on disk: every artefact of the table of phases, with made-up contents and true headers.

DEFECTS = ("good", "scratch", "good", "hole")
PACK = {
    "counts": {"train": 3, "test": {"good": 2, "scratch": 1, "hole": 1}},
    "defects": list(DEFECTS),
    "test": [f"test/{defect}/{number:03}.png" for number, defect in enumerate(DEFECTS)],
    "difficulty": [None, 0.1, None, 0.9],
    "masks": "present",
    "ignored": {},
    "warnings": [],
}
SHOWN = (1, 3)
MACHINE = {"device": "A processor", "precision": "fp32"}


def make_run(
    config: Config,
    pack: Mapping[str, Any] = PACK,
    scores: Sequence[float] = SCORES,
    diverged: Mapping[str, str] | None = None,
) -> None:
    """Write all artefacts of a run but the report, in the working folder.

    Parameters
    ----------
    pack : facts of the images.
    scores : of the test images, by every method.
    diverged : method → why its training ended without a detector.
    """
    for job in phases.jobs(config):
        if job.phase == "evaluate":
            make_evaluation(config, job, scores=scores, diverged=diverged)
        elif job.phase != "report":
            _make(config, job, pack)


def _make(config: Config, job: Job, pack: Mapping[str, Any]) -> None:
    context = Context(config, job)
    header = context.header(_facts(config, job, pack))
    for name, path in phases.outputs(config, job).items():
        if name == "losses":
            write_text(path, "stage,epoch,step,lr,loss\nmain,1,4,0.1,0.5\nmain,2,8,0.1,0.25\n")
        elif name == "normals":
            write_text(path, "{}\n")
        elif path.endswith(".json"):
            artifacts.write_json(path, header, {"timings": {f"ear-{config.masks.base}": [TIMING]}})
        else:
            of_name = {"packed": images, "pictures": gallery, "trace": trace}.get(name)
            artifacts.write_tensors(path, of_name(config) if of_name else {}, header)


CANDIDATES = {"4": {"value": 0.9}, "8": {"value": 0.8}}
TEST_SCORES = {"4": [0.1, 0.9, 0.2, 0.8], "8": [0.1, 0.2, 0.3, 0.4]}
THRESHOLD = {"value": 0.15, "recall": 1.0, "false_positives": 0.5, "normal": 2, "defective": 8}
TIMING = MACHINE | {"name": "A processor", "device": "cpu", "threads": 1, "batch": 1}
TIMING |= {"milliseconds": 1.0, "note": None}


def _facts(config: Config, job: Job, pack: Mapping[str, Any]) -> dict[str, Any]:
    row = dict.fromkeys(("parameters", "trained", "macs", "bytes"), 1)
    name = f"ear-{config.masks.base}"
    row |= {"name": name, "kind": "system", "parts": {name: 1}, "input": 64}
    facts = {
        "pack": pack,
        "mosaic": {"mosaic": 4, "candidates": CANDIDATES, "test_scores": TEST_SCORES},
        "gallery": {"threshold": THRESHOLD, "scale": 8, "shown": SHOWN[0]},
        "cost": {"rows": [row | {"patch": None, "note": None}]},
    }
    return {"machine": MACHINE} | facts.get(job.phase, {})


def images(config: Config) -> dict[str, torch.Tensor]:
    """Test images and their masks."""
    random, side = torch.Generator().manual_seed(0), config.image.size
    truth = torch.zeros(len(DEFECTS), side, side, dtype=torch.uint8)
    truth[list(SHOWN), 4:12, 4:12] = 1
    shape = (len(DEFECTS), 3, side, side)
    return {
        "test": torch.randint(0, 256, shape, generator=random, dtype=torch.uint8),
        "mask": truth,
    }


def gallery(config: Config) -> dict[str, torch.Tensor]:
    """What the gallery shows: maps and reconstructions of all test images."""
    every = pictures(config, config.image.size, range(len(DEFECTS)))
    return {name: every[name] for name in ("index", "map", "reconstruction")}


def pictures(config: Config, grid: int, shown: Sequence[int] = SHOWN) -> dict[str, torch.Tensor]:
    """Pictures of a method, of random values that depend on the grid of its map."""
    random, side, count = torch.Generator().manual_seed(grid), config.image.size, len(shown)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=random, dtype=torch.uint8)
    return {
        "index": torch.tensor(shown),
        "map": torch.rand(count, grid, grid, generator=random).half(),
        "mask": torch.randint(0, 2, (count, side, side), generator=random, dtype=torch.uint8),
        "soft_mask": torch.rand(count, 4, 4, generator=random).half(),
        "reconstruction": pixels,
    }


def trace(config: Config) -> dict[str, torch.Tensor]:
    """What FADeR makes of two images, of random values."""
    random, side = torch.Generator().manual_seed(1), config.image.size
    grid, found = side // 8, {}
    for name in ("normal", "tested"):
        for part in ("image", "obfuscated", "reconstruction"):
            pixels = torch.randint(0, 256, (3, side, side), generator=random, dtype=torch.uint8)
            found[f"{name} {part}"] = pixels
        found[f"{name} mask"] = torch.randint(0, 2, (side, side), generator=random).byte()
        for part in ("predicted", "error", "soft_mask"):
            found[f"{name} {part}"] = torch.rand(grid, grid, generator=random)
        for part in ("raw", "map"):
            found[f"{name} {part}"] = torch.rand(side, side, generator=random)
        for level in range(2):
            for part in ("before", "skip", "after"):
                values = torch.rand(side >> level, side >> level, generator=random)
                found[f"{name} {part} {level}"] = values
    return found


def grid_of(config: Config, method: Method) -> int:
    """Side of a method's map: another one for each masker's saliency."""
    if method.stage != "mask":
        return config.image.size
    return 4 + list(config.masks.maskers).index(method.system)


def make_evaluation(
    config: Config,
    job: Job,
    shown: Mapping[str, Sequence[int]] | None = None,
    scores: Sequence[float] = SCORES,
    diverged: Mapping[str, str] | None = None,
) -> None:
    """Metrics and pictures of every method; maskers that the configuration calls optional lack
    their weights. ``shown`` : method → images shown, where they are not ``SHOWN``; otherwise as
    ``make_run``."""
    context = Context(config, job)
    place = config.categories[job.place]
    validation = {f"validation_{level}_auroc": 0.7 for level in ("image", "pixel")}
    for method in methods(config):
        facts = {
            "method": str(method),
            "category": job.place,
            "seed": job.seed,
            "data": {
                "synthetic": config.datasets[place.dataset].source == "synthetic",
                "paper_dataset": config.public_set(place.dataset),
                "size": config.image.size,
            },
            "labels": list(LABELS),
        }
        tensors = {}
        if method.masker in config.masks.optional:
            facts["missing"] = f"no weights of {method.masker}"
        elif str(method) in (diverged or {}):
            facts["diverged"] = (diverged or {})[str(method)]
        else:
            values = {"image_auroc": 1.0, "pixel_auroc": 0.8} | validation
            facts |= {
                "metrics": values,
                "unmeasured": {},
                "scores": list(scores),
                "machine": MACHINE,
                "length": {},
            }
            indices = (shown or {}).get(str(method), SHOWN)
            tensors = pictures(config, grid_of(config, method), indices)
        metrics, maps = of_method(config, job, method).values()
        header = context.header(facts)
        artifacts.write_json(metrics, header)
        artifacts.write_tensors(maps, tensors, header)
