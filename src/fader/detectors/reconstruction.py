"""What detectors that reconstruct the image share: the smoothed 1 − MSGMS map (paper section 4.1).

The filter, its size and the maximum are not given by the paper: they are RIAD's, and our choice.
"""

from torch import Tensor

from fader.detectors.base import Detector
from fader.evaluation.scoring import anomaly_map


class ReconstructionDetector(Detector):
    """Scores an image by how its reconstruction differs from it; subclasses give
    ``reconstruct``."""

    def anomaly_map(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        return anomaly_map(images, self.reconstruct(images, masks), self.context.score)
