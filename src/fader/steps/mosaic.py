"""The mosaic scale m* of a trained EAR."""

from typing import Any

from fader import runtime
from fader.evaluation import selection
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.steps import inputs, models


def search_mosaic(context: Context) -> None:
    """Choose m* for a trained EAR: label-free, fixed, or (diagnostic) by test AUROC."""
    policy = context.config.mosaic.policy
    facts: dict[str, Any] = {"policy": policy, "seed": context.job.seed}
    if policy == "fixed":
        facts |= {"mosaic": context.config.mosaic.fixed, "candidates": {}}
    else:
        facts |= _searched(context)
    artifacts.write_json(context.output("scale"), context.header(facts))


def _searched(context: Context) -> dict[str, Any]:
    """m*, the criterion of each candidate, and what each says of the test images."""
    config = context.config
    machine = runtime.start(config.runtime)
    detector = models.ear(context, machine, config.ear.scales[0])
    label_free = config.mosaic.policy == "search"
    examples = (
        inputs.label_free(context, config.masks.base) if label_free else inputs.labelled(context)
    )

    def judge(scale: int) -> dict[str, float]:
        detector.scale = scale
        return examples.judge(detector)

    best, candidates = selection.search_mosaic(config.ear.scales, judge)
    scores = {}
    tested = inputs.tested(context, config.masks.base)
    for name in candidates:  # no part of the choice: see models.SCORES
        detector.scale = int(name)
        scores[name] = detector.scores(tested).images.tolist()
    return {"mosaic": best, "candidates": candidates, models.SCORES: scores}
