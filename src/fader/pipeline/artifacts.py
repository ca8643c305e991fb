"""The only place that knows file names, formats and how to write them.

Every artefact says in its own header what it was made from: its kind, the settings that mattered
(see ``config.PHASES``), and the identity of each artefact it read. Whoever reads it checks both, so
that a table can never show a number made with other settings. Arrays and weights are safetensors,
facts are JSON; nothing is pickled. Files are written beside their target, synced and renamed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fader.errors import FaderError
from fader.files import digest, replacing

HEADER = (
    "fader"  # the one metadata key of our safetensors files: several keys come out in any order
)


@dataclass(frozen=True)
class Header:
    """What an artefact was made from.

    kind : phase that made it (a key of ``config.PHASES``).
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

    def sealed(self, contents: str) -> "Header":
        parts = [self.kind, self.settings, self.inputs, self.facts, contents]
        return Header(self.kind, self.settings, self.inputs, self.facts, digest(parts))

    def plain(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "facts": dict(self.facts),
            "identity": self.identity,
        }


def write_tensors(path: str | Path, tensors: Mapping[str, Any], header: Header) -> Header:
    """Write CPU tensors with their header; returns the header with its identity."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(memoryview(tensor.flatten().view(torch.uint8).numpy()))
    header = header.sealed(hasher.hexdigest())
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, {HEADER: json.dumps(header.plain(), sort_keys=True)})
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
    """Header of an artefact; FaderError when the file is missing, damaged or not ours."""
    path = Path(path)
    try:
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
                if path.stat().st_size != 8 + size + end:
                    raise ValueError("not as long as its header says")
        return Header(**{key: content[key] for key in Header.__dataclass_fields__})
    except FileNotFoundError:
        raise _missing(path) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FaderError(
            f"{path}: damaged, or not an artefact of this pipeline"
            f" ({type(error).__name__}: {error});"
            " delete it and run again"
        ) from None


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
    return json.loads(Path(path).read_text(encoding="utf-8")).get("volatile", {})


def inputs(*paths: str | Path) -> dict[str, str]:
    """Path → identity, for a header's ``inputs``."""
    return {str(path): read_header(path).identity for path in paths}


def read_tensors(path: str | Path, names: Callable[[str], bool] = bool) -> dict[str, Any]:
    """Memory-mapped CPU tensors of an artefact (those whose name satisfies ``names``)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in filter(names, stream.keys())}
    except FileNotFoundError:
        raise _missing(path) from None
    except SafetensorError as error:
        raise FaderError(f"{path}: damaged ({error}); delete it and run again") from None
