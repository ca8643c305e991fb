"""The gallery of a category: test images as FADeR sees them, its worst errors first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np

from fader.config import Config
from fader.pipeline import artifacts
from fader.pipeline.context import checked
from fader.pipeline.jobs import Job
from fader.pipeline.methods import Method
from fader.report import labels
from fader.report.records import Record, Records
from fader.report.site import images

FALSE_NEGATIVE, FALSE_POSITIVE, CORRECT = "false negative", "false positive", "correct"
VIEWS = ("input", "anomaly map", "reconstruction", "ground truth")
PICTURES = 3  # of a case that are encoded with a loss: the ground truth takes next to nothing

Pictures = Mapping[str, str | None]


@dataclass(frozen=True)
class Case:
    """One test image.

    Parameters
    ----------
    name : of its file, below the category's folder.
    defect : its type; good is one.
    score, limit : of the image, and the threshold.
    outcome : ``false negative``, ``false positive`` or ``correct``.
    pictures : view → data URI; None for the ground truth where the data set has no masks.
    """

    name: str
    defect: str
    score: float
    limit: float
    outcome: str
    pictures: Pictures

    @property
    def severity(self) -> tuple[int, float]:
        """Errors come first, those farthest from the threshold before others."""
        return self.outcome == CORRECT, -abs(self.score - self.limit)


@dataclass(frozen=True)
class Gallery:
    """The images of a category.

    Parameters
    ----------
    place : key of ``categories``.
    title : the category, with its data set where there are several.
    about : what is shown, and how the threshold was chosen.
    cases : worst errors first.
    counts : outcome → number of test images, shown or not.
    files : what it was read from.
    """

    place: str
    title: str
    about: Sequence[str]
    cases: Sequence[Case]
    counts: Mapping[str, int]
    files: Sequence[str]

    @property
    def defects(self) -> list[str]:
        """Types of defects, in the order of the test images."""
        return sorted({case.defect for case in self.cases})


def galleries(records: Records) -> list[Gallery]:
    """A gallery of every category."""
    return [_gallery(records, place) for place in records.places]


def _gallery(records: Records, place: str) -> Gallery:
    config = records.config
    method = Method("fader", config.masks.base)
    record = records.get(place, method, config.seeds[0])
    header, path = checked(config, Job("gallery", place), "pictures")
    packed, images_path = checked(config, Job("pack", place), "packed")
    shown = artifacts.read_arrays(path)
    test = artifacts.read_arrays(images_path, {"test", "mask"})
    limit = header.facts["threshold"]
    outcomes = [
        outcome(score, label, limit["value"])
        for score, label in zip(record.scores, record.labels, strict=True)
    ]
    masks = None if packed.facts["masks"] == "absent" else test["mask"]
    indices = shown["index"].tolist()
    most = images.of_case(len(records.places), PICTURES * len(indices))
    low, high = (float(shown["map"].min()), float(shown["map"].max())) if indices else (0, 1)
    cases = [
        Case(
            name=packed.facts["test"][index],
            defect=packed.facts["defects"][index],
            score=record.scores[index],
            limit=limit["value"],
            outcome=outcomes[index],
            pictures={
                VIEWS[0]: images.picture(_upright(test["test"][index]), most),
                VIEWS[1]: images.picture(heat(shown["map"][row], low, high), most),
                VIEWS[2]: images.picture(_upright(shown["reconstruction"][row]), most),
                VIEWS[3]: None if masks is None else images.mask(masks[index].astype(bool)),
            },
        )
        for row, index in enumerate(indices)
    ]
    return Gallery(
        place=place,
        title=records.title(place),
        about=_about(config, method, record, limit, len(cases)),
        cases=sorted(cases, key=lambda case: case.severity),
        counts={kind: outcomes.count(kind) for kind in (FALSE_NEGATIVE, FALSE_POSITIVE, CORRECT)},
        files=[path, images_path],
    )


def outcome(score: float, label: int, limit: float) -> str:
    """What a threshold makes of an image's score and label (1 = defective)."""
    if (score > limit) == (label == 1):
        return CORRECT
    return FALSE_NEGATIVE if label == 1 else FALSE_POSITIVE


def heat(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """An anomaly map (H, W) in colours (H, W, 3) uint8, dark at ``low``, bright at ``high``."""
    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-12)
    colours = matplotlib.colormaps["inferno"](np.clip(scaled, 0, 1), bytes=True)
    return np.ascontiguousarray(colours[..., :3])


def _upright(pixels: np.ndarray) -> np.ndarray:
    """(3, H, W) as (H, W, 3)."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _about(
    config: Config, method: Method, record: Record, limit: Mapping[str, Any], shown: int
) -> list[str]:
    number = len(record.scores)
    some = "All" if shown == number else f"{shown} of the"
    return [
        f"{some} {number} test images as {labels.method(config, method)} of seed {record.seed} sees"
        " them; the anomaly maps of a category share one scale.",
        f"An image counts as defective where its score is above {limit['value']:.4f}. The"
        " threshold was chosen without any test image, by Youden's index (recall − false positive"
        f" rate) on {limit['normal']} held-out training normals against {limit['defective']}"
        f" synthetic defects painted on them, of which it catches {100 * limit['recall']:.0f} % at"
        f" {100 * limit['false_positives']:.0f} % false positives.",
    ]
