"""What each phase reads: (configuration, job) → jobs whose artefacts the job reads."""

from __future__ import annotations

from fader.config import Config
from fader.pipeline import systems
from fader.pipeline.jobs import Job, dataset_of, inherits, mask_job, trained_job
from fader.pipeline.methods import methods


def nothing(config: Config, job: Job) -> list[Job]:
    """Nothing."""
    return []


def pack(config: Config, job: Job) -> list[Job]:
    """The images of the data set."""
    return [Job("dataset", dataset_of(config, job.place))]


def codebook(config: Config, job: Job) -> list[Job]:
    """Normals of every category, unless the codebook is read from a file."""
    return [] if config.codebook.file else [Job("pack", place) for place in config.categories]


def mask(config: Config, job: Job) -> list[Job]:
    """The images, and the codebook where the masker has one."""
    codebook = [Job("codebook")] if config.masks.coded(job.system) else []
    return [Job("pack", job.place), *codebook]


def ear(config: Config, job: Job) -> list[Job]:
    """The images and the base masker's masks."""
    return [Job("pack", job.place), mask_job(config, job, config.masks.base)]


def mosaic(config: Config, job: Job) -> list[Job]:
    """What EAR reads, and EAR."""
    return [*ear(config, job), job.of("ear")]


def fader(config: Config, job: Job) -> list[Job]:
    """EAR, m* and the masks; and the FADeR whose grid point is taken over."""
    masker = config.masks.base if job.phase in ("fader", "variant") else job.system
    picked = [job.of("fader")] if inherits(config, job) else []
    return [
        Job("pack", job.place),
        mask_job(config, job, masker),
        job.of("ear"),
        job.of("mosaic"),
        *picked,
    ]


def detector(config: Config, job: Job) -> list[Job]:
    """The images alone."""
    return [Job("pack", job.place)]


def evaluate(config: Config, job: Job) -> list[Job]:
    """All that was trained on the category."""
    return [
        Job("pack", job.place),
        *(mask_job(config, job, masker) for masker in systems.saliencies(config)),
        job.of("ear"),
        job.of("mosaic"),
        *(
            trained_job(config, job, method)
            for method in methods(config)
            if method.trained and method.masker not in config.missing
        ),
    ]


def gallery(config: Config, job: Job) -> list[Job]:
    """FADeR of the first seed, what it reads, and what was measured of it."""
    measured = Job("evaluate", job.place, seed=config.seeds[0])
    trained = measured.of("fader")
    return [*fader(config, trained), trained, measured]


def report(config: Config, job: Job) -> list[Job]:
    """All that was measured, and pictures of it."""
    packs = [Job("pack", place) for place in config.categories]
    measured = [
        Job("evaluate", place, seed=seed) for place in config.categories for seed in config.seeds
    ]
    galleries = [Job("gallery", place) for place in config.categories]
    return [*packs, *measured, *galleries, Job("cost")]
