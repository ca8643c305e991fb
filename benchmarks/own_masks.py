"""EAR pre-trained once, or under each masker's own masks (docs/fidelity.md).

    python benchmarks/own_masks.py CONFIG PLACE --out FILE [--seed K] [--maskers NAME...]

Reads a finished run: its images, split, masks and the EAR that all maskers share, which the base
masker's masks trained. For every masker that was run, or those named, EAR is trained anew with that
masker's masks, on the same images, for as long, from the same seed. ``FILE`` gets a row a masker, a
training and a mosaic scale, with test and validation AUROCs, and which scale the label-free
criterion takes under that masker's masks.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from fidelity import passing

from fader import runtime
from fader.config import load
from fader.detectors.ear import Ear
from fader.evaluation import metrics
from fader.evaluation.selection import larger_first
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job, mask_job
from fader.pipeline.weights import planned
from fader.steps import inputs, models


def main() -> None:
    """Train, judge and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("place", help="key of a category")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--maskers", nargs="+", help="which ones; all by default")
    args = parser.parse_args()
    context = Context(planned(load(args.config)), Job("mosaic", args.place, seed=args.seed))
    machine = runtime.start(context.config.runtime)
    shared = models.ear(context, machine)
    rows: list[dict[str, Any]] = []
    for masker in args.maskers or context.config.masks.maskers:
        job = mask_job(context.config, context.job, masker)
        if not Path(context.of(job).output("saliency")).exists():
            continue  # optional, and its weights are not here
        rows += judged(context, shared, masker, "shared")
        if masker != context.config.masks.base:
            rows += judged(context, own(context, machine, masker), masker, "own")
    with args.out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def own(context: Context, machine: runtime.Machine, masker: str) -> Ear:
    """EAR trained with a masker's own masks."""
    model = models.untrained_ear(context, machine)
    with passing(context.seed("ear"), masker) as run:
        model.fit(inputs.fitted(context, masker), run)
    return model


def judged(context: Context, model: Ear, masker: str, trained: str) -> list[dict[str, Any]]:
    """A row a mosaic scale, under a masker's masks."""
    examples, tested = inputs.label_free(context, masker), inputs.tested(context, masker)
    truth, rows, found = inputs.truth(context), [], {}
    for scale in larger_first(context.config.ear.scales):
        model.scale = scale
        found[scale] = examples.evidence(model)
        scores = model.scores(tested)
        pixels = metrics.pixel_metrics(scores.maps.numpy(), np.asarray(truth.masks))
        rows.append(
            {
                "masker": masker,
                "trained": trained,
                "seed": context.job.seed,
                "scale": scale,
                "image_auroc": metrics.auroc(scores.images.numpy(), truth.labels),
                "pixel_auroc": pixels["pixel_auroc"],
                "validation_image": found[scale].image_auroc,
                "validation_pixel": found[scale].pixel_auroc,
            }
        )
    chosen = inputs.choose(context, found).chosen
    return [row | {"chosen": row["scale"] == chosen} for row in rows]


if __name__ == "__main__":
    main()
