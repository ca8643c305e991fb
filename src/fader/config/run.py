"""The whole configuration of a run."""

import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from fader.config.base import Fraction, MaskerName, Name, Odd, Positive, Section, UserPath
from fader.config.data import Dataset, Folder, Image, Validation
from fader.config.detectors import DetectorSettings
from fader.config.maskers import Codebook, Masks
from fader.config.networks import Ear, Fader, Loss, Mosaic, UNet, Variant
from fader.config.roots import clash
from fader.errors import near

# What a run keeps beside the folders of its categories.
_TAKEN = (
    *("codebook", "cost", "curves", "figures", "gallery", "metrics", "normals", "report"),
    "tables",
)


class Score(Section):
    """Anomaly map: 1 − MSGMS, mean-filtered; image score = max (paper section 4.1 and our
    choice)."""

    scales: int = Field(ge=1, le=6, description="MSGMS scales; 4")
    c: float = Field(gt=0, description="GMS constant on [0, 1] images; 0.0026")
    smooth: Odd = Field(description="side of the mean filter, pixels, odd; 21 at 256²")
    batch: Positive = Field(description="images per forward pass")


class Runtime(Section):
    """Where a job computes, and how."""

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="auto: bf16 autocast where the hardware has it, recorded in every artefact"
    )
    threads: Positive = Field(description="torch threads of one job: part of the numerics")


class Report(Section):
    """What tables and figures show."""

    images: Positive = Field(description="defective test images per category shown in Figure 1")
    warn_by: Literal["image", "pixel", "mean"] = Field(
        description="the validation AUROC that warnings look at, or the mean of both; image, which"
        " ranks real categories better"
    )
    warn_below: Fraction = Field(
        description="FADeR's validation AUROC under which a category gets a warning; 0.75, our"
        " choice"
    )


class Place(Section):
    """One category of a data set: a row of every table."""

    dataset: Name = Field(description="a key of datasets")
    category: str = Field(description="the category's folder, by its own name")

    @model_validator(mode="after")
    def _category_is_a_folder(self) -> Self:
        name = self.category
        if name in ("", ".", "..") or "/" in name:
            raise ValueError(f"category: {name!r} is no name of a folder in the data set's root")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise ValueError(f"category: {name!r} cannot be printed; rename the folder")
        if name == "average":
            raise ValueError("category: 'average' is a row of every table; rename the folder")
        return self


