"""FADeR and its variants on top of a trained EAR, over the η × schedule grid."""

from pathlib import Path

import torch
from torch import Tensor

from fader import runtime
from fader.config import Config
from fader.detectors import fader
from fader.evaluation.scoring import image_scores, maps_of
from fader.files import write_text
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import losses_path
from fader.steps import examples
from fader.steps.category import MISSING, Category
from fader.steps.checkpoints import checkpoint, finish
from fader.steps.ear import network
from fader.training.loop import Run, history_csv

TEST_SCORES = "test_scores"


def train_fader(category: Category, seed: int, system: str) -> None:
    """Train FADeR or a variant over its η × schedule grid and keep the label-free pick."""
    config, files = category.config, category.files
    machine = runtime.start(config.runtime)
    chosen = category.system_settings("fader", system)
    variant, masker = config.variant(system), system.partition("-")[0]
    target = files.fader(seed, system)
    reason = category.missing(masker, seed)
    if reason:
        used = artifacts.inputs(category.mask_path(masker, seed))
        facts = {"seed": seed, MISSING: reason, "machine": machine.facts()}
        write_text(losses_path(target), "epoch,lr,loss\n")
        artifacts.write_tensors(target, {}, Header("fader", chosen, used, facts))
        return
    trained = network(category, seed, machine)
    packed, _ = category.packed()
    fit = category.validation()["fit"]
    masks = category.masks(masker, seed, config.image.size)
    patch = category.mosaic(seed)
    judged = examples.label_free(category, masker, seed)
    sources = [
        files.packed(),
        files.validation(),
        category.mask_path(masker, seed),
        files.ear(seed),
        files.mosaic(seed),
    ]
    points = fader.grid(config.fader)
    for other in config.inherited(system):
        proposed = files.fader(seed, other)
        expected = category.system_settings("fader", other)
        picked = artifacts.check(proposed, "fader", expected).facts["picked"]
        points = [fader.Point(picked["lr"], picked["schedule"])]
        sources.append(proposed)
    used = artifacts.inputs(*sources)
    key = [chosen, used, machine.facts()]
    initial, weights = None, None
    if variant.predictor == "vit" and config.fader.vit.backbone:
        initial, weights = _pretrained(config)
    outcomes = fader.fit(
        config,
        machine,
        trained,
        packed["train"][fit],
        masks["train"][fit],
        patch=patch,
        variant=variant,
        points=points,
        validate=lambda reconstruct: judged.judge(reconstruct, config.score, machine),
        watch=lambda reconstruct: image_scores(
            maps_of(reconstruct, packed["test"], masks["test"], config.score, machine)
        ).tolist(),
        run=Run(
            category.seed(seed, "fader"),
            category.label(f"fader-{system}", seed),
            lambda stage: checkpoint(target, stage, key),
        ),
        initial=initial,
    )
    best = max(outcomes, key=lambda outcome: outcome.validation["value"])
    write_text(losses_path(target), history_csv(best.history))
    facts = {
        "seed": seed,
        "patch": patch,
        "picked": {"lr": best.point.lr, "schedule": best.point.schedule},
        "grid": [{"lr": o.point.lr, "schedule": o.point.schedule} | o.validation for o in outcomes],
        "machine": machine.facts(),
    } | ({"weights": weights} if weights else {})
    # Image scores of the test images (points, epochs, images): no label, no part in any choice; the
    # evaluation tells from them what choosing by test labels would have given.
    tensors = best.weights | {TEST_SCORES: torch.stack([o.watched for o in outcomes])}
    artifacts.write_tensors(target, tensors, Header("fader", chosen, used, facts))
    finish(target)


def _pretrained(config: Config) -> tuple[dict[str, Tensor], str]:
    """Weights of a pre-trained ViT for Φ's body, its position embedding resampled to the image."""
    from timm.layers import resample_abs_pos_embed  # seconds to import, and the MLP does without

    from fader.vision import backbones

    vit = config.fader.vit
    model, info = backbones.load(
        vit.backbone, Path(config.weights_dir) if config.weights_dir else None
    )
    state = model.state_dict()
    del state["cls_token"]
    side = config.image.size // model.patch_embed.patch_size[0]
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"][:, 1:], (side, side), num_prefix_tokens=0
    )
    return state, str(info)
