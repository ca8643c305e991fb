"""Baselines: one class a kind, which says what it is called and what it reads."""

import math
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
    Weight,
)
from fader.config.synthesis import Draem, Jnld, OmniAl


class PlainUNet(Length, Baseline):
    """The plain U-Net: EAR's network without mask and mosaic; EAR's 300 epochs."""

    label: ClassVar[str] = "U-Net"
    paper: ClassVar[str | None] = "unet"
    reads: ClassVar[tuple[str, ...]] = ("unet", "loss")

    kind: Literal["unet"]
    batch: int = Field(ge=2, description="images per step; EAR's 16")
    lr: LearningRate = Field(description="Adam's learning rate; EAR's 0.001")
    schedule: Literal["step", "onecycle"] = Field(description="as EAR's")


class Riad(Length, Baseline):
    """RIAD (Zavrtanik et al., Pattern Recognition 2021): inpainting of disjoint grids; 300
    epochs."""

    label: ClassVar[str] = "RIAD"
    paper: ClassVar[str | None] = "riad"
    reads: ClassVar[tuple[str, ...]] = ("unet",)

    kind: Literal["riad"]
    cells: list[Positive] = Field(
        min_length=1, description="sides k of a cell, pixels; 2, 4, 8, 16"
    )
    subsets: int = Field(ge=2, description="disjoint sets that the cells of a grid fall into; 3")
    batch: int = Field(ge=2, description="images per step; 4")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0001")
    weight_decay: Weight = Field(description="Adam's weight decay; 0.00001")

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        for cell in self.cells:
            if size % cell:
                return f"cells: {cell} does not divide image.size {size}"
            if (size // cell) ** 2 < self.subsets:
                return f"cells: {cell} makes fewer cells of {size} pixels than subsets"
        return None


class Ganomaly(Length, Baseline):
    """GANomaly (Akcay et al., ACCV 2018): encoder–decoder–encoder, adversarially trained; 15
    epochs."""

    label: ClassVar[str] = "GANomaly"
    paper: ClassVar[str | None] = "ganomaly"

    kind: Literal["ganomaly"]
    latent: Positive = Field(description="length of the latent vector z; 100")
    width: Positive = Field(
        description="feature maps of the first layer, doubling to at most 512; 64"
    )
    batch: int = Field(ge=2, description="images per step; 64")
    lr: LearningRate = Field(description="Adam's learning rate, β1 = 0.5; 0.0002")
    adversarial: Weight = Field(description="weight of the feature matching; 1")
    contextual: Weight = Field(description="weight of the reconstruction (L1); 50")
    latent_weight: Weight = Field(description="weight of the latent distance (L2); 1")

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        if size.bit_count() > 1:
            return (
                f"kind: image.size {size} is no power of two, as GANomaly's halving down to 4 needs"
            )
        return None


class Memory(Section):
    """A memory and how it is addressed, as MemAE's (Gong et al., ICCV 2019)."""

    slots: int = Field(ge=2, description="items N of a memory; MemAE 2000, DAAD 500")
    addressing: Literal["dot", "cosine"] = Field(
        description="similarity of query and item: dot product in MemAE's code, cosine in its paper"
    )
    temperature: float = Field(
        gt=0, description="divides similarities before the softmax; 1 in MemAE, re-derived for DAAD"
    )
    shrinkage: Weight = Field(
        description="addressing weights up to this, in units of 1/N, are set to zero; 1 to 3"
    )


class MemAe(Length, Memory, Baseline):
    """MemAE (Gong et al., ICCV 2019): an auto-encoder that reads its code from a memory; 100
    epochs."""

    label: ClassVar[str] = "MemAE"
    paper: ClassVar[str | None] = "memae"
    rederived: ClassVar[str | None] = "its form for images, since the published code is for video"

    kind: Literal["memae"]
    widths: list[Positive] = Field(
        min_length=1, description="channels of each halving, shallow first; 96, 128, 256, 256"
    )
    batch: int = Field(ge=2, description="images per step; 14")
    lr: LearningRate = Field(description="Adam's learning rate; 0.0001")
    entropy: Weight = Field(description="weight of the entropy of addresses; 0.0002")

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        if size % (1 << len(self.widths)):
            return f"widths: image.size {size} cannot be halved {len(self.widths)} times"
        return None


class Daad(Length, Memory, Baseline):
    """DAAD (Hou et al., ICCV 2021): a U-Net whose links are block-wise memories, adversarially
    trained; 200 epochs."""

    label: ClassVar[str] = "DAAD"
    paper: ClassVar[str | None] = "daad"
    rederived: ClassVar[str | None] = (
        "division rates, widths, the discriminator and the weights of the losses"
    )

    kind: Literal["daad"]
    widths: list[Positive] = Field(
        min_length=2,
        description="channels per level, shallow first, of U-Net and discriminator; 64, 128, 256,"
        " 512, re-derived",
    )
    sides: list[Positive] = Field(
        description="blocks along each side of a level's feature map; 4 each, re-derived"
    )
    groups: list[Positive] = Field(
        description="parts that a level's channels are divided into; re-derived"
    )
    batch: int = Field(ge=2, description="images per step; 16, re-derived")
    lr: LearningRate = Field(description="Adam's learning rate, of both networks; 0.0001")
    adversarial: Weight = Field(description="weight of the adversarial loss; re-derived")
    latent: Weight = Field(
        description="weight of the distance of the discriminator's features; re-derived"
    )

    @model_validator(mode="after")
    def _a_rate_per_level(self) -> Self:
        for name in ("sides", "groups"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(f"{name}: give one per level, as many as widths")
        for width, groups in zip(self.widths, self.groups, strict=True):
            if width % groups:
                raise ValueError(f"groups: {groups} does not divide the width {width}")
        return self

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        levels = len(self.widths)
        if size < 4 << levels or size % (1 << levels):
            return f"widths: image.size {size} cannot be halved {levels} times, to 4 at least"
        for level, side in enumerate(self.sides):
            if (size >> level) % side:
                return f"sides: {side} does not divide the {size >> level} pixels of its level"
        return None


class Scadn(Length, Baseline):
    """SCADN (Yan et al., AAAI 2021): semantic context behind stripes, adversarially trained; 200
    epochs."""

    label: ClassVar[str] = "SCADN"
    paper: ClassVar[str | None] = "scadn"

    kind: Literal["scadn"]
    bands: list[Positive] = Field(
        min_length=1,
        description="scales of the masks: stripes hidden of an image; of 1, 2, 4, 8 the published"
        " configuration takes the last three",
    )
    width: Positive = Field(
        description="feature maps of the first layer of both networks, doubling to 8 times as many"
        " at the generator's bottleneck; 64"
    )
    blocks: Positive = Field(description="residual blocks of the generator; 8")
    batch: int = Field(ge=2, description="images per step; 4")
    lr: LearningRate = Field(description="Adam's learning rate of the generator, β1 = 0; 0.0001")
    discriminator_lr: LearningRate = Field(
        description="Adam's learning rate of the discriminator; 0.00001"
    )
    hidden: Weight = Field(
        description="weight of the squared error behind the mask, where that of the rest is 1; 4"
    )
    adversarial: Weight = Field(description="weight of the adversarial loss; 0.001")

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        for bands in self.bands:
            if size % (2 * bands):
                return f"bands: {bands} hidden and as many seen do not divide image.size {size}"
        if size % 8 or size < 24:
            return (
                f"kind: image.size {size} is no multiple of 8 from 24 on, as SCADN's three halvings"
                " need"
            )
        return None


class Mscam(Length, Baseline):
    """MS-CAM (Li et al., Sensors 2022): a generative adversarial network with dual attention;
    re-derived from the abstract, as is every value without another source."""

    label: ClassVar[str] = "MS-CAM"
    paper: ClassVar[str | None] = "mscam"
    rederived: ClassVar[str | None] = "all but the attention, Random Erasing and a consistency loss"

    kind: Literal["mscam"]
    width: Positive = Field(
        description="feature maps of the first of four stages, doubling at each; 64, re-derived"
    )
    latent: Positive = Field(description="length of the latent vector z; 100, re-derived")
    reduction: Positive = Field(
        description="channels of the attention's input / those of its middle layer; 4, as in AFF"
    )
    batch: int = Field(ge=2, description="images per step; 32, re-derived")
    lr: LearningRate = Field(description="Adam's learning rate, β1 = 0.5; 0.0002, re-derived")
    adversarial: Weight = Field(description="weight of the feature matching; 1, re-derived")
    contextual: Weight = Field(description="weight of the reconstruction (L1); 50, re-derived")
    consistency: Weight = Field(
        description="weight of the consistency of grey images (L1), gradient images (L1) and latent"
        " vectors (L2); 1, re-derived: GANomaly's of the latent vectors"
    )
    erasing: float = Field(
        ge=0, le=1, description="share of the images with an erased rectangle; 0.5, re-derived"
    )
    erased: list[Fraction] = Field(
        min_length=2,
        max_length=2,
        description="least and largest area of that rectangle / the image's; 0.02 and 0.4, the"
        " defaults of Random Erasing",
    )

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        if size % 16:
            return f"kind: image.size {size} is no multiple of 16, as MS-CAM's four halvings need"
        return None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width < self.reduction:
            raise ValueError("reduction: at most width, or the attention's middle layer is empty")
        if self.erased[0] > self.erased[1]:
            raise ValueError("erased: the least area is above the largest")
        return self


class Pca(Baseline):
    """Reconstruction from principal components (scikit-learn): a floor for every other detector."""

    label: ClassVar[str] = "PCA"

    kind: Literal["pca"]
    components: Positive = Field(
        description="principal components kept; those beyond what the fitted normals span are zero"
    )


class PatchCore(Baseline):
    """PatchCore (Roth et al., CVPR 2022): nearest patches of the normal images, on a pretrained
    ViT; the paper's are on a Wide ResNet-50."""

    label: ClassVar[str] = "PatchCore"

    kind: Literal["patchcore"]
    backbone: str = Field(description="a vision transformer of the registry of backbones")
    blocks: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1,
        description="whose tokens are the patches, counted from 0, put together; the sixth of"
        " twelve, our choice",
    )
    input_size: Positive = Field(
        description="side of the images it sees, pixels, a multiple of the ViT's patch; 336"
    )
    neighbourhood: Odd = Field(
        description="side of the square of patches that each is averaged over, odd; 3"
    )
    coreset: float = Field(gt=0, le=1, description="share of the patches in the bank; 0.1")
    most: Positive = Field(description="patches in the bank, at most; 4,000, our choice")
    projection: Positive = Field(
        description="values of a patch that the coreset is found on; 128, here 64"
    )
    neighbours: Positive = Field(description="b of the image score, equation 7; 9")
    sigma: float = Field(
        gt=0, description="of the Gaussian that smooths the map, pixels; 4 at 224², 2 at 128²"
    )

    def side(self, size: int) -> int:
        """As ``Baseline.side``: its own."""
        return self.input_size

    def misfit(self, size: int) -> str | None:
        """As ``Baseline.misfit``."""
        if math.ceil(3 * self.sigma) >= size:
            return f"sigma: {self.sigma:g} is too much for image.size {size}"
        return None


DetectorSettings = Annotated[
    Mscam
    | Ganomaly
    | Scadn
    | MemAe
    | PlainUNet
    | Daad
    | Riad
    | Draem
    | Jnld
    | OmniAl
    | PatchCore
    | Pca,
    Field(discriminator="kind"),
]
