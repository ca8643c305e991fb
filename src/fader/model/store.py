"""A model on disk: a directory that appears when it is complete, and is compared with its digests
when it is read.

``model.safetensors``  what was learnt
``model.json``         facts, the sha256 of the other two files that a machine reads, and a digest
                       of all that it says itself
``config.yaml``        the configuration it was fitted with
``README.md``          the same for people: the model card
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fader.errors import FaderError
from fader.files import digest, file_sha256, refusal, running, shown
from fader.model import card
from fader.model.settings import Plan
from fader.vision import backbones

WEIGHTS, FACTS, CONFIG, CARD = "model.safetensors", "model.json", "config.yaml", "README.md"
IDENTITY, FILES = "identity", "files"


@dataclass(frozen=True)
class Saved:
    """What a directory holds: tensors, facts and the path of the configuration."""

    state: dict[str, Tensor]
    facts: dict[str, Any]
    config: Path


def check_free(folder: Path) -> None:
    """Refuse a directory that a model cannot be written to.

    Raises
    ------
    FaderError : it is a model already, is not empty, or is a file.
    """
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if (folder / FACTS).is_file():
        raise FaderError(f"{shown(folder)}: a model already; remove it, or give another --out")
    what = "a folder with other files in it" if folder.is_dir() else "a file"
    raise FaderError(f"{shown(folder)}: {what}; give an --out that is not there yet")


def write(folder: Path, state: Mapping[str, Tensor], facts: Mapping[str, Any], plan: Plan) -> None:
    """Write a model as a new directory, whole or not at all. What a killed process left of an
    earlier attempt is removed.

    Raises
    ------
    FaderError : as ``check_free``; or the system refuses.
    """
    from safetensors.torch import save_file

    check_free(folder)
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.{os.getpid()}."))
        save_file(dict(state), partial / WEIGHTS)
        (partial / CONFIG).write_text(plan.text(), encoding="utf-8")
        files = {name: file_sha256(partial / name) for name in (WEIGHTS, CONFIG)}
        whole = _plain({**facts, FILES: files})
        text = json.dumps(whole | {IDENTITY: digest(whole)}, indent=2, ensure_ascii=False)
        (partial / FACTS).write_text(text + "\n", encoding="utf-8")
        (partial / CARD).write_text(card.text(whole), encoding="utf-8")
        for path in partial.iterdir():
            path.chmod(0o644)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        partial.chmod(0o755)
        partial.rename(folder)  # over an empty directory at most
    except OSError as error:
        raise refusal(error, folder) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove unfinished models of this name whose process has ended, and nothing else: they lie in
    ``.NAME.PROCESS.RANDOM`` and hold files of a model alone."""
    ours = re.compile(rf"\.{re.escape(folder.name)}\.(\d+)\.\w{{8}}")
    for path in list(folder.parent.iterdir()):
        process = ours.fullmatch(path.name)
        if process is None or running(int(process[1])) or path.is_symlink() or not path.is_dir():
            continue
        files = {WEIGHTS, FACTS, CONFIG, CARD}
        if os.access(path, os.R_OK) and all(each.name in files for each in path.iterdir()):
            shutil.rmtree(path, ignore_errors=True)


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as they are read back."""
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def read(folder: Path) -> Saved:
    """A saved model, compared with its digests.

    Raises
    ------
    FaderError : there is no model, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / FACTS).is_file():
        why = "no model in it" if folder.is_dir() else "no such folder"
        raise FaderError(f"{shown(folder)}: {why}; `fader fit --out {shown(folder)}` makes one")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        identity = facts.pop(IDENTITY)
        if digest(facts) != identity:
            raise _damaged(folder / FACTS)
        for name, sha256 in facts.pop(FILES).items():
            if file_sha256(folder / name) != sha256:
                raise _damaged(folder / name)
        return Saved(load_file(folder / WEIGHTS), facts, folder / CONFIG)
    except OSError as error:
        raise refusal(error) from error
    except (KeyError, AttributeError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(folder / FACTS) from error
    except SafetensorError as error:
        raise _damaged(folder / WEIGHTS) from error


def _damaged(path: Path) -> FaderError:
    return FaderError(
        f"{shown(path)}: damaged, its contents are not those it was written with; restore it, or"
        " fit the model again"
    )


def licences(names: Iterable[str]) -> dict[str, str]:
    """Name of a backbone → licence of its weights."""
    return {name: backbones.backbone(name).licence for name in names}
