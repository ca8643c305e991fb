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

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fader.config import Dsr
from fader.data.defects import perlin_noise
from fader.errors import FaderError
from fader.maskers import Context
from fader.maskers.codebook import check
from fader.runtime import weights_hash
from fader.seeds import derive_seed
from fader.training import schedules
from fader.training.loop import History, Optimizer, Run, Stage, Update, batches_per_epoch, train
from fader.vision.vqvae import VQVAE, image_head, look_up, nearest_first, quantise

HI, LO = 4, 8  # pixels of the image per side of a cell
PERLIN_OCTAVES = 6  # lattice cells per axis 2^0 … 2^5
PERLIN_THRESHOLD = 0.5
NORMAL = 0.5  # probability that an image stays without anomaly
NEAREST_LEFT_OUT = 0.05  # of the codes, too alike to be an anomaly
STRENGTH = (0.2, 1.0)
SMUDGE_TRANSPARENCY = 0.8  # at most
IMAGE_WEIGHT = 10.0
GAMMA = 2.0


# ---- generated anomalies ----


def perlin_masks(count: int, size: int, random: torch.Generator) -> Tensor:
    """Thresholded Perlin noise, (count, size, size) bool; half of the masks are empty on purpose,
    others may be by chance."""
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=random)))
    masks = np.zeros((count, size, size), bool)
    for mask in masks:
        if rng.random() >= NORMAL:
            cells = tuple(2 ** rng.integers(PERLIN_OCTAVES, size=2))
            mask[:] = perlin_noise((size, size), cells, rng) > PERLIN_THRESHOLD
    return torch.from_numpy(masks)


def pool(masks: Tensor, cell: int) -> Tensor:
    """Masks (B, S, S) bool → (B, S/cell, S/cell) bool: a cell is marked when any pixel of it is."""
    return F.max_pool2d(masks.float(), cell).bool()


def unpool(masks: Tensor, cell: int) -> Tensor:
    """Every element of (B, h, w) as a block of cell × cell."""
    return masks.repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def rank_range(strength: Tensor, codes: int) -> tuple[int, Tensor]:
    """Ranks [first, end) of the codes that may replace one, by distance from it, itself rank 0.

    ``end`` (B,) int64 grows with the strength (B,): int(strength · codes) + 1, at most codes − 1.
    The nearest 5 % are left out, and always the code itself; at least one rank remains.
    """
    first = max(1, int(NEAREST_LEFT_OUT * codes))
    end = ((strength * codes).long() + 1).clamp(max=codes - 1)
    return first, end.clamp(min=first + 1)


def displace(
    indices: Tensor, inside: Tensor, ranking: Tensor, strength: Tensor, random: torch.Generator
) -> Tensor:
    """Replace the codes inside a mask by random ones of their allowed neighbours.

    Parameters
    ----------
    indices : (B, h, w) int64, codes of an image.
    inside : (B, h, w) bool, where to replace.
    ranking : (K, K), row k = all codes by distance from code k.
    strength : (B,) in (0, 1] on the CPU, see ``rank_range``.
    """
    first, end = rank_range(strength, len(ranking))
    drawn = torch.rand(indices.shape, generator=random)
    ranks = first + (drawn * (end - first)[:, None, None]).long()
    replacement = ranking[indices, ranks.to(indices.device)].long()
    return torch.where(inside, replacement, indices)


