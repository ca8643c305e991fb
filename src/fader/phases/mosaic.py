"""The mosaic scale m* of a trained EAR."""

from typing import Any

from fader import artifacts, protocol, runtime
from fader.artifacts import Header
from fader.detectors import ear
from fader.phases import examples
from fader.phases.category import Category
from fader.phases.ear import network


def search_mosaic(category: Category, seed: int) -> None:
    """Choose m* for a trained EAR: label-free, fixed, or (diagnostic) by test AUROC."""
    config, files = category.config, category.files
    machine = runtime.start(config.runtime)
    trained = network(category, seed, machine)
    policy = config.mosaic.policy
    facts: dict[str, Any] = {"policy": policy, "seed": seed}
    if policy == "fixed":
        facts |= {"mosaic": config.mosaic.fixed, "candidates": {}}
    else:
        if policy == "search":
            judged = examples.label_free(category, config.masks.base)
        else:
            judged = examples.of_test(category)
        best, candidates = protocol.search_mosaic(
            config.ear.scales,
            lambda m: judged.judge(ear.reconstruct(trained, m, machine), config.score, machine),
        )
        facts |= {"mosaic": best, "candidates": candidates}
    used = artifacts.inputs(
        files.ear(seed), files.packed(), files.validation(), files.mask(config.masks.base)
    )
    artifacts.write_json(
        files.mosaic(seed), Header("mosaic", category.settings("mosaic"), used, facts)
    )
