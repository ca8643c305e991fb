"""EAR of a category: trained, and read back for what builds on it."""

from fader import runtime
from fader.detectors import ear
from fader.files import write_text
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import losses_path
from fader.steps.category import Category
from fader.steps.checkpoints import checkpoint, finish
from fader.training.loop import Stage, history_csv
from fader.vision.unet import UNet


def train_ear(category: Category, seed: int) -> None:
    """Pre-train EAR on the fitted normals with the base masker's masks."""
    config, files = category.config, category.files
    machine = runtime.start(config.runtime)
    packed, _ = category.packed()
    fit = category.validation()["fit"]
    base = config.masks.base
    masks = category.masks(base, seed, config.image.size)["train"][fit]
    target = files.ear(seed)
    chosen = category.settings("ear")
    used = artifacts.inputs(files.packed(), files.validation(), category.mask_path(base, seed))
    trained, history = ear.fit(
        config,
        machine,
        packed["train"][fit],
        masks,
        stage=Stage(
            category.label("ear", seed),
            category.seed(seed, "ear"),
            checkpoint(target, "ear", [chosen, used, machine.facts()]),
            "lower ear.lr",
        ),
    )
    write_text(losses_path(target), history_csv(history))
    header = Header("ear", chosen, used, {"seed": seed, "machine": machine.facts()})
    artifacts.write_tensors(target, trained.state_dict(), header)
    finish(target)


def network(category: Category, seed: int, machine: runtime.Machine) -> UNet:
    """The trained EAR of a seed, on the machine's device."""
    path = category.files.ear(seed)
    category.checked(path, "ear")
    return ear.build(category.config, machine, artifacts.read_tensors(path))
