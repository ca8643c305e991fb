"""Detectors that train on anomalies of their own making (Table 5), and the textures of these."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fader.config.base import (
    Baseline,
    Fraction,
    LearningRate,
    Length,
    Odd,
    Positive,
    Section,
    UserPath,
)
from fader.config.roots import clash

_COUNT = "textures kept in memory at the images' size"


class GeneratedTextures(Section):
    """Procedural textures, with colours of the fitted normals: nothing to download."""

    source: Literal["generated"]
    count: Positive = Field(description=_COUNT)


class TextureFolder(Section):
    """Images on disk, at any depth, such as a copy of DTD."""

    source: Literal["folder"]
    root: UserPath = Field(description="folder that holds the images")
    count: Positive = Field(description=f"{_COUNT}, at most, evenly spaced over the folder's")

    @model_validator(mode="after")
    def _root_is_the_users(self) -> Self:
        if reason := clash(self.root):
            raise ValueError(f"root: {self.root!r} {reason}")
        return self


class Dtd(Section):
    """The Describable Textures Dataset (Cimpoi et al., CVPR 2014), downloaded (sha256-checked) and
    extracted under ``data/``."""

    source: Literal["dtd"]
    mirrors: list[str] = Field(
        description="URLs tried before the official one; a local archive as file:///…"
    )
    count: Positive = Field(
        description=f"{_COUNT}, at most, evenly spaced over DTD's; 5640, all of them"
    )


Textures = Annotated[GeneratedTextures | TextureFolder | Dtd, Field(discriminator="source")]


class Synthesis(Length, Baseline):
    """What the three share: a reconstructive and a discriminative network, trained on textures in
    Perlin masks. Values are DRAEM's; 700 epochs."""

    trained_on: ClassVar[tuple[str, ...]] = ("perlin",)

    width: Positive = Field(
        description="feature maps of the reconstructive network's first level, doubling to 8 times"
        " as many; 128"
    )
    segmentation: Positive = Field(
        description="the same of the discriminative network, which segments; 64"
    )
    textures: Textures
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="Adam's learning rate, ×0.2 at 80 % and 90 %; 0.0001")

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        if size % 32:
            return (
                f"kind: image.size {size} is no multiple of 32, as {self.label}'s five halvings"
                " need"
            )
        return None


class Draem(Synthesis):
    """DRAEM (Zavrtanik et al., ICCV 2021): textures blended into normal images."""

    label: ClassVar[str] = "DRAEM"
    visa: ClassVar[str | None] = "draem"

    kind: Literal["draem"]


class _Noticeable(Section):
    """How noticeable anomalies are to the eye, and where they count as such; re-derived."""

    levels: list[Fraction] = Field(
        min_length=1,
        description="levels of noticeability: opacity of a texture where the eye would notice it"
        " most, 1 where it would least; 0.1, 0.3 and 0.6, re-derived",
    )
    similar: Fraction = Field(
        description="SSIM of image and anomalous image below which a pixel is labelled as"
        " anomalous; 0.9, re-derived"
    )


class Jnld(_Noticeable, Synthesis):
    """JNLD (Zhao, ICME 2022): DRAEM with maps of just noticeable differences; re-derived, as is
    every value without another source."""

    label: ClassVar[str] = "JNLD"
    visa: ClassVar[str | None] = "jnld"
    rederived: ClassVar[str | None] = (
        "levels of noticeability, the fusion, the threshold of the labels, and all that it shares"
        " with DRAEM"
    )

    kind: Literal["jnld"]
    smooth: Odd = Field(
        description="side of the mean filter that softens the masks, pixels, odd; 5, re-derived"
    )


class OmniAl(_Noticeable, Synthesis):
    """OmniAL (Zhao, CVPR 2023): JNLD with panels of anomalies of several difficulties, attention
    and a difference neck; re-derived, as is every value without another source."""

    label: ClassVar[str] = "OmniAL"
    visa: ClassVar[str | None] = "omnial"
    rederived: ClassVar[str | None] = (
        "levels of difficulty, the panel, the order and sizes of attention, the neck, the threshold"
        " of the labels, one model for each category, and all that it shares with DRAEM"
    )

    kind: Literal["omnial"]
    smooths: list[Odd] = Field(
        description="side of the mean filter that softens the masks of each level, pixels, odd; 9,"
        " 5 and 3, re-derived: smaller where the anomaly is easier"
    )
    dilation: Positive = Field(description="of the first convolution of a block; 2, re-derived")
    reduction: Positive = Field(
        description="channels of the channel attention's input / those of its middle layer; 16, as"
        " in CBAM"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.smooths) != len(self.levels):
            raise ValueError("smooths: give one per level, as many as levels")
        if self.width < self.reduction:
            raise ValueError("reduction: at most width, or the attention's middle layer is empty")
        return self
