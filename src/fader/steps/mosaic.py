"""The mosaic scale m* of a trained EAR."""

from collections.abc import Callable
from typing import Any

from fader import runtime
from fader.detectors.ear import Ear
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
    """m*, what is known of each candidate, and what each says of the test images."""
    config = context.config
    machine = runtime.start(config.runtime)
    detector = models.ear(context, machine, config.ear.scales[0])

    def at(scale: int) -> Ear:
        detector.scale = scale
        return detector

    search = _label_free if config.mosaic.policy == "search" else _labelled
    facts = search(context, at)
    tested = inputs.tested(context, config.masks.base)
    # No part of the choice: see models.SCORES.
    scores = {str(m): at(m).scores(tested).images.tolist() for m in sorted(config.ear.scales)}
    return facts | {models.SCORES: scores}


def _label_free(context: Context, at: Callable[[int], Ear]) -> dict[str, Any]:
    """The largest scale that ties with the best on the fold ``held``."""
    examples = inputs.label_free(context, context.config.masks.base)
    scales = selection.larger_first(context.config.ear.scales)
    found = {scale: examples.evidence(at(scale)) for scale in scales}
    choice = inputs.choose(context, found)
    candidates = {str(m): choice.facts(m) for m in sorted(scales)}
    return {"mosaic": choice.chosen, "best": choice.best, "candidates": candidates}


def _labelled(context: Context, at: Callable[[int], Ear]) -> dict[str, Any]:
    """A diagnostic: the scale with the best criterion on the test images, ties to the larger."""
    examples, criterion = inputs.labelled(context), context.config.validation.criterion
    candidates = {}
    for scale in sorted(context.config.ear.scales):
        found = examples.judge(at(scale))
        candidates[str(scale)] = found | {"value": selection.value(found, criterion)}
    best = max(candidates, key=lambda m: (candidates[m]["value"], int(m)))
    return {"mosaic": int(best), "candidates": candidates}
