"""FADeR and its variants on top of a trained EAR, over the η × schedule grid."""

from fader import artifacts, runtime, training
from fader.artifacts import Header
from fader.detectors import fader
from fader.phases import examples
from fader.phases.category import Category
from fader.phases.checkpoints import checkpoint, finish
from fader.phases.ear import network


def train_fader(category: Category, seed: int, system: str) -> None:
    """Train FADeR or a variant over its η × schedule grid and keep the label-free pick."""
    config, files = category.config, category.files
    machine = runtime.start(config.runtime)
    chosen = category.system_settings("fader", system)
    variant, masker = config.variant(system), system.partition("-")[0]
    trained = network(category, seed, machine)
    packed, _ = category.packed()
    fit = category.validation()["fit"]
    masks = category.masks(masker, config.image.size)["train"][fit]
    patch = category.mosaic(seed)
    judged = examples.label_free(category, masker)
    sources = [
        files.packed(),
        files.validation(),
        files.mask(masker),
        files.ear(seed),
        files.mosaic(seed),
    ]
    points = fader.grid(config.fader)
    for other in category.inherited(system):
        proposed = files.fader(seed, other)
        expected = category.system_settings("fader", other)
        picked = artifacts.check(proposed, "fader", expected).facts["picked"]
        points = [fader.Point(picked["lr"], picked["schedule"])]
        sources.append(proposed)
    target, used = files.fader(seed, system), artifacts.inputs(*sources)
    key = [chosen, used, machine.facts()]
    outcomes = fader.fit(
        config,
        machine,
        trained,
        packed["train"][fit],
        masks,
        patch=patch,
        variant=variant,
        points=points,
        validate=lambda reconstruct: judged.judge(reconstruct, config.score, machine),
        seed=category.seed(seed, "fader"),
        label=category.label(f"fader-{system}", seed),
        checkpoint=lambda point: checkpoint(target, f"{point.lr!r}-{point.schedule}", key),
    )
    best = max(outcomes, key=lambda outcome: outcome.validation["value"])
    artifacts.write_text(files.losses(target), training.history_csv(best.history))
    facts = {
        "seed": seed,
        "patch": patch,
        "picked": {"lr": best.point.lr, "schedule": best.point.schedule},
        "grid": [{"lr": o.point.lr, "schedule": o.point.schedule} | o.validation for o in outcomes],
        "machine": machine.facts(),
    }
    artifacts.write_tensors(target, best.weights, Header("fader", chosen, used, facts))
    finish(target)
