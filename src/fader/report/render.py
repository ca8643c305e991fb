"""A finished table as CSV, Markdown and LaTeX; and the pieces that other pages are printed with.

CSV holds the numbers to six decimals; Markdown and LaTeX print mean ± standard deviation, the
paper's value and the difference to three. The LaTeX needs the package booktabs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pandas as pd
from tabulate import tabulate

from fader.report.layout import Group, Table
from fader.report.paper import AVERAGE

ABSENT = "–"
SLASH = " / "
WIDTH = 160  # characters of a Markdown table, at most

_KINDS = ("ours", "paper", "difference")

_MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "*": r"\*", "<": r"\<", "\n": " "})
# What else has a meaning only where it stands: emphasis, strikethrough, a link, an entity.
_MARKUP = re.compile(r"(?<![^\W_])_|_(?![^\W_])|~|\](?=[(\[])|&(?=#?\w+;)")
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


def csv(table: Table) -> str:
    """The table's frame as CSV, six decimals."""
    return table.frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def markdown(table: Table) -> str:
    """The table as Markdown, with caption and notes; in parts where it is wider than ``WIDTH``."""
    leading = row_names(table)
    headers = [*map(str.capitalize, leading), *(group.header for group in table.layout.groups)]
    rows = [
        naming + [_cell(table, group, row) for group in table.layout.groups]
        for naming, row in _lines(table)
    ]
    parts = [
        pipe(
            [escaped(headers[column]) for column in columns],
            [[row[column] for column in columns] for row in rows],
            "l" * len(leading) + "r" * (len(columns) - len(leading)),
        )
        for columns in _parts(headers, rows, len(leading))
    ]
    caption = table.caption
    if any(name.startswith("paper_") for name in table.frame):
        caption += f" A cell that has the paper's value: {SLASH.join(_KINDS)}."
    between = "\n\n"
    return f"{escaped(caption)}\n\n{between.join(parts)}\n" + bullets(table.notes)


def _parts(headers: Sequence[str], rows: Sequence[Sequence[str]], leading: int) -> list[list[int]]:
    """Columns of each part: those that name a row, and as many others as fit."""
    titles = [f"{header}  " for header in headers]  # tabulate leaves as much room
    widths = [3 + max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    naming = list(range(leading))
    room, parts = WIDTH - sum(widths[:leading]), [[*naming]]
    for column in range(leading, len(headers)):
        used = sum(widths[other] for other in parts[-1][leading:])
        if used and used + widths[column] > room:
            parts.append([*naming])
        parts[-1].append(column)
    return parts


def escaped(text: str) -> str:
    """A cell or note so that Markdown prints it as it is; what is between backticks stays code."""
    return _MARKUP.sub(r"\\\g<0>", text.translate(_MARKDOWN))


def pipe(headers: Sequence[str], rows: Sequence[Sequence[object]], align: str) -> str:
    """A Markdown table of finished cells; ``align`` has ``l`` or ``r`` for every column."""
    return tabulate(
        [[escaped(str(cell)) for cell in row] for row in rows],
        headers=headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=[{"l": "left", "r": "right"}[letter] for letter in align],
    )


def bullets(notes: Sequence[str]) -> str:
    """Notes as a Markdown list after an empty line; nothing where there are none."""
    lines = "".join(f"- {escaped(note)}\n" for note in notes)
    return f"\n{lines}" if lines else ""


def signed(value: float | Decimal, digits: int = 3) -> str:
    """``+0.012``, ``−0.012`` or ``0.000``."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def latex(table: Table) -> str:
    """The table as LaTeX (``booktabs``), with caption and label."""
    leading, groups = row_names(table), table.layout.groups
    widths = [len(kinds(table, group.keys)) for group in groups]
    top = [""] * len(leading)
    rules = []
    at = len(leading) + 1
    for group, width in zip(groups, widths, strict=True):
        top.append(rf"\multicolumn{{{width}}}{{c}}{{{group.header.translate(_LATEX)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    columns = [kind for group in groups for kind in kinds(table, group.keys)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{table.caption.translate(_LATEX)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{'l' * len(leading)}{'r' * sum(widths)}}}",
        r"\toprule",
        " & ".join(top) + r" \\",
        " ".join(rules),
        " & ".join([name.capitalize() for name in leading] + columns) + r" \\",
    ]
    before = None
    for naming, row in _lines(table):
        category = row["category"]
        if before is None or AVERAGE in (before, category):
            lines.append(r"\midrule")
        cells = naming + [
            _text(group, row, kind) for group in groups for kind in kinds(table, group.keys)
        ]
        lines.append(" & ".join(cell.translate(_LATEX) for cell in cells) + r" \\")
        before = category
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {note.translate(_LATEX)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def kinds(table: Table, keys: Sequence[str]) -> list[str]:
    """What is printed of columns: ours, and the paper's and the difference where any of them is
    compared."""
    compared = any(f"paper_{key}" in table.frame for key in keys)
    return list(_KINDS) if compared else ["ours"]


def row_names(table: Table) -> list[str]:
    """Columns that name a row: the block, the data set where there are several, the category."""
    block = [table.layout.block_name] if table.layout.block_name else []
    several = table.frame["dataset"].nunique() > 1
    return [*block, *(["dataset"] if several else []), "category"]


def _lines(table: Table) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """What names each printed row, and its numbers. A block is named on its first row; one without
    any number is that row alone."""
    name, previous = table.layout.block_name, ""
    empty = _empty(table)
    for row in table.frame.to_dict("records"):
        block = str(row[name]) if name else ""
        first = block != previous or not name
        if first or block not in empty:
            naming = ["" if block in empty else str(row[column]) for column in row_names(table)]
            if name:
                naming[0] = table.layout.block_labels.get(block, block) if first else ""
            yield naming, {"category": row["category"]} if block in empty else row
        previous = block


def _empty(table: Table) -> set[str]:
    """Blocks in which nothing was measured."""
    if not table.layout.block_name:
        return set()
    means = [column for column in table.frame if column.endswith("_mean")]
    blocks = table.frame[table.layout.block_name]
    return set(blocks) - set(blocks[table.frame[means].notna().any(axis=1)])


def _cell(table: Table, group: Group, row: Mapping[str, Any]) -> str:
    """All there is of a group in one cell: ours, the paper's and the difference, where the paper
    has a value."""
    ours, *compared = (_text(group, row, kind) for kind in kinds(table, group.keys))
    return SLASH.join([ours, *(text for text in compared if text != ABSENT)])


def _text(group: Group, row: Mapping[str, Any], kind: str) -> str:
    """One kind of a group's numbers, a dash where none is known."""
    parts = [printed(row, key, kind) for key in group.keys]
    return ABSENT if set(parts) == {ABSENT} else " → ".join(parts)


def value(row: Mapping[str, Any], key: str, kind: str) -> float:
    """One number of a row: "ours" (a mean), "paper" or "difference" (ours − paper); NaN where there
    is none."""
    return row.get(f"{key}_mean" if kind == "ours" else f"{kind}_{key}", math.nan)


def printed(row: Mapping[str, Any], key: str, kind: str) -> str:
    """The same as text, ours with its standard deviation where there is one."""
    number = value(row, key, kind)
    if pd.isna(number):
        return ABSENT
    if kind == "difference":
        return signed(number)
    std = row[f"{key}_std"] if kind == "ours" else math.nan
    return f"{number:.3f}" if pd.isna(std) else f"{number:.3f} ± {std:.3f}"
