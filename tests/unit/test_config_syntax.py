"""What is read of a configuration file, and the one line about what cannot be read."""

import math
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from fader.config import load
from fader.config.syntax import plain
from fader.errors import FaderError

ROOT = Path(__file__).parents[2]
CI = (ROOT / "presets/ci.yaml").read_text(encoding="utf-8")


def value(text: str):
    return plain(f"key: {text}".encode())["key"]


def refusal(data: str | bytes) -> str:
    with pytest.raises(FaderError) as caught:
        plain(data if isinstance(data, bytes) else data.encode())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "presets").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_means_the_same_to_every_reader(path):
    data = path.read_bytes()
    assert plain(data) == yaml.safe_load(data) == YAML(typ="safe").load(data)


NUMBERS = {
    **{"1e-3": 1e-3, "1E-3": 1e-3, "1e3": 1e3, "1E+3": 1e3, "1.5e3": 1.5e3, "-1e-3": -1e-3},
    **{".5e-2": 5e-3, "+.5": 0.5, "1.": 1.0, "1.e3": 1e3, "0.001": 1e-3, "00.5": 0.5},
    **{"0": 0, "12": 12, "-3": -3, "+3": 3, "0x1F": 31, "0o17": 15},
    **{".inf": math.inf, "-.INF": -math.inf, "1e999": math.inf},
}
TEXTS = ["1e", "e3", "1-3", "1.2.3", ".", "+", "y", "n", "nil", "tRUE", "Yes!", "0x"]
OTHERS = {"true": True, "False": False, "NULL": None, "~": None, "": None, "'1e-3'": "1e-3"}
OTHERS |= {"!!str 2024": "2024", "!!str on": "on", "'on'": "on", '"2024-01-01"': "2024-01-01"}


@pytest.mark.parametrize(("text", "expected"), (NUMBERS | OTHERS).items())
def test_values_are_those_of_yaml_1_2(text, expected):
    assert value(text) == expected
    assert type(value(text)) is type(expected)
    # DVC reads the same.
    assert YAML(typ="safe").load(f"key: {text}")["key"] == expected


@pytest.mark.parametrize("text", TEXTS)
def test_what_only_looks_like_a_value_is_text(text):
    assert value(text) == text


@pytest.mark.parametrize("text", [".nan", ".NaN"])
def test_no_number_is_read_as_such(text):
    assert math.isnan(value(text))


AMBIGUOUS = {
    ", or write true or false": ["on", "off", "yes", "no", "On", "OFF", "Yes", "NO"],
    ", or write a plain decimal number": ["1_000", "010", "-010", "08", "0b11", "1:30", "1_0.5"],
    "": ["2024-01-01", "2001-12-14 21:59:43", "="],
}


@pytest.mark.parametrize(
    ("text", "remedy"), [(text, remedy) for remedy, texts in AMBIGUOUS.items() for text in texts]
)
def test_what_the_versions_of_yaml_disagree_on_is_refused(text, remedy):
    expected = f"line 2: `{text}` is ambiguous in YAML; quote it{remedy}"
    assert refusal(f"a: 1\nkey: {text}\n") == expected
    assert refusal(f"a: 1\nkey: [1, {text}]\n") == expected
    assert value(f"'{text}'") == value(f'"{text}"') == text


