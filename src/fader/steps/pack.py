"""A category's images and masks, decoded and resized once, in one memory-mapped file."""

from pathlib import Path

import torch

from fader.config import Dataset
from fader.data import pack
from fader.data.layout import check_counts
from fader.data.releases import LAYOUTS, RELEASES
from fader.errors import FaderError
from fader.pipeline import artifacts, paths
from fader.pipeline.artifacts import Header
from fader.steps.category import Category


def public_set(chosen: Dataset) -> str | None:
    """Name of the public data set that a configured one is, or None."""
    if chosen.source == "synthetic":
        return None
    return chosen.paper if chosen.source == "folder" else chosen.source


def make_pack(category: Category) -> None:
    """Read a category's images and masks into one memory-mapped file."""
    manifest = paths.manifest_path(category.dataset)
    source = category.checked(manifest, "dataset")
    chosen = category.config.datasets[category.dataset]
    root = Path(source.facts["root"])
    if not root.is_dir():
        raise FaderError(
            f"{root}: no such folder; `fader dataset {category.dataset}` makes it again"
        )
    index = LAYOUTS[chosen.layout](root, category.name)
    public = public_set(chosen)
    if public and getattr(chosen, "complete", True):
        check_counts(index, RELEASES[public])
    arrays = pack.read_category(index, category.config.image.size)
    tensors = {
        "train": torch.from_numpy(arrays.train),
        "test": torch.from_numpy(arrays.test),
        "mask": torch.from_numpy(arrays.mask),
        "label": torch.from_numpy(arrays.label),
    }
    facts = {
        "synthetic": chosen.source == "synthetic",
        "paper_dataset": public,
        "licence": source.facts["licence"],
        "train": arrays.train_names,
        "test": arrays.test_names,
        "defects": arrays.defects,
    }
    header = Header("pack", category.settings("pack"), artifacts.inputs(manifest), facts)
    artifacts.write_tensors(category.files.packed(), tensors, header)
