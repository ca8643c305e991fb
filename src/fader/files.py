"""Files written whole or not at all, and digests of what is in them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target``, synced and renamed onto it when the block ends without
    error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file in one step."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_sha256(path: str | Path) -> str:
    """Sha256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Sha256 of the canonical JSON of a plain value, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shown(path: str | Path) -> str:
    """A path as text that can be printed: bytes of its name that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
