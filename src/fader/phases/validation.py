"""The label-free split of a category's training normals, with synthetic defects."""

from fader import artifacts
from fader.artifacts import Header
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
    artifacts.write_tensors(category.files.validation(), tensors, header)
