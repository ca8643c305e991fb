"""Maskers, the codebook that one of them needs, and the rule that makes masks of saliency."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from fader.config.base import (
    LearningRate,
    Length,
    MaskerName,
    Name,
    Positive,
    Section,
    UserPath,
)
from fader.errors import near

Rule = Literal["mass", "minmax", "mean_std", "otsu", "quantile", "native"]
_LEVEL = (
    "the rule's level: mass kept in (0, 1), 0.6 our choice; threshold or share in [0, 1) for minmax"
    " and quantile; multiple of σ for mean_std; not used by otsu and native"
)


class MaskerSection(Section):
    """What every masker declares about itself, and how its saliency becomes a binary mask.

    Class variables are no keys of the file.

    Attributes
    ----------
    label : its name in tables, None where it is called by its backbone.
    paper : backbone → its name in the paper's Tables 2 and 4, or None → that name where there is no
        backbone to choose; a backbone that is not listed stands in for the first. Empty where the
        paper has no such masker.
    learns : whether it learns from a category's normals, once per category and seed; zero-shot
        otherwise.
    segments : whether the method has binary masks of its own, for the rule ``native``.
    input_size : side of the square that it resizes images to, pixels; a key where it may be chosen.
    """

    label: ClassVar[str | None]
    paper: ClassVar[dict[str | None, str]] = {}
    learns: ClassVar[bool] = False
    segments: ClassVar[bool] = False

    rule: Rule | None = Field(
        default=None,
        description="threshold rule of this masker; native: the method's own binary masks, where"
        " it segments (dsr, msflow, aminet); null: the one of `masks`",
    )
    level: float | None = Field(default=None, description=f"{_LEVEL}; null without `rule`")

    @model_validator(mode="after")
    def _level_with_rule(self) -> Self:
        needed = self.rule not in (None, "otsu", "native")
        if needed and self.level is None:
            raise ValueError(f"level: rule {self.rule} needs one")
        if self.rule is None and self.level is not None:
            raise ValueError("level: given without rule; give both or none")
        return self


class Attention(MaskerSection):
    """CLS attention of a block of a vision transformer, mean over heads; zero-shot."""

    label: ClassVar[str | None] = None
    paper: ClassVar[dict[str | None, str]] = {"dino": "dino", "vit": "vit"}

    kind: Literal["attention"]
    backbone: Name = Field(description="vision transformer, a name of vision/registry.py")
    input_size: int = Field(ge=28, le=1036, description="side of the transformer's input, pixels")
    block: Positive | None = Field(
        default=None,
        description="block whose attention is taken, counted from 0 as timm does; null: the last,"
        " as DINO does",
    )
    batch: Positive = Field(description="images per forward pass")


class WinClip(MaskerSection):
    """WinCLIP (Jeong et al., CVPR 2023), zero-shot: CLIP embeddings of windows against prompts."""

    label: ClassVar[str | None] = "WinCLIP"
    paper: ClassVar[dict[str | None, str]] = {None: "winclip"}
    input_size: ClassVar[int] = 240  # of ViT-B/16+

    kind: Literal["winclip"]
    names: dict[str, str] = Field(
        description="category → words for it in the prompts, where the folder's own do not do"
    )
    batch: Positive = Field(description="windows per forward pass of the image encoder")


class Dsr(MaskerSection, Length):
    """DSR (Zavrtanik et al., ECCV 2022): anomalies generated among quantised features.

    The length is that of the detection stage. The authors' 100 epochs are of 8000 draws each, some
    3300 passes over a category of MVTec AD.
    """

    label: ClassVar[str | None] = "DSR"
    paper: ClassVar[dict[str | None, str]] = {None: "dsr"}
    learns: ClassVar[bool] = True
    segments: ClassVar[bool] = True

    kind: Literal["dsr"]
    input_size: int = Field(ge=64, le=1024, multiple_of=32, description="side of its input, pixels")
    width: Positive = Field(
        multiple_of=2, description="width of the subspace-restriction networks; 128"
    )
    upsampler: float = Field(
        gt=0, description="length of the up-sampling stage, relative to the detection stage's; 0.5"
    )
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0002")


class MsFlow(MaskerSection, Length):
    """MSFlow (Zhou et al., TNNLS 2024): normalising flows on a frozen feature pyramid; 100
    epochs."""

    label: ClassVar[str | None] = "MSFlow"
    paper: ClassVar[dict[str | None, str]] = {"wide_resnet50_2.tv_in1k": "msflow"}
    learns: ClassVar[bool] = True
    segments: ClassVar[bool] = True

    kind: Literal["msflow"]
    backbone: str = Field(description="convolutional network with weights; wide_resnet50_2.tv_in1k")
    layers: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=2, description="feature levels as timm counts them (out_indices); 1, 2, 3"
    )
    blocks: list[Positive] = Field(
        min_length=2, description="blocks of the parallel flow of each level; 2, 5, 8"
    )
    input_size: int = Field(ge=32, le=1024, multiple_of=32, description="side of its input; 512")
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0001")

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if len(self.blocks) != len(self.layers):
            raise ValueError(f"blocks: {len(self.blocks)} for {len(self.layers)} layers")
        if sorted(set(self.layers)) != self.layers:
            raise ValueError(f"layers: {self.layers} must ascend, each once")
        return self


class AmiNet(MaskerSection, Length):
    """AMI-Net (Luo et al., TASE 2024): adaptive mask and inpainting of frozen features; 300
    epochs."""

    label: ClassVar[str | None] = "AMI-Net"
    paper: ClassVar[dict[str | None, str]] = {"wide_resnet50_2.tv_in1k": "aminet"}
    learns: ClassVar[bool] = True
    segments: ClassVar[bool] = True

    kind: Literal["aminet"]
    backbone: str = Field(description="convolutional network with weights; wide_resnet50_2.tv_in1k")
    layers: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="feature levels as timm counts them (out_indices); 1, 2, 3"
    )
    input_size: int = Field(ge=64, le=1024, multiple_of=32, description="side of its input; 256")
    width: Positive = Field(description="length of a token; 768")
    depth: Positive = Field(description="transformer blocks of the inpainting network; 8")
    heads: Positive = Field(description="attention heads; 12")
    clusters: int = Field(ge=2, description="learnable cluster tokens; 8")
    sigma: float = Field(
        description="a token is masked beyond mean + sigma·std of its cluster; 0.5"
    )
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="AdamW's learning rate; 0.0001")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if sorted(set(self.layers)) != self.layers:
            raise ValueError(f"layers: {self.layers} must ascend, each once")
        if self.width % (4 * self.heads):
            raise ValueError(f"width: {self.width} is no multiple of 4 × heads ({self.heads})")
        return self


class Again(MaskerSection):
    """The saliency of another masker under another rule: a second arm of the same table."""

    label: ClassVar[str | None] = None

    kind: Literal["again"]
    of: MaskerName = Field(description="the masker whose saliency it is")

    @model_validator(mode="after")
    def _has_a_rule(self) -> Self:
        if self.rule is None:
            raise ValueError("rule: give the rule under which the saliency is taken again")
        return self


Salient = Attention | WinClip | Dsr | MsFlow | AmiNet  # what has a saliency of its own
MaskerSettings = Annotated[Salient | Again, Field(discriminator="kind")]


class Codebook(Length):
    """DSR's frozen quantised autoencoder, shared by all categories; not made where none uses it.

    Epochs are passes over its images of all categories, and textures.
    """

    file: UserPath | None = Field(
        description="weights pre-trained on ImageNet, as the authors give them, or null:"
        " trained here"
    )
    channels: Positive = Field(multiple_of=2, description="hidden width and length of a code; 128")
    codes: int = Field(ge=2, description="entries of each of the two codebooks; 4096")
    images: Positive = Field(
        description="fitted normals per category it is trained on, at most, and textures as many"
    )
    crop: int = Field(ge=32, multiple_of=8, description="side of the random crops, pixels")
    batch: int = Field(ge=2, description="crops per step")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0002")


class Masks(Section):
    """The maskers, and the rule that makes binary masks of their saliency."""

    base: MaskerName = Field(description="the masker EAR is trained with; paper: dino")
    rule: Literal["mass", "minmax", "mean_std", "otsu", "quantile"] = Field(
        description="the threshold rule of every masker that has none of its own; paper silent,"
        " `mass` our choice"
    )
    level: float = Field(description=_LEVEL)
    optional: list[MaskerName] = Field(
        description="maskers that a run can do without: if their weights cannot be had, their cells"
        " say so"
    )
    maskers: dict[MaskerName, MaskerSettings] = Field(
        min_length=1, description="maskers of this run, by name"
    )

    @model_validator(mode="after")
    def _base_is_a_masker(self) -> Self:
        if self.base not in self.maskers:
            raise ValueError(f"base: {_absent(self.base, self.maskers)}")
        for i, masker in enumerate(self.optional):
            if masker not in self.maskers:
                raise ValueError(f"optional.{i}: {_absent(masker, self.maskers)}")
        if self.base in self.optional:
            raise ValueError(f"optional: {self.base} is the base masker, which EAR needs")
        for name, masker in self.maskers.items():
            self._check_rule(name, masker)
        if isinstance(self.maskers[self.base], Again):
            raise ValueError(f"base: {self.base} has no saliency of its own; give its `of`")
        return self

    def _check_rule(self, name: str, masker: MaskerSettings) -> None:
        if isinstance(masker, Again):
            if masker.of not in self.maskers:
                raise ValueError(f"maskers.{name}.of: {_absent(masker.of, self.maskers)}")
            if isinstance(self.maskers[masker.of], Again):
                raise ValueError(f"maskers.{name}.of: {masker.of} has no saliency of its own")
            if name in self.optional:
                raise ValueError(f"optional: {name} follows {masker.of}; list that one alone")
        if masker.rule == "native" and not self.settings(name).segments:
            raise ValueError(
                f"maskers.{name}.rule: {self.settings(name).kind} has no binary masks of its own,"
                " which native takes; give another rule"
            )

    @property
    def salient(self) -> list[str]:
        """Maskers with a saliency of their own."""
        return [masker for masker in self.maskers if self.source(masker) == masker]

    def source(self, masker: str) -> str:
        """The masker whose saliency a masker has: itself, but for kind ``again``."""
        settings = self.maskers[masker]
        return settings.of if isinstance(settings, Again) else masker

    def settings(self, masker: str) -> Salient:
        """The settings of what makes a masker's saliency."""
        return cast(Salient, self.maskers[self.source(masker)])

    def threshold(self, masker: str) -> tuple[str, float]:
        """Rule and level by which a masker's saliency becomes a binary mask."""
        settings = self.maskers[masker]
        if settings.rule is None:
            return self.rule, self.level
        return settings.rule, settings.level or 0.0

    def trained(self, masker: str) -> bool:
        """Whether a masker learns, hence has masks of its own for each seed."""
        return self.settings(masker).learns

    def coded(self, masker: str) -> bool:
        """Whether a masker works with the run's codebook."""
        return self.settings(masker).kind == "dsr"


def _absent(masker: str, maskers: Iterable[str]) -> str:
    return f"{masker!r} is not among maskers ({', '.join(maskers)}){near(masker, maskers)}"
