"""All files of the report, each by one function."""

from pathlib import Path
from typing import Any

from fader.config import Config
from fader.files import write_text
from fader.pipeline import artifacts, paths, phases
from fader.pipeline.context import checked
from fader.pipeline.jobs import Job, method_of
from fader.report import cost, data, difficulty, figures, numbers, pictures, render
from fader.report.layout import build
from fader.report.records import Records
from fader.report.statistics import statistics
from fader.report.tables import LAYOUTS

FIGURES = {"fig1": pictures.figure1, "fig2": pictures.figure2, "fig6": pictures.figure6}


def report(config: Config, reference: Path) -> None:
    """Write all files of ``paths.report``.

    Parameters
    ----------
    reference : folder of the paper's tables.
    """
    records = Records.read(config)
    texts: dict[str, str] = {}
    for name in config.tables():
        texts |= table(records, name, reference)
    texts |= _numbers(records)
    for place in config.categories:
        texts |= _curves(records, place)
    for path, text in texts.items():
        write_text(path, text)
    for name in paths.FIGURES:
        targets = [Path(path) for path in paths.figure(config.run, name)]
        figures.save(FIGURES[name](config), targets)


def table(records: Records, name: str, reference: Path) -> dict[str, str]:
    """Path → text of each file of a table."""
    config = records.config
    if name == "statistics":
        result = statistics(records, reference)
        texts = (result.intervals_csv(), result.counts_csv(), result.markdown)
    elif name == "cost":
        texts = cost.table(config, _cost(config))
    elif name == "data":
        texts = data.table(records)
    elif name == "difficulty":
        texts = difficulty.table(records)
    else:
        filled = build(LAYOUTS[name](records), records, reference)
        texts = (render.csv(filled), render.markdown(filled), render.latex(filled))
    return dict(zip(paths.table(config.run, name), texts, strict=True))


def _cost(config: Config) -> list[dict[str, Any]]:
    """Rows of the cost table with their timings."""
    header, path = checked(config, Job("cost"), "cost")
    timings = artifacts.volatile(path)["timings"]
    return [row | {"timings": timings[row["name"]]} for row in header.facts["rows"]]


def _numbers(records: Records) -> dict[str, str]:
    means = numbers.averages(records)
    texts = (numbers.metrics_json(means), numbers.auroc_csv(means))
    return dict(zip(paths.numbers(records.config.run), texts, strict=True))


def _curves(records: Records, place: str) -> dict[str, str]:
    run = records.config.run
    ran = [record for record in records if record.place == place and record.missing is None]
    lacking = records.lacking(place, "image_auroc")
    return {
        paths.curve(run, "roc", place): numbers.roc_csv(ran, lacking),
        paths.curve(run, "pr", place): numbers.pr_csv(ran, lacking),
        paths.curve(run, "losses", place): numbers.losses_csv(_histories(records.config, place)),
    }


def _histories(config: Config, place: str) -> dict[str, Path]:
    """Losses of everything trained on a category, by a name for the legend."""
    files = {}
    for job in phases.jobs(config, place=place):
        path = phases.outputs(config, job).get("losses")
        if path is not None:
            artifacts.check_beside(path, checked(config, job, "weights")[0].facts.get("losses"))
            files[f"{_trained(config, job)} seed {job.seed}"] = Path(path)
    return files


def _trained(config: Config, job: Job) -> str:
    """What a job trains, as in the names of methods."""
    if job.phase == "mask":
        return f"mask-{job.system}"
    return job.phase if job.phase == "ear" else str(method_of(config, job))
