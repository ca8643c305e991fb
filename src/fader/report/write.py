"""All files of the report, each by one function."""

from pathlib import Path

from fader.config import Config
from fader.files import write_text
from fader.pipeline import paths
from fader.report import cost, data, difficulty, numbers, render
from fader.report.drawings import DRAWINGS, Findings
from fader.report.figures.style import save
from fader.report.layout import build
from fader.report.records import Records
from fader.report.tables import LAYOUTS


def report(config: Config, reference: Path) -> None:
    """Write all files of ``paths.report``.

    Parameters
    ----------
    reference : folder of the paper's tables.
    """
    found = Findings(Records.read(config), reference)
    texts: dict[str, str] = {}
    for name in config.tables():
        texts |= table(found, name)
    texts |= _numbers(found.records)
    for place in config.categories:
        texts |= _curves(found, place)
    for path, text in texts.items():
        write_text(path, text)
    for name in paths.FIGURES:
        save(DRAWINGS[name].draw(found), [Path(path) for path in paths.figure(config.run, name)])


def table(found: Findings, name: str) -> dict[str, str]:
    """Path → text of each file of a table."""
    config, records = found.config, found.records
    if name == "statistics":
        result = found.statistics
        texts = (result.intervals_csv(), result.counts_csv(), result.markdown)
    elif name == "cost":
        texts = cost.table(config, found.costs)
    elif name == "data":
        texts = data.table(records)
    elif name == "difficulty":
        texts = difficulty.table(records)
    else:
        filled = build(LAYOUTS[name](records), records, found.reference)
        texts = (render.csv(filled), render.markdown(filled), render.latex(filled))
    return dict(zip(paths.table(config.run, name), texts, strict=True))


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
        paths.curve(run, "losses", place): numbers.losses_csv(found.histories(place)),
    }
