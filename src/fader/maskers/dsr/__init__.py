"""DSR masker: a network trained on anomalies generated among the codes of a quantised autoencoder.

Zavrtanik, Kristan & Skočaj, "DSR – A Dual Subspace Re-Projection Network for Surface Anomaly
Detection" (ECCV 2022); facts beyond the paper from the authors' code (VitjanZ/
DSR_anomaly_detection, Apache-2.0). A frozen VQ-VAE-2 (``fader.vision.vqvae``) encodes the image.
The general decoder gives the image back, defects included; two restriction networks first pull the
codes to normal ones, from which an object-specific decoder draws a defect-free image. A detection
U-Net compares both images, an up-sampling U-Net refines its mask.

Departures. An epoch of the authors is 8,000 draws whatever the number of images; here it is one
pass over them. The authors turn images (some, drawn at random) and all Perlin noise by up to ±90°;
here nothing is turned, so that the frozen features of the training images are computed once.
Replacement codes are ranked by their distance to the code they replace instead of the feature
before quantisation, so that the ranking is computed once.
"""

from fader.config import Dsr
from fader.maskers import Context
from fader.maskers.dsr.masker import DsrMasker


def create(name: str, settings: Dsr, context: Context) -> DsrMasker:
    """As ``fader.maskers.create``."""
    return DsrMasker(name, settings, context)
