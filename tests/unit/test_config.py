"""The configuration: complete presets, one-line errors that name the key, and what digests see."""

import copy
import hashlib
import json
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fader import config
from fader.config import load, parse, use_preset
from fader.errors import FaderError
from fader.files import digest
from fader.seeds import derive_seed

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
CI = yaml.safe_load((ROOT / "presets/ci.yaml").read_text(encoding="utf-8"))
few = examples(max_examples=25, deadline=None)
DROP = object()
# Sections of entries with names of their own: without a name, an entry is not there.
SYSTEMS = ("categories.", "variants.", "masks.maskers.", "datasets.", "detectors.")


def changed(path: str, value) -> dict:
    """The ci preset with ``value`` at a dotted path, or without that key."""
    values = copy.deepcopy(CI)
    *parents, last = path.split(".")
    section = values
    for key in parents:
        section = section[key]
    if value is DROP:
        del section[last]
    else:
        section[last] = value
    return values


def message(values) -> str:
    with pytest.raises(FaderError) as caught:
        parse(values, "some.yaml")
    return str(caught.value)


def leaves(value, path: str = ""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_is_valid_and_says_everything(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    loaded = load(path)
    # Nothing was filled in: what is computed with is what is written.
    assert loaded.model_dump(mode="json") == values


def test_params_yaml_is_the_demo_preset():
    active, demo = ROOT / "params.yaml", ROOT / "presets/demo.yaml"
    if not (active.exists() and demo.exists()):
        pytest.skip("params.yaml or presets/demo.yaml is not there")
    assert active.read_bytes() == demo.read_bytes(), "`fader preset demo` restores params.yaml"


@pytest.mark.parametrize("path", sorted(leaves(CI)))
def test_no_key_has_a_default(path):
    if path.startswith(SYSTEMS):
        parent = path.rpartition(".")[0]
        assert parent in message(changed(path, DROP))
    else:
        assert message(changed(path, DROP)) == f"some.yaml: {path}: Field required"


@pytest.mark.parametrize(
    ("path", "value", "key", "reason"),
    [
        # unknown keys
        ("masks.rules", "mass", "masks.rules", "unknown key"),
        ("epochs", 3, "epochs", "unknown key"),
        ("datasets.synthetic_small.root", ".", "datasets.synthetic_small.root", "unknown key"),
        # wrong types; a number is never read from a string, nor an integer from a float
        ("ear.lr", "1e-3", "ear.lr", "'1e-3'"),
        ("ear.epochs", 3.0, "ear.epochs", "3.0"),
        ("seeds", [True], "seeds.0", "True"),
        ("unet", "wide", "unet", "'wide'"),
        ("unet.widths", [8, "16"], "unet.widths.1", "'16'"),
        ("run", 7, "run", "7"),
        # out of range
        ("ear.epochs", 0, "ear.epochs", "0"),
        ("ear.lr", 0.0, "ear.lr", "0.0"),
        ("ear.lr", float("nan"), "ear.lr", "finite"),
        ("fader.cache_gib", float("inf"), "fader.cache_gib", "finite"),
        ("fader.lrs", [], "fader.lrs", "at least 1"),
        ("fader.schedules", ["cosine"], "fader.schedules.0", "'cosine'"),
        ("validation.fraction", 1.0, "validation.fraction", "1.0"),
        ("loss.l2", -1.0, "loss.l2", "-1.0"),
        ("score.smooth", 4, "score.smooth", "odd"),
        ("run", "../elsewhere", "run", "'../elsewhere'"),
        ("seeds", [0, 0], "seeds", "twice"),
        # cross references
        (
            "categories.other",
            {"dataset": "nowhere", "category": "bolt"},
            "categories.other.dataset",
            "'nowhere'",
        ),
        (
            "categories.other",
            {"dataset": "synthetic_small", "category": "bolt"},
            "categories",
            "twice",
        ),
        (
            "categories.other",
            {"dataset": "synthetic_small", "category": "a/b"},
            "categories.other.category",
            "'a/b'",
        ),
        ("masks.base", "dino", "masks.base", "not among maskers"),
        (
            "masks.maskers.my-masker",
            {"input_size": 28, "batch": 1},
            "masks.maskers.my-masker",
            "match",
        ),
        (
            "datasets.copy",
            {"source": "folder", "layout": "visa", "root": ".", "paper": None, "complete": True},
            "datasets.copy.complete",
            "paper",
        ),
        ("datasets.synthetic_small.source", "web", "datasets.synthetic_small", "'web'"),
        ("image.size", 40, "image.size", "40"),
        ("unet.widths", [8] * 8, "image.size", "divisible by 128"),
        ("ear.scales", [4, 5], "ear.scales", "5 does not divide"),
        ("mosaic.fixed", 5, "mosaic.fixed", "5 does not divide"),
        ("ear.scales", [64], "ear.scales", "one patch"),
        ("loss.scales", 6, "loss.scales", "too many"),
        ("score.scales", 6, "score.scales", "too many"),
        # what a detector asks of the images
        ("detectors.riad.cells", [2, 5], "detectors.riad.cells", "5 does not divide"),
        ("detectors.riad.cells", [64], "detectors.riad.cells", "fewer cells"),
        ("detectors.riad.lr", 2.0, "detectors.riad.lr", "2.0"),
        ("detectors.other", {"kind": "nothing"}, "detectors.other", "'nothing'"),
        ("image.size", 96, "detectors.ganomaly.kind", "image.size 96"),
        ("variants.vit.mask", "none", "variants.vit.predictor", "no use"),
        ("variants.quantile.input", "reconstruction", "variants.quantile.normalise", "not made"),
    ],
)
def test_error_is_one_line_with_file_and_key(path, value, key, reason):
    line = message(changed(path, value))
    assert line.startswith(f"some.yaml: {key}"), line
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize("values", [None, [], "text", {1: 2}])
def test_not_a_configuration_at_all(values):
    assert "\n" not in message(values)


def test_file_errors_are_one_line(tmp_path):
    broken, binary = tmp_path / "broken.yaml", tmp_path / "binary.yaml"
    broken.write_text("run: [unclosed\nimage: {")
    binary.write_bytes(b"\xff\xfe\x00run")
    for path in (broken, binary, tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(FaderError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_committed_schema_is_current():
    committed = (ROOT / "workflow/schemas/params.schema.json").read_text(encoding="utf-8")
    assert committed == config.schema(), (
        "stale schema: run `fader schema > workflow/schemas/params.schema.json`"
    )


def numeric(node: dict) -> bool:
    """A number, or a container of numbers."""
    inner = [node.get("items"), node.get("additionalProperties"), *node.get("anyOf", [])]
    return node.get("type") in ("integer", "number") or any(
        numeric(child) for child in inner if isinstance(child, dict)
    )


def test_every_number_is_described():
    schema = json.loads(config.schema())
    bare = [
        f"{name}.{field}"
        for name, model in {"Config": schema, **schema["$defs"]}.items()
        for field, node in model["properties"].items()
        if numeric(node) and not node.get("description")
    ]
    assert bare == []


def test_every_model_forbids_unknown_keys_and_only_how_a_folder_is_read_may_go_unsaid():
    schema = json.loads(config.schema())
    optional = {}
    for name, model in {"Config": schema, **schema["$defs"]}.items():
        assert model["additionalProperties"] is False
        optional[name] = set(model["properties"]) - set(model["required"])
    assert {name: keys for name, keys in optional.items() if keys} == {"Folder": {"masks", "white"}}


names = st.text(string.ascii_lowercase + "_", min_size=1, max_size=8)


@few
@given(st.lists(st.tuples(st.integers(0, 5), names, names), unique=True, min_size=2, max_size=20))
def test_derived_seeds_are_distinct_and_fit_63_bits(streams):
    seeds = [derive_seed(*stream) for stream in streams]
    assert len(set(seeds)) == len(streams)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seed_is_a_function_of_its_own_names():
    # Eight bytes of a sha256, halved: nothing that another category could change.
    expected = int(hashlib.sha256(b"0/mvtec_ad/bottle/ear").hexdigest()[:16], 16) // 2
    assert derive_seed(0, "mvtec_ad", "bottle", "ear") == expected


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.sampled_from([0.1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@few
@given(st.dictionaries(st.text(max_size=3), plain_values, min_size=1, max_size=4))
def test_digest_is_canonical(value):
    shuffled = dict(reversed(value.items()))
    assert digest(shuffled) == digest(value) == digest(json.loads(json.dumps(value)))
    assert digest(value | {"another key": 1}) != digest(value)
    assert len(digest(value)) == 16


def test_digest_by_hand():
    text = '{"a":[1,0.5],"σ":null}'
    assert digest({"σ": None, "a": [1, 0.5]}) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_variants_path_is_all_of_it_but_its_part_in_the_tables():
    variant = parse(CI, "x").variants["sigmoid"]
    written = CI["variants"]["sigmoid"]
    assert variant.path.model_dump() == {
        key: value for key, value in written.items() if key not in ("role", "grid")
    }


def test_maskers_that_learn_and_the_codebooks():
    loaded = parse(CI, "x")
    assert loaded.trained_maskers() == ["dsr", "msflow", "aminet"]
    assert [name for name in loaded.masks.maskers if loaded.masks.coded(name)] == ["dsr"]


def test_preset_is_copied_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "params.yaml"
    assert use_preset("ci", target, ROOT / "presets") == ROOT / "presets/ci.yaml"
    assert target.read_bytes() == (ROOT / "presets/ci.yaml").read_bytes()
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "bad.yaml").write_text(yaml.safe_dump(changed("ear.epochs", 0)))
    with pytest.raises(FaderError, match=r"bad\.yaml: ear\.epochs"):
        use_preset("bad", target, presets)
    with pytest.raises(FaderError, match=r"no preset 'absent' \(there are: bad\)"):
        use_preset("absent", target, presets)
    assert target.read_bytes() == (ROOT / "presets/ci.yaml").read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["params.yaml"]
