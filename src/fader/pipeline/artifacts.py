"""The only place that knows file names, formats and how to write them.

Every artefact says in its own header what it was made from: its kind, the settings that mattered
(see ``pipeline.phases``), and the identity of each artefact it read. Whoever reads it checks both,
so that a table can never show a number made with other settings. Arrays and weights are
safetensors, facts are JSON; nothing is pickled. Files are written beside their target, synced and
renamed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fader.errors import FaderError
from fader.files import digest, replacing

if TYPE_CHECKING:
    from torch import Tensor  # whoever only checks artefacts starts without it

# The one metadata key of our safetensors files: several keys come out in any order.
HEADER = "fader"


@dataclass(frozen=True)
class Header:
    """What an artefact was made from.

    Parameters
    ----------
    kind : phase that made it (see ``pipeline.phases``).
    settings : the configuration that mattered, dotted key → value.
    inputs : path → identity of every artefact read.
    facts : what else belongs to the result (names, choices, environment), part of the identity.
    identity : sha256 over the above and the contents, 16 hexadecimal digits.
    """

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]
    identity: str = ""

    def sealed(self, contents: str) -> Header:
        """The header with the identity that it has with these contents."""
        parts = [self.kind, self.settings, self.inputs, self.facts, contents]
        return Header(self.kind, self.settings, self.inputs, self.facts, digest(parts))

    def plain(self) -> dict[str, Any]:
        """The header as kept in a file."""
        return {
            "kind": self.kind,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "facts": dict(self.facts),
            "identity": self.identity,
        }


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> Header:
    """Write CPU tensors with their header; returns the header with its identity."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    contents = _contents(
        # A row an element: no flat view of bytes is to be had of what numpy gave empty.
        (name, tensor.dtype, tensor.shape, tensor.flatten().unsqueeze(1).view(torch.uint8).numpy())
        for name, tensor in sorted(tensors.items())
    )
    return _save(save_file, path, tensors, header.sealed(contents))


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], header: Header) -> Header:
    """Write arrays of numbers or booleans: the bytes and the identity of ``write_tensors``, without
    torch."""
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    contents = _contents(
        (name, f"torch.{array.dtype}", array.shape, array.ravel().view(np.uint8))
        for name, array in sorted(arrays.items())
    )
    return _save(save_file, path, arrays, header.sealed(contents))


def _contents(entries: Iterable[tuple[str, object, tuple[int, ...], np.ndarray]]) -> str:
    """Sha256 of named arrays: (name, type, shape, bytes) each, by name."""
    hasher = hashlib.sha256()
    for name, dtype, shape, content in entries:
        hasher.update(f"{name} {dtype} {tuple(shape)}\n".encode())
        hasher.update(content.data)
    return hasher.hexdigest()


def _save(
    save_file: Callable[..., None], path: str | Path, values: Mapping[str, Any], header: Header
) -> Header:
    with replacing(Path(path)) as temporary:
        save_file(values, temporary, {HEADER: json.dumps(header.plain(), sort_keys=True)})
    return header


def write_json(
    path: str | Path, header: Header, volatile: Mapping[str, Any] | None = None
) -> Header:
    """Write a fact file: the header, and under ``volatile`` what may differ between equal runs
    (timings)."""
    header = header.sealed("")
    content = header.plain() | ({"volatile": dict(volatile)} if volatile else {})
    with replacing(Path(path)) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return header


def _missing(path: str | Path) -> FaderError:
    return FaderError(f"{path}: no such file; `snakemake --cores all {path}` makes it")


def read_header(path: str | Path) -> Header:
    """Header of an artefact; FaderError when the file is missing, damaged or not ours.

    A file that is still the one read before is not read again.
    """
    path = Path(path)
    try:
        status = path.stat()
        return _header(path, (status.st_mtime_ns, status.st_size, status.st_ino))
    except FileNotFoundError:
        raise _missing(path) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FaderError(
            f"{path}: damaged, or not an artefact of this pipeline"
            f" ({type(error).__name__}: {error});"
            " delete it and run again"
        ) from None


@lru_cache(maxsize=2**14)
def _header(path: Path, stamp: tuple[int, int, int]) -> Header:
    """Header of a file as it was at ``stamp``: modification time, size and inode."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
    else:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size < 1 << 27:
                raise ValueError("not a safetensors file")
            table = json.loads(stream.read(size))
        content = json.loads(table.pop("__metadata__")[HEADER])
        end = max((tensor["data_offsets"][1] for tensor in table.values()), default=0)
        if stamp[1] != 8 + size + end:
            raise ValueError("not as long as its header says")
    return Header(**{key: content[key] for key in Header.__dataclass_fields__})


def check(path: str | Path, kind: str, settings: Mapping[str, Any]) -> Header:
    """Header of an artefact that is what the current configuration would make, and FaderError
    otherwise.

    It must be of this kind, made with these settings, and from inputs that are still the ones on
    disk.
    """
    header = read_header(path)
    remedy = "run `make record` (or `dvc repro`) to bring it up to date"
    if header.kind != kind:
        raise FaderError(f"{path}: expected a {kind!r} artefact, found {header.kind!r}; {remedy}")
    changed = sorted(
        key
        for key in settings.keys() | header.settings.keys()
        if settings.get(key, ...) != header.settings.get(key, ...)
    )
    if changed:
        raise FaderError(f"{path}: stale, made with another {', '.join(changed)}; {remedy}")
    for source, identity in header.inputs.items():
        if read_header(source).identity != identity:
            raise FaderError(f"{path}: stale, made from another {source}; {remedy}")
    return header


def volatile(path: str | Path) -> dict[str, Any]:
    """What a fact file records beside its header (timings); empty when nothing."""
    facts: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return dict(facts.get("volatile", {}))


def inputs(*paths: str | Path) -> dict[str, str]:
    """Path → identity, for a header's ``inputs``."""
    return {str(path): read_header(path).identity for path in paths}


def read_tensors(path: str | Path, wanted: Container[str] | None = None) -> dict[str, Tensor]:
    """Memory-mapped CPU tensors of an artefact: all, or those whose name is ``wanted``."""
    return _read(path, "pt", wanted)


def read_arrays(path: str | Path, wanted: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an artefact, read without torch: all, or those whose name is ``wanted``."""
    return _read(path, "np", wanted)


def _read(path: str | Path, framework: str, wanted: Container[str] | None) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as stream:
            names = stream.keys()
            return {
                name: stream.get_tensor(name) for name in names if wanted is None or name in wanted
            }
    except FileNotFoundError:
        raise _missing(path) from None
    except SafetensorError as error:
        raise FaderError(f"{path}: damaged ({error}); delete it and run again") from None
