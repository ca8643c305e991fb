"""The page of a run, ``results/<run>/report/index.html``: one file that needs nothing else.

Its first screen says whether FADeR helps, what was run, and whether that agrees with the paper;
below stand all tables and figures, a gallery of every category, and where each number comes from.
It shows whatever tables and figures the run declares (``Config.tables``, ``paths.FIGURES``).
Without JavaScript it can be read; with it, tables sort and galleries filter. Nothing is fetched,
which a content security policy holds it to. The same inputs give the same bytes.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fader.config import Config
from fader.files import shown
from fader.pipeline import paths
from fader.pipeline.methods import Method
from fader.report import data, errata, labels, lengths
from fader.report.expected import PAPER_TOLERANCE
from fader.report.layout import Table, seeds_sentence
from fader.report.records import Records
from fader.report.render import signed
from fader.report.site import images, markdown
from fader.report.site.answers import agreement, effects, elsewhere, helps, title
from fader.report.site.checks import check
from fader.report.site.gallery import VIEWS, galleries
from fader.report.site.markdown import Block, Bullets, Grid, Paragraph
from fader.report.site.provenance import duration, provenance
from fader.report.site.sheets import Sheet, of_grid, of_table
from fader.report.statistics import Statistics

_NAMES = {
    "table1": "Table 1, baselines",
    "table2": "Table 2, zero-shot maskers",
    "table3": "Table 3, ablations",
    "table4": "Table 4, trained maskers",
    "table5": "Table 5, VisA",
    "fig1": "Figure 1, FADeR step by step",
    "fig2": "Figure 2, ways of masking",
    "fig3": "Figure 3, overview",
    "fig4": "Figure 4, what Φ learns",
    "fig5": "Figure 5, inference",
    "fig6": "Figure 6, what maskers suspect",
    "gains": "Before and after FADeR",
    "tradeoff": "AUROC against cost",
    "scales": "The search of m*",
    "roc": "ROC",
    "pr": "Precision and recall",
    "calibration": "Validation against test",
    "losses": "Losses",
}
# What a table is made from, where that is not the metrics of every method.
_MEASURED = {
    "cost": "results/{run}/cost/cost.json",
    "data": "results/{run}/<category>/packed/data.safetensors",
}
_METRICS = "results/{run}/metrics/<category>/seed<k>/<method>.json"


@dataclass(frozen=True)
class Contents:
    """What a page is made of.

    Parameters
    ----------
    tables : name → table of the run that is a grid of methods.
    texts : path → text of every file of every table.
    reference : folder of the paper's tables.
    """

    records: Records
    tables: Mapping[str, Table]
    statistics: Statistics
    texts: Mapping[str, str]
    reference: Path

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.records.config


@dataclass(frozen=True)
class Section:
    """A part of the page: its ``blocks``, the ``files`` that they are in too, and a pattern of what
    was ``measured`` for them."""

    key: str
    name: str
    blocks: Sequence[Block | Sheet]
    files: Sequence[str]
    measured: str


@dataclass(frozen=True)
class Picture:
    """A figure: its data URI, size in pixels, caption and files."""

    key: str
    name: str
    uri: str
    size: tuple[int, int]
    caption: str
    files: Sequence[str]


def page(contents: Contents) -> str:
    """The page of a run whose figures are written.

    Raises
    ------
    FaderError : an artefact behind it is missing, damaged or stale; a damaged file of the paper's
        tables or of expected AUROCs.
    """
    records, config = contents.records, contents.config
    found = effects(records, contents.statistics)
    script, style = (_source(name) for name in ("page.js", "style.css"))
    return (
        environment()
        .get_template("page.html")
        .render(
            run=config.run,
            policy=_policy(script, style),
            script=Markup(script),
            style=Markup(style),
            help=helps(found),
            elsewhere=elsewhere(found),
            effects=found,
            run_facts=_facts(records),
            tolerance=PAPER_TOLERANCE,
            agreement=agreement(contents.tables.values()),
            gate=check(records),
            warnings=[*_warnings(contents), *data.warnings(records)],
            sections=[_section(contents, name) for name in config.tables()],
            galleries=galleries(records),
            views=VIEWS,
            figures=list(_figures(config)),
            errata=_errata(contents.reference),
            provenance=provenance(records),
        )
    )


def environment() -> Environment:
    """Of the templates: all that they print is escaped."""
    environment = Environment(
        loader=PackageLoader("fader.report.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"signed": signed, "place": _place, "scale": _scale, "kind": _kind}
    return environment


def _kind(block: Block | Sheet) -> str:
    return type(block).__name__


def _place(value: float, scale: float) -> str:
    """Where a value lies in a drawing 200 wide, ``scale`` at its right end, 0 in the middle."""
    return f"{100 + 94 * value / scale:.1f}"


def _printable(value: Any) -> Any:
    """A value as it is printed: bytes of a name that are not UTF-8 are escaped."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Nothing is loaded, and nothing runs but this script."""
    digests = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    )
    of_script, of_style = (f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data:; script-src {of_script}; style-src {of_style}"


def _scale(found: Sequence[Any]) -> float:
    """The largest value of the intervals, either side of 0; 0.01 at least."""
    ends = [abs(end) for effect in found for end in (effect.low, effect.high) if end is not None]
    return max([*ends, 0.01])


def _facts(records: Records) -> dict[str, str]:
    """What was run, on what data."""
    config = records.config
    datasets = [
        f"{title(records, dataset)} ({', '.join(config.categories[p].category for p in places)})"
        for dataset, places in records.by_dataset().items()
    ]
    missing = len(config.missing)
    maskers = _count(config.masks.maskers, "masker") + (f", {missing} missing" if missing else "")
    systems = [maskers, _count(config.detectors, "baseline"), _count(config.variants, "variant")]
    machines = "; ".join(f"{device}, {precision}" for device, precision in records.machines)
    base, about = config.masks.base, records.provenance(records.places).removeprefix("Data: ")
    trained = lengths.note(records, [Method("ear", base), Method("fader", base)], records.places)
    steps = " ".join(trained).replace("Trained for (optimiser steps)", "Optimiser steps")
    return {
        "Data": f"{'; '.join(datasets)}: {about}",
        "Systems": f"EAR and FADeR under {labels.maskers(config)[base]}; {', '.join(systems)}.",
        "Training": " ".join([steps, seeds_sentence(config.seeds)]).strip(),
        "Machine": machines or "not recorded",
        "Time": duration(config),
    }


def _count(things: Sized, name: str) -> str:
    """``1 masker``, ``2 maskers``."""
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _warnings(contents: Contents) -> list[str]:
    notes = contents.tables["validation"].notes if "validation" in contents.tables else ()
    return [note for note in notes if note.startswith("Warning")]


def _section(contents: Contents, name: str) -> Section:
    run = contents.config.run
    files = paths.table(run, name)
    heading = _NAMES.get(name, name.capitalize())
    if name in contents.tables:
        table = contents.tables[name]
        sheet = of_table(table, contents.records)
        blocks: list[Block | Sheet] = [Paragraph(markdown.line(table.caption)), sheet]
        notes = [markdown.line(note) for note in table.notes if not sheet.says(note)]
        if notes:
            blocks.append(Bullets(notes))
    else:
        text = next(contents.texts[path] for path in files if path.endswith(".md"))
        blocks = [_shown(heading, block) for block in markdown.blocks(text)]
    measured = _MEASURED.get(name, _METRICS).format(run=run)
    return Section(name, heading, blocks, files, measured)


def _errata(reference: Path) -> list[Block | Sheet]:
    """The errata without their title."""
    return [_shown("Errata", block) for block in markdown.blocks(errata.text(reference))[1:]]


def _shown(caption: str, block: Block) -> Block | Sheet:
    return of_grid(caption, block) if isinstance(block, Grid) else block


def _figures(config: Config) -> Iterator[Picture]:
    most = images.FIGURES // max(len(paths.FIGURES), 1)
    for name in paths.FIGURES:
        files = paths.figure(config.run, name)
        uri, size = images.figure(Path(files[0]), most)
        heading = _NAMES.get(name, name.capitalize())
        yield Picture(name, heading, uri, size, _caption(name), files)


def _caption(name: str) -> str:
    """The caption that Snakemake's report has too; empty where a figure has none."""
    path = Path(paths.CAPTIONS) / f"{name}.rst"
    return " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else ""