def corrupt(
    vqvae: VQVAE,
    rankings: Mapping[str, Tensor],
    encoded: Tensor,
    hi: Tensor,
    lo: Tensor,
    masks: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Anomalous codes of normal images, at the hi level, the lo level or both.

    Both with probability ½, else either. In an image with both, the hi features are computed anew
    from the anomalous lo codes before their codes are replaced in turn.

    Parameters
    ----------
    rankings : of each codebook, ``hi`` and ``lo``.
    encoded : (B, C, S/4, S/4) float32, output of ``vqvae.encoder_hi``.
    hi, lo : codes of the normal images, (B, S/4, S/4) and (B, S/8, S/8) int64.
    masks : (B, S, S) bool.

    Returns
    -------
    hi and lo codes as given, replaced where the masks touch their cells; and the mask (B, S, S)
    bool of these cells, the coarser ones where both levels are anomalous.
    """
    count, device = len(masks), masks.device
    both, only_lo = (torch.rand(2, count, 1, 1, generator=random) < 0.5).to(device)
    in_lo, in_hi = both | only_lo, both | ~only_lo
    strength = torch.empty(2, count).uniform_(*STRENGTH, generator=random)
    cells_hi, cells_lo = pool(masks, HI), pool(masks, LO)

    new_lo = displace(lo, cells_lo & in_lo, rankings["lo"], strength[0], random)
    dependent = vqvae.hi(encoded, look_up(new_lo, vqvae.codebook_lo)).indices
    new_hi = torch.where(both, dependent, hi)
    new_hi = displace(new_hi, cells_hi & in_hi, rankings["hi"], strength[1], random)
    return new_hi, new_lo, torch.where(in_lo, unpool(cells_lo, LO), unpool(cells_hi, HI))


def smudge(images: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) with one colour blended in inside the masks (B, S, S) bool; its opacity
    is 1 − β, β ~ U(0, 0.8)."""
    colour = torch.rand(len(images), 3, 1, 1, generator=random).to(images.device)
    beta = torch.rand(len(images), 1, 1, 1, generator=random).to(images.device)
    beta = SMUDGE_TRANSPARENCY * beta
    return torch.where(masks[:, None], (1 - beta) * colour + beta * images, images)


def focal(logits: Tensor, target: Tensor, gamma: float = GAMMA) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) without class weights: mean of −(1 − p_t)^γ · log p_t.

    logits : (B, 2, H, W), computed in float32. target : (B, H, W) bool. p_t is the softmax of the
    target's class.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    log_pt = torch.where(target, log_p[:, 1], log_p[:, 0])
    return -((1 - log_pt.exp()) ** gamma * log_pt).mean()


# ---- networks ----


@cache
@torch.inference_mode(False)
def _doubling(size: int, device: torch.device) -> Tensor:
    """Matrix (2 size, size) of bilinear scaling with align_corners=True."""
    eye = torch.eye(size)[None]
    return F.interpolate(eye, size=2 * size, mode="linear", align_corners=True)[0].T.to(device)


class Double(nn.Module):
    """Bilinear × 2 (corners aligned) as two matrix products, which have a fast deterministic
    gradient on every device."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_doubling(size, x.device) for size in x.shape[-2:])
        return rows @ x @ columns.T


def layer(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution 3×3 → instance normalisation (nothing learnt, hence no bias before it) → ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.InstanceNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def restriction(channels: int, width: int) -> nn.Sequential:
    """Subspace restriction: features (B, channels, h, w) → likewise, h and w multiples of 4.

    The paper's U-Net has no skip connections in the authors' code: they would let anomalies by.
    """
    w = width
    return nn.Sequential(
        *(layer(channels, w), layer(w, w), nn.MaxPool2d(2)),
        *(layer(w, 2 * w), layer(2 * w, 2 * w), nn.MaxPool2d(2)),
        *(layer(2 * w, 4 * w), layer(4 * w, 4 * w)),
        *(Double(), layer(4 * w, 2 * w), layer(2 * w, 2 * w), layer(2 * w, 2 * w)),
        *(Double(), layer(2 * w, w), layer(w, w), layer(w, w)),
        nn.Conv2d(w, channels, 3, padding=1),
    )


def image_decoder(channels: int, width: int) -> nn.Sequential:
    """Object-specific decoder: joined codes (B, 2·channels, h, w) → image (B, 3, 4h, 4w)."""
    w, neck = width, width // 2
    return nn.Sequential(
        *(layer(2 * channels, 2 * w), layer(2 * w, 4 * w), nn.MaxPool2d(2)),
        *(layer(4 * w, 4 * w), layer(4 * w, 8 * w), nn.MaxPool2d(2)),
        nn.Conv2d(8 * w, neck, 1),
        *(nn.ConvTranspose2d(neck, neck, 4, 2, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(neck, neck, 4, 2, padding=1), nn.ReLU()),
        image_head(neck, w),
    )


class MaskUNet(nn.Module):
    """U-Net of four levels, widths w, 2w, 4w, 4w: (B, inputs, H, W) → logits (B, 2, H, W)."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(layer(i, o), layer(o, o))
            for i, o in zip([inputs, *widths[:-1]], widths, strict=True)
        )
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.up = nn.ModuleList(nn.Sequential(Double(), layer(deep, o)) for deep, o in pairs)
        self.merge = nn.ModuleList(nn.Sequential(layer(2 * o, o), layer(o, o)) for _, o in pairs)
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for level in reversed(range(len(skips))):
            x = self.merge[level](torch.cat([self.up[level](x), skips[level]], dim=1))
        return self.head(x)


