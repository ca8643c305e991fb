"""Snakemake makes, DVC keeps versions: what ties the two together.

The command of a DVC stage (``make``) asks Snakemake for exactly that stage's files with
``--allowed-rules``, so that what a phase does is written once, in the rules. ``record`` is the
guarded way to run Snakemake directly: DVC finds by content what is stale, Snakemake is forced to
remake what it has no true records of, and the result is committed only if all of it was made.
``restore`` is for a fresh checkout, where Snakemake has files but no records of them.
"""

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import external, paths, phases
from fader.pipeline.jobs import Job

DVC = Path(".dvc")
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
    FaderError : a job failed; the end of the log went to standard error before.
    """
    wanted = targets(config, phase, place, system)
    if not wanted:
        _unused(config, phase, place, system).mkdir(parents=True, exist_ok=True)
        return
    name = ".".join(part for part in (phase, place, system) if part)
    log = Path(paths.log(config.run, f"dvc/{name}.log"))
    log.parent.mkdir(parents=True, exist_ok=True)
    rules = RULES.get(phase, (phase,))
    command = snakemake("--cores", "all", "--allowed-rules", *rules, "--", *wanted)
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-30:]), file=sys.stderr)
        raise FaderError(f"{name}: Snakemake failed; the whole story is in {log}")


def _unused(config: Config, phase: str, place: str | None, system: str | None) -> Path:
    """Folder of a stage that has nothing to make."""
    path = Path(next(iter(phases.outputs(config, Job(phase, place, system, 0)).values())))
    return path.parent


def stale_stages() -> dict[str, Any]:
    """Stages that are not as dvc.lock records them, and why (``dvc status``), but for the one that
    is run always."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise FaderError(f"`dvc status` failed: {' '.join(done.stderr.split())}")
    stages: dict[str, Any] = json.loads(done.stdout)
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
    wanted: list[str] = []
    for name in stages:
        phase, _, where = name.partition("@")
        if phase not in phases.PHASES:
            continue
        for job in phases.jobs(config, phase):
            if where in ("", _stage_name(job)):
                files = phases.outputs(config, job).values()
                wanted += [path for path in files if not vouched(path)]
    return wanted


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
    FaderError : a job failed, or the configuration or the code changed meanwhile; nothing is
        recorded.
    """
    before = _fingerprint()
    external.write_states(config)
    force = forced(config, stale_stages())
    _run(snakemake("--cores", "all", *(["--forcerun", *force] if force else []), "--", "tables"))
    if _fingerprint() != before:
        raise FaderError(
            "params.yaml or the code changed during the run: nothing recorded;"
            " run `make record` again"
        )
    left = stale_stages()
    if not left:
        return "dvc.lock is up to date"
    for phase, place, system in _unneeded(config):
        _unused(config, phase, place, system).mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "dvc", "commit", "--force", "--quiet"])
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
    external.write_states(config)
    stages = stale_stages()
    if stages:
        some = ", ".join(list(stages)[:3])
        raise FaderError(
            f"{len(stages)} stages are not as dvc.lock records them ({some}…): `dvc checkout` (or"
            " `dvc pull`) brings the recorded files, `make record` makes new ones"
        )
    _run(snakemake("--cores", "1", "--touch", "--forceall", "--", "tables"), quiet=True)
    return "Snakemake takes all files as made"


def _run(command: Sequence[str], quiet: bool = False) -> None:
    done = subprocess.run(command, capture_output=quiet, text=True)
    if done.returncode:
        if quiet:
            print(done.stdout + done.stderr, file=sys.stderr)
        raise FaderError(f"{' '.join(command[2:4])} … failed: nothing recorded")


def _fingerprint() -> dict[str, str]:
    """Digests of the configuration and of all code."""
    files = ["params.yaml", *sorted(str(path) for path in Path("src/fader").rglob("*.py"))]
    return {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}


def refuse_beside_dvc() -> None:
    """FaderError while a DVC command is at work here, unless it is the one that runs us."""
    if "DVC_STAGE" in os.environ:
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
        if _alive(holder["pid"]):
            raise FaderError(
                f"DVC (process {holder['pid']}) is at work here: one engine at a time; run again"
                " when it has finished"
            )


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def hold_dvc() -> None:
    """Keep DVC out until this process ends, by its own repository lock: DVC empties the folders of
    a stage before it runs it, under the feet of a direct Snakemake run.

    FaderError when DVC is at work.
    """
    if "DVC_STAGE" in os.environ or not DVC.is_dir():
        return
    (DVC / "tmp").mkdir(exist_ok=True)
    handle = os.open(DVC / "tmp" / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise FaderError(
            "another DVC or Snakemake command is at work here: one engine at a time; run again"
            " when it has finished"
        ) from None
    refuse_beside_dvc()
