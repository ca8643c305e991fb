"""What inference costs: parameters, multiply–accumulates, bytes of weights, milliseconds per image.

The paper calls Φ "extremely tiny" and gives no figure; neither does it count the masker, which EAR
and FADeR need for every image. Here a *component* is measured (a masker, one pass of the U-Net, Φ,
the anomaly map), and EAR and FADeR are the sums of theirs; left out is only the scaling of a mask
to the image. A baseline is measured whole: the map and the score of an image.

Nothing here needs pretrained weights or data: everything is made as for a run, but with random
weights. Parameters and multiply–accumulates follow from shapes and are counted on PyTorch's meta
device; times do not depend on the values either.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fader import detectors, maskers, runtime
from fader.config import Config, WinClip
from fader.detectors.fader import PROPOSED
from fader.detectors.fader.predictor import Mlp, Predictor, Vit
from fader.detectors.reconstruction import anomaly_map
from fader.errors import FaderError
from fader.evaluation import timing
from fader.maskers import winclip
from fader.maskers.threshold import binarise
from fader.runtime import Machine
from fader.vision.mosaic import obfuscate
from fader.vision.unet import UNet
from fader.vision.vqvae import VQVAE

TEXT_ENCODER = (
    "parameters and size include CLIP's text encoder, which runs once per category;"
    " multiply–accumulates and times are those of the image encoder"
)


@dataclass(frozen=True)
class Part:
    """A component or a baseline ready to run.

    Parameters
    ----------
    run : images (B, 3, S, S) in [0, 1] → anything; S is the run's image size.
    input : side of what its network sees, pixels.
    trained, frozen : its weights, learnt from a category's normals or pre-trained.
    patch : side of a token of Φ, pixels.
    note : what the figures do not tell.
    """

    run: Callable[[Tensor], Any]
    input: int
    trained: tuple[nn.Module, ...] = ()
    frozen: tuple[nn.Module, ...] = ()
    patch: int | None = None
    note: str | None = None


META = Machine(torch.device("meta"), "fp32")


@contextmanager
def _no_autocast() -> Iterator[None]:
    """The meta device has none, and asking for it is an error; it would change no shape."""
    autocast = torch.autocast
    torch.autocast = lambda *args, **options: nullcontext()  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.autocast = autocast  # type: ignore[misc]  # put back


def count_macs(run: Callable[..., Any], *inputs: Tensor) -> int:
    """Multiply–accumulates of one call: convolutions, transposed ones, linear layers, products of
    matrices, attention. A convolution's zero padding counts as its other inputs do.

    To be called on the meta device, where attention falls apart into products: elsewhere a fused
    kernel may go uncounted, as that of ``nn.MultiheadAttention`` does on a CPU.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops() // 2  # type: ignore[no-any-return]  # torch declares none


def parameters(modules: Iterable[nn.Module]) -> int:
    """Learnt numbers: parameters and the codebooks of a VQ-VAE, which are buffers; of a module that
    has neither (PCA), all that its state keeps."""
    return sum(_learnt(module) or _numbers(module.state_dict().values()) for module in modules)


def _learnt(module: nn.Module) -> int:
    buffers = module.named_buffers()
    codebooks = [buffer for name, buffer in buffers if name.startswith("codebook")]
    return _numbers([*module.parameters(), *codebooks])


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def stored_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the state dicts in fp32, statistics of batch normalisation included."""
    return sum(t.numel() * t.element_size() for m in modules for t in m.state_dict().values())


# ---- components ----


def _masker(name: str, config: Config, machine: Machine) -> Part:
    """Image → binary mask M_B on the masker's own grid."""
    settings, masks = config.masks.settings(name), config.masks
    rule, level = masks.threshold(name)
    codebook = None
    if masks.coded(name):
        codebook = VQVAE(config.codebook.channels, config.codebook.codes).state_dict()
    category = next(iter(config.categories.values())).category
    place = maskers.Context(category, machine, codebook=codebook, random=True)
    masker = maskers.create(name, settings, place)
    if masks.trained(name):
        masker.initialise(seed=0)  # type: ignore[attr-defined]  # a ``TrainedMasker`` then

    def run(images: Tensor) -> Tensor:
        saliency = masker.saliency(images)
        if saliency.is_meta:  # the rule looks at values; it has no products to count
            return saliency
        if rule == "native":
            return masker.native(images, saliency)  # type: ignore[attr-defined,no-any-return]  # it segments
        # Random weights may overflow half precision.
        return binarise(saliency.nan_to_num(), rule, level)

    if isinstance(settings, WinClip):
        side = winclip.ARCHITECTURE["vision_cfg"]["image_size"]
        return Part(run, side, masker.trained, masker.frozen, note=TEXT_ENCODER)
    return Part(run, settings.input_size, masker.trained, masker.frozen)


def _network(patch: int, config: Config, machine: Machine) -> Part:
    """Image and mask → I′ → reconstruction."""
    network = UNet(config.unet.widths, config.unet.output).eval()
    network = network.to(  # type: ignore[call-overload]  # torch declares no such pair
        machine.device, memory_format=torch.channels_last
    )

    def run(images: Tensor) -> Any:
        hidden = torch.ones_like(images[:, 0], dtype=torch.bool)
        with machine.autocast():
            return network(obfuscate(images, hidden, patch))

    return Part(run, config.image.size, (network,))


def _phi(body: Mlp | Vit, config: Config) -> Part:
    """I′ → M_S."""
    phi = Predictor(body, PROPOSED.normalise).eval()
    return Part(
        lambda images: phi.soft_mask(phi(images)), config.image.size, (phi,), patch=phi.patch
    )


