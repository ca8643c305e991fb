"""Files written whole or not at all, and what the system refuses in one line."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fader.errors import FaderError, MissingWeights
from fader.files import REFUSALS, explained, refusal, replacing, write_text


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*") if not path.is_dir())


# What is in the way


@pytest.mark.parametrize(
    ("make", "target", "line"),
    [
        (lambda: Path("results").touch(), "results/x", "results: a file where a folder belongs"),
        (lambda: Path("results").touch(), "results/a/b/x", "results: a file where a folder"),
        (lambda: Path("results").symlink_to("gone"), "results/x", "results: a file where a"),
        (lambda: Path("results/x").mkdir(parents=True), "results/x", "results/x: a folder where"),
        (lambda: None, f"results/{'x' * 300}", f"results/{'x' * 300}: the name is too long"),
        (lambda: None, f"{'y' * 300}/x", f"{'y' * 300}: the name is too long"),
        (lambda: Path("a").symlink_to("a"), "a/x", "a: a file where a folder belongs"),
    ],
    ids=["file", "file far up", "broken link", "folder", "long name", "long folder", "loop"],
)
def test_what_is_in_the_way_is_named_with_what_to_do(make, target, line):
    make()
    before = files()
    with pytest.raises(FaderError) as error:
        write_text(target, "text")
    assert str(error.value).startswith(line)
    assert "; " in str(error.value) and "\n" not in str(error.value)
    assert files() == before


@pytest.mark.parametrize("write", ["text", "tensors"])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_that_may_not_grow_leaves_the_old_one_and_nothing_else(write, old):
    if old:
        Path("x").write_text(old)
    with (
        pytest.raises(FaderError, match=r"^x: larger than a file may get here; .*ulimit -f"),
        limited(resource.RLIMIT_FSIZE, 100),
        replacing(Path("x")) as temporary,
    ):
        if write == "text":
            temporary.write_text("x" * 1000)
        else:
            save_file({"x": np.zeros(1000)}, temporary)
    assert files() == (["x"] if old else [])
    assert not old or Path("x").read_text() == old


def test_a_full_disk_names_the_file_that_was_meant():
    line = r"^x: no space left on the disk; free some and run again$"
    with pytest.raises(FaderError, match=line), replacing(Path("x")):
        Path("/dev/full").write_text("x" * 10_000)
    assert files() == []


def test_an_error_about_another_file_names_that_one():
    with pytest.raises(FaderError, match=r"^source: no such file"), replacing(Path("x")):
        Path("source").read_bytes()


def test_too_many_open_files():
    with limited(resource.RLIMIT_NOFILE, 0), pytest.raises(FaderError, match="ulimit -n"):
        write_text("x", "text")


class limited:
    """A lower limit of this process, for a while."""

    def __init__(self, what: int, soft: int) -> None:
        self.what, self.soft = what, soft

    def __enter__(self) -> None:
        self.before = resource.getrlimit(self.what)
        resource.setrlimit(self.what, (self.soft, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(self.what, self.before)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_what_may_not_be_written_is_named(mode):
    Path("results").mkdir()
    Path("results").chmod(mode)
    code = "from fader.files import write_text; write_text('results/own/x', 'text')"
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:  # who may write everywhere, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("root, and no setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    Path("results").chmod(0o755)
    assert done.stderr.splitlines()[-1].endswith(
        "results: permission denied; change its mode or owner and run again"
    )


# Every refusal


@pytest.mark.parametrize("number", [*REFUSALS, errno.EEXIST, errno.ENOLCK, errno.EBUSY])
@pytest.mark.parametrize("path", ["a/b", b"a/\xff", None, 3])
def test_every_refusal_is_one_line_with_a_remedy(number, path):
    error = OSError(number, os.strerror(number), path)
    line = str(refusal(error))
    assert "\n" not in line and "Errno" not in line
    assert line.rpartition("; ")[2]
    line.encode()
    if isinstance(path, str):
        assert line.partition(": ")[0] in ("a/b", "a", str(Path.cwd()))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FaderError("mine"), "mine"),
        (MissingWeights("mine"), "mine"),
        (OSError("timed out"), "timed out; mend that and run again"),
        (FileNotFoundError(errno.ENOENT, "…", "x"), "x: no such file or folder; put it there and"),
        (MemoryError(), "out of memory; take smaller"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory; take smaller"),
        (RuntimeError("broken"), None),
        (KeyError("broken"), None),
        (ValueError("broken"), None),
    ],
)
def test_what_the_user_can_mend_is_a_line_and_defects_are_not(error, line):
    told = explained(error)
    assert told is None if line is None else told.startswith(line)


def test_torch_out_of_memory_is_a_line():
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**16)
    assert explained(error.value).startswith("out of memory")


# What a killed process left


def test_what_a_killed_process_left_goes_with_the_next_attempt(tmp_path):
    code = (
        "import os; from pathlib import Path; from fader.files import replacing\n"
        "with replacing(Path('x[1].txt')) as t: t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(files()) == 1 and not Path("x[1].txt").exists()
    write_text("x[2].txt", "another file")
    assert len(files()) == 2
    write_text("x[1].txt", "whole")
    assert files() == ["x[1].txt", "x[2].txt"]


def test_what_a_living_process_writes_is_left_alone():
    with replacing(Path("x")) as first:
        first.write_text("first")
        write_text("x", "second")
    assert Path("x").read_text() == "first"
    assert files() == ["x"]
