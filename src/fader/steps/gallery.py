"""What the report shows of FADeR: test images with its label-free threshold, and two images step by
step."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fader import runtime
from fader.detectors import Images
from fader.detectors.fader import Fader
from fader.detectors.reconstruction import anomaly_map
from fader.evaluation.decision import threshold
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job
from fader.pipeline.methods import Method
from fader.steps import inputs, models
from fader.steps.trace import as_bytes, trace

KEPT = 48  # images of a category, at most
ERRORS = 16  # false positives, and false negatives, among them, at most


def make_gallery(context: Context) -> None:
    """Keep map and reconstruction of some test images by FADeR of the first seed, the threshold
    that tells its false positives and false negatives, and a trace of two images.

    The scores are those that the evaluation measured.
    """
    config = context.config
    machine = runtime.start(config.runtime)
    method = Method("fader", config.masks.base)
    at = context.of(Job("evaluate", context.job.place, seed=config.seeds[0]))
    detector = cast(Fader, models.trained(at, method, machine))
    examples = inputs.label_free(at, method.system, fold="checked")
    limit = threshold(
        detector.scores(examples.normal).images.numpy(),
        detector.scores(examples.defective).images.numpy(),
    )
    measured = at.check(at.job, f"metrics {method}").facts
    rows = torch.from_numpy(
        shown(np.array(measured["scores"]), measured["labels"], measured["defects"], limit.value)
    )
    pictures = _pictures(detector, inputs.tested(at, method.system)[rows])
    traced, about = trace(at, detector)
    facts = {
        "place": context.job.place,
        "method": str(method),
        "of_seed": at.job.seed,
        "threshold": limit.facts(),
        "machine": machine.facts(),
    }
    header = context.header(facts | about)
    artifacts.write_tensors(context.output("pictures"), {"index": rows} | pictures, header)
    artifacts.write_tensors(context.output("trace"), traced, header)


def shown(
    scores: np.ndarray,
    labels: Sequence[int],
    defects: Sequence[str],
    limit: float,
    most: int = KEPT,
    errors: int = ERRORS,
) -> np.ndarray:
    """Indices, ascending, of the test images to show: the worst errors of either kind, then others,
    in turn of each type of defect (good is one), nearest to the threshold first.

    Parameters
    ----------
    scores : (N,), above ``limit`` = called defective.
    labels : (N,), 1 = defective.
    defects : (N,), type of defect of each.
    """
    distance = np.abs(scores - limit)
    defective = np.array(labels) == 1
    called = scores > limit
    chosen: list[int] = []
    for wrong in (called & ~defective, ~called & defective):
        indices = np.flatnonzero(wrong)
        worst_first = indices[np.argsort(-distance[indices], kind="stable")]
        chosen += worst_first[: min(errors, most - len(chosen))].tolist()
    others = np.setdiff1d(np.arange(len(scores)), chosen)
    others = others[np.argsort(distance[others], kind="stable")]
    turn = {defect: 0 for defect in defects}
    in_turn = []
    for index in others.tolist():
        in_turn.append((turn[defects[index]], index))
        turn[defects[index]] += 1
    in_turn.sort(key=lambda pair: pair[0])
    chosen += [index for _, index in in_turn[: most - len(chosen)]]
    return np.sort(np.array(chosen, np.int64))


@torch.inference_mode()
def _pictures(detector: Fader, images: Images) -> dict[str, Tensor]:
    """Anomaly maps (N, H, W) in half precision and reconstructions (N, 3, H, W) uint8."""
    maps, reconstructions = [], []
    for part in images.batches(detector.context.score.batch):
        pixels = detector.machine.images(part.pixels)
        masks = part.masks.to(pixels.device)  # type: ignore[union-attr]  # FADeR is given masks
        reconstruction = detector.reconstruct(pixels, masks)
        found = anomaly_map(pixels, reconstruction, detector.context.score)
        maps.append(found.half().cpu())
        reconstructions.append(as_bytes(reconstruction).cpu())
    return {"map": torch.cat(maps), "reconstruction": torch.cat(reconstructions)}
