"""Fetching a data set's archive and unpacking it.

Archives of several gigabytes come from share links that break off, move and answer with an HTML
page, so ``fetch`` tries mirrors in order, resumes, and believes only the sha256 of the whole file.
``extract`` treats an archive as untrusted: plain files and folders inside the target, nothing else.
Both work beside the target and rename at the end, so that a path which exists is complete.
"""

import bz2
import gzip
import http.client
import lzma
import os
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from email.message import Message
from pathlib import Path, PureWindowsPath
from typing import IO, TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from tqdm import tqdm

from fader.errors import FaderError
from fader.files import file_sha256

if TYPE_CHECKING:
    from _typeshed import SupportsRead

CHUNK = 1 << 20
ATTEMPTS = 5
SCHEMES = ("http", "https", "file")
RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
TAR_BLOCK = 512


def fetch(
    urls: Sequence[str],
    sha256: str,
    target: Path,
    *,
    progress: bool = True,
    timeout: float = 60.0,
    pause: float = 2.0,
) -> Path:
    """Download ``target`` from the first of ``urls`` that serves the bytes with this ``sha256``.

    The bytes gather in ``<target>.part``. A part left by an earlier call, by a dropped connection
    or by another mirror is continued with an HTTP Range request; a server that does not honour it,
    or a part that does not lead to the right sha256, means starting that mirror from byte 0. A
    mirror is left after ``ATTEMPTS`` connections in a row that brought nothing new.

    Parameters
    ----------
    urls : http, https or file addresses of the same file, in order of preference.
    sha256 : of the whole file, 64 hexadecimal digits.
    target : where the file goes; its folder is made.
    progress : show a bar when standard error is a terminal.
    timeout : seconds without a byte before a connection counts as dropped.
    pause : seconds before the next connection, doubled for each one that brought nothing new.

    Returns
    -------
    ``target``, at once and without the network if it is there with the right sha256.

    Raises
    ------
    FaderError : ``target`` exists with another sha256; no mirror has the file; the disk refuses it;
        an address is neither http, https nor file.
    """
    sha256 = sha256.lower()
    for url in urls:
        if urlsplit(url).scheme not in SCHEMES:
            raise FaderError(f"{url}: only {', '.join(SCHEMES)} addresses can be downloaded")
    if target.exists():
        found = file_sha256(target)
        if found != sha256:
            raise FaderError(
                f"{target} has sha256 {found}, expected {sha256}; delete it to download it again"
            )
        return target

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            _download_checked(url, sha256, part, progress, timeout, pause)
            part.replace(target)
        except _MirrorError as error:
            failures.append(f"{url} ({error})")
        except OSError as error:
            raise FaderError(f"{target} cannot be written: {error}") from error
        else:
            return target
    raise FaderError(
        f"{target.name} cannot be downloaded: {'; '.join(failures)}. Put the file at {target} "
        "yourself, or name a copy on disk: datasets.<name>.root, of textures textures.root"
    )


class _MirrorError(Exception):
    """The mirror does not have the file."""


class _Dropped(Exception):
    """The connection broke; another one may get further."""


def _download_checked(
    url: str, sha256: str, part: Path, progress: bool, timeout: float, pause: float
) -> None:
    """Complete ``part`` from ``url``, or delete it if the result is not the wanted file."""
    resumed = part.exists()
    _download(url, part, progress, timeout, pause)
    found = file_sha256(part)
    if found == sha256:
        return
    size = part.stat().st_size
    part.unlink()
    if resumed:  # the earlier bytes may be the wrong ones, and the mirror right
        _download_checked(url, sha256, part, progress, timeout, pause)
        return
    raise _MirrorError(f"its {size} bytes have sha256 {found}, expected {sha256}")


def _download(url: str, part: Path, progress: bool, timeout: float, pause: float) -> None:
    failed, furthest = 0, _size(part)
    while True:
        try:
            _continue(url, part, progress, timeout)
            return
        except _Dropped as error:
            failed = 0 if _size(part) > furthest else failed + 1
            furthest = max(furthest, _size(part))
            if failed == ATTEMPTS:
                raise _MirrorError(f"{error}, {ATTEMPTS} times in a row") from error
            time.sleep(pause * 2**failed)


