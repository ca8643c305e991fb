"""Folders of images that the project made: generated, or unpacked from an archive.

Such a folder carries a list of its own files, ``.made.json``. Only what the list names, as it was
made, is ever removed: a file that was added or changed since is somebody's, and stops the
replacement with one line. A folder is replaced by renaming a complete one into its place.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fader.data import layout
from fader.data.layout import Category
from fader.errors import FaderError
from fader.files import file_sha256, shown, write_text

LIST = ".made.json"


def files(folder: Path) -> dict[str, str] | None:
    """Name → sha256 of every file that was made in ``folder``, names relative to it; None where
    the project made nothing there.

    Raises
    ------
    FaderError : the list is damaged.
    """
    about = _about(folder)
    return None if about is None else dict(about["files"])


def digests(folder: Path, index: Category) -> dict[str, str]:
    """Path relative to the category's folder → sha256, of the images and masks of a category in a
    made folder.

    Raises
    ------
    FaderError : one of them is not as it was made, or was not made.
    """
    known = files(folder) or {}
    found = {}
    for path in index.files():
        sha256 = known.get(path.relative_to(folder).as_posix())
        if sha256 is None or not _is(path, sha256):
            raise FaderError(
                f"{shown(path)}: not as this project made it; move it away if it is yours, and"
                f" delete {shown(folder.parent)} to have all of it made again"
            )
        found[index.path(path)] = sha256
    return found


def is_made(folder: Path, of: Any) -> bool:
    """Whether ``folder`` was made of ``of`` (a plain value), and every file is as it was made."""
    about = _about(folder)
    return (
        about is not None
        and about["of"] == of
        and all(_is(folder / name, sha256) for name, sha256 in about["files"].items())
    )


def replace(folder: Path, build: Callable[[Path], None], of: Any) -> None:
    """Build a folder anew and put it in the place of ``folder``, whose files are removed then.

    Parameters
    ----------
    build : writes all files below the new folder it is given.
    of : plain value that says what the files are made of.

    Raises
    ------
    FaderError : ``folder`` holds a file that the project did not make, or that was changed since.
    """
    check_ours(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh, old = partial / "new", partial / "old"
        build(fresh)
        paths = _files(fresh)
        names = [path.relative_to(fresh).as_posix() for path in paths]
        with ThreadPoolExecutor() as pool:
            about = {"of": of, "files": dict(zip(names, pool.map(file_sha256, paths), strict=True))}
        write_text(fresh / LIST, json.dumps(about, indent=1) + "\n")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a made folder, if it is there; FaderError as ``replace``."""
    check_ours(folder)
    if folder.exists():
        shutil.rmtree(folder)


def check_ours(folder: Path) -> None:
    """FaderError where ``folder`` holds anything that the project did not make, or that was
    changed since."""
    if not folder.exists():
        return
    known = files(folder)
    if known is None:
        raise FaderError(
            f"{shown(folder)}: not made by this project, so it is left as it is; move it away"
            f" (to data/raw/{folder.parent.name}, where a copy of one's own is looked for)"
        )
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in known:
            raise FaderError(
                f"{shown(path)}: not made by this project, so the folder is left as it is;"
                " move the file away"
            )
        if not _is(path, known[name]):
            raise FaderError(
                f"{shown(path)}: changed since this project made it, so the folder is left as it"
                " is; move the file away, or delete it to have it made again"
            )


def _sweep(folder: Path) -> None:
    """Remove what a killed ``replace`` left; a folder that was just being replaced comes back."""
    for partial in folder.parent.glob(f".{folder.name}.*"):
        old = partial / "old"
        if old.is_dir() and not folder.exists():
            old.rename(folder)
            check_ours(folder)
        shutil.rmtree(partial)


def _files(folder: Path) -> list[Path]:
    """Files in a made folder, and behind links in it, but for the list."""
    return [path for path in layout.files(folder) if path.name != LIST]


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _about(folder: Path) -> dict[str, Any] | None:
    path = folder / LIST
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FaderError(
            f"{shown(path)}: damaged ({error}); move {shown(folder)} away to have it made again"
        ) from None
    return dict(about)
