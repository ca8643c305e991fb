"""What a job depends on beside artefacts: its settings, its code, and files of the user's own.

Both engines read it from one file a phase, place and system, its *state*, which planning brings up
to date: Snakemake's main process, or DVC's first stage (``fader inputs``).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fader.config import Config
from fader.files import rewrite_text
from fader.pipeline import code, listing, paths, phases
from fader.pipeline.jobs import Job

# Registries of which a job uses the entries that its settings name: a new entry reruns nothing.
# Registry → names of the settings whose values are its keys.
REGISTRIES = {
    "fader.data.defects:_PAINTERS": ("kinds",),
    "fader.data.releases:LAYOUTS": ("layout",),
    "fader.data.releases:RELEASES": ("source", "paper"),
    "fader.data.textures:SOURCES": ("source",),
    "fader.detectors.reconstruction:SCHEDULES": ("schedule",),
    "fader.maskers.threshold:_RULES": ("rule",),
    "fader.steps.dataset:SOURCES": ("source",),
    "fader.vision.registry:BACKBONES": ("backbone",),
}


def code_digest(config: Config, job: Job, root: Path = code.SOURCE) -> str:
    """Digest of the code that a job runs, its masker's or detector's included."""
    return code.digest(roots(config, job), entries=entries(config, job), root=root)


def roots(config: Config, job: Job) -> list[str]:
    """Where the code of a job begins: its step, and ``create`` of the modules it finds by name."""
    created = [f"{module}:create" for module in phases.modules(config, job)]
    return [phases.entry(job.phase).step, *created]


def entries(config: Config, job: Job) -> dict[str, list[str]]:
    """Entries that a job uses of the registries that its settings have a say in.

    ``evaluate`` depends on the settings of all maskers, but reads what these made.
    """
    settings = phases.settings(config, job)
    if job.phase == "evaluate":
        rules = [masker["rule"] for masker in settings["masks"]["maskers"].values()]
        settings["masks"] = {"rule": [settings["masks"]["rule"], *rules]}
    values: dict[str, list[Any]] = {}
    for name, value in _named(settings):
        values.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return {
        registry: [value for name in names for value in values.get(name, ()) if value is not None]
        for registry, names in REGISTRIES.items()
        if not values.keys().isdisjoint(names)
    }


def _named(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings at any depth, each by the last part of its key."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _named(value)
        else:
            yield key.rpartition(".")[2], value


def state_file(config: Config, job: Job) -> str:
    """Where both engines find the state of a job."""
    return paths.state(config.run, job.phase, job.place, job.system)


def state(config: Config, job: Job) -> dict[str, Any]:
    """What a job depends on beside what other jobs make: its settings, the digest of its code, and
    the identity of the files of the user's own that it reads."""
    files = listing.write(config, job)
    return {
        "settings": phases.settings(config, job),
        "code": code_digest(config, job),
        "files": files and files.identity,
    }


def write_states(config: Config) -> int:
    """Bring the states of a run up to date; returns how many changed.

    A file is written only where its content changes, so that its time of modification says when
    that was: an engine without records of its own still finds what is older.
    """
    jobs = {(job.phase, job.place, job.system): job for job in phases.jobs(config)}
    wanted, listings = {}, set()
    for stage in stages(config):
        about = state(config, jobs[stage]) if stage in jobs else {}
        wanted[Path(paths.state(config.run, *stage))] = json.dumps(about, indent=2) + "\n"
        if about.get("files"):
            listings.add(Path(paths.listing(config.run, *stage)))
    changed = 0
    for path in set(Path(paths.inputs(config.run)).glob("*.json")) - wanted.keys() - listings:
        path.unlink()
        changed += 1
    for path, text in wanted.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            rewrite_text(path, text)
            changed += 1
    return changed


Stage = tuple[str, str | None, str | None]


def stages(config: Config) -> list[Stage]:
    """Phase, place and system of every stage that DVC makes of a configuration.

    Some of them have no job: a codebook that nobody reads, the base masker as a plug-in of its own,
    a masker that the run goes without.
    """
    return [
        (phase, place, system)
        for phase in phases.PHASES
        for place in phases.places(config, phase)
        for system in systems(config, phase)
    ]


def systems(config: Config, phase: str) -> list[str | None]:
    """Systems of a phase's stages; None alone where it has none."""
    if phase in ("mask", "plugin"):
        return list(config.masks.maskers)
    about = phases.PHASES[phase]
    return list(about.systems(config)) if about.systems else [None]
