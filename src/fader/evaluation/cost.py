"""What inference costs: parameters, multiply–accumulates, bytes of weights, milliseconds per image.

The paper calls Φ "extremely tiny" and gives no figure; neither does it count the masker, which EAR
and FADeR need for every image. Here a *component* is measured (a masker, one pass of the U-Net, Φ,
the anomaly map), and a *system* is the sum of its components: EAR, FADeR, RIAD's twelve passes
(4 grid sizes × 3 disjoint subsets, on the same U-Net), and the plain U-Net. Left out of a system is
only the scaling of a mask to the image.

Nothing here needs pretrained weights or data. Parameters and multiply–accumulates follow from
shapes and are counted on PyTorch's meta device. Times are taken with random weights of the same
architecture, for they do not depend on the values.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import open_clip
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fader import runtime
from fader.config import AmiNet, Attention, Config, Dsr, MsFlow, WinClip
from fader.detectors import ear, fader
from fader.errors import FaderError
from fader.evaluation.scoring import anomaly_map
from fader.maskers import Masker, winclip
from fader.maskers.aminet import AmiNetMasker
from fader.maskers.attention import AttentionMasker
from fader.maskers.dsr import DsrMasker
from fader.maskers.msflow import MsFlowMasker
from fader.maskers.threshold import binarise
from fader.runtime import Machine
from fader.vision.backbones import Pyramid, WeightsInfo, backbone
from fader.vision.vqvae import VQVAE

BATCHES = (1, 16)
RIAD_GRIDS, RIAD_SUBSETS = 4, 3
RANDOM = "random, of the same architecture"
TEXT_ENCODER = (
    "parameters and size include CLIP's text encoder, which runs once per category;"
    " multiply–accumulates and times are those of the image encoder"
)

# Of one measurement: passes go on until they add up to this many seconds, or are this many.
BUDGET_S, PASSES = 1.0, 30
# A first pass longer than this is taken as the measurement, for warming up is little of it.
SLOW_S = 2.0
# A batch that would take longer, by the time of one image, is not timed.
LIMIT_S = 20.0


@dataclass(frozen=True)
class Part:
    """A component ready to run.

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
    torch.autocast = lambda *args, **options: nullcontext()
    try:
        yield
    finally:
        torch.autocast = autocast


