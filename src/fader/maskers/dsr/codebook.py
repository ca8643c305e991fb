"""DSR's frozen codebooks: the quantised autoencoder that all categories of a run share.

The authors pre-train it on ImageNet and publish the file but not the code (VitjanZ/
DSR_anomaly_detection, Apache-2.0); ``read`` takes that file. Where it cannot be had, ``fit`` trains
the same model on the run's own normal images and as many procedural textures, which bring the codes
that normal images lack: a departure from the paper that a run with ``file: null`` declares.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from fader.config import Codebook
from fader.data.defects import procedural_texture
from fader.errors import FaderError, MissingWeights
from fader.runtime import Machine
from fader.seeds import derive_seed
from fader.training import schedules
from fader.training.loop import History, Optimizer, Run, Update, steps_of, train
from fader.vision.vqvae import COMMITMENT, VQVAE, MovingAverage, commitment, perplexity

SOURCE = (
    "https://github.com/openvinotoolkit/anomalib/releases/download/dsr_pretrained_weights/"
    "dsr_vq_model_pretrained.zip"
)

# Part of the run in which the codes are features of the batch before, drawn anew at every step: an
# encoder that has learnt nothing yet moves away from codes that follow it by averages, and a
# handful of them would end up with everything.
WARM = 0.3

# The authors' names, "bot" being hi and "top" lo → ours. Their averages (_ema_*) are not needed.
_LAYERS = {
    "_encoder_b._conv_1": "encoder_hi.0",
    "_encoder_b._conv_2": "encoder_hi.2",
    "_encoder_b._conv_3": "encoder_hi.4",
    "_encoder_b._residual_stack._layers.0._block.1": "encoder_hi.5.squeeze",
    "_encoder_b._residual_stack._layers.0._block.3": "encoder_hi.5.expand",
    "_encoder_b._residual_stack._layers.1._block.1": "encoder_hi.6.squeeze",
    "_encoder_b._residual_stack._layers.1._block.3": "encoder_hi.6.expand",
    "_encoder_t._conv_1": "encoder_lo.0",
    "_encoder_t._conv_2": "encoder_lo.2",
    "_encoder_t._residual_stack._layers.0._block.1": "encoder_lo.4.squeeze",
    "_encoder_t._residual_stack._layers.0._block.3": "encoder_lo.4.expand",
    "_encoder_t._residual_stack._layers.1._block.1": "encoder_lo.5.squeeze",
    "_encoder_t._residual_stack._layers.1._block.3": "encoder_lo.5.expand",
    "_pre_vq_conv_bot": "project_hi",
    "_pre_vq_conv_top": "project_lo",
    "upsample_t": "up",
    "_decoder_b._conv_1": "decoder.0",
    "_decoder_b._residual_stack._layers.0._block.1": "decoder.1.squeeze",
    "_decoder_b._residual_stack._layers.0._block.3": "decoder.1.expand",
    "_decoder_b._residual_stack._layers.1._block.1": "decoder.2.squeeze",
    "_decoder_b._residual_stack._layers.1._block.3": "decoder.2.expand",
    "_decoder_b._conv_trans_1": "decoder.4",
    "_decoder_b._conv_trans_2": "decoder.6",
}
_CODEBOOKS = {
    "_vq_vae_bot._embedding.weight": "codebook_hi",
    "_vq_vae_top._embedding.weight": "codebook_lo",
}
_AVERAGES = ("._ema_w", "._ema_cluster_size")


def fit(
    images: Tensor, settings: Codebook, machine: Machine, run: Run
) -> tuple[dict[str, Tensor], dict[str, History]]:
    """Pre-train the autoencoder on random crops of normal images and of procedural textures.

    Loss: mean squared error ÷ variance of the pixels (as the authors of VQ-VAE do, so that it
    weighs the same against the commitment on any images) + 0.25 × commitment of both levels.

    Parameters
    ----------
    images : (N, 3, H, W) uint8, normal, of all categories, sides at least ``settings.crop``.

    Returns
    -------
    The state of ``VQVAE`` on the CPU, and the history of the stage ``codebook``: losses, and
    ``perplexity_hi``, ``perplexity_lo``, how many codes a batch effectively uses.

    Raises
    ------
    FaderError : images smaller than the crop, or a loss that is not finite.
    """
    crop, device = settings.crop, machine.device
    if min(images.shape[-2:]) < crop:
        raise FaderError(
            f"codebook.crop: {crop} pixels, but the images are {tuple(images.shape[-2:])};"
            " lower it or enlarge the images"
        )
    stage = run.stage("codebook", "lower codebook.lr")
    seed = stage.seed
    textures = _textures(images, derive_seed(seed, "textures"))
    pixels = torch.cat([images.cpu(), textures]).to(device)
    mean, variance = _moments(pixels)
    model = initialised(settings, derive_seed(seed, "weights")).to(device)
    _standardise(model, mean, variance**0.5)
    averages: dict[str, Any] = {
        "hi": MovingAverage(settings.codes, settings.channels).to(device),
        "lo": MovingAverage(settings.codes, settings.channels).to(device),
    }
    total = steps_of(settings, len(pixels))
    warm = round(WARM * total)
    codebooks = {"hi": model.codebook_hi, "lo": model.codebook_lo}

    def crops(indices: Tensor, random: torch.Generator) -> Tensor:
        height, width = pixels.shape[-2:]
        tops = torch.randint(height - crop + 1, indices.shape, generator=random).tolist()
        lefts = torch.randint(width - crop + 1, indices.shape, generator=random).tolist()
        windows = zip(indices.tolist(), tops, lefts, strict=True)
        return torch.stack(
            [pixels[i, :, top : top + crop, left : left + crop] for i, top, left in windows]
        )

    def step(indices: Tensor, random: torch.Generator, update: Update) -> None:
        batch = crops(indices, random).float().div(255)
        with machine.autocast():
            hi, lo = model.encode(batch)
            decoded = model.decode(hi.codes, lo.codes)
        reconstruction = F.mse_loss(decoded.float(), batch) / variance
        committed = commitment(hi) + commitment(lo)
        facts = {}
        for name, level in {"hi": hi, "lo": lo}.items():
            vectors = level.features.detach().float().movedim(1, -1).flatten(0, 2)
            average, codebook = averages[name], codebooks[name]
            if average.steps < warm:
                average.start(codebook, vectors, random)
            else:
                average.update(codebook, vectors, level.indices.flatten(), random)
            facts[f"perplexity_{name}"] = perplexity(level.indices, settings.codes)
        loss = reconstruction + COMMITMENT * committed
        parts = {"reconstruction": reconstruction, "commitment": committed}
        update("adam", {"loss": loss} | parts | facts)

    adam = torch.optim.Adam(model.parameters(), settings.lr, fused=True)
    history = train(
        stage,
        modules={"model": model} | averages,
        optimizers={"adam": Optimizer(adam, schedules.step_decay(total))},
        step=step,
        count=len(pixels),
        batch=settings.batch,
        steps=total,
    )
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    return state, {"codebook": history}


def initialised(settings: Codebook, seed: int) -> VQVAE:
    """An autoencoder with weights drawn under ``seed``, whatever the state of torch's generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VQVAE(settings.channels, settings.codes)


