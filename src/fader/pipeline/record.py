"""Snakemake makes, DVC keeps versions: what ties the two together.

The command of a DVC stage (``make``) asks Snakemake for exactly that stage's files with
``--allowed-rules``, so that what a phase does is written once, in the rules. ``record`` is the
guarded way to run Snakemake directly: DVC finds by content what is stale, Snakemake is forced to
remake what it has no true records of, and the result is committed only if all of it was made.
``restore`` is for a fresh checkout, where Snakemake has files but no records of them.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fader.config import Config
from fader.errors import FaderError
from fader.files import file_sha256, shown
from fader.pipeline import artifacts, external, failures, paths, phases
from fader.pipeline.jobs import Job

NAME_MAX = 254  # of a part of a name in Snakemake's records
CLOCK_SLACK = 0.01  # seconds, for copies of a project that round times

# Rules that make a phase's files, where it is not the one of the phase's own name.
RULES = {"mask": ("mask", "mask_of_seed"), "report": ("report", "tables")}


def targets(
    config: Config, phase: str, place: str | None = None, system: str | None = None
) -> list[str]:
    """What Snakemake is asked for: the files of a phase's jobs at one place, for one system.

    Raises
    ------
    FaderError : there is no such phase, or the configuration has no such place or system.
    """
    about = phases.entry(phase)
    if place not in phases.places(config, phase):
        where = "takes no place" if about.over == "run" else f"has no place {place!r}"
        raise FaderError(f"phase {phase} {where}; its places are the keys in params.yaml")
    if (system is None) != (about.systems is None):
        raise FaderError(f"phase {phase} {'needs a' if about.systems else 'takes no'} system")
    if system not in external.systems(config, phase):
        raise FaderError(f"phase {phase} has no system {system!r}; params.yaml names them")
    return [
        path
        for job in phases.jobs(config, phase, place)
        if job.system == system
        for path in phases.outputs(config, job).values()
    ]


def snakemake(*arguments: str) -> list[str]:
    """Command line of Snakemake in this environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def make(config: Config, phase: str, place: str | None = None, system: str | None = None) -> None:
    """Have Snakemake make the files of a DVC stage; its output goes to a log.

    A stage that this run has no use for (see ``external.stages``) leaves an empty folder, since a
    DVC stage needs an output.

    Raises
    ------
    FaderError : a job failed; the line is its cause.
    """
    wanted = targets(config, phase, place, system)
    if not wanted:
        _unused(config, phase, place, system).mkdir(parents=True, exist_ok=True)
        return
    name = ".".join(part for part in (phase, place, system) if part)
    log = Path(paths.log(config.run, f"dvc/{name}.log"))
    log.parent.mkdir(parents=True, exist_ok=True)
    rules = RULES.get(phase, (phase,))
    # Snakemake ends only when the span in which it started its last job is over.
    at_once = ("--max-jobs-per-timespan", "10000/1s")
    command = snakemake("--cores", "all", *at_once, "--allowed-rules", *rules, "--", *wanted)
    with log.open("w", encoding="utf-8") as stream:
        causes = _causes(command, stdout=stream, stderr=subprocess.STDOUT)
    if causes:
        _say(f"{name}: the whole story is in {log}", *causes[:-1])
        raise FaderError(causes[-1])


