"""A job at work: its paths and settings, and its inputs, read and verified by walking the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fader.config import Config
from fader.pipeline import artifacts, listing, phases
from fader.pipeline.artifacts import Header
from fader.pipeline.jobs import Job, dataset_of
from fader.seeds import derive_seed


@dataclass(frozen=True)
class Context:
    """A job of a run.

    Parameters
    ----------
    config : of the run.
    job : what is being made; FaderError when it is none of the run's.
    """

    config: Config
    job: Job

    def __post_init__(self) -> None:
        phases.known(self.config, self.job)

    def of(self, job: Job) -> Context:
        """Another job of the same run."""
        return replace(self, job=job)

    @property
    def category(self) -> str:
        """The category's own name: that of its folder."""
        return self.config.categories[self.job.place].category

    @property
    def dataset(self) -> str:
        """The data set of the category."""
        return dataset_of(self.config, self.job.place)

    @property
    def label(self) -> str:
        """The job in words, for logs and errors."""
        job = self.job
        name = "-".join(part for part in (job.phase, job.system) if part)
        if job.place not in self.config.categories:
            return f"{name} {job.place or self.config.run}"
        seed = "" if job.seed is None else f" seed {job.seed}"
        return f"{name} {self.dataset}/{self.category}{seed}"

    def seed(self, stage: str) -> int:
        """Seed of a named stream of the job's category and seed."""
        return derive_seed(self.job.seed or 0, self.dataset, self.category, stage)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the job depends on."""
        return phases.settings(self.config, self.job)

    def output(self, name: str) -> str:
        """Path of one of the job's files, by its name in the table of phases."""
        return phases.outputs(self.config, self.job)[name]

    def inputs(self) -> dict[str, str]:
        """Path → identity of every artefact that the job reads, each checked, and of the listing of
        the user's files."""
        files = listing.listed(self.config, self.job)
        return {
            path: header.identity
            for other in phases.inputs(self.config, self.job)
            for path, header in _headers(self.config, other).items()
        } | (artifacts.inputs(files) if files else {})

    def header(self, facts: dict[str, Any]) -> Header:
        """Header of what the job writes."""
        return Header(self.job.phase, self.settings, self.inputs(), facts)

    def check(self, job: Job, name: str) -> Header:
        """Header of a file of another job, which must be what the configuration would make."""
        return checked(self.config, job, name)[0]

    def path(self, job: Job, name: str) -> str:
        """Path of a file of another job, checked as by ``check``."""
        return checked(self.config, job, name)[1]

    def verify(self) -> None:
        """Check every artefact that the job is made from, directly or not.

        Raises
        ------
        FaderError : one is missing, damaged, or not what the configuration would make.
        """
        verified(self.config, phases.inputs(self.config, self.job))


def checked(config: Config, job: Job, name: str) -> tuple[Header, str]:
    """Header and path of a file of a job, which must be what the configuration would make."""
    path = phases.outputs(config, job)[name]
    return _headers(config, job, [name])[path], path


def verified(config: Config, jobs: Iterable[Job]) -> dict[str, Header]:
    """Path → header of every artefact of some jobs, and of all that is behind them.

    What is made first is checked first, so that the line names where the trouble begins.

    Raises
    ------
    FaderError : one is missing, damaged, or not what the configuration would make.
    """
    behind: set[Job] = set()
    pending = list(jobs)
    while pending:
        job = pending.pop()
        if job not in behind:
            behind.add(job)
            pending += phases.inputs(config, job)
    headers: dict[str, Header] = {}
    for job in phases.jobs(config):  # in the order in which they are made
        if job in behind:
            headers |= _headers(config, job)
    return headers


def _headers(config: Config, job: Job, names: Iterable[str] | None = None) -> dict[str, Header]:
    """Path → header of some files of a job, by default of those that others read; each must be
    what the configuration would make, and the job's own."""
    outputs = phases.outputs(config, job)
    settings, files = phases.settings(config, job), listing.listed(config, job)
    sources = [*phases.read_paths(config, job), *([files] if files else [])]
    headers = {}
    for name in list(outputs)[: phases.entry(job.phase).read] if names is None else names:
        own = {"place": job.place, "seed": job.seed}
        if job.phase == "evaluate":
            own["method"] = name.partition(" ")[2]
        headers[outputs[name]] = artifacts.check(outputs[name], job.phase, settings, sources, own)
    return headers
