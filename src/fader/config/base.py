"""What the sections of the configuration are made of."""

import os
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*(-[a-z0-9_]+)*$")]


# The hyphen parts masker and variant in the names of systems and methods.
MaskerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


# A file or folder of the user's own: ``~`` is their home, a relative path starts at the
# repository's root.
UserPath = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


Fraction = Annotated[float, Field(gt=0, lt=1)]


Positive = Annotated[int, Field(ge=1)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, got {value}")
    return value


# The side of a neighbourhood that has a middle.
Odd = Annotated[Positive, AfterValidator(_odd)]


Weight = Annotated[float, Field(ge=0)]


LearningRate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A section of the configuration: immutable, complete, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Length(Section):
    """How long a training lasts.

    Steps give every category the same; epochs give a category of few images few steps.
    """

    steps: Positive | None = Field(
        default=None, description="optimiser steps, whatever the number of images; or `epochs`"
    )
    epochs: Positive | None = Field(
        default=None, description="passes over the fitted normals, as the papers count; or `steps`"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, one of the two")
        return self


class Baseline(Section):
    """What every detector of the section ``detectors`` declares about itself.

    Class variables, no keys of the file.

    Attributes
    ----------
    label : its name in tables.
    paper : its column in the paper's Table 1, or None for a supplement.
    visa : its column in the paper's Table 5, or None.
    rederived : what of it no source at hand gives, for the note below the table; None for nothing.
    reads : the other sections that it depends on.
    trained_on : kinds of synthetic defect that it trains on itself, and is not judged on.
    """

    label: ClassVar[str]
    paper: ClassVar[str | None] = None
    visa: ClassVar[str | None] = None
    rederived: ClassVar[str | None] = None
    reads: ClassVar[tuple[str, ...]] = ()
    trained_on: ClassVar[tuple[str, ...]] = ()

    def side(self, size: int) -> int:
        """Side of the images that the detector is given where the run's are of ``size``."""
        return size

    def misfit(self, size: int) -> str | None:
        """Why the detector cannot work on images of ``size`` × ``size`` pixels, opening with the
        key to blame; None where it can."""
        return None
