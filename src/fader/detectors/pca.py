"""PCA: an image is what the principal components of the normal images make of it.

The floor of every table: no network, no epoch. Not in the paper; all choices are ours. Images are
vectors of their 3·H·W values in [0, 1]; the map is that of all reconstructions, 1 − MSGMS.
"""

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from fader.config import Pca as Settings
from fader.detectors.base import Context, Images
from fader.detectors.reconstruction import ReconstructionDetector
from fader.errors import FaderError
from fader.seeds import derive_seed
from fader.training.loop import History, Run


class Pca(ReconstructionDetector):
    """Mean (3·H·W,) and ``settings.components`` orthonormal rows (K, 3·H·W), which are zero beyond
    what the normal images span, so that their shapes are known before a fit."""

    def __init__(self, context: Context, settings: Settings) -> None:
        super().__init__(context)
        values = 3 * context.size**2
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(values))
        self.components: Tensor
        self.register_buffer("components", torch.zeros(settings.components, values))

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """Randomised SVD (Halko et al. 2011) of at least two images; there are no epochs."""
        if len(normal) < 2:
            raise FaderError(f"{run.label}: {len(normal)} training image(s); at least 2 are needed")
        rank = min(len(self.components), len(normal) - 1)
        seed = derive_seed(run.seed, "components") % 2**32
        pca = PCA(rank, svd_solver="randomized", random_state=seed)
        pca.fit(normal.pixels.flatten(1).float().div(255).numpy())
        self.mean.copy_(torch.from_numpy(pca.mean_))
        self.components.zero_()[:rank] = torch.from_numpy(pca.components_).to(self.mean.device)
        return {}

    def reconstruct(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Projection of images (B, 3, H, W) in [0, 1] on the components, clamped to [0, 1]."""
        centred = images.flatten(1) - self.mean
        values = self.mean + centred @ self.components.T @ self.components
        return values.clamp(0, 1).view(images.shape)


def create(settings: Settings, context: Context) -> Pca:
    """As ``fader.detectors.create``."""
    return Pca(context, settings).to(context.machine.device).eval()