def count_macs(run: Callable[..., Any], *inputs: Tensor) -> int:
    """Multiply–accumulates of one call: convolutions, transposed ones, linear layers, products of
    matrices, attention. A convolution's zero padding counts as its other inputs do.

    To be called on the meta device, where attention falls apart into products: elsewhere a fused
    kernel may go uncounted, as that of ``nn.MultiheadAttention`` does on a CPU.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops() // 2


def parameters(modules: Iterable[nn.Module]) -> int:
    """Learnt numbers: parameters, and the codebooks of a VQ-VAE, which are buffers."""
    return sum(
        tensor.numel()
        for module in modules
        for tensor in (
            *module.parameters(),
            *(buffer for name, buffer in module.named_buffers() if name.startswith("codebook")),
        )
    )


def stored_bytes(modules: Iterable[nn.Module]) -> int:
    """Bytes of the state dicts in fp32, statistics of batch normalisation included."""
    return sum(t.numel() * t.element_size() for m in modules for t in m.state_dict().values())


# ---- maskers with random weights ----


def _made(masker: type, machine: Machine, **attributes: Any) -> Any:
    """A masker with the attributes that its constructor would give it, but for the weights."""
    instance = masker.__new__(masker)
    vars(instance).update(machine=machine, weights=RANDOM, **attributes)
    return instance


def _pyramid(settings: MsFlow | AmiNet) -> Pyramid:
    entry = backbone(settings.backbone)
    network = timm.create_model(
        entry.architecture,
        features_only=True,
        out_indices=tuple(settings.layers),
        **entry.options,
    )
    return Pyramid(network, entry, WeightsInfo(settings.backbone, entry.label, RANDOM, ""))


Made = tuple[Masker, tuple[nn.Module, ...], tuple[nn.Module, ...]]  # masker, trained, frozen


def _attention(name: str, settings: Attention, machine: Machine, config: Config) -> Made:
    entry = backbone(settings.backbone)
    model = timm.create_model(
        entry.architecture, num_classes=0, dynamic_img_size=True, **entry.options
    )
    masker = _made(
        AttentionMasker,
        machine,
        input_size=settings.input_size,
        batch=settings.batch,
        model=model.eval(),
        mean=torch.tensor(entry.mean).view(3, 1, 1),
        std=torch.tensor(entry.std).view(3, 1, 1),
    )
    return masker, (), (model,)


def _winclip(name: str, settings: WinClip, machine: Machine, config: Config) -> Made:
    clip = open_clip.CLIP(**winclip.ARCHITECTURE).eval()
    masker = _made(
        winclip.WinClipMasker,
        machine,
        batch=settings.batch,
        visual=clip.visual,
        classes=F.normalize(torch.randn(2, clip.visual.output_dim), dim=-1),
        mean=torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1),
        std=torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1),
    )
    return masker, (), (clip,)


def _dsr(name: str, settings: Dsr, machine: Machine, config: Config) -> Made:
    vqvae = VQVAE(config.codebook.channels, config.codebook.codes).eval()
    masker = _made(
        DsrMasker,
        machine,
        name=name,
        settings=settings,
        device=machine.device,
        channels=config.codebook.channels,
        vqvae=vqvae,
    )
    masker.networks = masker._initialised(seed=0)
    return masker, (masker.networks,), (vqvae,)


def _msflow(name: str, settings: MsFlow, machine: Machine, config: Config) -> Made:
    pyramid = _pyramid(settings).to(memory_format=torch.channels_last)
    masker = _made(MsFlowMasker, machine, name=name, settings=settings, pyramid=pyramid)
    masker.flow = masker._new_flow(seed=0).eval()
    masker.reference = torch.zeros(len(settings.layers))
    return masker, (masker.flow,), (pyramid,)


def _aminet(name: str, settings: AmiNet, machine: Machine, config: Config) -> Made:
    masker = _made(AmiNetMasker, machine, name=name, settings=settings, pyramid=_pyramid(settings))
    masker.network = masker._build(seed=0).eval()
    return masker, (masker.network,), (masker.pyramid,)


_MAKE = {
    "attention": _attention,
    "winclip": _winclip,
    "dsr": _dsr,
    "msflow": _msflow,
    "aminet": _aminet,
}


# ---- components ----


def _masker(name: str, config: Config, machine: Machine) -> Part:
    """Image → binary mask M_B on the masker's own grid."""
    settings, masks = config.masks.maskers[name], config.masks
    masker, trained, frozen = _MAKE[settings.kind](name, settings, machine, config)

    def run(images: Tensor) -> Tensor:
        saliency = masker.saliency(images)
        if saliency.is_meta:  # the rule looks at values; it has no products to count
            return saliency
        # Random weights may overflow half precision.
        return binarise(saliency.nan_to_num(), masks.rule, masks.level)

    if isinstance(settings, WinClip):
        side = winclip.ARCHITECTURE["vision_cfg"]["image_size"]
        return Part(run, side, trained, frozen, note=TEXT_ENCODER)
    return Part(run, settings.input_size, trained, frozen)


def _network(patch: int, config: Config, machine: Machine) -> Part:
    """Image and mask → I′ → reconstruction."""
    network = ear.build(config, machine).eval()
    reconstruct = ear.reconstruct(network, patch, machine)

    def run(images: Tensor) -> Tensor:
        return reconstruct(images, torch.ones_like(images[:, 0], dtype=torch.bool))

    return Part(run, config.image.size, (network,))


def _phi(kind: str, patch: int, config: Config, machine: Machine) -> Part:
    """I′ → M_S, by the MLP or the ViT."""
    variant = config.variant(config.masks.base).model_copy(update={"predictor": kind})
    phi = fader.predictor(config, patch, variant).eval()
    return Part(
        lambda images: phi.soft_mask(phi(images)), config.image.size, (phi,), patch=phi.patch
    )


def _map(config: Config, machine: Machine) -> Part:
    """Image and reconstruction → anomaly map."""
    return Part(
        lambda images: anomaly_map(images, images.flip(-1), config.score), config.image.size
    )


def parts(config: Config, patch: int) -> dict[str, Callable[[Machine], Part]]:
    """Components of a run by name, each to be made on a machine; ``patch`` is m*, pixels."""
    return {
        **{f"mask-{name}": partial(_masker, name, config) for name in config.masks.maskers},
        "network": partial(_network, patch, config),
        "phi-mlp": partial(_phi, "mlp", patch, config),
        "phi-vit": partial(_phi, "vit", patch, config),
        "map": partial(_map, config),
    }


def systems(config: Config) -> dict[str, dict[str, int]]:
    """Systems by name: component → how often it runs for one image."""
    found = {}
    for name in config.masks.maskers:
        found[f"ear-{name}"] = {f"mask-{name}": 1, "network": 1, "map": 1}
        found[f"fader-{name}"] = {f"mask-{name}": 1, "network": 1, "phi-mlp": 1, "map": 1}
    found["riad"] = {"network": RIAD_GRIDS * RIAD_SUBSETS, "map": RIAD_GRIDS}
    found["unet"] = {"network": 1, "map": 1}
    return found


# ---- measuring ----


def _on(machine: Machine, make: Callable[[Machine], Part]) -> Part:
    with machine.device:
        return make(machine)


