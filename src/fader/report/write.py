"""All files of the report, each by one function."""

from dataclasses import dataclass
from pathlib import Path

from fader.config import Config
from fader.files import write_text
from fader.pipeline import paths
from fader.report import cost, data, difficulty, numbers, render, site
from fader.report.drawings import DRAWINGS, Findings
from fader.report.figures.style import save
from fader.report.layout import Table, build
from fader.report.records import Records
from fader.report.tables import LAYOUTS


def report(config: Config, reference: Path) -> None:
    """Write all files of ``paths.report``.

    Parameters
    ----------
    reference : folder of the paper's tables.
    """
    found = Findings(Records.read(config), reference)
    tables = {name: table(found, name) for name in config.tables()}
    texts = {path: text for each in tables.values() for path, text in each.files.items()}
    contents = site.Contents(
        records=found.records,
        tables={name: each.content for name, each in tables.items() if each.content},
        statistics=found.statistics,
        texts=dict(texts),
        reference=reference,
    )
    texts |= _numbers(found.records)
    for place in config.categories:
        texts |= _curves(found, place)
    for path, text in texts.items():
        write_text(path, text)
    for name in paths.FIGURES:
        save(DRAWINGS[name](found), [Path(path) for path in paths.figure(config.run, name)])
    write_text(paths.site(config.run), site.page(contents))


@dataclass(frozen=True)
class Printed:
    """A table, and path → text of each of its files; ``content`` is None where it is text alone."""

    content: Table | None
    files: dict[str, str]


def table(found: Findings, name: str) -> Printed:
    """A table of the run by its name."""
    config, records, content = found.config, found.records, None
    if name == "statistics":
        result = found.statistics
        texts: tuple[str, ...] = (result.intervals_csv(), result.counts_csv(), result.markdown)
    elif name == "cost":
        texts = cost.table(config, found.costs)
    elif name == "data":
        texts = data.table(records)
    elif name == "difficulty":
        texts = difficulty.table(records)
    else:
        content = build(LAYOUTS[name](records), records, found.reference)
        texts = (render.csv(content), render.markdown(content), render.latex(content))
    return Printed(content, dict(zip(paths.table(config.run, name), texts, strict=True)))


def _numbers(records: Records) -> dict[str, str]:
    means = numbers.averages(records)
    texts = (numbers.metrics_json(means), numbers.auroc_csv(means))
    return dict(zip(paths.numbers(records.config.run), texts, strict=True))


def _curves(found: Findings, place: str) -> dict[str, str]:
    records, run = found.records, found.config.run
    ran = [record for record in records if record.place == place and record.missing is None]
    lacking = records.lacking(place, "image_auroc")
    return {
        paths.curve(run, "roc", place): numbers.roc_csv(ran, lacking),
        paths.curve(run, "pr", place): numbers.pr_csv(ran, lacking),
        paths.curve(run, "losses", place): numbers.losses_csv(found.histories[place]),
    }