def _continue(url: str, part: Path, progress: bool, timeout: float) -> None:
    """One connection: append to ``part`` what it lacks, or write all of it anew."""
    have = _size(part)
    try:
        response = _open(url, have, timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if _total_of(error.headers) == have:
            return  # nothing after our last byte: the part is the whole file
        response = _open(url, 0, timeout)
    if response.status == 206 and _start_of(response.headers) != have:
        response.close()
        response = _open(url, 0, timeout)

    start = have if response.status == 206 else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    bar = tqdm(
        desc=part.stem,
        initial=start,
        total=total,
        unit="B",
        unit_scale=True,
        disable=None if progress else True,  # None: silent unless standard error is a terminal
    )
    with response, bar, part.open("ab" if start else "wb") as file:
        try:
            for chunk in _chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
        finally:
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(part) < total:
        raise _Dropped(f"connection closed after {_size(part)} of {total} bytes")


def _open(url: str, start: int, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "fader-bench"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            raise
        kind = _Dropped if error.code in RETRYABLE_STATUS else _MirrorError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        broken = isinstance(error.reason, TimeoutError | ConnectionError)
        kind = _Dropped if broken else _MirrorError
        raise kind(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(_described(error)) from error


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            # read1 hands over what has arrived, so that a break loses nothing of it
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Dropped(_described(error)) from error
        if not chunk:
            return
        yield chunk


def _described(error: Exception) -> str:
    return str(error) or type(error).__name__


def _start_of(headers: Message) -> int | None:
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _total_of(headers: Message) -> int | None:
    match = re.match(r"bytes .*/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def extract(archive: Path, target: Path) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip archive into the new folder ``target``.

    One pass over the archive, into ``<target>.part``, renamed at the end. Permissions, owners and
    times of the archive are not taken over.

    Raises
    ------
    FaderError : ``target`` exists; the archive is missing, truncated or damaged; a member is
        anything but a plain file or folder, or its name leads out of ``target``; the disk refuses a
        file.
    """
    if target.exists():
        raise FaderError(f"{target} exists; delete it to extract {archive} again")
    part = target.with_name(target.name + ".part")
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
        for name, content in _members(archive):
            path = part / name
            if content is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
        part.replace(target)
    except (
        OSError,
        EOFError,
        NotImplementedError,  # a zip compression Python does not know
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
    ) as error:
        raise FaderError(
            f"{archive} cannot be extracted to {target}: {_described(error)}; "
            "if the archive is truncated or damaged, delete it and download it again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """(name, content) of every member in order; content is None for a folder."""
    with archive.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PK"):
        yield from _zip_members(archive)
    elif magic.startswith(b"\x1f\x8b"):
        yield from _tar_members(archive, gzip.open)
    elif magic.startswith(b"BZh"):
        yield from _tar_members(archive, bz2.open)
    elif magic.startswith(b"\xfd7zXZ\x00"):
        yield from _tar_members(archive, lzma.open)
    else:
        yield from _tar_members(archive, Path.open)


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as bundle:
        for member in bundle.infolist():
            # The upper half holds a Unix mode where the archiver wrote one; 0 means it did not.
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise FaderError(_refused(archive, member.filename, "is neither file nor folder"))
            if member.flag_bits & 1:
                raise FaderError(_refused(archive, member.filename, "is encrypted"))
            name = _safe_name(archive, member.filename)
            yield name, None if member.is_dir() else bundle.open(member)


def _tar_members(
    archive: Path,
    opener: Callable[[Path, Literal["rb"]], AbstractContextManager["SupportsRead[bytes]"]],
) -> Iterator[tuple[str, IO[bytes] | None]]:
    with opener(archive, "rb") as file:
        stream = _ZeroTail(file)
        end = 0
        with tarfile.open(fileobj=stream, mode="r|") as bundle:  # type: ignore[call-overload]  # reads only
            for member in bundle:
                plain_file = member.isreg() and not member.issparse()
                if not (plain_file or member.isdir()):
                    raise FaderError(_refused(archive, member.name, "is neither file nor folder"))
                blocks = -(-member.size // TAR_BLOCK) if plain_file else 0
                end = member.offset_data + blocks * TAR_BLOCK
                name = _safe_name(archive, member.name)
                yield name, bundle.extractfile(member) if plain_file else None
        # tarfile takes a missing or broken header for the end of the archive, so a file cut between
        # two members would look whole. The true end is two blocks of zeros, then only zeros.
        while stream.read(CHUNK):
            pass
        if stream.length < end + 2 * TAR_BLOCK or stream.nonzero_end > end:
            raise tarfile.ReadError("the end-of-archive mark is missing")


class _ZeroTail:
    """A stream that remembers its length and where its trailing zeros begin."""

    def __init__(self, file: "SupportsRead[bytes]") -> None:
        self._file = file
        self.length = 0
        self.nonzero_end = 0

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        if content := chunk.rstrip(b"\0"):
            self.nonzero_end = self.length + len(content)
        self.length += len(chunk)
        return chunk


def _safe_name(archive: Path, name: str) -> str:
    # Windows' rules know both separators and drive letters: they refuse all that POSIX' rules do.
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise FaderError(_refused(archive, name, "leads out of the target folder"))
    return path.as_posix()


def _refused(archive: Path, name: str, why: str) -> str:
    return f"{archive} is refused: member {name!r} {why}; delete it and get the original archive"
