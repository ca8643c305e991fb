"""FADeR and its variants on top of a trained EAR, over the η × schedule grid."""

from typing import Any

import torch
from torch import Tensor

from fader import runtime
from fader.config import Config
from fader.detectors.base import Images
from fader.detectors.fader import Fader, Point
from fader.detectors.fader.search import Outcome, grid, search
from fader.evaluation.selection import Evidence
from fader.pipeline.context import Context
from fader.pipeline.jobs import inherits, method_of
from fader.runtime import Machine
from fader.steps import inputs, models, training


def train_fader(context: Context) -> None:
    """Train FADeR or a variant over its η × schedule grid, and keep the label-free pick."""
    machine = runtime.start(context.config.runtime)
    masker = method_of(context.config, context.job).system
    facts: dict[str, Any] = {}
    initial = None
    if models.path_of(context, method_of(context.config, context.job)).predictor == "vit":
        initial, facts = _pretrained(context.config)
    outcomes = _search(context, machine, masker, initial)
    choice = inputs.choose(context, {o.point: o.validation for o in outcomes})
    best = next(outcome for outcome in outcomes if outcome.point == choice.chosen)
    facts |= {
        "patch": models.mosaic(context),
        "picked": _named(best.point),
        "grid": [_named(o.point) | choice.facts(o.point) for o in outcomes],
    }
    scores = torch.stack([outcome.watched for outcome in outcomes])
    training.keep(
        context, machine, best.state | {models.SCORES: scores}, {"fader": best.history}, facts
    )


def _search(
    context: Context, machine: Machine, masker: str, initial: dict[str, Tensor] | None
) -> list[Outcome[Evidence]]:
    """The outcome of every grid point."""
    examples = inputs.label_free(context, masker)
    tested: Images = inputs.tested(context, masker)

    def watch(detector: Fader) -> list[float]:
        return detector.scores(tested).images.tolist()

    return search(
        models.ear(context, machine),
        context.config.fader,
        models.path_of(context, method_of(context.config, context.job)),
        _points(context),
        inputs.fitted(context, masker),
        training.run_of(context, machine, context.seed("fader")),
        validate=examples.evidence,
        watch=watch,
        initial=initial,
    )


def _points(context: Context) -> list[Point]:
    """The grid, or the point of it that the base masker's FADeR picked."""
    if not inherits(context.config, context.job):
        return grid(context.config.fader)
    picked = context.check(context.job.of("fader"), "weights").facts["picked"]
    return [Point(picked["lr"], picked["schedule"])]


def _named(point: Point) -> dict[str, Any]:
    return {"lr": point.lr, "schedule": point.schedule}


def _pretrained(config: Config) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
    """Weights of a pre-trained ViT for Φ's body, its position embedding resampled to the image, and
    the fact that says which; none where the configuration names none."""
    vit = config.fader.vit
    if not vit.backbone:
        return None, {}
    from timm.layers import resample_abs_pos_embed  # seconds to import, and the MLP does without

    from fader.vision import backbones

    model: Any
    model, info = backbones.load(vit.backbone, config.weights_folder)
    state = model.state_dict()
    del state["cls_token"]
    side = config.image.size // model.patch_embed.patch_size[0]
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"][:, 1:], (side, side), num_prefix_tokens=0
    )
    return state, {"weights": str(info)}
