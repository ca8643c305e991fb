"""What the figures are drawn from: the images, masks and maps that a run kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import artifacts
from fader.pipeline.context import checked
from fader.pipeline.jobs import Job
from fader.pipeline.methods import Method
from fader.report import labels
from fader.report.figures import paper
from fader.report.figures.diagrams import Skip, Trace

ROWS = 8  # of Figures 1 and 6, at most: a page
PIXELS = ("image", "obfuscated", "reconstruction")

Arrays = dict[str, np.ndarray]


def examples(config: Config) -> Iterator[paper.Example]:
    """Images of the first categories, equally many of each, as FADeR sees them, with the first
    seed."""
    for place, each in _on_a_page(config):
        packed = _packed(config, place)
        pictures = _pictures(config, place, Method("fader", config.masks.base))[1]
        for row, index in enumerate(pictures["index"].tolist()[:each]):
            yield paper.Example(
                title=_title(config, place, packed, index),
                image=packed.image(index),
                binary_mask=pictures["mask"][row].astype(bool),
                soft_mask=pictures["soft_mask"][row].astype(np.float32),
                reconstruction=pictures["reconstruction"][row].transpose(1, 2, 0),
                map=pictures["map"][row].astype(np.float32),
                truth=packed.truth(index),
            )


def masking(config: Config) -> paper.Masking:
    """The first image shown of the first category, with EAR's mask, m* and anomaly map."""
    place = next(iter(config.categories))
    packed = _packed(config, place)
    pictures = _pictures(config, place, Method("ear", config.masks.base))[1]
    header, _ = checked(config, Job("mosaic", place, seed=config.seeds[0]), "scale")
    scale, index = header.facts["mosaic"], int(pictures["index"][0])
    image, mask = packed.image(index), pictures["mask"][0].astype(bool)
    return paper.Masking(
        title=_title(config, place, packed, index),
        image=image,
        truth=packed.truth(index),
        binary_mask=mask,
        error=pictures["map"][0].astype(np.float32),
        mosaic=np.where(mask[..., None], mosaic(image, scale), image),
        scale=scale,
    )


def mosaic(image: np.ndarray, scale: int) -> np.ndarray:
    """An image (H, W, 3) uint8 with every ``scale`` × ``scale`` cell replaced by its mean; as
    ``vision.mosaic.mosaic``, without torch. ``scale`` divides H and W."""
    height, width, channels = image.shape
    cells = image.reshape(height // scale, scale, width // scale, scale, channels)
    means = cells.mean((1, 3)).round().astype(np.uint8)
    return means.repeat(scale, axis=0).repeat(scale, axis=1)


def suspects(config: Config) -> list[paper.Suspects]:
    """Images of the first categories, equally many of each, as every masker sees them.

    Raises
    ------
    FaderError : two maskers show different images.
    """
    return [row for place, each in _on_a_page(config) for row in _suspected(config, place)[:each]]


def _on_a_page(config: Config) -> list[tuple[str, int]]:
    """The first categories, and how many images of each fit on a page."""
    places = list(config.categories)[:ROWS]
    return [(place, ROWS // len(places)) for place in places]


def _title(config: Config, place: str, packed: "_Packed", index: int) -> str:
    """Category and defect of a test image."""
    return f"{config.categories[place].category}\n{packed.defects[index]}"


def traces(config: Config) -> tuple[Trace, Trace]:
    """What FADeR makes of a fitted normal and of a test image of the first category, step by
    step."""
    place = next(iter(config.categories))
    header, path = checked(config, Job("gallery", place), "trace")
    arrays, packed = artifacts.read_arrays(path), _packed(config, place)
    shown, scale = header.facts["shown"], header.facts["scale"]
    tested = _title(config, place, packed, shown).replace("\n", ", ")
    normal = f"{config.categories[place].category}, normal"
    return (
        _trace(arrays, "normal", normal, scale, None),
        _trace(arrays, "tested", tested, scale, packed.truth(shown)),
    )


def _trace(arrays: Arrays, name: str, title: str, scale: int, truth: np.ndarray | None) -> Trace:
    found = {
        part: value
        for which, _, part, value in ((*key.partition(" "), array) for key, array in arrays.items())
        if which == name
    }
    pixels = {part: found[part].transpose(1, 2, 0) for part in PIXELS}
    plain = {part: found[part] for part in ("predicted", "error", "soft_mask", "raw", "map")}
    levels = sum(part.startswith("skip ") for part in found)
    skips = [
        Skip(found[f"before {level}"], found[f"skip {level}"], found[f"after {level}"])
        for level in range(levels)
    ]
    mask = found["mask"].astype(bool)
    return Trace(title, scale, mask=mask, skips=skips, truth=truth, **pixels, **plain)


def _suspected(config: Config, place: str) -> list[paper.Suspects]:
    packed = _packed(config, place)
    base = Method("mask", config.masks.base)
    indices = _pictures(config, place, base)[1]["index"].tolist()
    maskers: dict[str, list[paper.Suspicion] | None] = {}
    for masker, label in labels.maskers(config).items():
        method = Method("mask", masker)
        facts, pictures = _pictures(config, place, method)
        if facts.get("missing") is not None:
            maskers[label] = None
            continue
        if pictures["index"].tolist() != indices:
            raise FaderError(
                f"{place}/{method}: shows test images {pictures['index'].tolist()}, {base}"
                f" {indices}; run the evaluation again"
            )
        saliency, masks = pictures["map"].astype(np.float32), pictures["mask"].astype(bool)
        maskers[label] = [paper.Suspicion(*pair) for pair in zip(saliency, masks, strict=True)]
    return [
        paper.Suspects(
            title=f"{config.categories[place].category}\n{packed.defects[index]}",
            image=packed.image(index),
            truth=packed.truth(index),
            maskers={label: None if each is None else each[row] for label, each in maskers.items()},
        )
        for row, index in enumerate(indices)
    ]


@dataclass(frozen=True)
class _Packed:
    """Test images (N, 3, H, W) uint8 of a category, each image's defect, and masks (N, H, W) 0/1;
    None where the data set has none."""

    images: np.ndarray
    defects: Sequence[str]
    masks: np.ndarray | None

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.images[index].transpose(1, 2, 0)

    def truth(self, index: int) -> np.ndarray | None:
        """(H, W) bool."""
        return None if self.masks is None else self.masks[index].astype(bool)


def _packed(config: Config, place: str) -> _Packed:
    header, path = checked(config, Job("pack", place), "packed")
    arrays = artifacts.read_arrays(path, {"test", "mask"})
    masks = None if header.facts["masks"] == "absent" else arrays["mask"]
    return _Packed(arrays["test"], header.facts["defects"], masks)


def _pictures(config: Config, place: str, method: Method) -> tuple[dict[str, Any], Arrays]:
    """Facts and arrays of a method's pictures for the first seed."""
    job = Job("evaluate", place, seed=config.seeds[0])
    header, path = checked(config, job, f"maps {method}")
    return dict(header.facts), artifacts.read_arrays(path)
