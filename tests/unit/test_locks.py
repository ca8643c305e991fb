"""One engine at a time, and one process a job, also where one was killed."""

import fcntl
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fader.errors import FaderError
from fader.pipeline import locks
from fader.pipeline.jobs import Job

JOB = Job("ear", "a{b}", None, 0)
FORK = multiprocessing.get_context("fork")


def engine(stage: str | None = None) -> None:
    """What Snakemake does when it starts, for a stage of DVC where one is named."""
    if stage:
        os.environ["DVC_STAGE"] = stage
    locks.hold_engine()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    Path(".snakemake").mkdir()


def attempt(pipe: Connection, take: Callable[..., None], *arguments: object) -> None:
    """Take a lock, say what came of it, and keep it until told to end."""
    try:
        take(*arguments)
        pipe.send("")
    except FaderError as error:
        pipe.send(str(error))
    pipe.recv()


@pytest.fixture
def start():
    """Starts a process that takes a lock and keeps it until it is killed."""
    started = []

    def process(take: Callable[..., None], *arguments: object) -> tuple[BaseProcess, str]:
        here, there = FORK.Pipe()
        child = FORK.Process(target=attempt, args=(there, take, *arguments), daemon=True)
        child.start()
        started.append((child, here))
        return child, here.recv()

    yield process
    for child, _ in started:
        child.kill()
        child.join()


@pytest.fixture
def taken(start):
    """What taking a lock for a moment says; empty where it was to be had."""

    def process(take: Callable[..., None], *arguments: object) -> str:
        child, said = start(take, *arguments)
        child.kill()
        child.join()
        return said

    return process


@pytest.mark.parametrize("dvc", [True, False], ids=["with DVC", "without DVC"])
def test_the_second_engine_is_told_who_is_at_work_and_a_killed_one_does_not_matter(
    start, taken, dvc
):
    if dvc:
        Path(".dvc").mkdir()
    first, said = start(engine)
    assert said == ""
    assert taken(engine) == (
        f"another DVC or Snakemake command (process {first.pid}) is at work here: one engine at a"
        " time; run again when it has finished"
    )
    first.kill()
    first.join()
    assert taken(engine) == ""


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [("ear@a", "ear@b", True), ("ear@a", None, False), (None, "ear@a", False)],
)
def test_stages_of_dvc_run_beside_each_other_and_not_beside_a_direct_run(
    start, taken, one, other, together
):
    start(engine, one)
    assert (taken(engine, other) == "") is together


def test_a_direct_run_does_not_start_while_dvc_holds_its_lock(taken):
    Path(".dvc/tmp").mkdir(parents=True)
    with Path(".dvc/tmp/lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "one engine at a time" in taken(engine)
    assert taken(engine) == ""


def test_a_direct_run_keeps_dvc_out(start):
    Path(".dvc").mkdir()
    start(engine)
    with Path(".dvc/tmp/lock").open() as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_job_is_one_process_and_that_of_a_killed_engine_counts(start, taken):
    orphan, _ = start(locks.hold_job, JOB)
    assert taken(locks.hold_job, JOB) == (
        f"ear.a{{b}}.seed0: another command (process {orphan.pid}) is still at it: wait for it, or"
        " stop it, and run again"
    )
    assert taken(locks.hold_job, replace(JOB, seed=1)) == ""
    assert taken(engine) == ""
    orphan.kill()
    orphan.join()
    assert taken(locks.hold_job, JOB) == ""


def test_a_job_by_hand_leaves_nothing_where_no_engine_has_run():
    Path(".snakemake").rmdir()
    locks.hold_job(JOB)
    assert list(Path().iterdir()) == []


def holders(process: int) -> None:
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"read": {}, "write": {"x": {"pid": process, "cmd": "dvc repro"}}}))


def test_snakemake_stays_out_while_dvc_is_at_work_unless_dvc_asked(monkeypatch):
    holders(os.getppid())
    with pytest.raises(FaderError, match=r"DVC .* is at work here"):
        locks.refuse_beside_dvc()
    monkeypatch.setenv("DVC_STAGE", "ear@x")
    locks.refuse_beside_dvc()


def test_a_lock_left_by_a_dead_process_does_not_matter():
    holders(2**22 + 1)  # beyond the largest process number
    locks.refuse_beside_dvc()
