"""What the figures are drawn from: the images, masks and maps that a run kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import artifacts
from fader.pipeline.context import checked
from fader.pipeline.jobs import Job
from fader.pipeline.methods import Method
from fader.report import figures, labels

ROWS = 8  # of Figure 6, at most

Arrays = dict[str, np.ndarray]


def figure1(config: Config) -> Figure:
    """FADeR's steps on every category's images."""
    return figures.figure1(list(examples(config)))


def figure2(config: Config) -> Figure:
    """Ways of masking one image."""
    return figures.figure2(masking(config))


def figure6(config: Config) -> Figure:
    """What every masker suspects."""
    return figures.figure6(suspects(config))


def examples(config: Config) -> Iterator[figures.Example]:
    """Images of every category as FADeR sees them, with the first seed."""
    for place, category in config.categories.items():
        packed = _packed(config, place)
        pictures = _pictures(config, place, Method("fader", config.masks.base))[1]
        for row, index in enumerate(pictures["index"].tolist()):
            yield figures.Example(
                title=f"{category.category}\n{packed.defects[index]}",
                image=packed.image(index),
                binary_mask=pictures["mask"][row].astype(bool),
                soft_mask=pictures["soft_mask"][row].astype(np.float32),
                reconstruction=pictures["reconstruction"][row].transpose(1, 2, 0),
                map=pictures["map"][row].astype(np.float32),
                truth=packed.truth(index),
            )


def masking(config: Config) -> figures.Masking:
    """The first image shown of the first category, with EAR's mask, m* and anomaly map."""
    place, category = next(iter(config.categories.items()))
    packed = _packed(config, place)
    pictures = _pictures(config, place, Method("ear", config.masks.base))[1]
    header, _ = checked(config, Job("mosaic", place, seed=config.seeds[0]), "scale")
    scale, index = header.facts["mosaic"], int(pictures["index"][0])
    image, mask = packed.image(index), pictures["mask"][0].astype(bool)
    return figures.Masking(
        title=f"{category.category}\n{packed.defects[index]}",
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


def suspects(config: Config) -> list[figures.Suspects]:
    """Images of the first categories, equally many of each, as every masker sees them.

    Raises
    ------
    FaderError : two maskers show different images.
    """
    places = list(config.categories)[:ROWS]
    each = ROWS // len(places)
    return [row for place in places for row in _suspected(config, place)[:each]]


def _suspected(config: Config, place: str) -> list[figures.Suspects]:
    packed = _packed(config, place)
    base = Method("mask", config.masks.base)
    indices = _pictures(config, place, base)[1]["index"].tolist()
    maskers: dict[str, list[figures.Suspicion] | None] = {}
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
        maskers[label] = [figures.Suspicion(*pair) for pair in zip(saliency, masks, strict=True)]
    return [
        figures.Suspects(
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