def _mlp(patch: int, config: Config, machine: Machine) -> Part:
    return _phi(Mlp(patch, config.fader.hidden), config)


def _vit(patch: int, config: Config, machine: Machine) -> Part:
    vit = config.fader.vit
    return _phi(Vit(config.image.size, vit.patch or patch, vit.width, vit.depth, vit.heads), config)


def _map(config: Config, machine: Machine) -> Part:
    """Image and reconstruction → anomaly map."""
    return Part(
        lambda images: anomaly_map(images, images.flip(-1), config.score), config.image.size
    )


def _detector(name: str, config: Config, machine: Machine) -> Part:
    """Image → anomaly map and image score, by a baseline."""
    size = config.image.size
    place = detectors.Context.of(config, machine, random=True)
    detector = detectors.create(config.detectors[name], place).eval()

    def run(images: Tensor) -> Tensor:
        return detector.judge(images)[1]

    if not detector.frozen:
        return Part(run, size, (detector,))
    learnt = tuple(part for part in detector.children() if part not in detector.frozen)
    return Part(run, config.detectors[name].side(size), learnt, detector.frozen)


def parts(config: Config, patch: int) -> dict[str, Callable[[Machine], Part]]:
    """Components and baselines of a run by name, each to be made on a machine; ``patch`` is m*,
    pixels."""
    return {
        **{f"mask-{name}": partial(_masker, name, config) for name in config.masks.salient},
        "network": partial(_network, patch, config),
        "phi-mlp": partial(_mlp, patch, config),
        "phi-vit": partial(_vit, patch, config),
        "map": partial(_map, config),
        **{name: partial(_detector, name, config) for name in config.detectors},
    }


def systems(config: Config) -> dict[str, dict[str, int]]:
    """Systems by name: what they are made of → how often it runs for one image."""
    passes = {}
    for name in config.masks.salient:
        passes[f"ear-{name}"] = {f"mask-{name}": 1, "network": 1, "map": 1}
        passes[f"fader-{name}"] = {f"mask-{name}": 1, "network": 1, "phi-mlp": 1, "map": 1}
    return passes | {name: {name: 1} for name in config.detectors}


# ---- measuring ----


def _on(machine: Machine, make: Callable[[Machine], Part]) -> Part:
    with machine.device:
        return make(machine)


def counts(config: Config, patch: int | None = None) -> list[dict[str, Any]]:
    """Everything of ``components`` but the times; the same on every machine, in a second or two."""
    of = {
        name: _counted(name, make, config)
        for name, make in parts(config, patch or config.mosaic.fixed).items()
    }
    rows = [row for name, row in of.items() if name not in config.detectors]
    for name, passes in systems(config).items():
        rows.append(
            {
                "name": name,
                "kind": "system",
                "parts": passes,
                "input": config.image.size,
                "patch": None,
                **{
                    key: sum(of[part][key] for part in passes)
                    for key in ("parameters", "trained", "bytes")
                },
                "macs": sum(of[part]["macs"] * times for part, times in passes.items()),
                "note": None,
            }
        )
    return rows


def _counted(name: str, make: Callable[[Machine], Part], config: Config) -> dict[str, Any]:
    """Row of one component; FaderError when no such network can be made."""
    try:
        part = _on(META, make)
        images = torch.empty(1, 3, config.image.size, config.image.size, device="meta")
        with _no_autocast():
            macs = count_macs(part.run, images)
    except (AssertionError, IndexError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise FaderError(
            f"{name}: no such network can be made ({detail[:300]}); correct its settings in the"
            " configuration"
        ) from error
    weights = (*part.trained, *part.frozen)
    return {
        "name": name,
        "kind": "component",
        "parts": {name: 1},
        "input": part.input,
        "patch": part.patch,
        "parameters": parameters(weights),
        "trained": parameters(part.trained),
        "macs": macs,
        "bytes": stored_bytes(weights),
        "note": part.note,
    }


def components(
    config: Config, machine: Machine, *, patch: int | None = None
) -> list[dict[str, Any]]:
    """Cost of every component and system of a run, as plain facts.

    Parameters
    ----------
    machine : times are taken on its CPU, and on its GPU where it has one.
    patch : m* of Φ's rows, pixels; None for ``mosaic.fixed``.

    Returns
    -------
    A dictionary a row. ``name``, of a system that of its method; ``kind``, component or system;
    ``parts``, component → passes per image, a baseline being its own; ``input``, side of what the
    network sees, pixels; ``patch``, side of a token, of Φ alone; ``parameters``, all that inference
    needs, and those of them that are ``trained`` on a category's normals; ``macs`` per image;
    ``bytes`` of the weights in fp32; ``note`` or None; ``timings``, the only fact that differs
    between equal runs. A timing: ``device`` (cpu or cuda), its ``name``, ``precision``,
    ``threads``, ``weights``, ``batch``, ``milliseconds`` per image (None where not timed),
    ``passes``, of which that is the median, and ``note``, why it was not timed, or None.

    Raises
    ------
    FaderError : settings of which no network can be made.
    """
    rows = counts(config, patch)
    timed: dict[str, list[dict[str, Any]]] = {}
    for name, make in parts(config, patch or config.mosaic.fixed).items():
        if runtime.interactive():
            print(f"cost of {name}", file=sys.stderr, flush=True)
        timed[name] = []
        for where in timing.machines(machine):
            timed[name] += timing.timings(_on(where, make).run, config.image.size, where)
    return [
        row | {"timings": timed.get(row["name"]) or timing.summed(row["parts"], timed)}
        for row in rows
    ]
