"""A finished table as CSV, Markdown and LaTeX; and the pieces that other pages are printed with.

CSV holds the numbers to six decimals; Markdown and LaTeX print mean ± standard deviation, the
paper's value and the difference to three. The LaTeX needs the package booktabs.
"""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pandas as pd
from tabulate import tabulate

from fader.report.layout import Group, Table
from fader.report.paper import AVERAGE

ABSENT = "–"

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
    """The table as Markdown, with caption and notes."""
    leading = _leading(table)
    headers = [name.capitalize() for name in leading] + [
        group.header if kind == "ours" else f"{group.header}, {kind}"
        for group in table.layout.groups
        for kind in _kinds(table, group)
    ]
    align = "l" * len(leading) + "r" * (len(headers) - len(leading))
    body = pipe([escaped(header) for header in headers], _printed(table), align)
    return f"{escaped(table.caption)}\n\n{body}\n" + bullets(table.notes)


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
    leading, groups = _leading(table), table.layout.groups
    widths = [len(_kinds(table, group)) for group in groups]
    top = [""] * len(leading)
    rules = []
    at = len(leading) + 1
    for group, width in zip(groups, widths, strict=True):
        top.append(rf"\multicolumn{{{width}}}{{c}}{{{group.header.translate(_LATEX)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    kinds = [kind for group in groups for kind in _kinds(table, group)]
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


def _kinds(table: Table, group: Group) -> list[str]:
    """The printed columns of a group."""
    compared = any(f"paper_{key}" in table.frame for key in group.keys)
    return ["ours", "paper", "difference"] if compared else ["ours"]


def _leading(table: Table) -> list[str]:
    """Columns that name a row: the block, the data set where there are several, the category."""
    block = [table.layout.block_name] if table.layout.block_name else []
    several = table.frame["dataset"].nunique() > 1
    return [*block, *(["dataset"] if several else []), "category"]


def _printed(table: Table) -> list[list[str]]:
    """Cells as text, a list per row of the frame; a block is named on its first row."""
    layout, lines, previous = table.layout, [], None
    for row in table.frame.to_dict("records"):
        line = []
        for name in _leading(table):
            text = str(row[name])
            if name == layout.block_name:
                text = layout.block_labels.get(text, text) if text != previous else ""
                previous = row[name]
            line.append(text)
        for group in layout.groups:
            for kind in _kinds(table, group):
                line.append(" → ".join(_part(row, key, kind) for key in group.keys))
        lines.append(line)
    return lines


def _part(row: Mapping[str, Any], key: str, kind: str) -> str:
    """One number of a printed cell: "ours" (mean ± std), "paper" or "difference" (ours − paper)."""
    value = row.get(f"{key}_mean" if kind == "ours" else f"{kind}_{key}", math.nan)
    if pd.isna(value):
        return ABSENT
    if kind == "difference":
        return signed(value)
    std = row[f"{key}_std"] if kind == "ours" else math.nan
    return f"{value:.3f}" if pd.isna(std) else f"{value:.3f} ± {std:.3f}"
