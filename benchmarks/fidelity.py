"""EAR and FADeR on real categories, one factor at a time: what AUROC depends on (docs/fidelity.md).

    python benchmarks/fidelity.py CATEGORY... --data DIR --out FILE [--seeds K...] [--fader]
        [--set KEY=VALUE...] [--set KEY=VALUE...]

``DIR`` holds the categories' folders in MVTec AD's layout. EAR is trained as the preset ``real``
says but for what is set, once for every ``--set``; ``inside=true`` takes the loss inside the masks
alone. ``FILE`` gets a row a seed and mosaic scale: test image and pixel AUROC, the pixel AUROC of
the saliency alone, validation AUROCs, and how often ten splits of the held-out normals choose the
scale: by the rule of ties, by the best mean, and by the best mean on a tenth of the normals. Sixty
normals are held out, so that ten splits of twenty differ, and no training is needed for another
split. With ``--fader``, FADeR is trained on that EAR at the scale that most splits choose, at every
point of the grid of η and schedule, and ``FILE`` gets a row a point.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from fader import detectors, maskers, runtime
from fader.config import Config, load, parse
from fader.data import defects, mvtec, pack
from fader.detectors.base import Detector, Images
from fader.detectors.ear import Ear
from fader.detectors.fader import PROPOSED, Fader
from fader.detectors.fader.search import grid, search
from fader.detectors.reconstruction import SCHEDULES
from fader.evaluation import metrics
from fader.evaluation.selection import Evidence, Examples, choose, larger_first
from fader.maskers.threshold import binarise, enlarge
from fader.training.checkpoint import Checkpoint
from fader.training.loop import History, Run, Stage, Update
from fader.vision.mosaic import obfuscate

HELD, COPIES, SPLITS = 60, 5, 10
INSIDE = "inside=true"
# (train | test | painted, side, masker's settings) → saliency maps
Salient = dict[tuple[str, int, str], Tensor]
KEPT, BEFORE = 20, 0.1  # normals of a split today; the share of all that were held out before


def main() -> None:
    """Train, judge and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("categories", nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="folder of categories")
    parser.add_argument("--out", type=Path, required=True, help="CSV file, appended to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--fader", action="store_true", help="FADeR too, on every EAR")
    parser.add_argument(
        "--set", nargs="*", action="append", metavar="KEY=VALUE", help="ear.steps=200"
    )
    args = parser.parse_args()
    base = load(Path("presets/real.yaml"))
    for category in args.categories:
        saliency: Salient = {}
        for settings in args.set or [[]]:
            inside = INSIDE in settings
            config = changed(base, [one for one in settings if one != INSIDE])
            study = Study(config, args.data, category, saliency)
            for rows in (study.rows(seed, inside, args.fader) for seed in args.seeds):
                new = not args.out.exists()
                with args.out.open("a", newline="", encoding="utf-8") as stream:
                    writer = csv.DictWriter(stream, ["machine", "category", "set", *rows[0]])
                    if new:
                        writer.writeheader()
                    about = {
                        "machine": runtime.cpu_name(),
                        "category": category,
                        "set": " ".join(settings),
                    }
                    writer.writerows(about | row for row in rows)


class InsideMasks(Ear):
    """EAR whose loss sees what the masks hide and nothing else: outside them the reconstruction is
    the image itself."""

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """As EAR's."""
        pixels, masks = normal.pixels, normal.masks
        scales = torch.tensor(self.settings.scales)

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            scale = int(scales[torch.randint(len(scales), (1,), generator=random)])
            images, hidden = self.machine.images(pixels[indices]), masks[indices]  # type: ignore[index]
            with self.machine.autocast():
                reconstruction = self.network(obfuscate(images, hidden, scale))
            seen = torch.where(hidden[:, None], reconstruction, images)
            update("adam", self.loss(images, seen))

        stage = Stage(run.label, run.seed, run.checkpoint("ear"), "lower ear.lr")
        schedule = SCHEDULES[self.settings.schedule]
        return {"ear": self.train_network(stage, self.settings, step, len(normal), schedule)}


def changed(config: Config, settings: list[str]) -> Config:
    """The configuration with some dotted keys set."""
    values: dict[str, Any] = config.model_dump(mode="json")
    for setting in settings:
        path, _, value = setting.partition("=")
        *sections, key = path.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[key] = yaml.safe_load(value)
    return parse(values, "fidelity")


