"""What pydantic finds wrong with a configuration, as one line: the key, why, and what to do."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fader.errors import near, nearest

Schema = Mapping[str, Any]

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80
_PATTERNS = {  # of fader.config.base
    "_-": "lower-case letters, digits and `_`, in parts joined by `-`, a letter or digit first",
    "_": "lower-case letters, digits and `_`, a letter or digit first",
}


class _Problem(NamedTuple):
    """A key, what is wrong with it, and whether it is none that there is."""

    keys: list[str]
    reason: str
    unknown: bool = False


def sentence(error: ValidationError, schema: Schema) -> str:
    """The first problem with its dotted key, and how many more there are.

    An unknown key comes before all others: where it is misspelt, the key that was meant is missing.

    Parameters
    ----------
    error : of a model.
    schema : the model's JSON schema, which knows what keys there are.
    """
    problems = [_problem(each, schema) for each in error.errors(include_url=False)]
    first = next((each for each in problems if each.unknown), problems[0])
    meant = re.findall(r"did you mean `(.*)`", first.reason) if first.unknown else []
    caused = [*first.keys[:-1], *meant]
    others = [each for each in problems if each is not first and each.keys != caused]
    more = f" (and {len(others)} more)" if others else ""
    return f"{'.'.join(first.keys)}: {first.reason}{more}"


def _problem(details: ErrorDetails, schema: Schema) -> _Problem:
    kind, value, about = details["type"], details["input"], details.get("ctx", {})
    keys, section, node = _located(details["loc"], schema)
    if kind == "value_error":  # of a validator: a section's opens with the key, where it is of one
        said = details["msg"].removeprefix("Value error, ")
        key, colon, reason = said.partition(": ")
        return _Problem([*keys, key], reason) if colon else _Problem(keys, said)
    if kind in ("extra_forbidden", "invalid_key"):
        return _Problem(keys, _unknown(keys[-1], section.get("properties", ())), unknown=True)
    if kind.startswith("union_tag"):
        tag, options = about["discriminator"].strip("'"), list(node["discriminator"]["mapping"])
        if tag in value:
            return _Problem([*keys, tag], _no_option(value[tag], options))
        if misspelt := nearest(tag, map(str, value)):
            return _Problem([*keys, misspelt], _unknown(misspelt, [tag]), unknown=True)
        return _Problem([*keys, tag], f"missing; one of {', '.join(options)}")
    if kind == "literal_error":
        return _Problem(keys, _no_option(value, re.findall(r"'([^']*)'", about["expected"])))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        inner = ", ".join(node.get("properties", ())) or "names of your own"
        return _Problem(keys, f"a section of keys ({inner}), not {_shown(value)}")
    return _Problem(keys, _reason(kind, value, about, details["msg"]))


def _unknown(key: str, known: Sequence[str]) -> str:
    return "unknown key" + (near(key, known) or f" (there are: {', '.join(known)})")


def _no_option(value: object, options: Sequence[str]) -> str:
    return f"{_shown(value)} is none of {', '.join(options)}{near(value, options)}"


def _reason(kind: str, value: object, about: Mapping[str, Any], message: str) -> str:
    """What is wrong with a value, whatever its key."""
    shown = _shown(value)
    if kind == "missing":
        return "missing; the presets show every key"
    if kind == "string_pattern_mismatch":
        return f"{shown} is no name: {_PATTERNS['_-' if '-[' in about['pattern'] else '_']}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"{shown} is no text; put it in quotes if it is meant as a name"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return f"{shown} is text; write it without quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"{shown} is no whole number; write {int(value)}"
    if kind == "bool_type":
        return f"{shown} is neither true nor false"
    return f"{message}, got {shown}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    """A value as it is written in YAML, abridged where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return _SHORT.repr(value)


def _located(loc: Sequence[str | int], schema: Schema) -> tuple[list[str], Schema, Schema]:
    """The keys of the file at a place, and the schema of what holds it and of what it is."""
    keys: list[str] = []
    section, node = schema, schema
    for part in loc:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if part in mapping:  # the tag of a union, no key of the file
            node = _resolved({"$ref": mapping[part]}, schema)
        elif part != "[key]":  # the key itself is at fault, not its value
            keys.append(str(part) if str(part).isprintable() else ascii(part)[1:-1])
            section, node = node, _resolved(_child(node, part), schema)
    return keys, section, node


def _child(node: Schema, part: str | int) -> Schema:
    inner = node.get("properties", {}).get(part) or node.get("items")
    return inner or next(iter(node.get("patternProperties", {}).values()), {})


def _resolved(node: Schema, schema: Schema) -> Schema:
    """A schema without references, and without the null of what may be null."""
    node = next((each for each in node.get("anyOf", ()) if each.get("type") != "null"), node)
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node
