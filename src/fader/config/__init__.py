"""The one configuration: pydantic models of ``params.yaml``.

``params.yaml`` is complete and explicit: no field has a default, unknown keys are errors. Every
field says what it is, its unit, its range and where its value comes from ("our choice" where the
paper is silent). ``workflow/schemas/params.schema.json`` is generated from these models.
"""

from fader.config.base import Fraction, LearningRate, MaskerName, Name, Positive, Section, Weight
from fader.config.data import Dataset, Folder, Image, MvtecAd, Synthetic, Validation, Visa
from fader.config.detectors import (
    Baseline,
    Daad,
    DetectorSettings,
    Ganomaly,
    MemAe,
    Mscam,
    Pca,
    PlainUNet,
    Riad,
    Scadn,
)
from fader.config.files import activate, load, parse, schema, use_preset
from fader.config.maskers import (
    KINDS,
    TRAINED_KINDS,
    AmiNet,
    Attention,
    Codebook,
    Dsr,
    MaskerSettings,
    Masks,
    MsFlow,
    Salient,
    WinClip,
)
from fader.config.networks import Ear, Fader, Loss, MaskPath, Mosaic, UNet, Variant, Vit
from fader.config.run import Config, Place, Report, Runtime, Score

__all__ = [
    "KINDS",
    "TRAINED_KINDS",
    "AmiNet",
    "Attention",
    "Baseline",
    "Codebook",
    "Config",
    "Daad",
    "Dataset",
    "DetectorSettings",
    "Dsr",
    "Ear",
    "Fader",
    "Folder",
    "Fraction",
    "Ganomaly",
    "Image",
    "LearningRate",
    "Loss",
    "MaskPath",
    "MaskerName",
    "MaskerSettings",
    "Masks",
    "MemAe",
    "Mosaic",
    "MsFlow",
    "Mscam",
    "MvtecAd",
    "Name",
    "Pca",
    "Place",
    "PlainUNet",
    "Positive",
    "Report",
    "Riad",
    "Runtime",
    "Salient",
    "Scadn",
    "Score",
    "Section",
    "Synthetic",
    "UNet",
    "Validation",
    "Variant",
    "Visa",
    "Vit",
    "Weight",
    "WinClip",
    "activate",
    "load",
    "parse",
    "schema",
    "use_preset",
]
