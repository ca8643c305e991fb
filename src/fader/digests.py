"""Digests of named arrays: of those in memory, and of those that a safetensors file holds.

The digest is the sha256 of each array's name, type, shape and bytes, by name. A file's is taken
from its bytes as they lie on disk, memory-mapped, without torch.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LONGEST_HEAD = 1 << 27  # bytes

# Types of safetensors, as torch calls them.
TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}

Entry = tuple[str, str, Iterable[int], Any]  # name, type, shape, bytes


@dataclass(frozen=True)
class Head:
    """What a safetensors file says before its data.

    Parameters
    ----------
    metadata : key → text.
    tensors : name → ``dtype``, ``shape`` and ``data_offsets``, bytes from ``start`` on.
    start : of the data, bytes from the beginning of the file.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, Any]]
    start: int


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Digest of contiguous CPU tensors."""
    import torch

    return _digest(
        # A row an element: no flat view of bytes is to be had of what numpy gave empty.
        (name, str(tensor.dtype), tensor.shape, _rows(tensor).view(torch.uint8).numpy().data)
        for name, tensor in tensors.items()
    )


def _rows(tensor: Tensor) -> Tensor:
    return tensor.detach().flatten().unsqueeze(1)


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Digest of arrays in C order: that of the tensors of their values."""
    return _digest(
        (name, f"torch.{array.dtype}", array.shape, array.ravel().view("uint8").data)
        for name, array in arrays.items()
    )


def of_file(path: Path) -> str:
    """Digest of the tensors of a safetensors file.

    Raises
    ------
    ValueError, LookupError, TypeError : as ``head``.
    """
    with path.open("rb") as stream:
        about = _head(stream)
        data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))[about.start :]
    return _digest(_stored(name, entry, data) for name, entry in about.tensors.items())


def _stored(name: str, entry: Mapping[str, Any], data: memoryview) -> Entry:
    begin, end = entry["data_offsets"]
    return name, f"torch.{TYPES[entry['dtype']]}", entry["shape"], data[begin:end]


def head(path: Path) -> Head:
    """Head of a safetensors file that is as long as it says.

    Raises
    ------
    ValueError, LookupError, TypeError : it is none.
    """
    with path.open("rb") as stream:
        return _head(stream)


def _head(stream: BinaryIO) -> Head:
    size = int.from_bytes(stream.read(8), "little")
    if not 0 < size < LONGEST_HEAD:
        raise ValueError("not a safetensors file")
    tensors = dict(json.loads(stream.read(size)))
    metadata = dict(tensors.pop("__metadata__", {}))
    start = 8 + size
    end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if os.fstat(stream.fileno()).st_size != start + end:
        raise ValueError("not as long as its header says")
    return Head(metadata, tensors, start)


def _digest(entries: Iterable[Entry]) -> str:
    hasher = hashlib.sha256()
    for name, dtype, shape, content in sorted(entries, key=lambda entry: entry[0]):
        hasher.update(f"{name} {dtype} {tuple(shape)}\n".encode())
        hasher.update(content)
    return hasher.hexdigest()
