"""The mosaic scale m* of a trained EAR."""

from typing import Any

from fader import runtime
from fader.detectors import ear
from fader.evaluation import selection as protocol
from fader.evaluation.scoring import image_scores, maps_of
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.steps import examples
from fader.steps.category import Category
from fader.steps.ear import network


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
            judged = examples.label_free(category, config.masks.base, seed)
        else:
            judged = examples.of_test(category, seed)
        best, candidates = protocol.search_mosaic(
            config.ear.scales,
            lambda m: judged.judge(ear.reconstruct(trained, m, machine), config.score, machine),
        )
        facts |= {"mosaic": best, "candidates": candidates}
        # Label-free, and no part of the choice: see TEST_SCORES of FADeR.
        packed, _ = category.packed()
        masks = category.masks(config.masks.base, seed, config.image.size)["test"]
        facts["test_scores"] = {
            m: image_scores(
                maps_of(
                    ear.reconstruct(trained, int(m), machine),
                    packed["test"],
                    masks,
                    config.score,
                    machine,
                )
            ).tolist()
            for m in candidates
        }
    used = artifacts.inputs(
        files.ear(seed),
        files.packed(),
        files.validation(),
        category.mask_path(config.masks.base, seed),
    )
    artifacts.write_json(
        files.mosaic(seed), Header("mosaic", category.settings("mosaic"), used, facts)
    )
