"""What a job depends on beside artefacts and configuration: its code, and files of the user's own.

Snakemake takes the code's digest as a param and the files as inputs. DVC, whose stages are written
before anything is known of a configuration, reads both from ``workflow/inputs/<stage>.json``, which
its first stage (``fader inputs``) brings up to date.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fader.config import Config
from fader.files import file_sha256, write_text
from fader.pipeline import code, phases, weights
from fader.pipeline.jobs import Job, dataset_of

FOLDER = Path("workflow/inputs")

# Registries of which a job uses the entries that its settings name: a new entry reruns nothing.
# Registry → names of the settings whose values are its keys.
REGISTRIES = {
    "fader.data.defects:_PAINTERS": ("kinds",),
    "fader.data.releases:LAYOUTS": ("layout",),
    "fader.data.releases:RELEASES": ("source", "paper"),
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
        settings["masks"] = {"rule": settings["masks"]["rule"]}
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


def files(config: Config, job: Job) -> list[str]:
    """Files of the user's own that a job reads: images, a codebook, weights. Sorted."""
    if job.phase == "pack":
        return _images(config, job.place)
    if job.phase == "codebook" and config.codebook.file:
        return [config.codebook.file] if Path(config.codebook.file).is_file() else []
    if job.phase == "mask":
        return weights.local_files(config, job.system)
    vit = config.fader.vit.backbone
    if job.phase == "variant" and vit and config.variants[job.system].predictor == "vit":
        return weights.backbone_files(config, vit)
    return []


def _images(config: Config, place: str) -> list[str]:
    """Images of a category in a folder of the user's own."""
    dataset = config.datasets[dataset_of(config, place)]
    if dataset.source != "folder":
        return []
    folder = Path(dataset.root) / config.categories[place].category
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def state_file(phase: str, place: str | None = None, system: str | None = None) -> str:
    """Where DVC finds the state of a stage."""
    name = ".".join(part for part in (phase, place, system) if part)
    return (FOLDER / f"{name}.json").as_posix()


def state(config: Config, job: Job) -> dict[str, Any]:
    """Digest of a job's code, and of each file of the user's own that it reads; and the sections of
    the configuration that its system reads, which the stages of one phase do not share."""
    return {
        "code": code_digest(config, job),
        "files": {path: file_sha256(path) for path in files(config, job)},
        "sections": {name: config.plain[name] for name in phases.sections(config, job)},
    }


def write_states(config: Config) -> int:
    """Bring ``workflow/inputs`` up to date; returns how many files changed."""
    jobs = {(job.phase, job.place, job.system): job for job in phases.jobs(config)}
    wanted = {}
    for stage in stages(config):
        about = state(config, jobs[stage]) if stage in jobs else {}
        wanted[Path(state_file(*stage))] = json.dumps(about, indent=2) + "\n"
    changed = 0
    for path in set(FOLDER.glob("*.json")) - wanted.keys():
        path.unlink()
        changed += 1
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
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
