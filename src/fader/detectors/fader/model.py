"""FADeR as a detector: EAR's U-Net with Φ's soft mask on its skip connections (paper Figure 5)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from fader.config import Fader as Settings
from fader.config import MaskPath
from fader.detectors.base import Images
from fader.detectors.ear import Ear
from fader.detectors.fader import train
from fader.detectors.fader.predictor import Mlp, Predictor, Vit
from fader.detectors.reconstruction import ReconstructionDetector
from fader.runtime import generator
from fader.seeds import derive_seed
from fader.training.loop import History, Run
from fader.vision.mosaic import obfuscate

# FADeR as the paper proposes it.
PROPOSED = MaskPath(
    predictor="mlp", input="obfuscated", normalise="minmax", mask="soft", scaling="nearest"
)


@dataclass(frozen=True)
class Point:
    """One point of the η × schedule grid: Φ's learning rate and its schedule."""

    lr: float
    schedule: str


class Fader(ReconstructionDetector):
    """A trained EAR with Φ: shares its frozen encoder, owns a decoder that starts as EAR's.

    Parameters
    ----------
    ear : trained, with the mosaic scale m*, which is also the side of Φ's patches; not changed.
    settings : of the training.
    path : how the mask is made and used: FADeR's as proposed, or a variant's.
    point : what ``fit`` trains with; by default the first of the settings' grid.
    initial : pre-trained weights of a ViT's body, or None.
    """

    def __init__(
        self,
        ear: Ear,
        settings: Settings,
        path: MaskPath = PROPOSED,
        point: Point | None = None,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(ear.context)
        self.settings, self.path, self.scale = settings, path, ear.scale
        self.point = point or Point(settings.lrs[0], settings.schedules[0])
        self.encoder = ear.network.encoder
        self.decoder = copy.deepcopy(ear.network.decoder)
        self.initial = initial
        self.phi = self._predictor()

    def _predictor(self) -> Predictor:
        """A fresh Φ on the device; its weights are drawn from the global generator."""
        if self.path.predictor == "mlp":
            body = Mlp(self.scale, self.settings.hidden)
        else:
            vit = self.settings.vit
            patch = vit.patch or self.scale
            body = Vit(self.context.size, patch, vit.width, vit.depth, vit.heads)
            if self.initial is not None:
                body.start_from(self.initial)
        return Predictor(body, self.path.normalise).to(self.machine.device)

    def fit(self, normal: Images, run: Run) -> dict[str, History]:
        """Train Φ and the decoder at the detector's ``point``, on normal images with their masks.

        Φ is drawn anew under the run's seed.
        """
        torch.manual_seed(derive_seed(run.seed, "phi"))
        self.phi = self._predictor()
        return {"fader": train.fit(self, train.Normals.of(self, normal), train.stage(self, run))}

    def predict(self, images: Tensor) -> Tensor:
        """Φ's raw predictions l̂ (B, n) from what it reads (B, 3, H, W); a ViT in the precision of
        the convolutions."""
        vit = self.path.predictor == "vit"
        with self.machine.autocast() if vit else nullcontext():
            return self.phi(images)

    def arrange(self, mask: Tensor, random: torch.Generator) -> Tensor:
        """The mask on the skips (B, g, g) from the soft one (B, n): itself, hard, shuffled over
        patches, or its mean.

        ``random`` is left as it was, so that shuffling shifts no draw that variants have in common.
        """
        if self.path.mask == "hard":
            mask = (mask > 0.5).to(mask.dtype)
        elif self.path.mask == "shuffled":
            order = torch.randperm(mask.shape[1], generator=random.clone_state())
            mask = mask[:, order.to(mask.device)]
        elif self.path.mask == "constant":
            mask = mask.mean(1, keepdim=True).expand_as(mask)
        side = self.context.size // self.phi.patch
        return mask.unflatten(1, (side, side))

    def feature_mask(self, obfuscated: Tensor) -> Tensor | None:
        """The mask (B, g, g) on the skips for I′ (B, 3, H, W), or None where the path has none.

        Shuffling takes one permutation, the same for all images.
        """
        if self.path.mask == "none":
            return None
        read = obfuscated
        if self.path.input == "reconstruction":
            read = self.decode(*self.encode(obfuscated)).float()
        mask = self.phi.soft_mask(self.predict(read).detach())
        return self.arrange(mask, generator(0))

    def encode(self, obfuscated: Tensor) -> tuple[list[Tensor], Tensor]:
        """The frozen encoder's skip features and deepest feature of I′."""
        with self.machine.autocast():
            return self.encoder(obfuscated)

    def decode(self, skips: list[Tensor], deepest: Tensor, mask: Tensor | None = None) -> Tensor:
        """Reconstructions (B, 3, H, W) in [0, 1] from features, and M_S (B, g, g) on the skips."""
        with self.machine.autocast():
            return self.decoder(skips, deepest, mask, self.path.scaling)

    def reconstruct(self, images: Tensor, masks: Tensor) -> Tensor:  # type: ignore[override]  # with masks only
        """Images (B, 3, H, W) in [0, 1] and their masks (B, H, W) bool → (B, 3, H, W) in [0, 1]."""
        obfuscated = obfuscate(images, masks, self.scale)
        mask = self.feature_mask(obfuscated)
        return self.decode(*self.encode(obfuscated), mask)

    def explain(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # with masks only
        """``soft_mask``: the mask (B, g, g) on the skips, ones where the path has none."""
        mask = self.feature_mask(obfuscate(images, masks, self.scale))
        if mask is None:
            side = self.context.size // self.scale
            mask = torch.ones(len(images), side, side)
        return {"soft_mask": mask.float().cpu()}

    def state(self) -> dict[str, Tensor]:
        """The decoder's and Φ's weights: the encoder is EAR's."""
        return {
            name: value for name, value in super().state().items() if not name.startswith(ENCODER)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take ``state`` of an equal detector on the same EAR."""
        encoder = {
            name: value for name, value in self.state_dict().items() if name.startswith(ENCODER)
        }
        super().load(dict(state) | encoder)


ENCODER = "encoder."
