"""The whole configuration of a run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fader.config.base import Fraction, MaskerName, Name, Positive, Section
from fader.config.data import Dataset, Image, Validation
from fader.config.detectors import (
    PROPOSED,
    DetectorSettings,
    Ear,
    Fader,
    Loss,
    Mosaic,
    UNet,
    Variant,
)
from fader.config.maskers import Codebook, Masks
from fader.errors import FaderError


class Score(Section):
    """Anomaly map: 1 − MSGMS, mean-filtered; image score = max (paper section 4.1 and our
    choice)."""

    scales: int = Field(ge=1, le=6, description="MSGMS scales; 4")
    c: float = Field(gt=0, description="GMS constant on [0, 1] images; 0.0026")
    smooth: int = Field(ge=1, description="side of the mean filter, pixels, odd; 21 at 256²")
    batch: Positive = Field(description="images per forward pass")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth: must be odd, got {self.smooth}")
        return self


class Runtime(Section):
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="auto: bf16 autocast where the hardware has it, recorded in every artefact"
    )
    threads: Positive = Field(description="torch threads of one job: part of the numerics")


class Report(Section):
    images: Positive = Field(description="defective test images per category shown in Figure 1")
    warn_below: Fraction = Field(
        description="FADeR's validation AUROC (mean of image and pixel) under which a category gets"
        " a warning; 0.85, our choice"
    )


class Place(Section):
    """One category of a data set: a row of every table."""

    dataset: Name = Field(description="a key of datasets")
    category: Name = Field(description="the category's folder")


class Config(Section):
    run: Name = Field(description="everything of the run lives under results/<run>/")
    categories: dict[Name, Place] = Field(
        min_length=1, description="stage name: dataset and category, in table order"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="one training each; mean ± std in the tables; three, our choice"
    )
    datasets: dict[Name, Dataset] = Field(min_length=1)
    weights_dir: str | None = Field(
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
    def _consistent(self) -> Self:
        for stage, place in self.categories.items():
            if place.dataset not in self.datasets:
                raise ValueError(
                    f"categories.{stage}.dataset: {place.dataset!r} is not under datasets"
                )
        if len(set(self.pairs())) < len(self.categories):
            raise ValueError("categories: the same category of a data set is listed twice")
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
        for key, scales in (("loss.scales", self.loss.scales), ("score.scales", self.score.scales)):
            if self.image.size // 2 ** (scales - 1) < 4:
                raise ValueError(
                    f"{key}: {scales} scales are too many for {self.image.size} pixels"
                )
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """(dataset, category) in table order."""
        return [(place.dataset, place.category) for place in self.categories.values()]

    def systems(self) -> list[str]:
        """Trained FADeR systems: ``<masker>`` and ``<masker>-<variant>`` for the base masker."""
        return [*self.masks.maskers, *(f"{self.masks.base}-{variant}" for variant in self.variants)]

    def methods(self) -> list[str]:
        """Rows of evaluation: ``mask-<masker>`` (the saliency itself), ``ear-<masker>``,
        ``fader-<masker>``, and those of ``variant_methods``."""
        stages = ("mask", "ear", "fader")
        of_maskers = [f"{stage}-{masker}" for masker in self.masks.maskers for stage in stages]
        return of_maskers + self.variant_methods()

    def variant_methods(self) -> list[str]:
        """``<role>-<masker>-<variant>`` of every variant."""
        role = {"control": "control", "ablation": "fader"}
        return [f"{role[v.role]}-{self.masks.base}-{name}" for name, v in self.variants.items()]

    def trained_maskers(self) -> list[str]:
        """Maskers that learn."""
        return [masker for masker in self.masks.maskers if self.masks.trained(masker)]

    def variant(self, system: str) -> Variant:
        """Settings of a FADeR system; FADeR as proposed when ``system`` names no variant."""
        masker, _, name = system.partition("-")
        if not name:
            own = self.fader.tuning == "each" or masker == self.masks.base
            grid = "own" if own else "inherit"
            return Variant(role="ablation", grid=grid, **PROPOSED)
        if name not in self.variants:
            raise FaderError(
                f"variant {name!r} of {system!r} is not under variants in the configuration"
            )
        return self.variants[name]

    def tables(self) -> list[str]:
        """Tables that the run has something to show in."""
        roles = {variant.role for variant in self.variants.values()}
        shown = {"table4": bool(self.trained_maskers())}
        shown |= {"table3": "ablation" in roles, "controls": "control" in roles}
        names = ["table1", "table2", "table3", "table4", "masks", "controls", "validation"]
        names += ["cost", "statistics", "errata"]
        return [name for name in names if shown.get(name, True)]

    def inherited(self, system: str) -> list[str]:
        """The system whose grid pick ``system`` takes over, if it does."""
        return [self.masks.base] if self.variant(system).grid == "inherit" else []
