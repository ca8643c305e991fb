"""Networks, losses and trainings of the detectors."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fader.config.base import Fraction, LearningRate, Length, Name, Positive, Section, Weight


class UNet(Section):
    """EAR's network."""

    widths: list[Positive] = Field(
        min_length=2,
        description="channels per level, shallow first; D = 5 in the paper, widths our choice",
    )
    output: Literal["sigmoid", "clamp"] = Field(description="output layer; our choice sigmoid")


class Loss(Section):
    """Weights of the reconstruction loss; equal weights as in RIAD's line of work."""

    l2: Weight = Field(description="weight of the mean squared error")
    ssim: Weight = Field(description="weight of 1 − SSIM (11×11, σ = 1.5)")
    msgms: Weight = Field(description="weight of the mean 1 − MSGMS map")
    scales: int = Field(ge=1, le=6, description="MSGMS scales; 4")


class Ear(Length):
    """EAR pre-training (paper section 4.1; the optimiser is not given by any source at hand); 300
    epochs at paper scale."""

    batch: int = Field(ge=2, description="images per step; 16, our choice")
    lr: LearningRate = Field(description="Adam's learning rate; 0.001, our choice")
    schedule: Literal["step", "onecycle"] = Field(
        description="step: ×0.1 at 5/6 of the run; onecycle: warm-up to lr at 30 %, cosine to zero"
    )
    scales: list[Positive] = Field(
        min_length=1, description="mosaic scales drawn per batch and searched, pixels; 2…64 at 256²"
    )


class Mosaic(Section):
    """How m*, the scale of the mosaic behind the masks, is chosen."""

    policy: Literal["search", "fixed", "oracle"] = Field(
        description="search: label-free m*; fixed: `fixed`; oracle: on test labels, a diagnostic"
    )
    fixed: Positive = Field(description="m for `fixed`, pixels; 16")


class Vit(Section):
    """The vision transformer that takes the MLP's place in the `vit` predictor of a variant."""

    patch: Positive | None = Field(description="side of a token, pixels; null: m*; ViT-B/16: 16")
    width: Positive = Field(description="length of a token; 768 in the paper's ViT-B")
    depth: Positive = Field(description="blocks; 12")
    heads: Positive = Field(description="attention heads; 12")
    backbone: Name | None = Field(
        description="pre-trained weights to start from (vision/registry.py), or null: none"
    )


class Fader(Length):
    """FADeR training (paper sections 3.2, 3.3, 4.1); 100 epochs in the paper."""

    batch: int = Field(ge=2, description="EAR's batch; our choice")
    lrs: list[LearningRate] = Field(min_length=1, description="η; paper {1e-3, 1e-4, 1e-5}")
    schedules: list[Literal["fixed", "warmup", "sgdr"]] = Field(
        min_length=1, description="paper: all three"
    )
    warmup: Positive = Field(
        description="linear warm-up, in the unit of the length; 5 epochs in the authors' code"
    )
    cycle: Positive = Field(description="SGDR's first cycle, likewise, doubling; 20 epochs ibid.")
    tuning: Literal["each", "base"] = Field(
        description="each: η and schedule picked for every masker, as the paper; base: for the base"
        " masker, and taken over by the others"
    )
    decoder_ratio: Fraction = Field(description="decoder's learning rate / η; 0.1 in the paper")
    hidden: Positive = Field(description="hidden units of Φ; 128, our choice")
    margin: float = Field(gt=0, description="ξ of equation 3 on raw predictions; 1, our choice")
    vit: Vit
    watch: Literal["last", "every"] = Field(
        description="epochs after which the oracle, a diagnostic, scores the test images"
    )
    cache_gib: float = Field(
        ge=0,
        description="largest cache of frozen-encoder features, GiB; beyond it they are recomputed",
    )


class MaskPath(Section):
    """How FADeR's mask is made and used."""

    predictor: Literal["mlp", "vit"] = Field(description="Φ: the paper's MLP, or Table 3's ViT")
    input: Literal["obfuscated", "reconstruction"] = Field(
        description="what Φ reads: I′, or Î of a first pass without mask (equation 2 as printed)"
    )
    normalise: Literal["minmax", "sigmoid", "quantile"] = Field(
        description="predictions to M_S: min–max per image (paper), sigmoid, or between quantiles"
        " of the training normals"
    )
    mask: Literal["soft", "hard", "shuffled", "constant", "none"] = Field(
        description="M_S; M_S > 0.5; M_S shuffled over patches; its mean everywhere; or no mask at"
        " all (decoder fine-tuning only)"
    )
    scaling: Literal["nearest", "bilinear"] = Field(description="Θ of equation 4; paper: nearest")

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.mask == "none" and self.predictor == "vit":
            raise ValueError("predictor: vit has no use where mask is none")
        if self.input == "reconstruction" and self.normalise == "quantile":
            raise ValueError("normalise: quantile is not made for input reconstruction")
        return self


class Variant(MaskPath):
    """Another mask path than the proposed one: a control arm or an ablation of Table 3."""

    role: Literal["control", "ablation"]
    grid: Literal["own", "inherit"] = Field(
        description="own η × schedule grid, or the point that the proposed FADeR picked"
    )

    @property
    def path(self) -> MaskPath:
        """The mask path alone."""
        return MaskPath(**{name: getattr(self, name) for name in MaskPath.model_fields})


class Baseline(Section):
    """What every detector of the section ``detectors`` declares about itself.

    Class variables, no keys of the file.

    Attributes
    ----------
    label : its name in tables.
    paper : its column in the paper's Table 1, or None for a supplement.
    rederived : what of it no source at hand gives, for the note below the table; None for nothing.
    reads : the other sections that it depends on.
    """

    label: ClassVar[str]
    paper: ClassVar[str | None] = None
    rederived: ClassVar[str | None] = None
    reads: ClassVar[tuple[str, ...]] = ()

    def misfit(self, size: int) -> str | None:
        """Why the detector cannot work on images of ``size`` × ``size`` pixels, opening with the
        key to blame; None where it can."""
        return None


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


class Pca(Baseline):
    """Reconstruction from principal components (scikit-learn): a floor for every other detector."""

    label: ClassVar[str] = "PCA"

    kind: Literal["pca"]
    components: Positive = Field(
        description="principal components kept; those beyond what the fitted normals span are zero"
    )


DetectorSettings = Annotated[
    PlainUNet | Riad | Ganomaly | MemAe | Daad | Pca, Field(discriminator="kind")
]
