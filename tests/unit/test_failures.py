"""Why a run failed, in one line: from a job's log and from Snakemake's exceptions."""

import errno
import logging
import os
import signal
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

import pytest
from snakemake import exceptions as snakemake
from snakemake_interface_common.exceptions import ApiError, WorkflowError
from snakemake_interface_logger_plugins.common import LogEvent

from fader.errors import FaderError, MissingWeights
from fader.pipeline import failures

LOG = Path("logs/ear.bolt.seed0.log")
HISTORY = '{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.4}\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LOG.parent.mkdir()


@cache
def trace(code: str) -> str:
    """What Python prints of an exception."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stderr


# Logs of jobs


@pytest.mark.parametrize(
    ("log", "status", "line"),
    [
        ("fader: a.png: truncated; replace it\n", 1, "a.png: truncated; replace it"),
        (f"{HISTORY}fader: a.png: truncated\n\n", 1, "a.png: truncated"),
        ("fader: first\nfader: last\nException ignored in: <x>\n", 1, "last"),
        ("fader: interrupted; run again\n", 130, "interrupted; run again"),
        (HISTORY, 137, "ear.bolt.seed0 was killed, as a rule because memory ran out; take smaller"),
        (HISTORY, -signal.SIGKILL, "ear.bolt.seed0 was killed, as a rule because memory ran out"),
        ("", 137, "ear.bolt.seed0 was killed"),
        ("fader: a warning\nat work\n", -9, "ear.bolt.seed0 was killed"),
        ("", 139, "ear.bolt.seed0 crashed (SIGSEGV); log: logs/ear.bolt.seed0.log"),
        ("", 134, "ear.bolt.seed0 crashed (SIGABRT); log: logs/ear.bolt.seed0.log"),
        ("", -signal.SIGTERM, "ear.bolt.seed0 was ended from outside (SIGTERM); run the same"),
        ("", 143, "ear.bolt.seed0 was ended from outside (SIGTERM); run the same"),
        ("", -signal.SIGXFSZ, "logs/ear.bolt.seed0.log: larger than a file may get here; raise"),
        (
            "/usr/bin/bash: line 1: fader: command not found\n",
            127,
            "/usr/bin/bash: line 1: fader: command not found (exit status 127; all of it in"
            " logs/ear.bolt.seed0.log)",
        ),
        ("40 ok, 1 off\n", 1, "40 ok, 1 off (exit status 1; all of it in logs/ear"),
        ("", 1, "ear.bolt.seed0 ended with exit status 1 and said nothing; log: logs/ear"),
        (HISTORY, 200, '{"epoch": 2, "loss": 0.4} (exit status 200; all of it in logs/ear'),
        ("Stale\n", None, "Stale (exit status None; all of it in logs/ear"),
    ],
)
def test_the_cause_is_in_the_log(log, status, line):
    LOG.write_text(log)
    told = failures.of_log(LOG, status)
    assert told.startswith(line)
    assert "\n" not in told


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
        ("raise RuntimeError('broken\\n  in two\\nlines')", "RuntimeError: broken"),
        ("import json; json.loads('{')", "json.decoder.JSONDecodeError: Expecting property"),
        ("try: 1 / 0\nfinally: {}['x']", "KeyError: 'x'"),
        ("assert False", "AssertionError"),
        ("raise ExceptionGroup('both', [ValueError(1), ValueError(2)])", "ExceptionGroup: both"),
    ],
)
@pytest.mark.parametrize("before", ["", HISTORY, "fader: a line of its own\n"])
def test_of_a_traceback_the_exception_and_where_the_rest_is(code, line, before):
    LOG.write_text(before + trace(code))
    told = failures.of_log(LOG, 1)
    if "ExceptionGroup" in line:  # its traceback is drawn as a tree
        assert str(LOG) in told or told == "a line of its own"
    else:
        assert told.startswith(line) and told.endswith(f"; the traceback is in {LOG}")


def test_bytes_that_are_no_text_do_not_matter():
    LOG.write_bytes(b"\xff\xfe\nfader: a\xff.png: truncated\n")
    assert failures.of_log(LOG, 1) == "a\ufffd.png: truncated"


def test_a_log_of_an_earlier_run_says_nothing_of_this_one():
    LOG.write_text("fader: mended long ago\n")
    before = failures.written(LOG)
    assert "said nothing" in failures.of_log(LOG, 1, before)
    os.utime(LOG, ns=(before, before + 1))
    assert failures.of_log(LOG, 1, before) == "mended long ago"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (None, "ear.bolt.seed0: sbatch failed: no such partition"),
        ("", "ear.bolt.seed0: sbatch failed: no such partition"),
        (HISTORY, "ear.bolt.seed0: sbatch failed: no such partition"),
        ("fader: a.png: truncated\n", "a.png: truncated"),
        (trace("1 / 0"), "ZeroDivisionError: division by zero; the traceback is in"),
    ],
)
def test_what_a_scheduler_says_is_the_cause_where_the_log_has_none(log, line):
    if log is not None:
        LOG.write_text(log)
    told = "sbatch failed: no such partition\n    sbatch call:\n        sbatch --parsable"
    assert failures.of_log(LOG, None, told=told).startswith(line)


@pytest.mark.parametrize("spoil", ["folder", "parent"])
def test_a_log_that_cannot_be_written_is_the_cause(spoil):
    if spoil == "folder":
        LOG.mkdir()
    else:
        LOG.parent.rmdir()
        LOG.parent.touch()
    told = failures.of_log(LOG, 1)
    assert told.startswith(
        f"{LOG}: a folder where a file" if spoil == "folder" else "logs: a file where a folder"
    )


# Snakemake's exceptions


class Rule:
    name = "pack"
    lineno = 3
    snakefile = "Snakefile"

    def __str__(self) -> str:
        return self.name


class RuleJob:
    rule = Rule()
    output = ("results/x",)
    wildcards = None


def function_of_a_rule(error: Exception) -> WorkflowError:
    """As Snakemake raises it when an input function does; without the original."""
    raised = snakemake.InputFunctionException("", wildcards={})
    text = f"{type(error).__name__}: {error}"
    raised.args = (f"Error:\n  {text}\nWildcards:\n\nTraceback:\n  File x, line 3",)
    return raised


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


NO_FILE = FileNotFoundError(errno.ENOENT, "No such file or directory", "mine/a.png")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "line", "all_of_it"),
    [
        (snakemake.LockException(), "another Snakemake is at work here, or was killed", True),
        (
            snakemake.IncompleteFilesException(["results/a", "results/b"]),
            "results/b and 1 more: not finished by an earlier run; run again with --rerun",
            True,
        ),
        (
            snakemake.MissingOutputException(
                "Missing files after 5 seconds. … consider --latency-wait:\nresults/a",
                jobid="3",
            ),
            "results/a: not there, though the job that writes it ended well",
            True,
        ),
        (
            snakemake.MissingInputException(RuleJob(), ["mine/a.png", "mine/b.png"]),
            "mine/b.png and 1 more: no such file",
            True,
        ),
        (
            snakemake.MissingRuleException("table"),
            "table: no file that a rule makes; `snakemake --list-rules`",
            True,
        ),
        (
            snakemake.ProtectedOutputException(RuleJob(), ["results/x"]),
            "results/x: write-protected",
            True,
        ),
        (ApiError("cores have to be specified"), "cores have to be specified", True),
        (WorkflowError("one line"), "one line", True),
        (WorkflowError("two\nlines"), "two lines", False),
        (WorkflowError("At least one job did not complete successfully."), None, True),
        (FaderError("a.png: truncated"), "a.png: truncated", True),
        (caused(WorkflowError("wrapped"), FaderError("a.png: truncated")), "a.png: tr", True),
        (ExceptionGroup("tasks", [FaderError("a.png: truncated")]), "a.png: truncated", True),
        (NO_FILE, "mine/a.png: no such file or folder", True),
        (NO_SPACE, "no space left on the disk; free some and run again", True),
        (ExceptionGroup("tasks", [NO_SPACE]), "no space left on the disk", True),
        (caused(WorkflowError(NO_SPACE), NO_SPACE), "no space left on the disk", True),
        (MemoryError(), "out of memory; take smaller images or batches", True),
        (function_of_a_rule(FaderError("a.png: truncated")), "a.png: truncated", True),
        (function_of_a_rule(MissingWeights("vit: none")), "vit: none", True),
        (function_of_a_rule(NO_FILE), "mine/a.png: no such file or folder", True),
        (function_of_a_rule(NO_SPACE), "no space left on the disk", True),
        (function_of_a_rule(KeyError("x")), "KeyError: 'x'; the traceback is above", False),
        (KeyError("x"), "KeyError: 'x'; the traceback is above", False),
        (caused(KeyError("x"), NO_FILE), "KeyError: 'x'; the traceback is above", False),
        (
            caused(snakemake.RuleException("x"), subprocess.CalledProcessError(1, "fader run")),
            None,
            False,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_stops_snakemake_itself_is_one_line(error, line, all_of_it):
    told, said = failures.of_exception(error)
    assert told is None if line is None else told.startswith(line)
    assert told is None or "\n" not in told
    assert said is all_of_it


# Listening


@pytest.fixture
def causes() -> failures.Causes:
    return failures.Causes()


def record(event: LogEvent | None, **about: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": "message", "levelno": logging.ERROR, **about})
    made.event = event
    return made


def fail(causes: failures.Causes, said: str, *, log: Path = LOG, output: str = "made") -> None:
    """A job begins, writes its log and ends with exit status 1."""
    causes.handle(record(LogEvent.JOB_INFO, log=[str(log)]))
    log.write_text(said)
    try:
        try:
            raise subprocess.CalledProcessError(1, "fader run ear")
        except subprocess.CalledProcessError:
            raise snakemake.RuleException("failed") from None
    except snakemake.RuleException:
        causes.handle(record(LogEvent.ERROR))
        causes.handle(record(LogEvent.JOB_ERROR, log=[str(log)], output=[output]))


def stopped(causes: failures.Causes) -> None:
    """Snakemake ends as it does when a job failed."""
    try:
        raise WorkflowError("At least one job did not complete successfully.")
    except WorkflowError:
        causes.handle(record(LogEvent.ERROR))


def test_each_cause_is_told_once(causes):
    fail(causes, "fader: one")
    fail(causes, "fader: one", log=LOG.with_name("b.log"))
    fail(causes, "fader: two", log=LOG.with_name("c.log"))
    stopped(causes)
    assert causes.lines() == ["one", "two"]


def test_many_causes_are_counted_and_the_last_line_is_one_of_them(causes):
    for number in range(failures.MOST + 5):
        fail(causes, f"fader: cause {number}", log=LOG.with_name(f"{number}.log"))
    lines = causes.lines()
    assert lines[0] == "5 more causes, in the jobs' logs"
    assert len(lines) == failures.MOST + 1
    assert lines[-1].startswith("cause ")


def test_a_job_that_another_attempt_made_did_not_fail(causes):
    fail(causes, "fader: at first")
    LOG.write_text("done")
    Path("made").touch()
    assert causes.lines() == []


def test_a_run_that_ends_without_a_cause_was_interrupted(causes):
    assert causes.lines() == []
    stopped(causes)
    assert causes.lines() == ["interrupted; run the same command again to go on"]


def test_an_exception_of_a_job_that_is_not_its_command_is_told_once(causes):
    try:
        raise WorkflowError(NO_SPACE) from NO_SPACE
    except WorkflowError:
        causes.handle(record(LogEvent.ERROR))
        causes.handle(record(LogEvent.JOB_ERROR, log=[str(LOG)], output=["made"]))
    assert causes.lines() == ["no space left on the disk; free some and run again"]


def test_the_terminal_is_spared_what_the_last_line_says(causes):
    for error, left in ((FaderError("x"), False), (KeyError("x"), True)):
        try:
            raise error
        except (FaderError, KeyError):
            assert causes.leaves(record(LogEvent.ERROR)) is left
            assert causes.leaves(record(LogEvent.JOB_ERROR))
            assert causes.leaves(record(None))


def test_the_process_ends_with_the_causes_on_standard_error(tmp_path):
    code = (
        "import logging; from fader.pipeline import failures; causes = failures.watch()\n"
        "import atexit, sys; atexit.register(lambda: print('Complete log', file=sys.stderr))\n"
        "causes.stop('params.yaml: wrong \\udcff')"
    )
    env = os.environ | {failures.CAUSES: str(tmp_path / "causes")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env)
    assert done.returncode == 1
    assert done.stderr == b"Complete log\nfader: params.yaml: wrong \\udcff\n"
    assert (tmp_path / "causes").read_text() == "params.yaml: wrong \\udcff"


def test_an_interrupt_is_no_traceback(causes, capsys):
    for error in (KeyboardInterrupt(), KeyError("x")):
        causes.interrupted(type(error), error, None)
    assert causes.lines() == ["interrupted; run the same command again to go on"]
    assert capsys.readouterr().err == "".join(traceback.format_exception(KeyError("x")))
