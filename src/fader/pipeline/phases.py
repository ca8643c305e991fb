"""The table of phases: what is made from what.

A *phase* is a step of the chain, a *job* one run of it. Everything that knows the graph derives
from ``PHASES``: the rules' inputs, outputs and params, ``dvc.yaml``, the digests of code, the
checks of whoever reads an artefact, and the commands. To add a phase, write an entry here, a step
in ``fader.steps`` and a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fader.config import Config
from fader.errors import FaderError, near
from fader.pipeline import reads, systems, writes
from fader.pipeline.jobs import Job, Wildcard, dataset_of


@dataclass(frozen=True)
class Phase:
    """A row of the table.

    Parameters
    ----------
    step : ``module:function`` that a job runs.
    over : what it is run for: each data set, each category, or once a run.
    keys : keys of the configuration that its results depend on; ``{place}``, ``{dataset}`` and
        ``{system}`` are those of the job.
    inputs : (configuration, job) → jobs whose artefacts it reads.
    outputs : (configuration, job) → path of each file that it writes, by name.
    read : how many of these, from the first on, others read, negative: all but so many at the end;
        None for all.
    systems : configuration → names of its systems; None where it has none.
    seeded : whether it is run for every seed.
    derived : name → what follows from several keys and stands beside them.
    """

    step: str
    over: Literal["datasets", "categories", "run"]
    keys: tuple[str, ...]
    inputs: Callable[[Config, Job], list[Job]]
    outputs: Callable[[Config, Job], dict[str, str]]
    read: int | None = 1
    systems: Callable[[Config], list[str]] | None = None
    seeded: bool = False
    derived: Mapping[str, Callable[[Config, Job], Any]] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        """Keys that say which jobs there are, beyond those that say what they make: a DVC stage
        makes the jobs of all seeds."""
        return ("seeds",) if self.seeded else ()


_MASKS = ("masks.base", "masks.rule", "masks.level")
_CHOICE = ("validation.criterion", "validation.tie")
_SPLIT = tuple(f"validation.{n}" for n in ("held", "checked", "most", "per_image", "kinds"))
_FADER = ("fader", "unet", "loss", "score", *_CHOICE, *_MASKS, "runtime")

PHASES: dict[str, Phase] = {
    "dataset": Phase(
        step="fader.steps.dataset:make_dataset",
        over="datasets",
        keys=("datasets.{dataset}",),
        inputs=reads.nothing,
        outputs=writes.manifest,
    ),
    "pack": Phase(
        step="fader.steps.pack:make_pack",
        over="categories",
        keys=("categories.{place}", "datasets.{dataset}", "image", *_SPLIT),
        inputs=reads.pack,
        outputs=writes.packed,
        read=-1,
        derived={"sides": lambda config, job: config.sides},
    ),
    "codebook": Phase(
        step="fader.steps.codebook:make_codebook",
        over="run",
        keys=("categories", "codebook", "runtime"),
        inputs=reads.codebook,
        outputs=writes.codebook,
    ),
    "mask": Phase(
        step="fader.steps.mask:make_mask",
        over="categories",
        keys=("masks.maskers.{system}", "runtime"),
        inputs=reads.mask,
        outputs=writes.masks,
        systems=systems.saliencies,
        seeded=True,
    ),
    "ear": Phase(
        step="fader.steps.ear:train_ear",
        over="categories",
        keys=("ear", "unet", "loss", *_MASKS, "runtime"),
        inputs=reads.ear,
        outputs=writes.ear,
        seeded=True,
    ),
    "mosaic": Phase(
        step="fader.steps.mosaic:search_mosaic",
        over="categories",
        keys=("mosaic", "ear.scales", "score", "unet", *_CHOICE, *_MASKS, "runtime"),
        inputs=reads.mosaic,
        outputs=writes.mosaic,
        seeded=True,
    ),
    "fader": Phase(
        step="fader.steps.fader:train_fader",
        over="categories",
        keys=_FADER,
        inputs=reads.fader,
        outputs=writes.model,
        seeded=True,
    ),
    # FADeR with another masker on the same EAR (Tables 2 and 4).
    "plugin": Phase(
        step="fader.steps.fader:train_fader",
        over="categories",
        keys=_FADER,
        inputs=reads.fader,
        outputs=writes.model,
        systems=systems.plugins,
        seeded=True,
        derived={"threshold": systems.threshold},
    ),
    "variant": Phase(
        step="fader.steps.fader:train_fader",
        over="categories",
        keys=("variants.{system}", *_FADER),
        inputs=reads.fader,
        outputs=writes.model,
        systems=systems.variants,
        seeded=True,
    ),
    "detector": Phase(
        step="fader.steps.detector:train_detector",
        over="categories",
        keys=("detectors.{system}", "runtime"),
        inputs=reads.detector,
        outputs=writes.model,
        systems=systems.detectors,
        seeded=True,
    ),
    "evaluate": Phase(
        step="fader.steps.evaluate:evaluate",
        over="categories",
        keys=(
            *("score", "unet", "loss", "fader", "mosaic.policy", "masks"),
            *("variants", "detectors", "report.images", "runtime"),
        ),
        inputs=reads.evaluate,
        outputs=writes.measured,
        read=None,
        seeded=True,
    ),
    "gallery": Phase(
        step="fader.steps.gallery:make_gallery",
        over="categories",
        keys=("score", "unet", "loss", "fader", *_MASKS, "runtime"),
        inputs=reads.gallery,
        outputs=writes.gallery,
        read=None,
        derived={"seed": lambda config, job: config.seeds[0]},
    ),
    "cost": Phase(
        step="fader.steps.cost:measure_cost",
        over="run",
        keys=(
            *("image", "masks", "codebook", "unet", "loss", "score", "mosaic.fixed"),
            *("fader.hidden", "fader.vit", "detectors", "runtime"),
        ),
        inputs=reads.nothing,
        outputs=writes.costs,
    ),
    "report": Phase(
        step="fader.report:make_report",
        over="run",
        keys=(
            *("run", "categories", "seeds", "masks", "mosaic.policy", "fader.tuning"),
            *("validation", "variants", "detectors", "report"),
        ),
        inputs=reads.report,
        outputs=writes.report,
    ),
}


# The graph of a run.


def jobs(config: Config, phase: str | None = None, place: str | None = None) -> list[Job]:
    """Jobs of a run: all of them, or those of a phase, or those of a phase at one place."""
    wanted = PHASES if phase is None else {phase: entry(phase)}
    return [
        job for name in wanted for job in _jobs(config, name) if place is None or job.place == place
    ]


def _jobs(config: Config, phase: str) -> Iterator[Job]:
    about = PHASES[phase]
    if phase == "codebook" and not any(map(config.masks.coded, systems.maskers(config))):
        return
    for place in places(config, phase):
        names: Iterable[Wildcard] = about.systems(config) if about.systems else (None,)
        for system in names:
            shared = not about.seeded or (phase == "mask" and not config.masks.trained(system))
            for seed in (None,) if shared else config.seeds:
                yield Job(phase, place, system, seed)


def places(config: Config, phase: str) -> list[str | None]:
    """What a phase is run for: keys of ``datasets`` or ``categories``; None alone for a run."""
    if entry(phase).over == "run":
        return [None]
    return list(config.datasets if entry(phase).over == "datasets" else config.categories)


def entry(phase: str) -> Phase:
    """A row of the table; FaderError when there is none of that name."""
    if phase not in PHASES:
        raise FaderError(
            f"no phase {phase!r} (there are: {', '.join(PHASES)}){near(phase, PHASES)}"
        )
    return PHASES[phase]


def known(config: Config, job: Job) -> Job:
    """The job itself, if it is one of the run's.

    Raises
    ------
    FaderError : the configuration has no such job; the line names what there is.
    """
    of_phase = jobs(config, job.phase)
    if job in of_phase:
        return job
    for name, values in (
        ("place", [other.place for other in of_phase]),
        ("system", [other.system for other in of_phase]),
        ("seed", [other.seed for other in of_phase]),
    ):
        if getattr(job, name) not in values:
            there = dict.fromkeys(str(value) for value in values if value is not None)
            value = getattr(job, name)
            raise FaderError(
                f"{job.phase}: {name} {value!r} is not in the configuration"
                f" (there are: {', '.join(there) or 'none'}){near(value, there)}"
            )
    raise FaderError(f"{job}: no job of this run")


def inputs(config: Config, job: Job) -> list[Job]:
    """Jobs whose artefacts a job reads."""
    return entry(job.phase).inputs(config, job)


def outputs(config: Config, job: Job) -> dict[str, str]:
    """Path of each file that a job writes, by name."""
    return entry(job.phase).outputs(config, job)


def artefacts(config: Config, job: Job) -> list[str]:
    """Paths of those of a job's files that other jobs read."""
    return list(outputs(config, job).values())[: entry(job.phase).read]


