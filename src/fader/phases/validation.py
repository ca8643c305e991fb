"""The label-free split of a category's training normals, with synthetic defects."""

import json

from fader import artifacts
from fader.artifacts import Header, normals_path
from fader.phases.category import Category
from fader.validation import split


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
    artifacts.write_text(path, json.dumps(identities, indent=2) + "\n")
