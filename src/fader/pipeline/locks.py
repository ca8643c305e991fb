"""Who is at work here: one engine at a time, and one process a job.

Locks are the kernel's (``flock``): they end with the process that holds them, however it ends, so
that nothing is left to be unlocked after a ``kill -9``. That is why Snakemake's own, files that
outlive it, are off (``nolock`` in profiles/default). A job that outlives a killed engine still
holds its own lock, and no other process starts the same job.
"""

import fcntl
import json
import os
from pathlib import Path

from fader.errors import FaderError
from fader.files import running
from fader.pipeline.jobs import Job

DVC = Path(".dvc")
SNAKEMAKE = Path(".snakemake")
ENGINE = SNAKEMAKE / "engine.lock"


def refuse_beside_dvc() -> None:
    """FaderError while a DVC command is at work here, unless it is the one that runs us."""
    if _of_dvc():
        return
    try:
        locks = json.loads((DVC / "tmp" / "rwlock").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never used, or just being written
        return
    holders = [
        *locks.get("write", {}).values(),
        *(holder for holders in locks.get("read", {}).values() for holder in holders),
    ]
    for holder in holders:
        if running(holder["pid"]):
            raise FaderError(
                f"DVC (process {holder['pid']}) is at work here: one engine at a time; run again"
                " when it has finished"
            )


def hold_engine() -> None:
    """Keep other engines out until this process ends.

    DVC, too, by its own repository lock: it empties the folders of a stage before it runs it, under
    the feet of a direct Snakemake run. Stages that DVC runs may run beside each other; it keeps
    them apart itself.

    Raises
    ------
    FaderError : another engine is at work.
    """
    who = "another DVC or Snakemake command"
    rule = "is at work here: one engine at a time; run again when it has finished"
    _hold(ENGINE, who, rule, shared=_of_dvc())
    if DVC.is_dir() and not _of_dvc():
        _hold(DVC / "tmp" / "lock", who, rule)
        refuse_beside_dvc()


def engine_at_work() -> bool:
    """Whether another engine is at work here, whose plan is not to be changed under its feet."""
    try:
        handle = os.open(ENGINE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def hold_job(job: Job) -> None:
    """Keep other processes from a job until this one ends, in a project where an engine has run.

    Raises
    ------
    FaderError : another process is at it, as that of a killed engine may be.
    """
    if SNAKEMAKE.is_dir():
        rule = "is still at it: wait for it, or stop it, and run again"
        _hold(SNAKEMAKE / "jobs" / f"{job}.lock", f"{job}: another command", rule)


def _of_dvc() -> bool:
    """Whether DVC runs us, as the command of a stage."""
    return "DVC_STAGE" in os.environ


def _hold(path: Path, who: str, rule: str, shared: bool = False) -> None:
    """Hold a lock file, which names its holder, until this process ends; FaderError where another
    process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 20).decode(errors="replace").strip()
        os.close(handle)
        process = f" (process {holder})" if holder else ""
        raise FaderError(f"{who}{process} {rule}") from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
