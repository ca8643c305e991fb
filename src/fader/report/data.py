"""The images that a run is measured on, as a table: how many, of what, and what to know of them."""

from collections.abc import Mapping

from fader.report import numbers
from fader.report.records import Records
from fader.report.render import ABSENT, bullets, escaped, pipe
from fader.report.sources import Source
from fader.report.warn import of_data


def table(records: Records) -> tuple[str, str]:
    """The table as CSV, where several warnings are lines of one cell, and as Markdown."""
    return _csv(records), _markdown(records)


def _csv(records: Records) -> str:
    header = ("dataset", "category", "train", "test_good", "test_defective", "defects")
    rows = []
    for place, source in records.sources.items():
        where = records.config.categories[place]
        texts = (source.masks, _listed(source.ignored), "\n".join(source.warnings))
        rows.append((where.dataset, where.category, *_counts(source), *texts))
    return numbers.table((*header, "masks", "ignored", "warnings"), rows)


def _markdown(records: Records) -> str:
    titles = {records.title(place): source for place, source in records.sources.items()}
    headers = ["Category", "Train", "Test good", "Test defective", "Defects", "Masks"]
    rows = [
        [title, *(ABSENT if cell == "" else cell for cell in _counts(source)), source.masks]
        for title, source in titles.items()
    ]
    caption = (
        "Images that everything is trained and measured on, as they were read."
        f" {records.provenance(records.places)} Train: normal images, of which a part is held out"
        " to choose on. Masks: inverted, what is black is the defect; absent, none are read, and"
        " no pixel metrics are measured."
    )
    notes = [
        f"Files ignored in {title}: {_listed(source.ignored)}."
        for title, source in titles.items()
        if source.ignored
    ]
    body = pipe(headers, rows, "lrrrll")
    return f"{escaped(caption)}\n\n{body}\n" + bullets([*notes, *warnings(records)])


def _counts(source: Source) -> tuple[int, int, int, str]:
    return source.train, source.good, sum(source.defects.values()), _listed(source.defects)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def warnings(records: Records) -> list[str]:
    """What the reader of the images said of each category."""
    return of_data(
        (f"{where.dataset}/{where.category}", records.sources[place].warnings)
        for place, where in records.config.categories.items()
        if place in records.sources
    )
