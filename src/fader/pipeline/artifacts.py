"""The only place that knows file names, formats and how to write them.

Every artefact says in its own header what it was made from: its kind, the settings that mattered
(see ``pipeline.phases``), and the identity of each artefact it read. Whoever reads it checks both,
so that a table can never show a number made with other settings. The identity is over all that a
file holds, and is compared with it: a header whenever it is read, tensors before any of them is
given out. Arrays and weights are safetensors, facts are JSON; nothing is pickled. Files are written
beside their target, synced and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fader import digests
from fader.errors import FaderError
from fader.files import digest, file_sha256, replacing, shown

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
    contents : digest of the tensors (see ``fader.digests``); empty in a fact file.
    """

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]
    identity: str = ""
    contents: str = ""

    def sealed(self, contents: str) -> Header:
        """The header with the identity that it has with these contents."""
        header = replace(self, contents=contents)
        return replace(header, identity=digest(_as_read(header.parts())))

    def parts(self) -> list[Any]:
        """What the identity is the digest of."""
        return [self.kind, self.settings, self.inputs, self.facts, self.contents]

    def plain(self) -> dict[str, Any]:
        """The header as kept in a file."""
        return {
            "kind": self.kind,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "facts": dict(self.facts),
            "identity": self.identity,
        } | ({"contents": self.contents} if self.contents else {})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> Header:
    """Write CPU tensors with their header; returns the header with its identity."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _save(save_file, path, tensors, header.sealed(digests.of_tensors(tensors)))


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], header: Header) -> Header:
    """Write arrays of numbers or booleans: the bytes and the identity of ``write_tensors``, without
    torch."""
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return _save(save_file, path, arrays, header.sealed(digests.of_arrays(arrays)))


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
    (timings), with a digest of its own."""
    header = header.sealed("")
    about = header.plain()
    if volatile:
        about |= {"volatile": dict(volatile), "volatile_digest": digest(_as_read(volatile))}
    with replacing(Path(path)) as temporary:
        temporary.write_text(
            json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return header


def write_changed(path: str | Path, header: Header) -> Header:
    """Write a fact file unless it is there with these facts: its time of modification says when
    they changed. Returns the header with its identity.

    Raises
    ------
    FaderError : the file that is there is damaged.
    """
    header = header.sealed("")
    if not Path(path).is_file() or read_header(path) != header:
        write_json(path, header)
    return header


def _as_read(value: Any) -> Any:
    """A plain value as it is read back: JSON has no numbers as keys."""
    return json.loads(json.dumps(value))


# Reading. A file that is still the one read before is neither read nor compared again.

Stamp = tuple[int, int, int, int]  # times of modification and of change, size, inode
Found = TypeVar("Found")


class _Other(ValueError):
    """What a file holds is not what it was written with."""


def read_header(path: str | Path) -> Header:
    """Header of an artefact, compared with its identity; the tensors are not looked at.

    Raises
    ------
    FaderError : the file is missing, damaged or not ours.
    """
    return _read(_parsed, path)[0]


def volatile(path: str | Path) -> dict[str, Any]:
    """What a fact file records beside its header (timings); empty when nothing.

    Raises
    ------
    FaderError : as ``read_header``.
    """
    return dict(_read(_parsed, path)[1])


def verify(path: str | Path) -> Header:
    """Header of an artefact that holds what it was written with, to the last bit.

    Raises
    ------
    FaderError : as ``read_header``, or the tensors are others.
    """
    header = read_header(path)
    if header.contents:
        _read(_compared, path)
    return header


def read_tensors(path: str | Path, wanted: Container[str] | None = None) -> dict[str, Tensor]:
    """Memory-mapped CPU tensors of an artefact: all, or those whose name is ``wanted``.

    Raises
    ------
    FaderError : as ``verify``.
    """
    return _loaded(path, "pt", wanted)


def read_arrays(path: str | Path, wanted: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an artefact, read without torch: all, or those whose name is ``wanted``.

    Raises
    ------
    FaderError : as ``verify``.
    """
    return _loaded(path, "np", wanted)


def inputs(*paths: str | Path) -> dict[str, str]:
    """Path → identity, for a header's ``inputs``."""
    return {str(path): read_header(path).identity for path in paths}


def check(
    path: str | Path,
    kind: str,
    settings: Mapping[str, Any],
    sources: Collection[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Header:
    """Header of an artefact that is what the current configuration would make, and FaderError
    otherwise.

    It must be of this kind, made with these settings, and from inputs that are still the ones on
    disk.

    Parameters
    ----------
    sources : paths that are among what it was made from.
    facts : what it says of itself, where it says anything under that name.
    """
    header = read_header(path)
    remedy = "run `make record` (or `dvc repro`) to bring it up to date"
    if header.kind != kind:
        raise FaderError(
            f"{shown(path)}: expected a {kind!r} artefact, found {header.kind!r}; {remedy}"
        )
    changed = sorted(
        key
        for key in settings.keys() | header.settings.keys()
        if settings.get(key, ...) != header.settings.get(key, ...)
    )
    if changed:
        raise FaderError(f"{shown(path)}: stale, made with another {', '.join(changed)}; {remedy}")
    for source in sources:
        if source not in header.inputs:
            raise misplaced(path, f"not made from {source}")
    for name, value in (facts or {}).items():
        if header.facts.get(name, value) != value:
            raise misplaced(path, f"{name} {header.facts[name]!r}, not {value!r}")
    for source, identity in header.inputs.items():
        if read_header(source).identity != identity:
            raise FaderError(f"{shown(path)}: stale, made from another {source}; {remedy}")
    return header


def check_beside(path: str | Path, sha256: str | None) -> None:
    """Compare a file without a header with the sha256 that an artefact beside it keeps.

    Parameters
    ----------
    sha256 : None where the artefact is older than this digest.

    Raises
    ------
    FaderError : the file is missing or damaged.
    """
    try:
        if file_sha256(path) != sha256 and sha256 is not None:
            raise damaged(path)
    except FileNotFoundError:
        raise _missing(path) from None


def _loaded(path: str | Path, framework: str, wanted: Container[str] | None) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    verify(path)
    try:
        with safe_open(path, framework=framework) as stream:
            names = stream.keys()
            return {
                name: stream.get_tensor(name) for name in names if wanted is None or name in wanted
            }
    except SafetensorError:  # where empty tensors lie is in no digest
        raise damaged(path) from None


def _read(function: Callable[[Path, Stamp], Found], path: str | Path) -> Found:
    """What ``function`` reads in a file as it is now."""
    path = Path(path)
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        return function(path, stamp)
    except FileNotFoundError:
        raise _missing(path) from None
    except _Other:
        raise damaged(path) from None
    except (ValueError, LookupError, TypeError) as error:
        reason = f", or not an artefact of this pipeline ({type(error).__name__}: {error})"
        raise FaderError(f"{shown(path)}: damaged{reason}; {_anew(path)}") from None


@lru_cache(maxsize=2**14)
def _parsed(path: Path, stamp: Stamp) -> tuple[Header, Mapping[str, Any]]:
    """Header of a file as it was at ``stamp``, and what is volatile in it."""
    if path.suffix == ".json":
        about = dict(json.loads(path.read_text(encoding="utf-8")))
    else:
        about = dict(json.loads(digests.head(path).metadata[HEADER]))
        if "contents" not in about:  # older than this digest
            about["contents"] = digests.of_file(path)
    volatile = dict(about.pop("volatile", {}))
    of_volatile = about.pop("volatile_digest", None)  # likewise
    header = Header(**about)
    if header.identity != digest(header.parts()):
        raise _Other
    if of_volatile is not None and of_volatile != digest(volatile):
        raise _Other
    return header, volatile


@lru_cache(maxsize=2**14)
def _compared(path: Path, stamp: Stamp) -> None:
    """Compare the tensors of a file, as it was at ``stamp``, with what its header says of them."""
    if digests.of_file(path) != _parsed(path, stamp)[0].contents:
        raise _Other


def _missing(path: str | Path) -> FaderError:
    name = shown(path)
    return FaderError(f"{name}: no such file; `snakemake --cores all {name}` makes it")


def damaged(path: str | Path) -> FaderError:
    """That a file is not as it was written."""
    return FaderError(
        f"{shown(path)}: damaged: its contents are not those it was written with; {_anew(path)}"
    )


def misplaced(path: str | Path, why: str) -> FaderError:
    """That a file is an artefact, but not the one that belongs there."""
    return FaderError(f"{shown(path)}: another file's copy ({why}); {_anew(path)}")


def _anew(path: str | Path) -> str:
    return f"delete it and run again (`snakemake --cores all {shown(path)}` makes it)"
