"""EAR and FADeR: network, losses, trainings and mask paths."""

from typing import Literal, Self

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
        min_length=1,
        description="paper: all three; list them by preference, for the first point that ties is"
        " taken; SGDR was better than a fixed rate (docs/fidelity.md)",
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
