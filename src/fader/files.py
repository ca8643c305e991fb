"""Files written whole or not at all, digests of what is in them, and what the system refuses, said
in one line."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from safetensors import SafetensorError

from fader.errors import FaderError

LESS_MEMORY = "take smaller images or batches, or run fewer jobs at once (`snakemake --cores`)"

# What the system says → what is wrong, and what to do.
REFUSALS = {
    errno.ENOSPC: ("no space left on the disk", "free some and run again"),
    errno.EDQUOT: ("over the disk quota", "free some space, or have it raised, and run again"),
    errno.EFBIG: (
        "larger than a file may get here",
        "raise the limit (`ulimit -f unlimited`), or use another disk, and run again",
    ),
    errno.EROFS: ("the file system is read-only", "work in a copy that can be written"),
    errno.EACCES: ("permission denied", "change its mode or owner and run again"),
    errno.EPERM: ("permission denied", "change its mode or owner and run again"),
    errno.ENOENT: ("no such file or folder", "put it there and run again"),
    errno.ENOTDIR: ("a file where a folder belongs", "move it away and run again"),
    errno.EISDIR: ("a folder where a file belongs", "move it away and run again"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "shorten it"),
    errno.ELOOP: ("links that lead round in circles", "mend them and run again"),
    errno.EMFILE: ("too many open files", "raise the limit (`ulimit -n 4096`) and run again"),
    errno.ENFILE: ("too many open files on this machine", "close some and run again"),
    errno.EIO: ("the disk cannot be read or written", "check it, or use another one"),
    errno.ENOMEM: ("out of memory", LESS_MEMORY),
}
IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path in a temporary folder beside ``target``; the file written there is synced and renamed
    onto ``target`` when the block ends without error.

    What a killed process left of an earlier attempt is removed.

    Raises
    ------
    FaderError : the system refuses; the line names the file. Nothing is left of the attempt.
    """
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear(target)
        start = f".{target.name}.{os.getpid()}."
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=start))
        temporary = folder / target.name
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise _refused(error, target) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(target: Path) -> None:
    """Remove temporary folders of ``target`` whose process has ended."""
    start = f".{target.name}."
    with os.scandir(target.parent) as entries:
        left = [entry.name for entry in entries if entry.name.startswith(start)]
    for name in left:
        process = name.removeprefix(start).partition(".")[0]
        if process.isdecimal() and not running(int(process)):
            shutil.rmtree(target.parent / name, ignore_errors=True)


def _refused(error: Exception, target: Path) -> FaderError:
    """What the system refused while ``target`` was written; its temporary names mean nothing to
    the user."""
    if not isinstance(error, OSError):
        return refusal(as_os_error(error), target)
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    ours = not names or any(f".{target.name}.{os.getpid()}." in name for name in names)
    return refusal(error, target if ours else names[0])


def as_os_error(error: Exception) -> OSError:
    """What the system told a library that is not Python's, by the number in its message."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is None:
        return OSError(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])))


def running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def refusal(error: OSError, path: str | bytes | Path | None = None) -> FaderError:
    """What the system refused, in one line: which file, why, what to do.

    Parameters
    ----------
    path : the file that was meant, where the error names none, or one the user does not know.
    """
    path = error.filename if path is None else path
    what, remedy = REFUSALS.get(error.errno or 0, (None, "mend that and run again"))
    said = what or " ".join(str(error.strerror or error).split())
    if path is None or isinstance(path, int):
        return FaderError(f"{said}; {remedy}")
    path = Path(os.fsdecode(path))
    if error.errno in IN_THE_WAY:
        path, number = _in_the_way(path)
        said, remedy = REFUSALS[number]
    elif error.errno in FORBIDDEN:
        path = _forbidden(path)
    return FaderError(f"{shown(path)}: {said}; {remedy}")


def _in_the_way(path: Path) -> tuple[Path, int]:
    """What is in the way of a file: another file among its folders, or a folder of its name."""
    for place in (*reversed(path.parents), path):
        if os.path.lexists(place) and not place.is_dir():
            return place, errno.ENOTDIR
    return path, errno.EISDIR


def _forbidden(path: Path) -> Path:
    """What may not be touched: the file, or the nearest folder there is."""
    there = [place for place in (path, *path.parents) if os.path.lexists(place)]
    closed = (place for place in there if not os.access(place, os.R_OK | os.W_OK))
    found = next(closed, there[0])
    return found if found.name else found.absolute()


def explained(error: BaseException) -> str | None:
    """The line for an error that the user can mend; None for a defect of ours, which keeps its
    traceback."""
    if isinstance(error, FaderError):
        return str(error)
    if isinstance(error, OSError):
        return str(refusal(error))
    allocators = ("out of memory", "can't allocate memory")  # torch's, of GPU and CPU
    torch_is_out = isinstance(error, RuntimeError) and any(w in str(error) for w in allocators)
    if isinstance(error, MemoryError) or torch_is_out:
        return f"out of memory; {LESS_MEMORY}"
    return None


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file in one step."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def rewrite_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file that nobody trusts without comparing it: faster than ``write_text``,
    but not in one step.

    Raises
    ------
    FaderError : the system refuses; the line names the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _refused(error, path) from error


def file_sha256(path: str | Path) -> str:
    """Sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Sha256 of the canonical JSON of a plain value, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown(path: str | PurePath) -> str:
    """A path as text that can be printed: bytes of its name that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