def read_paths(config: Config, job: Job) -> list[str]:
    """Paths of the artefacts that a job reads."""
    return [path for other in inputs(config, job) for path in artefacts(config, other)]


def made_before(config: Config, job: Job) -> list[str]:
    """A file of each job whose artefacts a job reads: a job makes all of its files at once."""
    return [artefacts(config, other)[0] for other in inputs(config, job)]


def modules(config: Config, job: Job) -> list[str]:
    """Modules that a job runs by name: those of its own masker or detector, not of every one."""
    of_job = [job.system]
    maskers = {"mask": of_job, "cost": systems.saliencies(config)}.get(job.phase, [])
    every = list(config.detectors)
    baselines = {"detector": of_job, "evaluate": every, "cost": every}.get(job.phase, [])
    return [
        *(f"fader.maskers.{config.masks.maskers[name].kind}" for name in maskers),
        *(f"fader.detectors.{config.detectors[name].kind}" for name in baselines),
    ]


# Settings.


def keys(config: Config, job: Job) -> list[str]:
    """Keys of the configuration that a job's results depend on."""
    dataset = job.place
    if entry(job.phase).over == "categories":
        dataset = dataset_of(config, job.place)
    names = {"place": job.place, "dataset": dataset, "system": job.system}
    return [*(key.format(**names) for key in entry(job.phase).keys), *sections(config, job)]


def sections(config: Config, job: Job) -> tuple[str, ...]:
    """Sections of the configuration that a job's system reads beside what its phase says."""
    return config.detectors[job.system].reads if job.phase == "detector" else ()


def settings(config: Config, job: Job) -> dict[str, Any]:
    """The part of the configuration that a job depends on: dotted key → plain value.

    Beside them stand what the phase derives from several keys, and ``masks.missing``, the maskers
    that the run goes without, where there are any.
    """
    values = {key: lookup(config.plain, key) for key in keys(config, job)}
    values |= {name: of(config, job) for name, of in entry(job.phase).derived.items()}
    if "masks" in values and config.missing:
        values["masks.missing"] = sorted(config.missing)
    return values


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path of a plain configuration; KeyError names the path."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(path)
        value = value[key]
    return value
