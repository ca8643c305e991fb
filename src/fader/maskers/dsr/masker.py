"""DSR as a masker: both stages of its training, and its saliency."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Dsr
from fader.errors import FaderError
from fader.maskers import Context
from fader.maskers.dsr.anomalies import corrupt, perlin_masks, smudge
from fader.maskers.dsr.codebook import check
from fader.maskers.dsr.networks import Networks, focal
from fader.runtime import weights_hash
from fader.seeds import derive_seed
from fader.training import schedules
from fader.training.loop import History, Optimizer, Run, Stage, Update, steps_of, train
from fader.vision.vqvae import VQVAE, look_up, nearest_first

IMAGE_WEIGHT = 10.0


class DsrMasker:
    """Trained masker; its saliency is the refined mask's probability of "anomalous".

    Parameters
    ----------
    name : the masker, for messages.
    settings : ``fader.config.Dsr``.
    context : with the tensors of the run's ``codebook``.

    Raises
    ------
    FaderError : no codebook, or tensors that are none.
    """

    def __init__(self, name: str, settings: Dsr, context: Context) -> None:
        tables = [(context.codebook or {}).get(f"codebook_{level}") for level in ("hi", "lo")]
        if any(table is None or table.ndim != 2 for table in tables):
            raise FaderError(
                f"masker {name!r}: no codebook was given; DSR needs the run's pre-trained one"
            )
        if settings.width < 2:
            raise FaderError(f"masker {name!r}: width {settings.width}; give at least 2")
        self.name, self.settings, self.machine = name, settings, context.machine
        self.batch = settings.batch
        self.device = context.machine.device
        self.channels: int
        codes, self.channels = tables[0].shape  # type: ignore[union-attr]  # there is one
        with torch.random.fork_rng(devices=[]):  # a meta device imports sympy
            vqvae = VQVAE(self.channels, codes)
        check(context.codebook, vqvae.state_dict(), f"codebook of masker {name!r}")  # type: ignore[arg-type]  # there is one
        vqvae.load_state_dict(dict(context.codebook), assign=True)  # type: ignore[arg-type]  # there is one
        self.vqvae = vqvae.eval().requires_grad_(False).to(self.device)
        self.networks: Networks
        self.initialise(seed=0)
        source = "random" if context.random else f"digest {weights_hash(vqvae.state_dict())}"
        self.weights = f"VQ-VAE-2 codebook of this run, {source}"

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """The five networks."""
        return (self.networks,)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The quantised autoencoder."""
        return (self.vqvae,)

    def initialise(self, seed: int) -> None:
        """Draw the weights of all networks that are trained."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks = Networks(self.channels, self.settings.width).to(self.device)

    def fit(self, normal: Tensor, run: Run) -> dict[str, History]:
        """Both stages, ``detection`` and ``upsampling``, on normal images (N, 3, H, W) uint8.

        Kept on the device, an image: its pixels (float32, 0.8 MB at 256²) and its features at the
        hi level (float16, 1.0 MB with 128 channels).
        """
        settings = self.settings
        self.initialise(derive_seed(run.seed, "weights"))
        pixels = torch.cat([self._resized(part) for part in normal.split(settings.batch)])
        remedy = f"lower masks.maskers.{self.name}.lr"
        return {
            "detection": self._fit_detection(pixels, run.stage("detection", remedy)),
            "upsampling": self._fit_upsampling(pixels, run.stage("upsampling", remedy)),
        }

    def _fit_detection(self, pixels: Tensor, stage: Stage) -> History:
        settings, vqvae, networks = self.settings, self.vqvae, self.networks
        encoded, hi, lo = self._frozen(pixels)
        rankings = {
            "hi": nearest_first(vqvae.codebook_hi),
            "lo": nearest_first(vqvae.codebook_lo),
        }

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            chosen = indices.to(self.device)
            images, codes_hi, codes_lo = pixels[chosen], hi[chosen].long(), lo[chosen].long()
            masks = perlin_masks(len(indices), settings.input_size, random).to(self.device)
            with torch.no_grad():
                bad_hi, bad_lo, target = corrupt(
                    vqvae, rankings, encoded[chosen].float(), codes_hi, codes_lo, masks, random
                )
                bad_hi = look_up(bad_hi, vqvae.codebook_hi)
                bad_lo = look_up(bad_lo, vqvae.codebook_lo)
                with self.machine.autocast():
                    general = vqvae.decode(bad_hi, bad_lo)
            with self.machine.autocast():
                features_hi = networks.restrict_hi(bad_hi)
                features_lo = networks.restrict_lo(bad_lo)
                specific = networks.specific(vqvae, features_hi, features_lo)
                logits = networks.detector(torch.cat([specific.detach(), general], dim=1))
            parts = {
                "hi": F.mse_loss(features_hi.float(), look_up(codes_hi, vqvae.codebook_hi)),
                "lo": F.mse_loss(features_lo.float(), look_up(codes_lo, vqvae.codebook_lo)),
                "image": F.mse_loss(specific.float(), images),
                "focal": focal(logits, target),
            }
            loss = parts["hi"] + parts["lo"] + IMAGE_WEIGHT * parts["image"] + parts["focal"]
            update("adam", {"loss": loss, **parts})

        trained = {
            name: getattr(networks, name)
            for name in ("restrict_hi", "restrict_lo", "decoder", "detector")
        }
        parameters = [p for module in trained.values() for p in module.parameters()]
        total = steps_of(settings, len(pixels))
        adam = torch.optim.Adam(parameters, settings.lr, fused=True)
        return train(
            stage,
            modules=trained,
            optimizers={"adam": Optimizer(adam, schedules.step_decay(total, at=0.8))},
            step=step,
            count=len(pixels),
            batch=settings.batch,
            steps=total,
        )

    def _fit_upsampling(self, pixels: Tensor, stage: Stage) -> History:
        settings, upsampler = self.settings, self.networks.upsampler

        def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
            images = pixels[indices.to(self.device)]
            masks = perlin_masks(len(indices), settings.input_size, random).to(self.device)
            with torch.no_grad():
                seen = self._seen(smudge(images, masks, random))
            with self.machine.autocast():
                logits = upsampler(seen)
            update("adam", focal(logits, masks))

        total = steps_of(settings, len(pixels), settings.upsampler)
        adam = torch.optim.Adam(upsampler.parameters(), settings.lr, fused=True)
        # As in the authors' code: × 0.2 at 80 % and again at 90 %.
        decay = schedules.step_decays(total, at=(0.8, 0.9), factor=0.2)
        return train(
            stage,
            modules={"upsampler": upsampler},
            optimizers={"adam": Optimizer(adam, decay)},
            step=step,
            count=len(pixels),
            batch=settings.batch,
            steps=total,
        )

    @torch.no_grad()
    def _frozen(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at the hi level (N, C, h, w) float16, and hi and lo codes, int32, of images."""
        parts = []
        for images in pixels.split(self.settings.batch):
            encoded = self.vqvae.encoder_hi(images).half()
            lo = self.vqvae.lo(encoded.float())
            hi = self.vqvae.hi(encoded.float(), lo.codes)
            parts.append((encoded, hi.indices.int(), lo.indices.int()))
        encoded, hi, lo = (torch.cat(part) for part in zip(*parts, strict=True))
        return encoded, hi, lo

    def _seen(self, images: Tensor) -> Tensor:
        """Input of the up-sampling network (B, 8, S, S): object-specific image, general image, and
        the coarse mask's two probabilities."""
        hi, lo = self.vqvae.encode(images)
        with self.machine.autocast():
            general = self.vqvae.decode(hi.codes, lo.codes).float()
            features = self.networks.restrict_hi(hi.codes), self.networks.restrict_lo(lo.codes)
            specific = self.networks.specific(self.vqvae, *features).float()
            logits = self.networks.detector(torch.cat([specific, general], dim=1))
        return torch.cat([specific, general, logits.float().softmax(dim=1)], dim=1)

    def _resized(self, images: Tensor) -> Tensor:
        """Images, uint8 or in [0, 1] → float32 (B, 3, S, S) in [0, 1] on the device."""
        images = images.to(self.device)
        images = images.float().div(255) if images.dtype == torch.uint8 else images.float()
        size = (self.settings.input_size, self.settings.input_size)
        return F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] → (N, S, S) fp32 in [0, 1], S = input_size, same device.

        A probability: comparable across images, about 0 all over a normal one.
        """
        maps = []
        for part in images.split(self.batch):
            seen = self._seen(self._resized(part))
            with self.machine.autocast():
                logits = self.networks.upsampler(seen)
            maps.append(logits.float().softmax(dim=1)[:, 1].to(images.device))
        return torch.cat(maps)

    def native(self, images: Tensor, saliency: Tensor) -> Tensor:
        """Where an anomaly is more likely than not: the saliency above one half."""
        return saliency > 0.5

    def state(self) -> dict[str, Tensor]:
        """Weights of the five trained networks, on the CPU; the codebook is not among them."""
        return {k: v.cpu().clone() for k, v in self.networks.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; FaderError when it is not of these settings."""
        check(state, self.networks.state_dict(), f"weights of masker {self.name!r}")
        self.networks.load_state_dict(dict(state))
