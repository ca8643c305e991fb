"""Why a run failed, as the last line on the terminal: which file, what to do.

Snakemake tells of a failed job in the middle of its output and ends with hints of its own.
``watch`` listens to Snakemake's log, and when the process ends and everything else has been said,
the causes are printed, each once. What a job died of is found in its log (``of_log``).
"""

import atexit
import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from errno import EFBIG, ENOSPC
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from fader.errors import FaderError
from fader.files import LESS_MEMORY, explained, refusal

# Where the causes are written as well, for the command that started Snakemake.
CAUSES = "FADER_CAUSES"
MOST = 10  # causes printed
FULL = 2**20  # bytes free on a disk that counts as full

AGAIN = "run the same command again to go on"
JOB_FAILED = "At least one job did not complete successfully"


# A job's log.


def of_log(
    log: Path, status: int | None, before: int | None = None, told: str | None = None
) -> str:
    """What a job died of, in one line.

    Parameters
    ----------
    log : what the job's command printed.
    status : exit status of the command, as ``subprocess`` or a shell has it; None when unknown.
    before : when the log was last written before the job began, in nanoseconds; None when there was
        none. A log that was not written since says nothing of this job.
    told : what a scheduler says of it, such as Slurm, which may have refused or ended the job; its
        first line is taken where the log has no cause.
    """
    try:
        said = written(log) != before
        text = log.read_text(encoding="utf-8", errors="replace") if said else ""
    except OSError as error:
        return str(refusal(error, log))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    below = lines[starts[-1] + 1 :] if starts else lines
    ours = [line for line in below if line.startswith("fader: ")]
    killed = _of_signal(log, status)
    if ours and (not killed or ours[-1] == lines[-1]):
        return ours[-1].removeprefix("fader: ")
    if killed:
        return killed
    raised = next((line for line in below if not line.startswith(" ")), None)
    if starts and raised:
        return f"{raised}; the traceback is in {log}"
    if told:
        where = f"; log: {log}" if lines else ""
        return f"{log.stem}: {told.strip().splitlines()[0]}{where}"
    if not lines:
        return _unwritten(log, status)
    return f"{lines[-1].strip()} (exit status {status}; all of it in {log})"


def written(log: Path) -> int | None:
    """When a log was last written, in nanoseconds; None where there is none to be seen."""
    try:
        return log.stat().st_mtime_ns
    except OSError:
        return None


def _of_signal(log: Path, status: int | None) -> str | None:
    """The cause, for a job that a signal ended; a shell adds 128 to its number."""
    number = 0 if status is None else -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return None
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"{log.stem} was killed, as a rule because memory ran out; {LESS_MEMORY}; log: {log}"
    if number == signal.SIGXFSZ:
        return str(refusal(OSError(EFBIG, os.strerror(EFBIG)), log))
    if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        return f"{log.stem} was ended from outside ({name}); {AGAIN}"
    return f"{log.stem} crashed ({name}); log: {log}"


def _unwritten(log: Path, status: int | None) -> str:
    """The cause, for a job that could not even write its log."""
    try:
        log.open("ab").close()
        if shutil.disk_usage(log.parent).free < FULL:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    except OSError as error:
        return str(refusal(error, log))
    return f"{log.stem} ended with exit status {status} and said nothing; log: {log}"


# Snakemake's own exceptions.


def of_exception(error: BaseException) -> tuple[str | None, bool]:
    """What stopped Snakemake itself.

    Returns
    -------
    The line, None where another one tells it; and whether the lines say all there is to say, so
    that Snakemake's own account can be left out.
    """
    chain = list(_chain(error))
    if _called(chain):
        return None, False  # a job's command: its log tells
    if JOB_FAILED in str(error):
        return None, True
    ours = next((link for link in chain if isinstance(link, FaderError)), None)
    if ours:
        return str(ours), True
    kind = type(error).__name__
    if kind in KNOWN:
        return KNOWN[kind](error), True
    if kind == "InputFunctionException":
        return _of_function(error)
    root = next((link for link in chain if not _of_snakemake(link)), None)
    if root is None:
        return _one_line(error), "\n" not in str(error)
    line = explained(root)
    if line:
        return line, True
    return f"{type(root).__name__}: {_one_line(root)}; the traceback is above", False