class Study:
    """A category as it is under one configuration; ``known`` keeps saliency maps between them."""

    def __init__(self, config: Config, data: Path, category: str, known: Salient) -> None:
        self.config, self.category = config, category
        self.place = detectors.Context.of(config, runtime.start(config.runtime))
        size, settings = config.image.size, config.masks.settings(config.masks.base)
        arrays = pack.read_category(mvtec.index(data, category), [size])
        order = np.random.default_rng(7).permutation(len(arrays.train[size]))
        self.before = max(2, round(BEFORE * len(order)))
        held, fit = np.sort(order[:HELD]), np.sort(order[HELD:])
        painted, truth, _ = defects.paint(arrays.train[size][held], per_image=COPIES, seed=11)
        rule, level = config.masks.threshold(config.masks.base)
        about = maskers.Context(category, self.place.machine)
        masker = maskers.create("base", settings, about)

        def images(name: str, pixels: np.ndarray) -> tuple[Images, Tensor]:
            tensor, key = torch.from_numpy(pixels), (name, size, str(settings))
            if key not in known:
                known[key] = masker.saliency(tensor.float() / 255)
            saliency = known[key]
            return Images(tensor, enlarge(binarise(saliency, rule, level), size)), saliency

        train, _ = images("train", arrays.train[size])
        self.test, saliency = images("test", arrays.test[size])
        self.label, self.mask = arrays.label, arrays.mask
        self.fitted = train[fit]
        held_out = images("painted", painted)[0]
        self.examples = Examples(train[held], held_out, torch.from_numpy(truth))
        maps = F.interpolate(saliency[:, None], size=(size, size), mode="bilinear")[:, 0]
        self.saliency_pixel = metrics.pixel_metrics(maps.numpy(), arrays.mask)["pixel_auroc"]

    def rows(self, seed: int, inside: bool, fader: bool) -> list[dict[str, Any]]:
        """A row a mosaic scale of EAR, and one a point of FADeR's grid."""
        settings = self.config.ear
        ear = (InsideMasks if inside else Ear)(self.place, settings, settings.scales[0])
        began = time.perf_counter()
        with passing(seed, self.category) as run:
            ear.fit(self.fitted, run)
        about = {"detector": "ear", "seed": seed, "seconds": round(time.perf_counter() - began)}
        found, rows = {}, []
        for scale in larger_first(settings.scales):
            ear.scale = scale
            found[scale] = self.examples.evidence(ear)
            rows.append(about | {"scale": scale, "point": ""} | self.judged(ear, found[scale]))
        rows = chosen(rows, found, self.before)
        if fader:
            most = max(rows, key=lambda row: row["chosen"])
            ear.scale = most["scale"]
            rows += self.of_fader(ear, seed)
        return rows

    def of_fader(self, ear: Ear, seed: int) -> list[dict[str, Any]]:
        """A row a point of the grid, on an EAR at its mosaic scale."""
        settings = self.config.fader.model_copy(update={"watch": "last"})
        began = time.perf_counter()
        rows: list[dict[str, Any]] = []

        def validate(detector: Fader) -> Evidence:
            evidence = self.examples.evidence(detector)
            about = {"detector": "fader", "seed": seed, "scale": ear.scale}
            point = f"{detector.point.lr:g} {detector.point.schedule}"
            seconds = {"seconds": round(time.perf_counter() - began)}
            rows.append(about | seconds | {"point": point} | self.judged(detector, evidence))
            return evidence

        with passing(seed, self.category) as run:
            outcomes = search(
                ear,
                settings,
                PROPOSED,
                grid(settings),
                self.fitted,
                run,
                validate=validate,
                watch=lambda detector: [],
            )
        found = {place: outcome.validation for place, outcome in enumerate(outcomes)}
        return chosen(rows, found, self.before)

    def judged(self, detector: Detector, evidence: Evidence) -> dict[str, Any]:
        """Test and validation AUROCs of a detector."""
        scores = detector.scores(self.test)
        return {
            "image_auroc": metrics.auroc(scores.images.numpy(), self.label),
            "pixel_auroc": metrics.pixel_metrics(scores.maps.numpy(), self.mask)["pixel_auroc"],
            "saliency_pixel": self.saliency_pixel,
            "masked": float(self.test.masks.float().mean()),  # type: ignore[union-attr]
            "validation_image": evidence.image_auroc,
            "validation_pixel": evidence.pixel_auroc,
        }


def chosen(
    rows: list[dict[str, Any]], found: dict[int, Evidence], before: int
) -> list[dict[str, Any]]:
    """The rows of the candidates ``found``, with how often each is chosen."""
    by = {
        "chosen": choices(found, KEPT, 0.05),
        "chosen_best": choices(found, KEPT, 1.0),
        "chosen_before": choices(found, before, 1.0),
    }
    return [
        row | {name: counts[candidate] for name, counts in by.items()}
        for candidate, row in zip(found, rows, strict=True)
    ]


@contextmanager
def passing(seed: int, label: str) -> Iterator[Run]:
    """A training whose checkpoints go with it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Run(seed, label, lambda stage: Checkpoint(Path(folder) / stage, stage))


def choices(found: dict[int, Evidence], count: int, tie: float) -> Counter[int]:
    """Candidate → in how many of ten splits, of ``count`` held-out normals each, it is chosen."""
    random = np.random.default_rng(0)
    counts: Counter[int] = Counter()
    for number in range(SPLITS):
        rows = np.sort(random.permutation(HELD)[:count])
        split = {candidate: _of(evidence, rows) for candidate, evidence in found.items()}
        counts[choose(split, criterion="mean", tie=tie, seed=number).chosen] += 1
    return counts


def _of(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """The evidence of some of the held-out normals and their copies."""
    weights = np.zeros((1, HELD))
    weights[0, rows] = 1
    image, pixel = (float(evidence.resampled(weights, level)[0]) for level in ("image", "pixel"))
    square = np.ix_(rows, rows)
    return replace(
        evidence,
        image_auroc=image,
        pixel_auroc=pixel,
        images=evidence.images[square],
        pixels=evidence.pixels[square],
        normal=evidence.normal[rows],
        defective=evidence.defective[rows],
    )


if __name__ == "__main__":
    main()
