"""Methods: the rows and columns of the tables, and the only place that formats or parses their
names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fader.config import Config
from fader.errors import FaderError

Stage = Literal["mask", "ear", "fader", "control", "detector"]


@dataclass(frozen=True, order=True)
class Method:
    """What one set of scores was measured with.

    Parameters
    ----------
    stage : ``mask`` (a masker's saliency itself), ``ear``, ``fader`` (and its ablations),
        ``control`` (FADeR's controls), or ``detector`` (a baseline).
    system : the masker, or the baseline.
    variant : of FADeR, under the base masker; None for FADeR as proposed.
    """

    stage: Stage
    system: str
    variant: str | None = None

    def __str__(self) -> str:
        if self.stage == "detector":
            return self.system
        return "-".join(part for part in (self.stage, self.system, self.variant) if part)

    @classmethod
    def parse(cls, name: str) -> Method:
        """A method from its name: ``ear-dino``, ``fader-dino-hard``, or a baseline's, ``riad``.

        Raises
        ------
        FaderError : a hyphenated name that begins with no stage.
        """
        stage, hyphen, rest = name.partition("-")
        if not hyphen:
            return cls("detector", name)
        stages: dict[str, Stage] = {each: each for each in get_args(Stage)}
        if stage not in stages or stage == "detector":
            raise FaderError(f"method {name!r} is none: it should begin with mask-, ear- or fader-")
        system, _, variant = rest.partition("-")
        return cls(stages[stage], system, variant or None)

    @property
    def masker(self) -> str | None:
        """The masker behind the method; None for a baseline."""
        return None if self.stage == "detector" else self.system

    @property
    def trained(self) -> bool:
        """Whether the method has a training of its own, beyond EAR's."""
        return self.stage not in ("mask", "ear")

    @property
    def trained_on_ear(self) -> bool:
        """Whether this is FADeR, an ablation or a control."""
        return self.stage in ("fader", "control")


def of_variant(config: Config, name: str) -> Method:
    """The method of one of FADeR's variants."""
    stage: Stage = "control" if config.variants[name].role == "control" else "fader"
    return Method(stage, config.masks.base, name)


def methods(config: Config) -> list[Method]:
    """All methods of a run: of each masker, then the variants, then the baselines."""
    return [
        *(Method(stage, masker) for masker in config.masks.maskers for stage in OF_MASKER),
        *(of_variant(config, name) for name in config.variants),
        *(Method("detector", name) for name in config.detectors),
    ]


OF_MASKER: tuple[Stage, ...] = ("mask", "ear", "fader")
