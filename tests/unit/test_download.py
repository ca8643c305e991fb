"""Downloads against a real local server that breaks off, and archives that are hostile or cut."""

import hashlib
import io
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fader.data import download
from fader.errors import FaderError

BODY = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
fetch = partial(download.fetch, progress=False, timeout=5.0, pause=0.0)


class Server:
    """What the mirror serves, how it misbehaves, and the Range header of each request it got."""

    def __init__(self, body: bytes, *, ranges: bool, drops: int, status: int, total: bool) -> None:
        self.body = body
        self.ranges = ranges
        self.drops = drops
        self.status = status
        self.total_in_416 = total
        self.requests: list[str | None] = []
        self.url = ""


@contextmanager
def mirror(
    body: bytes = BODY,
    *,
    ranges: bool = True,
    drops: int = 0,
    status: int = 200,
    total: bool = True,
) -> Iterator[Server]:
    """A server that breaks off its first ``drops`` answers after half of what it promised."""
    server = Server(body, ranges=ranges, drops=drops, status=status, total=total)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append(wanted)
            if server.status != 200:
                self.send_error(server.status)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
            if start and start >= len(server.body):
                self.send_response(416)
                if server.total_in_416:
                    self.send_header("Content-Range", f"bytes */{len(server.body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            rest = server.body[start:]
            self.send_response(206 if start else 200)
            if start:
                end = len(server.body) - 1
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(server.body)}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if server.drops:
                server.drops -= 1
                rest = rest[: len(rest) // 2]
            self.wfile.write(rest)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/data.tar.xz"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "data.tar.xz"


@pytest.fixture
def part(target: Path) -> Path:
    """The path of the partial file, in a folder that exists."""
    target.parent.mkdir()
    return target.with_name("data.tar.xz.part")


def only(target: Path) -> bool:
    """``target`` holds the body, and nothing is left beside it."""
    return target.read_bytes() == BODY and list(target.parent.iterdir()) == [target]


def test_one_connection_is_enough_for_a_good_mirror(target):
    with mirror() as server:
        assert fetch([server.url], SHA256, target) == target
    assert only(target)
    assert server.requests == [None]


def test_a_file_that_is_there_needs_no_mirror(target):
    target.parent.mkdir()
    target.write_bytes(BODY)
    assert fetch([], SHA256.upper(), target) == target


def test_a_wrong_file_that_is_there_is_named_and_kept(target):
    target.parent.mkdir()
    target.write_bytes(b"precious")
    with pytest.raises(FaderError, match=f"{re.escape(str(target))} has sha256 .*delete it"):
        fetch([], SHA256, target)
    assert target.read_bytes() == b"precious"


def test_dropped_connections_are_resumed_where_they_stopped(target):
    with mirror(drops=2) as server:
        fetch([server.url], SHA256, target)
    assert only(target)
    assert server.requests == [None, "bytes=150000-", "bytes=225000-"]


def test_a_server_without_range_support_is_read_from_the_start_again(target):
    with mirror(ranges=False, drops=2) as server:
        fetch([server.url], SHA256, target)
    assert only(target)
    assert server.requests == [None, "bytes=150000-", "bytes=150000-"]


def test_progress_resets_the_count_of_failures(target):
    with mirror(drops=12) as server:  # more than ATTEMPTS, but every connection brings bytes
        fetch([server.url], SHA256, target)
    assert only(target)
    assert len(server.requests) == 13


@pytest.mark.parametrize("ranges", [True, False])
def test_the_part_of_an_earlier_run_is_continued(target, part, ranges):
    part.write_bytes(BODY[:100_000])
    with mirror(ranges=ranges) as server:
        fetch([server.url], SHA256, target)
    assert only(target)
    assert server.requests == ["bytes=100000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_of_other_bytes_is_thrown_away(target, part, ranges):
    part.write_bytes(b"<html>please log in</html>")
    with mirror(ranges=ranges) as server:
        fetch([server.url], SHA256, target)
    assert only(target)
    assert server.requests == (["bytes=26-", None] if ranges else ["bytes=26-"])


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_longer_than_the_file_is_thrown_away(target, part, ranges):
    part.write_bytes(BODY + b"more")
    with mirror(ranges=ranges) as server:
        fetch([server.url], SHA256, target)
    assert only(target)
    assert server.requests == (["bytes=300004-", None] if ranges else ["bytes=300004-"])


@pytest.mark.parametrize("total", [True, False])
def test_a_part_that_is_the_whole_file_is_not_fetched_again(target, part, total):
    part.write_bytes(BODY)
    with mirror(total=total) as server:
        fetch([server.url], SHA256, target)
    assert only(target)
    # only a server that does not say how long the file is makes us read it again
    assert server.requests == (["bytes=300000-"] if total else ["bytes=300000-", None])


def test_wrong_bytes_leave_nothing_and_the_next_mirror_is_used(target):
    with mirror(b"<html>moved</html>") as first, mirror() as second:
        fetch([first.url, second.url], SHA256, target)
    assert only(target)
    assert second.requests == [None]


def test_a_mirror_continues_what_another_began(target):
    with mirror(ranges=False, drops=99) as first, mirror() as second:  # never past the half
        fetch([first.url, second.url], SHA256, target)
    assert only(target)
    assert len(first.requests) == 1 + download.ATTEMPTS
    assert second.requests == ["bytes=150000-"]


def test_when_every_mirror_fails_the_error_says_why_and_what_to_do(target):
    with (
        mirror(status=404) as gone,
        mirror(b"other") as wrong,
        mirror(status=503) as busy,
        pytest.raises(FaderError) as error,
    ):
        fetch([gone.url, wrong.url, busy.url], SHA256, target)
    message = str(error.value)
    assert "\n" not in message
    assert f"{gone.url} (HTTP 404" in message
    assert f"{wrong.url} (its 5 bytes have sha256 {hashlib.sha256(b'other').hexdigest()}" in message
    assert f"{busy.url} (HTTP 503" in message
    assert (
        f"Put the file at {target} yourself, or name a copy on disk: datasets.<name>.root"
        in message
    )
    assert (len(gone.requests), len(busy.requests)) == (1, download.ATTEMPTS)
    assert list(target.parent.iterdir()) == []


def test_a_mirror_that_never_gets_further_keeps_its_part_for_the_next_run(target):
    stuck = pytest.raises(FaderError, match="150000 of 300000 bytes")
    with mirror(ranges=False, drops=99) as server, stuck:
        fetch([server.url], SHA256, target)
    assert not target.exists()
    assert target.with_name("data.tar.xz.part").read_bytes() == BODY[:150_000]


def test_a_closed_port_is_a_failure_of_that_mirror_only(target):
    with mirror() as server:
        closed = server.url
    with mirror() as alive:
        fetch([closed, alive.url], SHA256, target)
    assert only(target)


def test_file_addresses(target, tmp_path):
    (tmp_path / "copy").write_bytes(BODY)
    missing, copy = (tmp_path / name for name in ("missing", "copy"))
    fetch([missing.as_uri(), copy.as_uri()], SHA256, target)
    assert only(target)


def test_other_schemes_are_refused(target):
    with pytest.raises(FaderError, match="ftp://host/x: only http, https, file"):
        fetch(["ftp://host/x"], SHA256, target)


FILES = {"bottle/train/good/000.png": BODY[:5000], "bottle/empty.txt": b"", "zeros": bytes(2048)}
TAR_KINDS = ("", "gz", "bz2", "xz")


def tar_bytes(kind: str = "", files: dict[str, bytes] = FILES) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as bundle:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes] = FILES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize(
    "content",
    [*map(tar_bytes, TAR_KINDS), zip_bytes()],
    ids=[*(f"tar{k}" for k in TAR_KINDS), "zip"],
)
def test_extract_gives_back_the_files(tmp_path, content):
    archive = write(tmp_path / "archive", content)
    download.extract(archive, tmp_path / "deep" / "raw")
    assert tree(tmp_path / "deep" / "raw") == FILES
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["raw"]


def test_extract_takes_a_tree_packed_from_inside(tmp_path):
    source = tmp_path / "source"
    (source / "wood" / "test").mkdir(parents=True)
    (source / "wood" / "a.png").write_bytes(b"a")
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        bundle.add(source, arcname=".")
    download.extract(tmp_path / "a.tar", tmp_path / "raw")
    assert tree(tmp_path / "raw") == {"wood/a.png": b"a"}
    assert (tmp_path / "raw" / "wood" / "test").is_dir()


def test_extract_does_not_overwrite(tmp_path):
    archive = write(tmp_path / "a.tar", tar_bytes())
    (tmp_path / "raw").mkdir()
    with pytest.raises(FaderError, match="raw exists; delete it"):
        download.extract(archive, tmp_path / "raw")


def test_extract_removes_what_a_killed_run_left(tmp_path):
    archive = write(tmp_path / "a.tar", tar_bytes())
    (tmp_path / "raw.part").mkdir()
    (tmp_path / "raw.part" / "stale").write_bytes(b"x")
    download.extract(archive, tmp_path / "raw")
    assert tree(tmp_path / "raw") == FILES


def test_extract_names_a_missing_archive(tmp_path):
    with pytest.raises(FaderError, match=r"gone\.tar cannot be extracted"):
        download.extract(tmp_path / "gone.tar", tmp_path / "raw")


@pytest.mark.parametrize("content", [b"", b"<html>moved</html>", bytes(100)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    assert_refused(tmp_path, content)


def assert_refused(folder: Path, content: bytes, match: str = "archive") -> None:
    """FaderError naming the archive, and nothing but the archive is left in ``folder``."""
    archive = write(folder / "archive", content)
    before = sorted(folder.rglob("*"))
    with pytest.raises(FaderError, match=match) as error:
        download.extract(archive, folder / "raw")
    assert str(archive) in str(error.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("kind", [*TAR_KINDS, "zip"])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_archive_cut_anywhere_leaves_nothing(tmp_path, kind, data):
    content = zip_bytes() if kind == "zip" else tar_bytes(kind)
    # a plain tar is complete with its two blocks of zeros; the padding after them carries nothing
    end = 3 * 512 + 5120 + 2048 + 2 * 512 if kind == "" else len(content)
    assert_refused(tmp_path, content[: data.draw(st.integers(0, end - 1))])


@pytest.mark.parametrize("cut", [512 + 5120, 2 * 512 + 5120, 3 * 512 + 5120 + 2048])
def test_a_tar_cut_between_two_members_leaves_nothing(tmp_path, cut):
    assert_refused(tmp_path, tar_bytes()[:cut])


def test_a_tar_with_a_broken_header_in_the_middle_leaves_nothing(tmp_path):
    content = bytearray(tar_bytes())
    content[512 + 5120 + 148] ^= 0xFF  # checksum of the second header
    assert_refused(tmp_path, bytes(content))


def test_a_zip_with_a_flipped_bit_leaves_nothing(tmp_path):
    content = bytearray(zip_bytes())
    content[1000] ^= 1
    assert_refused(tmp_path, bytes(content))


OUTSIDE = ["/etc/evil", "../evil", "a/../../evil", "..", "a\\..\\..\\evil", "C:\\evil", "C:evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("pack", [partial(tar_bytes, ""), zip_bytes])
def test_members_that_lead_outside_are_refused(tmp_path, name, pack):
    assert_refused(tmp_path, pack({"good": b"1", name: b"2"}), match="leads out of the target")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_tar_links_and_devices_are_refused(tmp_path, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as bundle:
        member = tarfile.TarInfo("link")
        member.type = kind
        member.linkname = "/etc/passwd"
        bundle.addfile(member)
    assert_refused(tmp_path, buffer.getvalue(), match="'link' is neither file nor folder")


def test_zip_links_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        member = zipfile.ZipInfo("link")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(member, "/etc/passwd")
    assert_refused(tmp_path, buffer.getvalue(), match="'link' is neither file nor folder")


def test_a_set_user_id_bit_is_not_taken_over(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as bundle:
        member = tarfile.TarInfo("tool")
        member.mode = 0o4777
        bundle.addfile(member)
    download.extract(write(tmp_path / "a.tar", buffer.getvalue()), tmp_path / "raw")
    assert (tmp_path / "raw" / "tool").stat().st_mode & 0o6111 == 0
