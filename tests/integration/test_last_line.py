"""The last line on the terminal, and going on after a failure, with the real engines."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_project import Project, checkout

from fader.data.made import LIST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PLACE = "synthetic_small-bolt"
PACKED = f"results/ci/{PLACE}/packed/data.safetensors"
MAKE = ("snakemake", "--cores", "2", "--", PACKED)
STAGE = ("fader", "make", "dataset", "synthetic_small")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Project:
    """A checkout in which nothing was made."""
    return checkout(tmp_path_factory.mktemp("fresh") / "project")


@pytest.fixture
def project(fresh, tmp_path) -> Project:
    """A copy of it, in a folder with a space and a letter that is not ASCII."""
    return fresh.copy(tmp_path / "my pröject")


def insert(project: Project, phase: str, code: str) -> Callable[[], None]:
    """Add code to a phase's step; returns what takes it out again."""
    path = project.root / f"src/fader/steps/{phase}.py"
    sound = path.read_text()
    path.write_text(f"{sound}\n{code}\n")
    return lambda: path.write_text(sound) and None


def last_line(output: str) -> str:
    return output.rstrip("\n").rpartition("\n")[2]


def leftovers(project: Project) -> list[Path]:
    """Temporary files in what the project makes."""
    made = [project.root / name for name in ("results", "data")]
    hidden = [path for root in made if root.is_dir() for path in root.rglob(".*")]
    return [path for path in hidden if path.name != LIST]


def test_the_last_line_is_the_cause_and_mended_the_run_goes_on(fresh, tmp_path):
    project = fresh.copy(tmp_path / "{place} of {x}")
    mend = insert(project, "pack", "raise RuntimeError('broken on purpose')")
    cause = f"RuntimeError: broken on purpose; the traceback is in logs/ci/pack.{PLACE}.log"
    assert last_line(project.run(*MAKE, ok=False)) == f"fader: {cause}"
    mend()
    refused = "from fader.errors import FaderError; raise FaderError('a.png: truncated')"
    mend = insert(project, "pack", refused)
    output = project.run("snakemake", "--cores", "2", "--quiet", "all", "--", PACKED, ok=False)
    assert [line for line in output.splitlines() if not line.startswith("Using ")] == [
        "fader: a.png: truncated"
    ]
    mend()
    project.run(*MAKE)


def test_a_killed_job_says_so(project):
    insert(project, "pack", "import os; os.kill(os.getpid(), 9)")
    line = last_line(project.run(*MAKE, ok=False))
    assert line.startswith(f"fader: pack.{PLACE} was killed, as a rule because memory ran out")


def test_a_stage_of_dvc_and_a_record_end_with_the_cause(project):
    insert(project, "dataset", "raise RuntimeError('broken on purpose')")
    cause = "RuntimeError: broken on purpose; the traceback is in logs/ci/dataset"
    *_, line = project.run(*STAGE, ok=False).splitlines()
    assert line.startswith(f"fader: {cause}")
    # DVC's own line comes after it.
    *_, line, of_dvc = project.run("dvc", "repro", "dataset@synthetic_small", ok=False).splitlines()
    assert line.startswith(f"fader: {cause}")
    assert of_dvc.startswith("ERROR: failed to reproduce 'dataset@synthetic_small'")
    line = last_line(project.run("fader", "record", ok=False))
    assert line.startswith(f"fader: nothing recorded: {cause}")


def test_what_is_in_the_way_is_named_and_moved_away_the_run_goes_on(project):
    for name in ("results", "logs"):
        blocking = project.root / name
        blocking.touch()
        output = project.run(*MAKE, ok=False)
        line = f"fader: {name}: a file where a folder belongs; move it away and run again"
        assert last_line(output) == line
        assert "Traceback" not in output
        blocking.rename(project.root / f"{name}.away")
    project.run(*MAKE)


def test_a_disk_that_fills_up_leaves_nothing_half_written(project):
    limited = f"ulimit -f 40; exec {' '.join(MAKE)}"
    line = last_line(project.run("bash", "-c", limited, ok=False))
    assert line.startswith(f"fader: {PACKED}: larger than a file may get here; raise the limit")
    assert not (project.root / PACKED).exists()
    assert leftovers(project) == []
    project.run(*MAKE)


def wait(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def job_at_work(project: Project) -> int | None:
    """The process that packs, once it has its lock."""
    try:
        text = (project.root / f".snakemake/jobs/pack.{PLACE}.lock").read_text()
    except FileNotFoundError:
        return None
    return int(text) if text else None


def start_and_kill(project: Project) -> int:
    """Kill -9 Snakemake in the middle of a job; returns the job's process, which lives on."""
    engine = project.start(*MAKE)
    wait(lambda: job_at_work(project))
    engine.kill()
    engine.wait()  # not for its output, which the job's shell still holds
    return job_at_work(project)


# The job waits for a file, in the middle of writing another.
WAITING = """
import time
from pathlib import Path
from fader.files import replacing
with replacing(Path({packed!r})) as temporary:
    temporary.write_text("half")
    while not Path("go").exists():
        time.sleep(0.05)
    raise SystemExit("gone on")
"""


def test_after_kill_9_the_next_run_waits_for_no_lock_and_makes_the_same_bytes(project, tmp_path):
    whole = project.copy(tmp_path / "whole")
    whole.run(*MAKE)
    mend = insert(project, "pack", WAITING.format(packed=PACKED))
    orphan = start_and_kill(project)
    mend()
    line = last_line(project.run(*MAKE, ok=False))
    assert line == (
        f"fader: pack.{PLACE}: another command (process {orphan}) is still at it: wait for it, or"
        " stop it, and run again"
    )
    os.kill(orphan, signal.SIGKILL)
    assert leftovers(project)
    project.run(*MAKE)
    assert leftovers(project) == []
    assert (project.root / PACKED).read_bytes() == (whole.root / PACKED).read_bytes()


def test_the_second_of_two_runs_ends_in_one_line_and_the_first_is_undisturbed(project):
    mend = insert(
        project,
        "pack",
        'import time; from pathlib import Path\nwhile not Path("go").exists(): time.sleep(0.05)',
    )
    first = project.start(*MAKE)
    wait(lambda: job_at_work(project))
    line = last_line(project.run(*MAKE, ok=False))
    assert line.startswith("fader: another DVC or Snakemake command (process ")
    assert line.endswith("one engine at a time; run again when it has finished")
    project.run("snakemake", "-n", "--", PACKED)
    mend()
    (project.root / "go").touch()
    output, _ = first.communicate()
    assert first.returncode == 0, output


def test_an_interrupt_is_one_line_and_the_same_command_goes_on(project):
    mend = insert(project, "pack", "import time; time.sleep(600)")
    code = (
        "import os, signal, sys; os.setsid(); signal.signal(2, signal.default_int_handler);"
        " os.execvp(sys.argv[1], sys.argv[1:])"
    )
    engine = project.start(sys.executable, "-c", code, *MAKE)
    wait(lambda: job_at_work(project))
    os.killpg(engine.pid, signal.SIGINT)
    output, _ = engine.communicate(timeout=120)
    assert engine.returncode != 0
    assert last_line(output) == "fader: interrupted; run the same command again to go on"
    assert "Traceback" not in output
    mend()
    project.run(*MAKE)
