"""What was read of each category, as its packed artefact says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fader.data.layout import GOOD
from fader.pipeline.artifacts import Header


@dataclass(frozen=True)
class Source:
    """The images of a category.

    Parameters
    ----------
    train : number of normal training images, held-out ones included.
    good : number of good test images.
    defects : type of defect → number of test images.
    masks : how the data set's masks are meant: present, inverted or absent.
    ignored : suffix, or what else files are ignored by → number of files.
    warnings : what to know before relying on numbers measured on these images, a line each.
    difficulty : of each test image, 0 (plain) to 1 (barely visible); None for good images, and for
        images that were not generated.
    """

    train: int
    good: int
    defects: Mapping[str, int]
    masks: str
    ignored: Mapping[str, int]
    warnings: Sequence[str]
    difficulty: Sequence[float | None] = ()

    @classmethod
    def of(cls, header: Header) -> Source:
        """From the header that ``fader.steps.pack`` writes."""
        facts = header.facts
        test = dict(facts["counts"]["test"])
        return cls(
            train=facts["counts"]["train"],
            good=test.pop(GOOD, 0),
            defects=test,
            masks=facts["masks"],
            ignored=facts["ignored"],
            warnings=facts["warnings"],
            difficulty=facts["difficulty"],
        )
