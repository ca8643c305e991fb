"""A category's images, decoded once and resized to each side that is needed, and the label-free
split of its normals."""

import json
from pathlib import Path

from fader.data import made, pack
from fader.data.layout import check_counts, counts, describe
from fader.data.releases import LAYOUTS, RELEASES
from fader.data.split import split
from fader.errors import FaderError
from fader.files import shown, write_text
from fader.pipeline import artifacts, listing
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job


def make_pack(context: Context) -> None:
    """Read a category's images and masks, and hold out normals with synthetic defects."""
    config, dataset = context.config, context.config.datasets[context.dataset]
    source = context.check(Job("dataset", context.dataset), "manifest")
    root = Path(source.facts["root"])
    if not root.is_dir():
        raise FaderError(
            f"{shown(root)}: no such folder; `fader run dataset {context.dataset}` makes it"
        )
    index = LAYOUTS[dataset.layout](root, context.category, dataset.masks)
    _tell(describe(index), *(f"warning: {line}" for line in index.warnings))
    public = config.public_set(context.dataset)
    if public and getattr(dataset, "complete", True):
        check_counts(index, RELEASES[public])
    if listing.of_images(config, context.job.place):
        digests = listing.digests(config, context.job.place, index)
    else:
        digests = made.digests(root, index)
    images = pack.read_category(index, config.sides, white=dataset.white, digests=digests)
    if images.white:
        _tell(f"16-bit images: {images.white}")
    _tell(*(f"warning: {line}" for line in images.warnings))
    known = source.facts.get("difficulty", {})  # of sets that this project generated
    size, larger = config.image.size, config.sides[1:]
    validation = split(images.train, size, config.validation, context.seed("validation"))
    facts = {
        "synthetic": dataset.source == "synthetic",
        "paper_dataset": public,
        "licence": source.facts["licence"],
        "train": images.train_names,
        "test": images.test_names,
        "defects": images.defects,
        "difficulty": [known.get(f"{context.category}/{name}") for name in images.test_names],
        "counts": counts(index),
        "ignored": dict(index.ignored),
        "masks": index.masks,
        "vanished": images.vanished,
        "white": images.white and images.white.value,
        "warnings": [*index.warnings, *images.warnings],
    }
    packed = artifacts.write_arrays(
        context.output("packed"),
        {
            "train": images.train[size],
            "test": images.test[size],
            "mask": images.mask,
            "label": images.label,
        },
        context.header(facts),
    )
    arrays, kinds = {"fit": validation.fit}, {}
    for name, fold in validation.folds.items():
        kinds[name] = list(fold.kinds)
        arrays |= {
            name: fold.normals,
            f"{name}_defects": fold.defects[size],
            f"{name}_masks": fold.masks,
        }
    held = artifacts.write_arrays(context.output("split"), arrays, context.header({"kinds": kinds}))
    identities = {"packed": packed.identity, "split": held.identity}
    for side in larger:
        at_side = {"train": images.train[side], "test": images.test[side]}
        at_side |= {f"{name}_defects": f.defects[side] for name, f in validation.folds.items()}
        written = artifacts.write_arrays(
            context.output(f"side {side}"), at_side, context.header({})
        )
        identities[f"side {side}"] = written.identity
    write_text(context.output("normals"), json.dumps(identities, indent=2) + "\n")


def _tell(*lines: str) -> None:
    """Print lines to the job's log, at once."""
    for line in lines:
        print(line, flush=True)
