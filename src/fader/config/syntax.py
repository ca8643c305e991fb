"""YAML as a configuration is written in: one document, every key once, values as YAML 1.2 has them.

PyYAML speaks YAML 1.1: it takes ``1e-3`` for text, ``on`` for true and ``010`` for eight, and of a
key that is given twice the last. DVC, which reads the same file, does not. Here the core schema of
YAML 1.2 (section 10.3.2) holds, and what the two versions read as different values is refused.
"""

import codecs
import re
from collections.abc import Callable
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from fader.errors import FaderError

_TAG = "tag:yaml.org,2002:"
_CONFLICT = re.compile(r"^(?:[<>|]{7} .*|={7})\r?$", re.MULTILINE)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_REMEDIES = {
    "bool": ", or write true or false",
    "int": ", or write a plain decimal number",
    "float": ", or write a plain decimal number",
}


def _integer(text: str) -> int:
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _real(text: str) -> float:
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


# Type → how its values are written without quotes, and what they are.
_CORE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "null": (r"null|Null|NULL|~|", lambda text: None),
    "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _integer),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _real,
    ),
    "merge": (r"<<", str),  # no part of 1.2, but of every reader of it
}


def plain(data: bytes) -> Any:
    """The value that a file holds; None for an empty one.

    Raises
    ------
    FaderError : what is wrong and in which line, without the file's name: no text in UTF-8, no
        YAML, a merge conflict, a second document, a key given twice, or a value that YAML 1.1 and
        1.2 take for different ones.
    """
    text = _decoded(data)
    if conflict := _CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        raise FaderError(f"line {line}: a merge conflict; keep one side and delete the markers")
    try:
        loader = _Loader(text)
        node = loader.get_node() if loader.check_node() else None
        if loader.check_node():
            line = loader.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise FaderError(f"line {line}: a second document; keep one and delete its `---`")
        return None if node is None else loader.construct_document(node)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = f"{error.character:#x}"
        raise FaderError(f"line {line}: control character {code}; delete it") from None
    except yaml.MarkedYAMLError as error:
        raise FaderError(_sentence(error, text)) from None
    except RecursionError:
        raise FaderError("nested too deeply to be a configuration") from None


def _decoded(data: bytes) -> str:
    """Text in UTF-8, with or without a byte order mark."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FaderError("UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise FaderError("no text, or not in UTF-8; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FaderError(
            f"line {line}: byte {data[error.start]:#x} is not UTF-8; save the file as UTF-8"
        ) from None


def _sentence(error: yaml.MarkedYAMLError, text: str) -> str:
    """What PyYAML says: where, what, and in the course of what."""
    problem = " ".join((error.problem or error.context or "no YAML").split())
    if error.problem_mark is None:
        return problem
    where, lines = error.problem_mark.line, text.splitlines()
    indentation = re.match(r"\s*", lines[where]) if where < len(lines) else None
    if "'\\t'" in problem or (indentation and "\t" in indentation[0]):
        return f"line {where + 1}: a tab; use spaces"
    if not error.problem or not error.context or error.context_mark is None:
        return f"line {where + 1}: {problem}"
    return f"line {where + 1}: {problem} ({error.context} of line {error.context_mark.line + 1})"


def _before(value: str) -> str:
    """Tag of a scalar without quotes in YAML 1.1."""
    for tag, form in yaml.SafeLoader.yaml_implicit_resolvers.get(value[:1], ()):
        if form.match(value):
            return str(tag)
    return _TAG + "str"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the types of the core schema alone."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        bare = self.peek_event().implicit[0]  # type: ignore[no-untyped-call]
        node = super().compose_scalar_node(anchor)
        if not bare:
            return node
        before = _before(node.value)
        if before in (node.tag, _TAG + "str") and not _LEADING_ZERO.fullmatch(node.value):
            return node
        tag = node.tag if before == _TAG + "str" else before
        remedy = _REMEDIES.get(tag.removeprefix(_TAG), "")
        raise ConstructorError(
            problem=f"`{node.value}` is ambiguous in YAML; quote it{remedy}",
            problem_mark=node.start_mark,
        )

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, repr(key.value)), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines:
                first = lines[name]
                where = f"lines {first} and {line}" if first < line else f"line {line}"
                raise FaderError(f"`{name[1][1:-1]}` is given twice, in {where}; keep one")
            lines[name] = line
        return node

    def construct_core(self, node: yaml.ScalarNode) -> Any:
        """Value of a scalar of the core schema."""
        form, value = _CORE[node.tag.removeprefix(_TAG)]
        text = self.construct_scalar(node)
        try:
            if re.fullmatch(form, text):
                return value(text)
        except ValueError:  # more digits than Python reads
            pass
        raise ConstructorError(problem=f"{text:.20} is no value", problem_mark=node.start_mark)

    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        **dict.fromkeys((_TAG + name for name in _CORE), construct_core),
        _TAG + "str": yaml.SafeLoader.construct_yaml_str,
        _TAG + "seq": yaml.SafeLoader.construct_yaml_seq,
        _TAG + "map": yaml.SafeLoader.construct_yaml_map,
        None: yaml.SafeLoader.construct_undefined,
    }


_Loader.yaml_implicit_resolvers = {
    None: [(_TAG + name, re.compile(f"(?:{form})$")) for name, (form, _) in _CORE.items()]
}
