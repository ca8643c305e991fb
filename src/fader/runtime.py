"""Device, precision, threads and determinism: decided once per job, from the configuration, and
recorded."""

import contextlib
import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from typing import Any

import torch

from fader.config import Runtime
from fader.errors import FaderError


@dataclass(frozen=True)
class Machine:
    """Where and how a job computes. ``precision`` is resolved: ``bf16`` or ``fp32``."""

    device: torch.device
    precision: str

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 autocast for convolutions and products; losses and maps stay in fp32 outside it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 images (B, 3, H, W) → float32 in [0, 1] on the device, channels last."""
        return pixels.to(self.device).float().div(255).contiguous(memory_format=torch.channels_last)

    def facts(self) -> dict[str, Any]:
        """What an artefact records about where it was computed."""
        return {
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else cpu_name(),
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }


def cpu_name() -> str:
    """The processor's name and the widest bf16 instructions it has."""
    capabilities = torch.cpu.get_capabilities()
    bf16 = next((name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)), "no bf16")
    return f"{capabilities.get('cpu_name') or platform.machine()} ({bf16})"


def has_bf16(device: torch.device) -> bool:
    """True where bf16 runs in hardware: AMX or AVX-512 BF16 on a CPU, compute capability ≥ 8 on a
    GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def start(settings: Runtime) -> Machine:
    """Set threads and deterministic algorithms for the process and resolve device and precision.

    FaderError when CUDA is asked for and absent. Same machine, threads and seed then give the same
    bytes.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    available = torch.cuda.is_available() if settings.device != "cpu" else False
    if settings.device == "cuda" and not available:
        raise FaderError(
            "runtime.device: cuda was asked for, but no CUDA device is available; use auto or cpu"
        )
    device = torch.device("cuda" if available else "cpu")
    torch.set_num_threads(settings.threads)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, less a compiler
    # A debugging aid that would take a tenth of every training.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _leave_compiler_out()
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    return Machine(device, precision)


def _leave_compiler_out() -> None:
    """Keep torch's compiler, two seconds of imports that nothing here uses, out of optimisers.

    They import it at their first call, to tell it not to compile them; so they are told here that
    it has been told.
    """
    for method in vars(torch.optim.Optimizer).values():
        wrapped = getattr(method, "__wrapped__", None)
        if wrapped is not None:
            wrapped.__dict__.setdefault("__dynamo_disable", wrapped)


def generator(seed: int) -> torch.Generator:
    """CPU generator of a derived seed: the same stream on every device."""
    return torch.Generator().manual_seed(seed)


def weights_hash(tensors: dict[str, torch.Tensor]) -> str:
    """Sha256 of named tensors, 16 hexadecimal digits."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode())
        hasher.update(  # numpy declares its buffers for Python 3.12 and later
            tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy()  # type: ignore[arg-type]
        )
    return hasher.hexdigest()[:16]


def interactive() -> bool:
    """True when progress bars are welcome: standard error is a terminal."""
    return sys.stderr.isatty()
