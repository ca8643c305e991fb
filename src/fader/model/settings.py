"""The configuration that a model is fitted with: a preset's, cut down to one detector."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fader.config import Attention, Config, parse
from fader.config.base import Fraction, Length, Section
from fader.config.files import preset_file
from fader.config.syntax import plain
from fader.errors import FaderError, near
from fader.files import refusal, shown

PRESETS = Path(__file__).resolve().parents[3] / "presets"
DEFAULT = "patchcore"
MASKED = ("ear", "fader")  # they work on the masks of the base masker
FALSE_ALARMS = 0.01
# The images have no place of their own in the file, so that it says the same wherever they lie.
IMAGES: dict[str, Any] = {
    "source": "folder",
    "layout": "mvtec",
    "root": "images",
    "paper": None,
    "complete": False,
    "masks": "absent",
    "white": None,
}


class Fitting(Section):
    """The section ``fit`` that a model's configuration has beside those of a run."""

    detector: str
    false_alarms: Fraction


@dataclass(frozen=True)
class Plan:
    """What is fitted, and how.

    Parameters
    ----------
    config : of one data set, one seed, the base masker and, but for EAR and FADeR, one detector.
    detector : a key of ``config.detectors``, or ``ear`` or ``fader``.
    false_alarms : share of normal images that may be called defective.
    """

    config: Config
    detector: str
    false_alarms: float

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.config.seeds[0]

    @property
    def white(self) -> float | None:
        """Stated value of white in images of more than 8 bits."""
        return next(iter(self.config.datasets.values())).white

    @property
    def label(self) -> str:
        """The detector's name in tables."""
        names = {"ear": "EAR", "fader": "FADeR"}
        return names.get(self.detector) or self.config.detectors[self.detector].label

    @property
    def sides(self) -> list[int]:
        """Sides that images are needed at, pixels: the working resolution, then larger ones."""
        config, size = self.config, self.config.image.size
        wanted = {self.side}
        if self.detector in MASKED:
            wanted.add(config.masks.settings(config.masks.base).input_size)
        return [size, *sorted(side for side in wanted if side > size)]

    @property
    def side(self) -> int:
        """Side of the images that the detector is given."""
        size = self.config.image.size
        if self.detector in MASKED:
            return size
        return max(size, self.config.detectors[self.detector].side(size))

    @property
    def trained(self) -> bool:
        """Whether the detector is trained step by step, so that its length can be chosen."""
        return self.detector in MASKED or isinstance(self.config.detectors[self.detector], Length)

    def text(self) -> str:
        """The file: a complete configuration and the section ``fit``."""
        own = {"detector": self.detector, "false_alarms": self.false_alarms}
        values = {"fit": own} | self.config.plain
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def plan(
    preset: str | Path = "real",
    *,
    detector: str | None = None,
    size: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    false_alarms: float | None = None,
    white: float | None = None,
) -> Plan:
    """What a preset and the options say; see ``fader.model.fitting.fit``.

    Raises
    ------
    FaderError : no such preset or detector, a base masker that learns, or values that do not go
        together.
    """
    values, source = _read(preset)
    own = values.pop("fit", None) or {}
    if isinstance(own, Mapping):
        own = dict(own)
        detector = detector or own.get("detector")
        false_alarms = own.get("false_alarms") if false_alarms is None else false_alarms
    false_alarms = FALSE_ALARMS if false_alarms is None else false_alarms
    if not isinstance(false_alarms, float) or not 0 < false_alarms < 1:
        raise FaderError(f"false alarms: {false_alarms!r}; give a share between 0 and 1, as 0.01")
    whole = parse(values, source)
    names = [*whole.detectors, *MASKED]
    name = detector or DEFAULT
    if name not in names:
        raise FaderError(
            f"{source}: no detector {name!r} (there are: {', '.join(names)}){near(name, names)}"
        )
    options = {"size": size, "steps": steps, "epochs": epochs, "seed": seed, "white": white}
    given = ", ".join(f"--{key} {each:g}" for key, each in options.items() if each is not None)
    source = f"{source} with {given}" if given else source
    changed = _cut_down(whole, name, white)
    changed["seeds"] = [seed if seed is not None else whole.seeds[0]]
    _resize(changed, name, size)
    _lengthen(changed, name, steps, epochs)
    config = parse(changed, source)
    if name in MASKED:
        _check_masker(config, source)
    return Plan(config, name, false_alarms)


