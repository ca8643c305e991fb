"""Images on which candidates are judged: label-free ones, and the test set's for the oracle."""

from fader.evaluation import selection as protocol
from fader.steps.category import Category


def label_free(category: Category, masker: str, seed: int) -> protocol.Examples:
    """Held-out normals and the synthetic defects on them, with ``masker``'s masks."""
    packed, _ = category.packed()
    split = category.validation()
    masks = category.masks(masker, seed, category.config.image.size)
    return protocol.Examples(
        packed["train"][split["held"]],
        masks["train"][split["held"]],
        split["defects"],
        masks["validation"],
        split["defect_masks"],
    )


def of_test(category: Category, seed: int) -> protocol.Examples:
    """The test images with their labels, for the oracle: a diagnostic."""
    packed, _ = category.packed()
    config = category.config
    masks = category.masks(config.masks.base, seed, config.image.size)["test"]
    defective = packed["label"].bool()
    return protocol.Examples(
        packed["test"][~defective],
        masks[~defective],
        packed["test"][defective],
        masks[defective],
        packed["mask"][defective],
    )
