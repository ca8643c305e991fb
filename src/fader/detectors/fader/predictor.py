"""Φ: the network that predicts from every patch how badly it will be reconstructed, and the soft
mask M_S made of its predictions (paper sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fader.errors import FaderError
from fader.vision.mosaic import tokens
from fader.vision.unet import LEAK

RANGE_EPS = 1e-6  # predictions closer than this are "an equal level overall": nothing is attenuated
QUANTILES = (0.01, 0.99)  # of the training normals' predictions: what M_S = 1 and 0 stand for


class Mlp(nn.Sequential):
    """The paper's Φ: tokens of an image (B, 3, H, W) → a prediction a patch (B, n)."""

    def __init__(self, patch: int, hidden: int) -> None:
        super().__init__(
            nn.Linear(3 * patch * patch, hidden), nn.LeakyReLU(LEAK), nn.Linear(hidden, 1)
        )
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        """Predictions (B, n) of images (B, 3, H, W), row-major over the patch grid."""
        return super().forward(tokens(images, self.patch)).squeeze(-1)


class Vit(nn.Module):
    """Table 3's ViT in the place of the MLP: every patch sees the others; (B, 3, H, W) → (B, n)."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int) -> None:
        from timm.models.vision_transformer import VisionTransformer  # seconds, for this Φ only

        super().__init__()
        self.patch = patch
        self.body = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            class_token=False,
            global_pool="",
            num_classes=0,
        )
        self.head = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Predictions (B, n) of images (B, 3, H, W) in [0, 1]; n patches, row-major."""
        return self.head(self.body(2 * images - 1)).squeeze(-1)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the body's weights from a pre-trained ViT; FaderError when they do not fit."""
        try:
            self.body.load_state_dict(weights)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise FaderError(
                f"fader.vit: its backbone's weights do not fit ({detail[:200]}); set patch, width,"
                " depth and heads to the backbone's"
            ) from error


class Predictor(nn.Module):
    """Φ with the normalisation that turns its predictions into M_S.

    Parameters
    ----------
    body : ``Mlp`` or ``Vit``.
    normalise : ``minmax`` per image (the paper); ``sigmoid``, an absolute level; ``quantile``,
        between the training normals' 1 % and 99 % (of the batch while training, of all fitted
        normals afterwards).
    """

    def __init__(self, body: Mlp | Vit, normalise: str) -> None:
        super().__init__()
        self.body, self.normalise, self.patch = body, normalise, body.patch
        self.range: Tensor
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        """Raw predictions l̂ (B, n) of images (B, 3, H, W), row-major over the patch grid."""
        return self.body(images).float()

    def soft_mask(self, predicted: Tensor) -> Tensor:
        """M_S (B, n) in [0, 1] of raw predictions; large predicted errors get small values."""
        if self.normalise == "sigmoid":
            return 1 - predicted.sigmoid()
        if self.normalise == "quantile":
            low, high = _range(predicted) if self.training else self.range
            return 1 - ((predicted - low) / (high - low).clamp_min(RANGE_EPS)).clamp(0, 1)
        return soft_mask(predicted)

    def calibrate(self, predicted: Tensor) -> None:
        """Set the range from the predictions of all fitted normals."""
        self.range.copy_(_range(predicted))


def _range(predicted: Tensor) -> Tensor:
    return torch.quantile(predicted.flatten(), predicted.new_tensor(QUANTILES))


def soft_mask(predicted: Tensor) -> Tensor:
    """M_S: predictions (B, n) normalised to [0, 1] per image and flipped (paper section 3.3).

    The patch with the largest predicted error gets 0, the smallest 1; all ones where they are
    equal.
    """
    low, high = predicted.amin(1, keepdim=True), predicted.amax(1, keepdim=True)
    span = high - low
    mask = 1 - (predicted - low) / span.clamp_min(RANGE_EPS)
    return mask.where(span > RANGE_EPS, torch.ones_like(mask))