def _causes(command: Sequence[str], **streams: Any) -> list[str]:
    """Run Snakemake; the causes of its failure, empty where it ended well.

    ^C is Snakemake's to obey: it reaches both, and whoever waits only waits.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "causes"
        env = os.environ | {failures.CAUSES: str(told)}
        with subprocess.Popen(command, env=env, **streams) as process:
            while True:
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()
                    break
        if not process.returncode:
            return []
        if told.is_file():
            return told.read_text(encoding="utf-8").splitlines()
    return [f"Snakemake ended with exit status {process.returncode}; {failures.AGAIN}"]


def _say(*lines: str) -> None:
    for line in lines:
        print(f"fader: {line}", file=sys.stderr)


def _unused(config: Config, phase: str, place: str | None, system: str | None) -> Path:
    """Folder of a stage that has nothing to make."""
    path = Path(next(iter(phases.outputs(config, Job(phase, place, system, 0)).values())))
    return path.parent


def require_dvc() -> None:
    """FaderError where DVC fails whatever it does: it formats the names that it shows."""
    folder = str(Path.cwd())
    if not {"{", "}"}.isdisjoint(folder) or shown(folder) != folder:
        raise FaderError(
            f"{shown(folder)}: DVC cannot work below a name with braces, or one that is not UTF-8;"
            " rename it, or run `snakemake --cores all tables`"
        )


def stale_stages() -> dict[str, Any]:
    """Stages that are not as dvc.lock records them, and why (``dvc status``), but for the one that
    is run always."""
    stages: dict[str, Any] = json.loads(_dvc("status", "--json"))
    stages.pop("inputs", None)
    return stages


def vouched(path: str) -> bool:
    """Whether a file is the one that Snakemake's records describe: made, or touched, by it and not
    replaced since (by a checkout). Then Snakemake itself knows whether it is stale.

    A record holds the file's own time of modification. Images have none; they lie beside their
    manifest, which is written after them.
    """
    key = base64.urlsafe_b64encode(path.encode()).decode()
    parts = [key[i : i + NAME_MAX] for i in range(0, len(key), NAME_MAX)]
    name = Path(*(f"@{part}" for part in parts[:-1]), parts[-1])
    try:
        record = json.loads((Path(".snakemake/metadata") / name).read_text(encoding="utf-8"))
        end = record["endtime"]
        if abs(Path(path).stat().st_mtime - end) > CLOCK_SLACK:
            return False
        beside = Path(path).parent.rglob("*") if path.endswith("/manifest.json") else []
        return all(file.stat().st_mtime <= end + CLOCK_SLACK for file in beside)
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # no record, or not as we know it
        return False


def forced(config: Config, stages: Mapping[str, Any]) -> list[str]:
    """What Snakemake must remake whatever it believes."""
    return [
        path
        for job in _jobs(config, stages)
        for path in phases.outputs(config, job).values()
        if not vouched(path)
    ]


def _jobs(config: Config, stages: Iterable[str]) -> Iterator[Job]:
    """Jobs of some stages."""
    for name in stages:
        phase, _, where = name.partition("@")
        if phase in phases.PHASES:
            for job in phases.jobs(config, phase):
                if where in ("", _stage_name(job)):
                    yield job


def _stage_name(job: Job) -> str:
    """What DVC calls a job's stage, after the phase."""
    return "-".join(part for part in (job.place, job.system) if part)


def record(config: Config) -> str:
    """Run Snakemake on all that is stale, then ``dvc commit``.

    Returns
    -------
    What was done, in words.

    Raises
    ------
    FaderError : a job failed, the configuration or the code changed meanwhile, or a file is
        damaged; nothing is recorded.
    """
    require_dvc()
    before = _fingerprint()
    external.write_states(config)
    force = forced(config, stale_stages())
    causes = _causes(
        snakemake("--cores", "all", *(["--forcerun", *force] if force else []), "--", "tables")
    )
    if causes:
        raise FaderError(f"nothing recorded: {causes[-1]}")
    if _fingerprint() != before:
        raise FaderError(
            "params.yaml or the code changed during the run: nothing recorded;"
            " run `make record` again"
        )
    left = stale_stages()
    if not left:
        return "dvc.lock is up to date"
    for job in _jobs(config, left):
        if job.phase != "report":
            for path in phases.artefacts(config, job):
                artifacts.verify(path)
    for phase, place, system in _unneeded(config):
        _unused(config, phase, place, system).mkdir(parents=True, exist_ok=True)
    _dvc("commit", "--force", "--quiet")
    return f"recorded {len(left)} stages in dvc.lock"


def _unneeded(config: Config) -> list[external.Stage]:
    """Stages of DVC that this configuration has no jobs for."""
    needed = {(job.phase, job.place, job.system) for job in phases.jobs(config)}
    return [stage for stage in external.stages(config) if stage not in needed]


def restore(config: Config) -> str:
    """Let Snakemake take the files of a checkout as made.

    Raises
    ------
    FaderError : ``dvc status`` is not clean.
    """
    require_dvc()
    external.write_states(config)
    stages = stale_stages()
    if stages:
        some = ", ".join(list(stages)[:3])
        raise FaderError(
            f"{len(stages)} stages are not as dvc.lock records them ({some}…): `dvc checkout` (or"
            " `dvc pull`) brings the recorded files, `make record` makes new ones"
        )
    command = snakemake("--cores", "1", "--touch", "--forceall", "--", "tables")
    causes = _causes(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if causes:
        raise FaderError(causes[-1])
    return "Snakemake takes all files as made"


def _dvc(*arguments: str) -> str:
    """Standard output of a DVC command; FaderError with what it says where it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace")
    if done.returncode:
        raise FaderError(f"`dvc {arguments[0]}` failed: {' '.join(done.stderr.split())}")
    return done.stdout


def _fingerprint() -> dict[str, str]:
    """Digests of the configuration and of all code."""
    files = ["params.yaml", *sorted(str(path) for path in Path("src/fader").rglob("*.py"))]
    return {file: file_sha256(file) for file in files}
