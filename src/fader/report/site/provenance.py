"""Where the numbers come from: code, data, weights, machines, versions, files."""

import csv
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import yaml

from fader import __version__
from fader.config import Config
from fader.files import file_sha256
from fader.pipeline import paths, phases
from fader.pipeline.artifacts import Header
from fader.pipeline.context import verified
from fader.pipeline.jobs import Job
from fader.report.layout import choices
from fader.report.records import Records
from fader.report.site.markdown import Span
from fader.report.site.sheets import Cell, Head, Row, Sheet

LOCK = Path("requirements.lock")
# What a commit stands for: without the results, which are written beside it.
_SOURCES = ("src", "workflow", "Snakefile", "params.yaml", "presets", "reference", str(LOCK))
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pandas", "snakemake", "dvc")


@dataclass(frozen=True)
class Provenance:
    """What the page says of its sources.

    Parameters
    ----------
    facts : what → value.
    data, weights, machines, files : tables of these.
    configuration : the configuration, complete, as YAML.
    """

    facts: Mapping[str, str]
    data: Sheet
    weights: Sheet
    machines: Sheet
    files: Sheet
    configuration: str


def provenance(records: Records) -> Provenance:
    """Of a run, from the headers of all artefacts behind its numbers."""
    config = records.config
    headers = verified(config, phases.inputs(config, Job("report")))
    return Provenance(
        facts=_facts(config),
        data=_data(records, headers),
        weights=_weights(records),
        machines=_machines(headers),
        files=_files(headers),
        configuration=yaml.safe_dump(config.plain, sort_keys=False, allow_unicode=True, width=100),
    )


def _facts(config: Config) -> dict[str, str]:
    lock = f"{LOCK}, sha256 {file_sha256(LOCK)}" if LOCK.is_file() else f"no {LOCK} here"
    return {
        "Commit": commit(),
        "Program": f"fader-bench {__version__}",
        "Environment": lock,
        "Python": platform.python_version(),
        "Packages": ", ".join(f"{name} {version}" for name, version in _versions()),
        "Choices": choices(config),
    }


def _versions() -> Iterator[tuple[str, str]]:
    """Versions of the packages that there are."""
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:  # an engine is not needed to make the page
            continue


def commit() -> str:
    """The commit of the working folder when the page was made, and whether its sources had other
    changes."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "not a git checkout"
    changed = _git("status", "--porcelain", "--", *_SOURCES)
    return f"{head}, with uncommitted changes" if changed else head


def _git(*arguments: str) -> str | None:
    """What git says; None where it is absent, or this is no checkout."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def duration(config: Config) -> str:
    """How long the jobs took, by what Snakemake timed."""
    jobs = [job for job in phases.jobs(config) if job.phase != "report"]
    times = [time for job in jobs if (time := _benchmark(config, job)) is not None]
    if not times:
        return "not timed: Snakemake's benchmarks are not here"
    elapsed, busy = (sum(column) for column in zip(*times, strict=True))
    return (
        f"{_minutes(busy)} of CPU time, {_minutes(elapsed)} one after another"
        f" ({len(times)} of {len(jobs)} jobs timed)"
    )


def _benchmark(config: Config, job: Job) -> tuple[float, float] | None:
    """Seconds, and CPU seconds, of a job, where Snakemake timed it."""
    path = Path(f"{paths.log(config.run, str(job))}.tsv")
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream, delimiter="\t"), {})
    values = row.get("s", ""), row.get("cpu_time", "")
    try:
        return float(values[0]), float(values[1])
    except ValueError:  # Snakemake writes NA for a job too short to be watched
        return None


def _minutes(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _data(records: Records, headers: Mapping[str, Header]) -> Sheet:
    rows = []
    for place in records.places:
        path = phases.outputs(records.config, Job("pack", place))["packed"]
        header = headers[path]
        licence = str(header.facts.get("licence") or "not stated")
        rows.append((records.title(place), licence, path, header.contents))
    columns = ("Category", "Licence", "File", "Digest of the images")
    return _texts("Images that everything was made from", columns, rows)


def _weights(records: Records) -> Sheet:
    loaded = dict.fromkeys(
        (record.method.system, record.weights) for record in records if record.weights
    )
    rows = [(name, str(weights)) for name, weights in loaded]
    rows += [(name, f"did not run: {why}") for name, why in records.config.missing.items()]
    return _texts("Pretrained weights of the maskers", ("Masker", "Loaded"), rows)


def _machines(headers: Mapping[str, Header]) -> Sheet:
    keys = ("device", "precision", "threads", "torch", "python")
    counts = Counter(
        tuple(str(machine.get(key, "")) for key in keys)
        for header in headers.values()
        if (machine := header.facts.get("machine"))
    )
    rows = [(*machine, str(number)) for machine, number in sorted(counts.items())]
    columns = ("Device", "Precision", "Threads", "torch", "Python", "Artefacts")
    return _texts("Machines that it was computed on", columns, rows)


def _files(headers: Mapping[str, Header]) -> Sheet:
    rows = [(header.kind, path, header.identity) for path, header in headers.items()]
    columns = ("Phase", "File", "Identity: settings, inputs and contents")
    return _texts("Every artefact behind these numbers", columns, rows)


def _texts(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Sheet:
    heads = [Head(text, column=number, numeric=False) for number, text in enumerate(columns)]
    cells = [
        Row(
            [
                Cell([Span(text)], kind="text" if number else "name")
                for number, text in enumerate(row)
            ]
        )
        for row in rows
    ]
    return Sheet(caption, [heads], cells, 1)