class Networks(nn.Module):
    """All that DSR trains; at channels = width = 128 the published sizes: 2 × 7.8, 9.4, 5.6, 5.6 M
    parameters. None keeps statistics of batches, so train and eval modes do not differ."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.restrict_hi = restriction(channels, width)
        self.restrict_lo = restriction(channels, width)
        self.decoder = image_decoder(channels, width)
        self.detector = MaskUNet(6, width // 2)
        self.upsampler = MaskUNet(8, width // 2)
        for module in (*self.decoder.modules(), *self.detector.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.02)

    def specific(self, vqvae: VQVAE, features_hi: Tensor, features_lo: Tensor) -> Tensor:
        """Object-specific image (B, 3, S, S) of restricted features, quantised on the way."""
        codes_hi, _ = quantise(features_hi, vqvae.codebook_hi)
        codes_lo, _ = quantise(features_lo, vqvae.codebook_lo)
        return self.decoder(vqvae.join(codes_hi, codes_lo))


# ---- masker ----


class DsrMasker:
    """Trained masker; its saliency is the refined mask's probability of "anomalous".

    Args:
        name: the masker, for messages.
        settings: ``fader.config.Dsr``.
        context: with the tensors of the run's ``codebook``.

    Raises:
        FaderError: no codebook, or tensors that are none.
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
        self.device = context.machine.device
        codes, self.channels = tables[0].shape
        with torch.device("meta"):
            vqvae = VQVAE(self.channels, codes)
        check(context.codebook, vqvae.state_dict(), f"codebook of masker {name!r}")
        vqvae.load_state_dict(dict(context.codebook), assign=True)
        self.vqvae = vqvae.eval().requires_grad_(False).to(self.device)
        self.networks = self._initialised(seed=0)
        self.weights = f"VQ-VAE-2 codebook of this run, digest {weights_hash(vqvae.state_dict())}"

    def fit(self, normal: Tensor, run: Run) -> dict[str, list[dict[str, float]]]:
        """Both stages, ``detection`` and ``upsampling``, on normal images (N,3,H,W) uint8.

        Kept on the device, an image: its pixels (float32, 0.8 MB at 256²) and its features at the
        hi level (float16, 1.0 MB with 128 channels).
        """
        settings = self.settings
        self.networks = self._initialised(derive_seed(run.seed, "weights"))
        pixels = torch.cat([self._resized(part) for part in normal.split(settings.batch)])
        remedy = f"lower masks.maskers.{self.name}.lr"
        return {
            "detection": self._fit_detection(pixels, run.stage("detection", remedy)),
            "upsampling": self._fit_upsampling(pixels, run.stage("upsampling", remedy)),
        }

    def _initialised(self, seed: int) -> Networks:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Networks(self.channels, self.settings.width).to(self.device)

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
        total = settings.epochs * batches_per_epoch(len(pixels), settings.batch)
        adam = torch.optim.Adam(parameters, settings.lr, fused=True)
        return train(
            stage,
            modules=trained,
            optimizers={"adam": Optimizer(adam, schedules.step_decay(total, at=0.8))},
            step=step,
            count=len(pixels),
            batch=settings.batch,
            epochs=settings.epochs,
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

        total = settings.upsampler_epochs * batches_per_epoch(len(pixels), settings.batch)
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
            epochs=settings.upsampler_epochs,
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
        """Images, uint8 or in [0,1] → float32 (B, 3, S, S) in [0,1] on the device."""
        images = images.to(self.device)
        images = images.float().div(255) if images.dtype == torch.uint8 else images.float()
        size = (self.settings.input_size, self.settings.input_size)
        return F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)

    @torch.no_grad()
    def saliency(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) in [0,1] -> (N,S,S) fp32 in [0,1], S = input_size, same device.

        A probability: comparable across images, about 0 all over a normal one.
        """
        maps = []
        for part in images.split(self.settings.batch):
            seen = self._seen(self._resized(part))
            with self.machine.autocast():
                logits = self.networks.upsampler(seen)
            maps.append(logits.float().softmax(dim=1)[:, 1].to(images.device))
        return torch.cat(maps)

    def state(self) -> dict[str, Tensor]:
        """Weights of the five trained networks, on the CPU; the codebook is not among them."""
        return {k: v.cpu().clone() for k, v in self.networks.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; FaderError when it is not of these settings."""
        check(state, self.networks.state_dict(), f"weights of masker {self.name!r}")
        self.networks.load_state_dict(dict(state))


def create(name: str, settings: Dsr, context: Context) -> DsrMasker:
    """As ``fader.maskers.create``."""
    return DsrMasker(name, settings, context)
