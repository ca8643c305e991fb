"""Maskers, the codebook that one of them needs, and the rule that makes masks of saliency."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fader.config.base import LearningRate, MaskerName, Name, Positive, Section, UserPath
from fader.errors import near


class MaskerSection(Section):
    """What every masker declares about itself; class variables, no keys of the file.

    Attributes
    ----------
    label : its name in tables, None where it is called by its backbone.
    paper : backbone → its name in the paper's Tables 2 and 4, or None → that name where there is no
        backbone to choose; a backbone that is not listed stands in for the first.
    """

    label: ClassVar[str | None]
    paper: ClassVar[dict[str | None, str]]


class Attention(MaskerSection):
    """CLS attention of a vision transformer's last block, mean over heads; zero-shot."""

    label: ClassVar[str | None] = None
    paper: ClassVar[dict[str | None, str]] = {"dino": "dino", "vit": "vit"}

    kind: Literal["attention"]
    backbone: Name = Field(description="vision transformer, a name of vision/registry.py")
    input_size: int = Field(ge=28, le=1036, description="side of the transformer's input, pixels")
    batch: Positive = Field(description="images per forward pass")


class WinClip(MaskerSection):
    """WinCLIP (Jeong et al., CVPR 2023), zero-shot: CLIP embeddings of windows against prompts."""

    label: ClassVar[str | None] = "WinCLIP"
    paper: ClassVar[dict[str | None, str]] = {None: "winclip"}

    kind: Literal["winclip"]
    names: dict[str, str] = Field(
        description="category → words for it in the prompts, where the folder's own do not do"
    )
    batch: Positive = Field(description="windows per forward pass of the image encoder")


class Dsr(MaskerSection):
    """DSR (Zavrtanik et al., ECCV 2022): anomalies generated among quantised features."""

    label: ClassVar[str | None] = "DSR"
    paper: ClassVar[dict[str | None, str]] = {None: "dsr"}

    kind: Literal["dsr"]
    input_size: int = Field(ge=64, le=1024, multiple_of=32, description="side of its input, pixels")
    width: Positive = Field(
        multiple_of=2, description="width of the subspace-restriction networks; 128"
    )
    epochs: Positive = Field(
        description="detection stage, passes over the fitted normals; the authors' 100 epochs are"
        " of 8000 draws each, some 3300 passes over a category of MVTec AD"
    )
    upsampler_epochs: Positive = Field(description="up-sampling stage; half as many")
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0002")


class MsFlow(MaskerSection):
    """MSFlow (Zhou et al., TNNLS 2024): normalising flows on a frozen feature pyramid."""

    label: ClassVar[str | None] = "MSFlow"
    paper: ClassVar[dict[str | None, str]] = {"wide_resnet50_2.tv_in1k": "msflow"}

    kind: Literal["msflow"]
    backbone: str = Field(description="convolutional network with weights; wide_resnet50_2.tv_in1k")
    layers: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=2, description="feature levels as timm counts them (out_indices); 1, 2, 3"
    )
    blocks: list[Positive] = Field(
        min_length=2, description="blocks of the parallel flow of each level; 2, 5, 8"
    )
    input_size: int = Field(ge=32, le=1024, multiple_of=32, description="side of its input; 512")
    epochs: Positive = Field(description="passes over the fitted normals; 100")
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0001")

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if len(self.blocks) != len(self.layers):
            raise ValueError(f"blocks: {len(self.blocks)} for {len(self.layers)} layers")
        if sorted(set(self.layers)) != self.layers:
            raise ValueError(f"layers: {self.layers} must ascend, each once")
        return self


class AmiNet(MaskerSection):
    """AMI-Net (Luo et al., TASE 2024): adaptive mask and inpainting of frozen features."""

    label: ClassVar[str | None] = "AMI-Net"
    paper: ClassVar[dict[str | None, str]] = {"wide_resnet50_2.tv_in1k": "aminet"}

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
    epochs: Positive = Field(description="passes over the fitted normals; 300")
    batch: int = Field(ge=2, description="images per step; 8")
    lr: LearningRate = Field(description="AdamW's learning rate; 0.0001")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if sorted(set(self.layers)) != self.layers:
            raise ValueError(f"layers: {self.layers} must ascend, each once")
        if self.width % (4 * self.heads):
            raise ValueError(f"width: {self.width} is no multiple of 4 × heads ({self.heads})")
        return self


# A module of fader.maskers each.
KINDS = ("attention", "winclip", "dsr", "msflow", "aminet")


MaskerSettings = Annotated[Attention | WinClip | Dsr | MsFlow | AmiNet, Field(discriminator="kind")]


# Kinds that learn, once per category and seed; the others are zero-shot.
TRAINED_KINDS = frozenset({"dsr", "msflow", "aminet"})


class Codebook(Section):
    """DSR's frozen quantised autoencoder, shared by all categories; not made where none uses it."""

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
    epochs: Positive = Field(description="passes over these images")
    batch: int = Field(ge=2, description="crops per step")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0002")


class Masks(Section):
    """The maskers, and the rule that makes binary masks of their saliency."""

    base: MaskerName = Field(description="the masker EAR is trained with; paper: dino")
    rule: Literal["mass", "minmax", "mean_std", "otsu", "quantile"] = Field(
        description="the one threshold rule for every masker; paper silent, `mass` our choice"
    )
    level: float = Field(
        description="the rule's level: mass kept in (0, 1), 0.6 our choice; threshold or share in"
        " [0, 1) for minmax and quantile; multiple of σ for mean_std; not used by otsu"
    )
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
        return self

    def trained(self, masker: str) -> bool:
        """Whether a masker learns, hence has masks of its own for each seed."""
        return self.maskers[masker].kind in TRAINED_KINDS

    def coded(self, masker: str) -> bool:
        """Whether a masker works with the run's codebook."""
        return self.maskers[masker].kind == "dsr"


def _absent(masker: str, maskers: Iterable[str]) -> str:
    return f"{masker!r} is not among maskers ({', '.join(maskers)}){near(masker, maskers)}"