def _moments(pixels: Tensor) -> tuple[Tensor, float]:
    """Mean (3,) of each channel and variance of all values, of uint8 images scaled to [0, 1]."""
    first = sum(part.double().sum((0, 2, 3)) for part in pixels.split(64)) / 255
    second = sum(part.double().square().sum() for part in pixels.split(64)) / 255**2
    mean = first * 3 / pixels.numel()
    # A floor, for images of one colour.
    return mean.float(), max(float(second / pixels.numel() - mean.mean() ** 2), 1e-4)


@torch.no_grad()
def _standardise(model: VQVAE, mean: Tensor, std: float) -> None:
    """Rescale the first and the last layer to images of this mean (3,) and standard deviation.

    The model takes and gives images in [0, 1], but starts as if they were standardised; otherwise
    its first steps would only find the mean.
    """
    first: Any
    last: Any
    first, last = model.encoder_hi[0], model.decoder[-1]
    first.weight.div_(std)
    first.bias.sub_(torch.einsum("oikl,i->o", first.weight, mean))
    last.weight.mul_(std)
    last.bias.mul_(std).add_(mean)


def _textures(images: Tensor, seed: int) -> Tensor:
    """One procedural texture an image, uint8 and of its shape; half its colours are the image's."""
    textures = np.empty(tuple(images.shape), np.uint8)
    for row, image in enumerate(images.cpu().numpy()):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(row,)))
        textures[row] = np.clip(np.rint(procedural_texture(image, rng)), 0, 255)
    return torch.from_numpy(textures)


def read(path: Path, settings: Codebook) -> dict[str, Tensor]:
    """State of ``VQVAE`` from the authors' file, or from a safetensors file of our own names.

    The authors' ``vq_model_pretrained_128_4096.pckl`` (128 channels, 4096 codes) is read as tensors
    only: nothing in it is executed.

    Raises
    ------
    MissingWeights : there is no such file.
    FaderError : the file is damaged, or not of the settings' ``channels`` and ``codes``.
    """
    if not path.is_file():
        raise MissingWeights(
            f"{path}: no such file (codebook.file); unpack vq_model_pretrained_128_4096.pckl from"
            f" {SOURCE} there, or set codebook.file to null to train one here"
        )
    found = _safetensors(path) if path.suffix == ".safetensors" else _authors(path)
    with torch.device("meta"):
        wanted = VQVAE(settings.channels, settings.codes).state_dict()
    check(
        found,
        wanted,
        f"{path} with codebook.channels {settings.channels}, codebook.codes {settings.codes}",
    )
    return {name: found[name].float().contiguous() for name in wanted}


def check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """FaderError naming the first tensor that is missing, superfluous, or of another shape."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise FaderError(f"{where}: tensor {name} is missing; give a file of these settings")
        if name not in wanted:
            raise FaderError(f"{where}: unknown tensor {name}; give a file of these settings")
        shape, expected = tuple(found[name].shape), tuple(wanted[name].shape)
        if shape != expected:
            raise FaderError(
                f"{where}: tensor {name} is {shape}, not {expected}; give a file of these settings"
            )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FaderError(
            f"{path}: damaged safetensors file ({' '.join(str(error).split())}); fetch it again"
        ) from None


def _authors(path: Path) -> dict[str, Tensor]:
    """The authors' tensors under our names; ``check`` tells the others."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        first = str(error).strip().splitlines()[:1]
        raise FaderError(
            f"{path}: not a file of tensors ({''.join(first)}); unpack it from {SOURCE} again"
        ) from None
    if not isinstance(saved, Mapping) or not all(isinstance(v, Tensor) for v in saved.values()):
        raise FaderError(
            f"{path}: holds something else than named tensors; unpack it from {SOURCE} again"
        )
    found = {}
    for name, value in saved.items():
        if name.endswith(_AVERAGES):
            continue
        layer, _, kind = name.rpartition(".")
        found[_CODEBOOKS.get(name) or f"{_LAYERS.get(layer, layer)}.{kind}"] = value
    return found