def test_a_key_is_refused_likewise():
    assert "`on` is ambiguous" in refusal("on: 1\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "`a` is given twice, in lines 1 and 3; keep one"),
        ("a: 1\n'a': 1\n", "`a` is given twice, in lines 1 and 2; keep one"),
        ("x:\n  a: 1\n  b: 1\n  a: 1\n", "`a` is given twice, in lines 2 and 4; keep one"),
        ("x: {a: 1, b: 2, a: 3}\n", "`a` is given twice, in line 1; keep one"),
        ("x: {a: 1,\n  a: 3}\n", "`a` is given twice, in lines 1 and 2; keep one"),
        ("x: [{y: {a: 1}}, {a: 1, a: 2}]\n", "`a` is given twice, in line 1; keep one"),
        ("a:\n  b: 1\n\nb: 1\na:\n  c: 2\n", "`a` is given twice, in lines 1 and 5; keep one"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  a: 1\n  a: 2\n", "`a` is given twice, in lines 4 and 5;"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x\n", "`<<` is given twice, in lines 3 and 4;"),
        ("a: 1\r\nb: 2\r\na: 3\r\n", "`a` is given twice, in lines 1 and 3; keep one"),
        ('"a\\n": 1\n"a\\n": 1\n', "`a\\n` is given twice, in lines 1 and 2; keep one"),
    ],
)
def test_a_key_given_twice_is_named_with_both_lines(text, line):
    assert refusal(text).startswith(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n", {"a": 1, "b": 3}),
        ("x: &x {a: 1, b: 2}\ny: {b: 3, <<: *x}\n", {"b": 3, "a": 1}),
        ("x: &x {a: 1}\nz: &z {a: 2, c: 3}\ny: {<<: [*x, *z]}\n", {"a": 1, "c": 3}),
        ("x: &x {a: 1}\nw: &w {<<: *x, b: 2}\ny: {<<: *w, a: 3}\n", {"a": 3, "b": 2}),
        ("x: &x [1]\ny: *x\n", [1]),
    ],
)
def test_anchors_and_merges_work(text, expected):
    assert plain(text.encode())["y"] == expected


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("a:\n\tb: 3\n", "line 2: a tab; use spaces"),
        ("a:\n  b: 1\n\tc: 3\n", "line 3: a tab; use spaces"),
        ("a:\tb\n", "line 1: a tab; use spaces"),
        ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> x\n", "line 2: a merge conflict; keep"),
        ("a: 1\nb: 1\n=======\nb: 2\n", "line 3: a merge conflict; keep"),
        ("a: 1\r\n>>>>>>> x\r\n", "line 2: a merge conflict; keep"),
        ("a: 1\n---\nb: 1\n", "line 2: a second document; keep one and delete its `---`"),
        ("---\na: 1\n---\n", "line 3: a second document; keep one and delete its `---`"),
        (b"a: 1\n# gr\xfc\xdfe\n", "line 2: byte 0xfc is not UTF-8; save the file as UTF-8"),
        (b"\x1f\x8b\x08", "line 1: byte 0x8b is not UTF-8; save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("a: 1\n".encode("utf-16-le"), "no text, or not in UTF-8; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "no text, or not in UTF-8; save it as UTF-8"),
        ("a: 1\nb: \a\n", "line 2: control character 0x7; delete it"),
        ("a: [1, 2\n", "line 2: expected ',' or ']', but got '<stream end>' (while parsing a flow"),
        (
            "a: 'b\n",
            "line 2: found unexpected end of stream (while scanning a quoted scalar of line",
        ),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: *b\n", "line 1: found undefined alias 'b'"),
        ("a: @b\n", "line 1: found character '@' that cannot start any token"),
        ("a: !b c\n", "line 1: could not determine a constructor for the tag '!b'"),
        ("a: !!python/name:os.system\n", "line 1: could not determine a constructor for the tag"),
        ("a: !!int b\n", "line 1: b is no value"),
        ("a: " + "9" * 5000, "line 1: 99999999999999999999 is no value"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("? [a]\n: b\n", "line 1: found unhashable key"),
    ],
)
def test_what_is_no_yaml_is_said_with_its_line(data, line):
    assert refusal(data).startswith(line)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + CI.encode(),
        CI.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + CI.replace("\n", "\r\n").encode(),
        f"%YAML 1.2\n---\n{CI}...\n".encode(),
        (CI + "\n\n# größe 螺丝\n").encode(),
        (CI + "# <<<<<<< no conflict\n#=======\n").encode(),
    ],
    ids=["mark", "crlf", "both", "directive", "unicode", "comment"],
)
def test_every_editor_saves_a_file_that_can_be_read(data):
    assert plain(data) == plain(CI.encode())


def test_only_comments_are_nothing():
    assert plain(b"") is plain(b"# a\n# b\n") is plain(b"---\n") is None


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    loop, absent = tmp_path / "loop.yaml", tmp_path / "absent.yaml"
    loop.symlink_to(loop)
    empty, latin = tmp_path / "empty.yaml", tmp_path / "latin.yaml"
    empty.write_text("# nothing\n")
    latin.write_bytes(b"# gr\xfc\xdfe\n")
    for path, reason in (
        (absent, "no such file; `fader preset demo` writes one in the repository's root"),
        (tmp_path, "a folder, no file; remove or rename it"),
        (loop, "cannot be read (Too many levels of symbolic links)"),
        (empty / "below.yaml", "cannot be read (Not a directory)"),
        (empty, "empty, no configuration; `fader preset demo` writes one"),
        (latin, "line 1: byte 0xfc is not UTF-8; save the file as UTF-8"),
    ):
        with pytest.raises(FaderError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {reason}"


def test_exponents_are_numbers_of_a_configuration(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(CI.replace("lr: 0.001", "lr: 1e-3").replace("margin: 1.0", "margin: 1e3"))
    loaded = load(path)
    assert loaded.ear.lr == 1e-3
    assert loaded.fader.margin == 1000.0