def _of_function(error: BaseException) -> tuple[str, bool]:
    """The cause, for a function of a rule that raised: Snakemake keeps only what the exception
    said, below ``Error:``."""
    raised = str(error).partition("Error:\n  ")[2].partition("\nWildcards:")[0]
    name, _, said = raised.partition(": ")
    refused = re.fullmatch(r"\[Errno (\d+)\] (.*?)(?:: '(.*)')?", said)
    if refused:
        number, why, path = refused.groups()
        return str(refusal(OSError(int(number), why, path))), True
    ours: list[type] = [FaderError, *FaderError.__subclasses__()]
    if name in {kind.__name__ for kind in ours}:
        return " ".join(said.split()), True
    return f"{' '.join(raised.split())}; the traceback is above", False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, the ones it groups, and those it was raised from."""
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop(0)
        if link is not None:
            yield link
            pending += link.exceptions if isinstance(link, BaseExceptionGroup) else ()
            pending.append(link.__cause__ or link.__context__)


def _called(chain: Iterable[BaseException]) -> subprocess.CalledProcessError | None:
    """The command that failed, if one did."""
    return next((e for e in chain if isinstance(e, subprocess.CalledProcessError)), None)


def _of_snakemake(error: BaseException) -> bool:
    """Whether an exception only carries another one."""
    return type(error).__module__.startswith("snakemake") or isinstance(error, BaseExceptionGroup)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _files(error: BaseException) -> str:
    """The files that end a message of Snakemake, one a line."""
    first, *others = [line.strip() for line in reversed(str(error).splitlines())]
    count = next((i for i, line in enumerate(others) if line.endswith(":")), 0)
    return f"{first} and {count} more" if count else first


def _asked(error: BaseException) -> str:
    """What was asked for and no rule makes."""
    return str(error).removeprefix("No rule to produce ").partition(" (if you")[0]


KNOWN: dict[str, Callable[[BaseException], str]] = {
    "LockException": lambda _: (
        "another Snakemake is at work here, or was killed: run again when it has finished, or,"
        " where there is none, after `snakemake --unlock`"
    ),
    "IncompleteFilesException": lambda error: (
        f"{_files(error)}: not finished by an earlier run; run again with --rerun-incomplete"
    ),
    "MissingOutputException": lambda error: (
        f"{_files(error)}: not there, though the job that writes it ended well; on a slow network"
        " disk, run again with --latency-wait 60"
    ),
    "MissingInputException": lambda error: (
        f"{_files(error)}: no such file, and no rule that may run makes it; put it there, or run"
        " `snakemake --cores all tables`"
    ),
    "MissingRuleException": lambda error: (
        f"{_asked(error)}: no file that a rule makes; `snakemake --list-rules` names the rules"
    ),
    "ProtectedOutputException": lambda error: (
        f"{_files(error)}: write-protected; change its mode and run again"
    ),
}


# The listener.


@dataclass(frozen=True)
class _Failed:
    """A job that failed once; another attempt may have made its files since."""

    log: Path
    outputs: tuple[Path, ...]
    status: int | None
    before: int | None
    told: str | None

    def cause(self) -> str | None:
        made = self.outputs and all(map(os.path.exists, self.outputs))
        return None if made else of_log(self.log, self.status, self.before, self.told)


class Causes(logging.Handler):
    """What Snakemake's log says of failures, kept until the process ends."""

    def __init__(self) -> None:
        super().__init__()
        self._causes: list[str | _Failed] = []
        self._stopped = False  # for a reason told elsewhere
        self._before: dict[Path, int | None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note a job's beginning, its failure, or what stops Snakemake itself."""
        event, logs = getattr(record, "event", None), getattr(record, "log", None) or ()
        error = sys.exc_info()[1]
        if event == "job_info":
            self._before |= {Path(log): written(Path(log)) for log in logs}
        elif event == "job_error" and logs:
            self._failed(Path(logs[0]), record, error)
        elif event == "error" and error:
            line, complete = of_exception(error)
            self._causes += [line] if line else []
            self._stopped |= complete and not line
        elif event == "error":
            self._causes.append(" ".join(record.getMessage().split()))

    def _failed(self, log: Path, record: logging.LogRecord, error: BaseException | None) -> None:
        called = _called(_chain(error)) if error else None
        if error and not called:
            return  # told by the exception
        outputs = tuple(Path(path) for path in getattr(record, "output", ()))
        status = called.returncode if called else None
        told = getattr(record, "rule_msg", None)
        self._causes.append(_Failed(log, outputs, status, self._before.get(log), told))

    def stop(self, cause: str | Exception) -> NoReturn:
        """End the process; ``cause`` is its last line."""
        line = explained(cause) if isinstance(cause, Exception) else cause
        self._causes.append(line or str(cause))
        raise SystemExit(1)

    def leaves(self, record: logging.LogRecord) -> bool:
        """Whether a record is for the terminal: not where the last line says it all."""
        error = sys.exc_info()[1]
        return getattr(record, "event", None) != "error" or not (error and of_exception(error)[1])

    def interrupted(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """``sys.excepthook``: ^C is no defect."""
        if issubclass(kind, KeyboardInterrupt):
            self._stopped = True
        else:
            sys.__excepthook__(kind, error, trace)

    def lines(self) -> list[str]:
        """The causes, each once, at most ``MOST``; more are counted."""
        found = [each if isinstance(each, str) else each.cause() for each in self._causes]
        causes = list(dict.fromkeys(cause for cause in found if cause))
        if self._stopped and not causes:
            causes = [f"interrupted; {AGAIN}"]
        left = len(causes) - MOST
        return [*([f"{left} more causes, in the jobs' logs"] if left > 0 else ()), *causes[:MOST]]

    def tell(self) -> None:
        """Print the causes, and write them where the command that started Snakemake asks."""
        lines = self.lines()
        for line in lines:
            print(f"fader: {line}", file=sys.stderr)
        if lines and CAUSES in os.environ:
            with contextlib.suppress(OSError):  # a full disk: they are on the terminal
                Path(os.environ[CAUSES]).write_text("\n".join(lines), "utf-8", "backslashreplace")


def watch() -> Causes:
    """Listen to Snakemake in this process, and tell the causes when it ends."""
    causes = Causes()
    snakemake = logging.getLogger("snakemake.logging")
    for handler in snakemake.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(causes.leaves)
    snakemake.addHandler(causes)
    sys.excepthook = causes.interrupted
    atexit.register(causes.tell)
    return causes
