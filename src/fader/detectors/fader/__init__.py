"""FADeR: a two-layer MLP that attenuates suspected defects on EAR's skip connections (paper section
3).

Φ predicts from every patch of I′ how badly it will be reconstructed, trained by ranking (equation
3) against the error that the decoder really makes (equation 1). Its prediction, normalised per
image and flipped, is the soft mask M_S on all skips (equation 4).

Settled where the paper is silent or contradicts itself: Φ reads I′ (its Figure 4 and poster;
equation 2 prints Î), M_S carries no gradient, pairs are random halves inside an image, the
decoder's batch normalisation stays in training mode and the encoder's in evaluation mode.

A ``MaskPath`` changes one thing in this: the ablations of Table 3, and the controls that tell the
mask's part in the gain from that of the extra training.
"""

from fader.detectors.fader.model import PROPOSED, Fader, Point

__all__ = ["PROPOSED", "Fader", "Point"]
