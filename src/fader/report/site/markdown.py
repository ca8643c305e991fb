"""Our own pages of Markdown, read back: the inverse of ``report.render.escaped``, ``pipe`` and
``bullets``. Not a reader of Markdown at large: headings, paragraphs, lists, tables and code."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

_ESCAPED = re.compile(r"\\([^0-9A-Za-z\s])")
_CELLS = re.compile(r"(?<!\\)((?:\\\\)*)\|")
_CODE = re.compile(r"(?<!\\)`([^`]*)`")


@dataclass(frozen=True)
class Span:
    """A piece of text, which may be code."""

    text: str
    code: bool = False


Line = Sequence[Span]


@dataclass(frozen=True)
class Heading:
    """``level`` 1 is that of the page."""

    level: int
    line: Line


@dataclass(frozen=True)
class Paragraph:
    """Lines of text as one."""

    line: Line


@dataclass(frozen=True)
class Bullets:
    """A list, an item a line."""

    lines: Sequence[Line]


@dataclass(frozen=True)
class Grid:
    """A table: ``align`` has ``l`` or ``r`` for every column."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Line]]
    align: str


Block = Heading | Paragraph | Bullets | Grid


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    return [block for lines in _parted(text) for block in _blocks(lines)]


def line(text: str) -> list[Span]:
    """Text and code of a line."""
    parts = _CODE.split(text)
    spans = [Span(plain(part), bool(number % 2)) for number, part in enumerate(parts)]
    return [span for span in spans if span.text]


def plain(text: str) -> str:
    """A text before it was escaped."""
    return _ESCAPED.sub(r"\1", text)


def _parted(text: str) -> Iterator[list[str]]:
    """Lines without an empty one between them."""
    for there, lines in groupby(text.splitlines(), key=lambda each: bool(each.strip())):
        if there:
            yield list(lines)


def _blocks(lines: list[str]) -> Iterator[Block]:
    for kind, group in groupby(lines, key=_kind):
        found = list(group)
        if kind == "heading":
            for each in found:
                marks, _, rest = each.partition(" ")
                yield Heading(len(marks), line(rest))
        elif kind == "bullet":
            yield Bullets([line(each[2:]) for each in found])
        elif kind == "grid":
            yield _grid(found)
        else:
            yield Paragraph(line(" ".join(found)))


def _kind(text: str) -> str:
    if re.match(r"#+ ", text):
        return "heading"
    return {"- ": "bullet", "| ": "grid", "|:": "grid", "|-": "grid"}.get(text[:2], "text")


def _grid(lines: list[str]) -> Grid:
    headers, rules, *rows = map(_cells, lines)
    align = "".join("r" if rule.endswith(":") else "l" for rule in rules)
    return Grid([plain(each) for each in headers], [list(map(line, row)) for row in rows], align)


def _cells(text: str) -> list[str]:
    """Cells of a line of a table, as they were escaped."""
    parts = _CELLS.split(text.strip())
    cells = [text + slashes for text, slashes in zip(parts[::2], [*parts[1::2], ""], strict=True)]
    return [cell.strip() for cell in cells[1:-1]]
