"""Configuration files: read, checked, copied from a preset."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fader.config import problems, syntax
from fader.config.run import Config
from fader.errors import FaderError, near
from fader.files import replacing, shown

PRESETS = Path("presets")


def parse(values: Any, source: str) -> Config:
    """Validate plain values; a FaderError is one line that names the source and the first wrong
    key."""
    if not isinstance(values, dict):
        kinds = {"NoneType": "empty", "list": "a list"}
        kind = kinds.get(type(values).__name__, "a single value")
        raise FaderError(f"{source}: {kind}, no configuration; `fader preset demo` writes one")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        line = problems.sentence(error, _schema())
        raise FaderError(f"{source}: {line}") from None


@cache
def _schema() -> dict[str, Any]:
    return Config.model_json_schema()


def load(path: Path = Path("params.yaml")) -> Config:
    """Read and validate a configuration file.

    Raises
    ------
    FaderError : one line with the file's name: it cannot be read, is no YAML (see
        ``fader.config.syntax``) or no configuration.
    """
    return _loaded(_read(path), shown(path))


def _loaded(data: bytes, name: str) -> Config:
    try:
        values = syntax.plain(data)
    except FaderError as error:
        raise FaderError(f"{name}: {error}") from None
    return parse(values, name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FaderError(
            f"{shown(path)}: no such file; `fader preset demo` writes one in the repository's root"
        ) from None
    except IsADirectoryError:
        raise FaderError(f"{shown(path)}: a folder, no file; remove or rename it") from None
    except OSError as error:
        raise FaderError(f"{shown(path)}: cannot be read ({error.strerror})") from None


def preset_file(name: str, presets: Path = PRESETS) -> Path:
    """The file of a preset; FaderError lists those there are."""
    path = presets / f"{name}.yaml"
    if not path.is_file():
        known = sorted(path.stem for path in presets.glob("*.yaml"))
        listed = ", ".join(known) or f"none in {shown(presets)}/"
        raise FaderError(f"no preset {name!r} (there are: {listed}){near(name, known)}")
    return path


def use_preset(name: str, target: Path, presets: Path = PRESETS) -> tuple[Path, Path | None]:
    """Write a preset to ``target``; returns the preset, and as ``activate``."""
    source = preset_file(name, presets)
    return source, activate(_read(source), shown(source), target, presets)


def activate(data: bytes, source: str, target: Path, presets: Path = PRESETS) -> Path | None:
    """Write a configuration to ``target``; ``source`` is its name in errors.

    A file that is there already is kept beside it, as ``params.yaml.old`` (``.old2`` …), unless it
    is the same or that of a preset. Returns where it is kept; None where it need not be.

    Raises
    ------
    FaderError : it is not valid, or ``target`` is a folder or cannot be read.
    """
    _loaded(data, source)
    kept = None
    if target.exists():
        former = _read(target)
        others = [
            path for path in presets.glob("*.yaml") if path.is_file() and not path.samefile(target)
        ]
        if former != data and former not in map(_read, others):
            kept = _keep(target, former)
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return kept


def _keep(path: Path, data: bytes) -> Path:
    """A copy of a file beside it, where no other content is."""
    number = 1
    while True:
        copy = path.with_name(f"{path.name}.old{number if number > 1 else ''}")
        if not copy.exists():
            with replacing(copy) as temporary:
                temporary.write_bytes(data)
        if copy.is_file() and copy.read_bytes() == data:
            return copy
        number += 1


def schema() -> str:
    """JSON schema of ``params.yaml`` as committed under ``workflow/schemas``."""
    return json.dumps(_schema(), indent=2, ensure_ascii=False) + "\n"