def counts(config: Config, patch: int | None = None) -> list[dict[str, Any]]:
    """Everything of ``components`` but the times; the same on every machine, in a second or two."""
    patch = patch or config.mosaic.fixed
    rows = []
    for name, make in parts(config, patch).items():
        try:
            part = _on(META, make)
            images = torch.empty(1, 3, config.image.size, config.image.size, device="meta")
            with _no_autocast():
                macs = count_macs(part.run, images)
        except (AssertionError, IndexError, ValueError, RuntimeError) as error:
            detail = " ".join(str(error).split())
            raise FaderError(
                f"{name}: no such network can be made ({detail[:300]}); correct its settings in"
                " the configuration"
            ) from error
        weights = (*part.trained, *part.frozen)
        rows.append(
            {
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
        )
    of = {row["name"]: row for row in rows}
    for name, passes in systems(config).items():
        once = {key: sum(of[part][key] for part in passes) for key in ("parameters", "trained")}
        rows.append(
            {
                "name": name,
                "kind": "system",
                "parts": passes,
                "input": config.image.size,
                "patch": None,
                **once,
                "macs": sum(of[part]["macs"] * times for part, times in passes.items()),
                "bytes": sum(of[part]["bytes"] for part in passes),
                "note": None,
            }
        )
    return rows


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
    A dictionary a row. ``name``; ``kind``, component or system; ``parts``, component → passes per
    image; ``input``, side of what the network sees, pixels; ``patch``, side of a token, of Φ alone;
    ``parameters``, all that inference needs, and those of them that are ``trained`` on a category's
    normals; ``macs`` per image; ``bytes`` of the weights in fp32; ``note`` or None; ``timings``,
    the only fact that differs between equal runs. A timing: ``device`` (cpu or cuda), its ``name``,
    ``precision``, ``threads``, ``weights``, ``batch``, ``milliseconds`` per image (None where not
    timed), ``passes``, of which that is the median, and ``note``, why it was not timed, or None.

    Raises
    ------
    FaderError : settings of which no network can be made.
    """
    rows = counts(config, patch)
    timed = {}
    for name, make in parts(config, patch or config.mosaic.fixed).items():
        if runtime.interactive():
            print(f"cost of {name}", file=sys.stderr, flush=True)
        timed[name] = [t for where in _machines(machine) for t in _timings(make, config, where)]
    return [
        row | {"timings": timed.get(row["name"]) or _summed(row["parts"], timed)} for row in rows
    ]


def _machines(machine: Machine) -> list[Machine]:
    """The CPU, and the GPU where there is one; bf16 only where the hardware has it."""
    if machine.device.type == "cpu":
        return [machine]
    cpu = torch.device("cpu")
    bf16 = machine.precision == "bf16" and runtime.has_bf16(cpu)
    return [Machine(cpu, "bf16" if bf16 else "fp32"), machine]


def _timings(
    make: Callable[[Machine], Part], config: Config, machine: Machine
) -> list[dict[str, Any]]:
    part = _on(machine, make)
    size = config.image.size
    facts = machine.facts()
    timings = []
    single = 0.0
    for batch in BATCHES:
        timing = {
            "device": machine.device.type,
            "name": facts["device"],
            "precision": facts["precision"],
            "threads": facts["threads"],
            "batch": batch,
            "weights": RANDOM,
            "milliseconds": None,
            "passes": 0,
            "note": None,
        }
        if single * batch > LIMIT_S:
            timing["note"] = f"one image takes {single:.1f} s"
        else:
            pixels = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
            seconds = _passes(partial(part.run, machine.images(pixels)), machine.device)
            single = median(seconds) / batch
            timing |= {"milliseconds": round(1000 * single, 4), "passes": len(seconds)}
        timings.append(timing)
    return timings


def _passes(run: Callable[[], Any], device: torch.device) -> list[float]:
    """Seconds of each pass after the first, which warms up; of the first alone when it is slow."""

    def seconds() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    first = seconds()
    if first > SLOW_S:
        return [first]
    found = [seconds()]
    while sum(found) < BUDGET_S and len(found) < PASSES:
        found.append(seconds())
    return found


def _summed(
    passes: Mapping[str, int], timings: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Timings of a system: its components' one after the other, None where one of them is."""
    summed = []
    for entries in zip(*(timings[name] for name in passes), strict=True):
        at = dict(zip(passes, entries, strict=True))
        absent = [f"{name}: {t['note']}" for name, t in at.items() if t["note"]]
        total = None
        if not absent:
            total = round(sum(t["milliseconds"] * passes[name] for name, t in at.items()), 4)
        summed.append(
            entries[0]
            | {
                "milliseconds": total,
                "passes": min(t["passes"] for t in entries),
                "note": "; ".join(absent) or None,
            }
        )
    return summed
