"""Configuration files: read, checked, copied from a preset."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fader.config.run import Config
from fader.errors import FaderError
from fader.files import replacing


def parse(values: Any, source: str) -> Config:
    """Validate plain values; a FaderError is one line that names the source and the first wrong
    key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        first = problems[0]
        # The tag of a union is no key of the file: drop it.
        tags = {"datasets": 2, "detectors": 2, "masks": 3}
        tag = tags.get(str(first["loc"][0]) if first["loc"] else "")
        where = ".".join(str(part) for i, part in enumerate(first["loc"]) if i != tag)
        message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
        if first["type"] == "extra_forbidden":
            message = "unknown key"
        elif first["type"] not in ("missing", "value_error"):
            message += f", got {first['input']!r}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        # The models' own validators open their message with the key inside their section.
        joint = "." if first["type"] == "value_error" else ": "
        raise FaderError(f"{source}: {where + joint if where else ''}{message}{more}") from None


def load(path: Path = Path("params.yaml")) -> Config:
    """Read and validate a configuration file; FaderError when it is missing, not YAML or not
    valid."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FaderError(
            f"{path}: no such file; `fader preset demo` writes one in the repository's root"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FaderError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse(values, str(path))


def use_preset(name: str, target: Path, presets: Path = Path("presets")) -> Path:
    """Copy a validated preset onto ``target``; FaderError when there is none of that name."""
    source = presets / f"{name}.yaml"
    if not source.is_file():
        known = ", ".join(sorted(p.stem for p in presets.glob("*.yaml"))) or f"none in {presets}/"
        raise FaderError(f"no preset {name!r} (there are: {known})")
    load(source)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return source


def schema() -> str:
    """JSON schema of ``params.yaml`` as committed under ``workflow/schemas``."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