def known(preset: str | Path) -> list[str]:
    """Detectors of a preset, and EAR and FADeR, which are of all."""
    values, source = _read(preset)
    values.pop("fit", None)
    return [*parse(values, source).detectors, *MASKED]


def _read(preset: str | Path) -> tuple[dict[str, Any], str]:
    """Values of a preset and its name in messages. A built-in one runs on all processors."""
    path = Path(preset)
    built_in = path.suffix not in (".yaml", ".yml") and len(path.parts) == 1
    if built_in:
        path = preset_file(str(preset), PRESETS)
    try:
        values = plain(path.read_bytes())
    except OSError as error:
        raise refusal(error, path) from None
    except FaderError as error:
        raise FaderError(f"{shown(path)}: {error}") from None
    if not isinstance(values, dict):
        raise FaderError(f"{shown(path)}: no configuration; `presets/` holds some")
    if built_in and isinstance(values.get("runtime"), dict):
        values["runtime"]["threads"] = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return values, shown(path) if not built_in else f"preset {preset}"


def _cut_down(whole: Config, name: str, white: float | None) -> dict[str, Any]:
    """A configuration's values, of one data set, the base masker and one detector."""
    values = whole.model_dump(mode="json")
    former = values["datasets"].get("mine", {})
    values |= {
        "run": "model",
        "categories": {"mine-images": {"dataset": "mine", "category": "images"}},
        "datasets": {"mine": IMAGES | {"white": former.get("white") if white is None else white}},
        "variants": {},
        "detectors": {} if name in MASKED else {name: values["detectors"][name]},
    }
    base = values["masks"]["base"]
    values["masks"] |= {"maskers": {base: values["masks"]["maskers"][base]}, "optional": []}
    values["fader"]["watch"] = "last"  # there are no test images to watch
    return values


def _resize(values: dict[str, Any], name: str, size: int | None) -> None:
    if size is None:
        return
    of_detector = values["detectors"].get(name, {})
    if "input_size" in of_detector:
        of_detector["input_size"] = size
    else:
        values["image"]["size"] = size


def _lengthen(values: dict[str, Any], name: str, steps: int | None, epochs: int | None) -> None:
    """Another length of the training; FADeR's follows EAR's in proportion."""
    if steps is not None and epochs is not None:
        raise FaderError("steps and epochs: give one of the two")
    unit, length = ("steps", steps) if steps is not None else ("epochs", epochs)
    if length is None:
        return
    section = values["ear"] if name in MASKED else values["detectors"][name]
    if "steps" not in section:
        raise FaderError(f"{unit}: {name} is not trained step by step; leave it out")
    if name == "fader":
        own = values["fader"]
        counted = "steps" if section["steps"] is not None else "epochs"
        if own[counted] is None:
            raise FaderError(f"{unit}: the preset counts EAR's and FADeR's in different units")
        share = own[counted] / section[counted]
        own |= {"steps": None, "epochs": None, unit: max(1, round(share * length))}
    section |= {"steps": None, "epochs": None, unit: length}


def _check_masker(config: Config, source: str) -> None:
    settings = config.masks.settings(config.masks.base)
    if not isinstance(settings, Attention):
        raise FaderError(
            f"{source}: masks.base: {config.masks.base} is a {settings.kind}; a model takes the"
            " masks of an attention masker (kind: attention), which needs no training"
        )
    if config.mosaic.policy == "oracle":
        raise FaderError(f"{source}: mosaic.policy: oracle needs test labels; take search")


def shortened(given: Plan, share: float) -> Plan:
    """The same with trainings of a ``share`` of their steps, at least one, counted in steps."""
    values = given.config.model_dump(mode="json")
    sections = [values[name] for name in ("ear", "fader") if given.detector in MASKED]
    for section in sections or [values["detectors"][given.detector]]:
        unit = "steps" if section["steps"] is not None else "epochs"
        section[unit] = max(1, int(share * section[unit]))
    return Plan(parse(values, "shortened"), given.detector, given.false_alarms)