class Config(Section):
    """A run: its data, its systems and how they are trained and compared."""

    run: Name = Field(description="everything of the run lives under results/<run>/")
    categories: dict[Name, Place] = Field(
        min_length=1, description="stage name: dataset and category, in table order"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="one training each; mean ± std in the tables; three, our choice"
    )
    datasets: dict[Name, Dataset] = Field(min_length=1)
    weights_dir: UserPath | None = Field(
        description="folder searched first for pretrained weights, or null ($FADER_WEIGHTS)"
    )
    image: Image
    validation: Validation
    masks: Masks
    codebook: Codebook
    unet: UNet
    loss: Loss
    ear: Ear
    mosaic: Mosaic
    fader: Fader
    variants: dict[Name, Variant]
    detectors: dict[MaskerName, DetectorSettings] = Field(
        description="baselines of this run by name, each trained alone with a column in Table 1"
    )
    score: Score
    runtime: Runtime
    report: Report

    @model_validator(mode="after")
    def _placed(self) -> Self:
        for stage, place in self.categories.items():
            if stage in _TAKEN:
                raise ValueError(f"categories.{stage}: a run has a folder of that name; rename it")
            if place.dataset not in self.datasets:
                raise ValueError(
                    f"categories.{stage}.dataset: {place.dataset!r} is not under datasets"
                    f" ({', '.join(self.datasets)}){near(place.dataset, self.datasets)}"
                )
            dataset = self.datasets[place.dataset]
            if isinstance(dataset, Folder) and (
                reason := clash(str(Path(dataset.root, place.category)))
            ):
                raise ValueError(f"categories.{stage}.category: {place.category!r} {reason}")
        if len(set(self.pairs())) < len(self.categories):
            raise ValueError("categories: the same category of a data set is listed twice")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: the same seed is listed twice")
        step = 2 ** (len(self.unet.widths) - 1)
        if self.image.size % step:
            raise ValueError(
                f"image.size: {self.image.size} is not divisible by {step}, as the"
                f" {len(self.unet.widths)} levels of unet.widths need"
            )
        for key, scales in (("ear.scales", self.ear.scales), ("mosaic.fixed", [self.mosaic.fixed])):
            for m in scales:
                if self.image.size % m:
                    raise ValueError(f"{key}: {m} does not divide image.size {self.image.size}")
                if m == self.image.size:
                    raise ValueError(f"{key}: {m} makes one patch of the image, nothing to rank")
        vit = self.fader.vit
        if vit.patch and (self.image.size % vit.patch or vit.patch == self.image.size):
            raise ValueError(
                f"fader.vit.patch: {vit.patch} must divide image.size {self.image.size} and be"
                " smaller"
            )
        if vit.width % vit.heads:
            raise ValueError(f"fader.vit.width: {vit.width} is no multiple of heads {vit.heads}")
        for key, count in (("loss.scales", self.loss.scales), ("score.scales", self.score.scales)):
            if self.image.size // 2 ** (count - 1) < 4:
                raise ValueError(f"{key}: {count} scales are too many for {self.image.size} pixels")
        for name, detector in self.detectors.items():
            misfit = detector.misfit(self.image.size)
            if misfit:
                raise ValueError(f"detectors.{name}.{misfit}")
            if not set(self.validation.kinds) - set(detector.trained_on):
                raise ValueError(
                    f"validation.kinds: detectors.{name} trains on {', '.join(detector.trained_on)}"
                    " itself, so give another kind to judge it on"
                )
        return self

    _missing: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Optional maskers that this run goes without → why (see ``fader.pipeline.weights``)."""
        return self._missing

    def without(self, missing: Mapping[str, str]) -> Self:
        """The same run without some of the optional maskers."""
        lesser = self.model_copy()
        lesser._missing = dict(missing)
        return lesser

    @property
    def sides(self) -> list[int]:
        """Sides that images are kept at, pixels: the working resolution, then those of maskers and
        detectors that see more; one that sees less reduces the former."""
        masks, size = self.masks, self.image.size
        wanted = {masks.settings(m).input_size for m in masks.salient if m not in self.missing}
        wanted |= {detector.side(size) for detector in self.detectors.values()}
        return [size, *sorted(side for side in wanted if side > size)]

    @property
    def weights_folder(self) -> Path | None:
        """The user's own folder of pretrained weights."""
        return Path(self.weights_dir) if self.weights_dir else None

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The configuration as in the file."""
        return self.model_dump(mode="json")

    def pairs(self) -> list[tuple[str, str]]:
        """(dataset, category) in table order."""
        return [(place.dataset, place.category) for place in self.categories.values()]

    def trained_maskers(self) -> list[str]:
        """Maskers that learn."""
        return [masker for masker in self.masks.maskers if self.masks.trained(masker)]

    def public_set(self, dataset: str) -> str | None:
        """Name of the public data set that one of ``datasets`` is; None where it is none."""
        settings = self.datasets[dataset]
        if settings.source == "synthetic":
            return None
        return settings.paper if settings.source == "folder" else settings.source

    def like_visa(self) -> list[str]:
        """Categories of VisA, or of sets in its layout."""
        return [
            name
            for name, place in self.categories.items()
            if self.public_set(place.dataset) == "visa"
            or self.datasets[place.dataset].layout == "visa"
        ]

    def tables(self) -> list[str]:
        """Tables that the run has something to show in."""
        roles = {variant.role for variant in self.variants.values()}
        shown = {"table4": bool(self.trained_maskers()), "table5": bool(self.like_visa())}
        shown |= {"table3": "ablation" in roles, "controls": "control" in roles}
        sources = {self.datasets[place.dataset].source for place in self.categories.values()}
        shown["difficulty"] = "synthetic" in sources
        names = ["table1", "table2", "table3", "table4", "table5", "masks", "controls"]
        names += ["validation", "metrics", "cost", "statistics", "data", "difficulty"]
        return [name for name in names if shown.get(name, True)]
