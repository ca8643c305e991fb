"""What the sections of the configuration are made of."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*(-[a-z0-9_]+)*$")]


# The hyphen parts masker and variant in the names of systems and methods.
MaskerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


# A file or folder of the user's own: ``~`` is their home, a relative path starts at the
# repository's root.
UserPath = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


Fraction = Annotated[float, Field(gt=0, lt=1)]


Positive = Annotated[int, Field(ge=1)]


Weight = Annotated[float, Field(ge=0)]


LearningRate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A section of the configuration: immutable, complete, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
