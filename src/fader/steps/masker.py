"""Training of a masker that learns, on the fitted normals of a category."""

from fader import runtime
from fader.errors import FaderError, MissingWeights
from fader.files import write_text
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import losses_path
from fader.steps import maskers
from fader.steps.category import Category
from fader.steps.checkpoints import checkpoint, finish
from fader.training.loop import Run


def train_masker(category: Category, seed: int, masker: str) -> None:
    """Fit a masker on the fitted normals and keep what it learnt."""
    config, files = category.config, category.files
    maskers.known(category, masker)
    if not config.masks.trained(masker):
        raise FaderError(f"masker {masker!r} is zero-shot: there is nothing to train")
    machine = runtime.start(config.runtime)
    target = files.masker(masker, seed)
    chosen = category.settings("masker", masker=masker)
    read = [files.packed(), files.validation(), *maskers.codebook_of(category, masker)]
    used = artifacts.inputs(*read)
    facts = {"seed": seed, "machine": machine.facts()}
    try:
        model = maskers.make(category, masker, machine)
    except MissingWeights as error:
        facts |= maskers.optional(config, masker, error)
        write_text(losses_path(target), losses_csv({}))
        artifacts.write_tensors(target, {}, Header("masker", chosen, used, facts))
        return
    packed, _ = category.packed()
    fit = category.validation()["fit"]
    key = [chosen, used, machine.facts()]
    run = Run(
        category.seed(seed, f"masker/{masker}"),
        category.label(masker, seed),
        lambda stage: checkpoint(target, stage, key),
    )
    history = model.fit(packed["train"][fit], run)
    facts["weights"] = model.weights
    write_text(losses_path(target), losses_csv(history))
    artifacts.write_tensors(target, model.state(), Header("masker", chosen, used, facts))
    finish(target)


def losses_csv(stages: dict[str, list[dict[str, float]]]) -> str:
    """Loss per epoch of every stage of a training."""
    lines = ["stage,epoch,lr,loss"]
    for stage, history in stages.items():
        lines += [f"{stage},{e['epoch']},{e['lr']:.6g},{e['loss']:.6g}" for e in history]
    return "\n".join(lines) + "\n"
