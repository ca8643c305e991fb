"""The label-free split of a category's training normals, with synthetic defects."""

import json

from fader.data.split import split
from fader.files import write_text
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import normals_path
from fader.steps.category import Category


def make_validation(category: Category) -> None:
    """Hold out training normals and paint synthetic defects on copies of them."""
    packed, _ = category.packed()
    chosen = split(
        packed["train"].numpy(), category.config.validation, category.seed(0, "validation")
    )
    tensors = {
        "fit": chosen.fit,
        "held": chosen.held,
        "defects": chosen.defects,
        "defect_masks": chosen.defect_masks,
    }
    header = Header(
        "validation",
        category.settings("validation"),
        artifacts.inputs(category.files.packed()),
        {"kinds": list(chosen.kinds)},
    )
    header = artifacts.write_tensors(category.files.validation(), tensors, header)
    identities = dict(header.inputs) | {category.files.validation(): header.identity}
    path = normals_path(category.config.run, category.dataset, category.name)
    write_text(path, json.dumps(identities, indent=2) + "\n")
