"""Detectors: EAR, FADeR and every baseline, one module each."""

import importlib

from fader.config import DetectorSettings
from fader.detectors.base import Context, Detector, Images, Scores

__all__ = ["Context", "Detector", "Images", "Scores", "create"]


def create(settings: DetectorSettings, context: Context) -> Detector:
    """A detector of the configuration, not yet fitted, on the machine's device.

    Weights are drawn from torch's global generator; ``fit`` draws them anew under its own seed.
    """
    module = importlib.import_module(f"{__name__}.{settings.kind}")
    return module.create(settings, context)
