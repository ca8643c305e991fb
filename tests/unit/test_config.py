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
PLACE = {"dataset": "synthetic_small", "category": "bolt"}
OWN = {"source": "folder", "layout": "visa", "root": "x", "paper": None, "complete": False}
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


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_is_valid_and_says_everything(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    loaded = load(path)
    # Nothing was filled in but nulls: what is computed with is what is written.
    assert without_nulls(loaded.model_dump(mode="json")) == without_nulls(values)


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
    elif path.endswith((".steps", ".epochs")):
        parent = path.rpartition(".")[0]
        said = f"some.yaml: {parent}: give steps or epochs, one of the two"
        assert message(changed(path, DROP)) == said
    else:
        assert message(changed(path, DROP)) == (
            f"some.yaml: {path}: missing; the presets show every key"
        )


@pytest.mark.parametrize(
    ("path", "value", "key", "reason"),
    [
        # unknown keys
        ("masks.rules", "mass", "masks.rules", "unknown key; did you mean `rule`?"),
        ("epochs", 3, "epochs", "unknown key (there are: run, categories,"),
        ("datasets.synthetic_small.root", ".", "datasets.synthetic_small.root", "unknown key"),
        ("image.2", 3, "image.2", "unknown key (there are: size)"),
        # wrong types; a number is never read from a string, nor an integer from a float
        ("ear.lr", "1e-3", "ear.lr", "'1e-3' is text; write it without quotes"),
        ("ear.epochs", 3.0, "ear.epochs", "3.0 is no whole number; write 3"),
        ("ear.epochs", "many", "ear.epochs", "got 'many'"),
        (
            "ear",
            None,
            "ear",
            "a section of keys (steps, epochs, batch, lr, schedule, scales), not nothing",
        ),
        ("variants", ["vit"], "variants", "a section of keys (names of your own), not ['vit']"),
        ("detectors.unet", 3, "detectors.unet", "a section of keys"),
        ("seeds", [True], "seeds.0", "true"),
        ("seeds", 0, "seeds", "valid list, got 0"),
        ("unet", "wide", "unet", "'wide'"),
        ("unet.widths", [8, "16"], "unet.widths.1", "'16'"),
        ("run", 7, "run", "7 is no text; put it in quotes"),
        ("run", True, "run", "true is no text; put it in quotes"),
        ("run", None, "run", "got nothing"),
        ("run", "My run", "run", "'My run' is no name: lower-case letters, digits and `_`"),
        ("run", "a" * 999 + "!", "run", "aaa...aaa"),
        ("datasets.copy", OWN | {"complete": "yes"}, "datasets.copy.complete", "'yes' is neither"),
        # out of range
        ("ear.epochs", 0, "ear.epochs", "0"),
        ("ear.lr", 0.0, "ear.lr", "0.0"),
        ("ear.lr", float("nan"), "ear.lr", "finite"),
        ("fader.cache_gib", float("inf"), "fader.cache_gib", "finite"),
        ("fader.lrs", [], "fader.lrs", "at least 1"),
        ("fader.schedules", ["cosine"], "fader.schedules.0", "'cosine'"),
        ("validation.most", 1.0, "validation.most", "1.0"),
        ("loss.l2", -1.0, "loss.l2", "-1.0"),
        ("score.smooth", 4, "score.smooth: ", "must be odd, got 4"),
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
            {"dataset": "synthetic_smal", "category": "bolt"},
            "categories.other.dataset",
            "did you mean `synthetic_small`?",
        ),
        ("categories.tables", PLACE | {"category": "nut"}, "categories.tables", "rename it"),
        ("categories.Bolts", PLACE, "categories.Bolts", "'Bolts' is no name: lower-case"),
        ("categories.a b", PLACE, "categories.a b", "'a b' is no name: lower-case"),
        ("masks.base", "dino", "masks.base", "not among maskers"),
        ("masks.base", "dino", "masks.base", "did you mean `dinov2`?"),
        ("masks.optional", ["winclp"], "masks.optional.0", "did you mean `winclip`?"),
        (
            "masks.maskers.my-masker",
            CI["masks"]["maskers"]["vit"],
            "masks.maskers.my-masker",
            "`_`",
        ),
        ("datasets.copy", OWN | {"complete": True}, "datasets.copy.complete", "paper"),
        ("datasets.copy", OWN | {"root": ""}, "datasets.copy.root", "at least 1 character"),
        ("weights_dir", "", "weights_dir", "at least 1 character"),
        ("datasets.synthetic_small.source", "web", "datasets.synthetic_small.source", "'web'"),
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
        ("detectors.other", {"kind": "nothing"}, "detectors.other.kind", "'nothing'"),
        (
            "detectors.other",
            {},
            "detectors.other.kind",
            "missing; one of daad, draem, ganomaly, jnld, memae, mscam, omnial, patchcore, pca,",
        ),
        ("image.size", 96, "detectors.ganomaly.kind", "image.size 96"),
        ("detectors.scadn.bands", [2, 3], "detectors.scadn.bands", "3 hidden"),
        ("detectors.mscam.reduction", 9, "detectors.mscam.reduction", "at most width"),
        ("detectors.mscam.erased", [0.4, 0.2], "detectors.mscam.erased", "above the largest"),
        ("validation.kinds", ["perlin"], "validation.kinds", "detectors.draem trains on perlin"),
        ("detectors.draem.textures.root", "x", "detectors.draem.textures.root", "unknown"),
        (
            "detectors.draem.textures",
            {"source": "folder", "root": "results/x", "count": 5},
            "detectors.draem.textures.root",
            "is inside results/",
        ),
        ("detectors.draem.textures.source", "web", "detectors.draem.textures.source", "'web'"),
        ("detectors.jnld.smooth", 4, "detectors.jnld.smooth: ", "must be odd"),
        ("detectors.jnld.levels", [1.0], "detectors.jnld.levels.0", "1.0"),
        ("detectors.omnial.smooths", [3, 4, 5], "detectors.omnial.smooths.1: ", "must be odd"),
        ("detectors.omnial.smooths", [3, 5], "detectors.omnial.smooths", "one per level"),
        ("detectors.omnial.reduction", 99, "detectors.omnial.reduction", "at most width"),
        ("variants.vit.mask", "none", "variants.vit.predictor", "no use"),
        ("variants.quantile.input", "reconstruction", "variants.quantile.normalise", "not made"),
    ],
)
def test_error_is_one_line_with_file_and_key(path, value, key, reason):
    line = message(changed(path, value))
    assert line.startswith(f"some.yaml: {key}"), line
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("section", "meant", "written", "known"),
    [
        ("", "ear", "Ear", True),
        ("", "categories", "category", True),
        ("ear", "steps", "step", True),
        ("ear", "schedule", "shedule", True),
        ("ear", "lr", "learning_rate", False),
        ("fader.vit", "heads", "head", True),
        ("masks.maskers.dsr", "kind", "knd", True),
        ("masks.maskers.dsr", "steps", "stepz", True),
        ("detectors.unet", "kind", "Kind", True),
        ("datasets.synthetic_small", "source", "soruce", True),
        ("categories.synthetic_small-bolt", "dataset", "data_set", True),
        ("variants.hard", "scaling", "scalling", True),
        ("ear", "batch", "r\nun", False),
        ("ear", "steps", "\u00a0steps", True),
    ],
)
def test_a_misspelt_key_is_what_the_line_is_about(section, meant, written, known):
    values = copy.deepcopy(CI)
    parent = values
    for key in filter(None, section.split(".")):
        parent = parent[key]
    parent[written] = parent.pop(meant)
    line, where = message(values), f"{section}." * bool(section)
    printed = written if written.isprintable() else ascii(written)[1:-1]
    assert line.startswith(f"some.yaml: {where}{printed}: unknown key"), line
    # The key that is missing for it is no mistake of its own.
    assert line.endswith(f"; did you mean `{meant}`?" if known else "(and 1 more)"), line


@pytest.mark.parametrize(
    ("path", "value", "meant"),
    [
        ("runtime.precision", "bf-16", "bf16"),
        ("ear.schedule", "OneCycle", "onecycle"),
        ("fader.schedules", ["warm-up"], "warmup"),
        ("masks.maskers.dsr.kind", "drs", "dsr"),
        ("detectors.unet.kind", "u-net", "unet"),
        ("variants.hard.mask", "hart", "hard"),
        ("datasets.synthetic_small.source", "Synthetic", "synthetic"),
        ("datasets.synthetic_small.layout", "mvtech", "mvtec"),
        ("datasets.copy", OWN | {"paper": "mvtec"}, "mvtec_ad"),
        ("datasets.copy", OWN | {"masks": "abcent"}, "absent"),
    ],
)
def test_a_misspelt_value_names_the_near_one(path, value, meant):
    line = message(changed(path, value))
    assert line.startswith(f"some.yaml: {path}"), line
    assert line.endswith(f"; did you mean `{meant}`?"), line


@pytest.mark.parametrize(
    ("values", "kind"), [(None, "empty"), ([], "a list"), ("text", "a single"), (1, "a single")]
)
def test_not_a_configuration_at_all(values, kind):
    assert message(values).startswith(f"some.yaml: {kind}")
    assert message(values).endswith("no configuration; `fader preset demo` writes one")
    assert "unknown key" in message({1: 2})


# Names and folders of the user's own.


@pytest.mark.parametrize(
    "name",
    [
        "Bottle",
        "screws M4",
        "größe",
        "螺丝",
        "{x}",
        "a&b|c%d#e",
        "$HOME",
        "~",
        "-",
        "...",
        " ",
        "on",
    ],
)
def test_a_category_may_be_called_as_its_folder_is(name):
    loaded = parse(changed("categories.other", PLACE | {"category": name}), "x")
    assert loaded.categories["other"].category == name
    words = changed("masks.maskers.winclip.names", {name: "screw"})
    assert parse(words, "x").masks.maskers["winclip"].names == {name: "screw"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "is no name of a folder") for name in ("", ".", "..", "a/b", "/", "../x", "a/")),
        *((name, "cannot be printed; rename the folder") for name in ("a\nb", "a\0", "\udce9")),
        ("average", "is a row of every table; rename the folder"),
        (2024, "2024 is no text; put it in quotes"),
    ],
)
def test_what_cannot_be_a_category(name, reason):
    line = message(changed("categories.other", PLACE | {"category": name}))
    assert line.startswith("some.yaml: categories.other.category: "), line
    assert reason in line
    assert "\n" not in line


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project's folder as the working directory, with links in and out of its results."""
    folder = tmp_path / "disk/project"
    for inner in ("results/x", "data/raw/mine", "data/made/set/bolt"):
        (folder / inner).mkdir(parents=True)
    (tmp_path / "disk/images").mkdir()
    (folder / "in").symlink_to("results")
    (folder / "results/out").symlink_to(tmp_path / "disk/images")
    (folder / "out").symlink_to(tmp_path / "disk/images")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "disk"))
    return folder


def rooted(root: str, category: str = "bolt"):
    values = changed("datasets.mine", OWN | {"root": root})
    values["categories"]["other"] = {"dataset": "mine", "category": category}
    return values


@pytest.mark.parametrize(
    "root",
    [
        *("data/raw/mine", "data", "data/raw", "../images", "out", "~/images", "/nowhere", "mine"),
        *("results2", "data/made_by_me", ".github", "tests/data", "data/./raw", "worker"),
    ],
)
def test_images_may_lie_anywhere_else(project, root):
    parse(rooted(root), "x")


@pytest.mark.parametrize(
    "root",
    [
        *("results", "results/own", "./results/", "data/made", "data/made/set", "data/archives"),
        *("logs", "workflow/x", "src", ".snakemake", ".dvc/cache", ".git", "work", ".venv/lib"),
        *("data/../results/x", "in", "in/x", "results/out", "~/project/results", "out/../results"),
    ],
)
def test_images_do_not_lie_where_the_project_writes(project, root):
    line = message(rooted(root))
    assert line.startswith("some.yaml: datasets.mine.root: "), line
    assert "the project's own; keep images elsewhere" in line
    assert message(rooted(str(project / root))) if root[0] != "~" else True


@pytest.mark.parametrize("root", [".", "..", "../..", "/", "~", "data/.."])
def test_nor_do_they_lie_around_it(project, root):
    line = message(rooted(root))
    assert line.startswith("some.yaml: datasets.mine.root: "), line
    assert "holds results/, the project's own" in line


def test_a_category_does_not_lie_there_either(project):
    (project / "data/raw/mine/link").symlink_to(project / "results/x")
    for root, category in (("data", "made"), ("data/raw/mine", "link")):
        line = message(rooted(root, category))
        assert line.startswith("some.yaml: categories.other.category: "), line
        assert "the project's own" in line


def test_results_on_another_disk_are_the_projects_own(project, tmp_path):
    elsewhere = tmp_path / "big/results"
    elsewhere.mkdir(parents=True)
    (project / "results").rename(tmp_path / "former")
    (project / "results").symlink_to(elsewhere)
    assert "inside results/" in message(rooted(str(elsewhere / "x")))
    assert "holds results/" in message(rooted(str(tmp_path / "big")))
    parse(rooted(str(tmp_path / "former")), "x")


def test_a_tilde_is_the_users_home(project, tmp_path):
    loaded = parse(rooted("~/images") | {"weights_dir": "~/weights"}, "x")
    assert loaded.datasets["mine"].root == str(tmp_path / "disk/images")
    assert loaded.weights_dir == str(tmp_path / "disk/weights")
    # Relative paths stay as they are: they start at the repository's root.
    assert parse(rooted("../images"), "x").datasets["mine"].root == "../images"


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


def test_every_model_forbids_unknown_keys_and_few_keys_may_go_unsaid():
    schema = json.loads(config.schema())
    optional = {}
    for name, model in {"Config": schema, **schema["$defs"]}.items():
        assert model["additionalProperties"] is False
        optional[name] = set(model["properties"]) - set(model["required"])
    length = (
        "Ear",
        "Fader",
        "Codebook",
        "PlainUNet",
        "Riad",
        "Ganomaly",
        "MemAe",
        "Daad",
        "Draem",
        "Jnld",
        "OmniAl",
        "Scadn",
        "Mscam",
        "Dsr",
        "MsFlow",
        "AmiNet",
    )
    maskers = ("Attention", "WinClip", "Dsr", "MsFlow", "AmiNet", "Again")
    expected = {"Folder": {"masks", "white"}, "Attention": {"block"}}
    for names, keys in ((length, {"steps", "epochs"}), (maskers, {"rule", "level"})):
        for name in names:
            expected[name] = expected.get(name, set()) | keys
    assert {name: keys for name, keys in optional.items() if keys} == expected


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
    assert use_preset("ci", target, ROOT / "presets") == (ROOT / "presets/ci.yaml", None)
    assert target.read_bytes() == (ROOT / "presets/ci.yaml").read_bytes()
    presets = tmp_path / "presets"
    presets.mkdir()
    (presets / "bad.yaml").write_text(yaml.safe_dump(changed("ear.epochs", 0)))
    with pytest.raises(FaderError, match=r"bad\.yaml: ear\.epochs"):
        use_preset("bad", target, presets)
    with pytest.raises(FaderError, match=r"no preset 'absent' \(there are: bad\)$"):
        use_preset("absent", target, presets)
    with pytest.raises(FaderError, match=r"\(there are: bad\); did you mean `bad`\?$"):
        use_preset("Bat", target, presets)
    assert target.read_bytes() == (ROOT / "presets/ci.yaml").read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["params.yaml"]


def test_a_former_configuration_is_kept_unless_a_preset_has_it(tmp_path):
    presets, target = tmp_path / "presets", tmp_path / "params.yaml"
    presets.mkdir()
    for name in ("ci", "demo"):
        (presets / f"{name}.yaml").write_bytes((ROOT / f"presets/{name}.yaml").read_bytes())

    def use(name: str) -> str | None:
        kept = use_preset(name, target, presets)[1]
        assert target.read_bytes() == (presets / f"{name}.yaml").read_bytes()
        return kept and kept.name

    assert [use("ci"), use("ci"), use("demo")] == [None, None, None]
    edits = [b"# mine\n", b"\xff not even text", b"# mine\n", b"# another\n"]
    kept = []
    for edit in edits:
        target.write_bytes(edit)
        kept.append(use("ci"))
    assert kept == ["params.yaml.old", "params.yaml.old2", "params.yaml.old", "params.yaml.old3"]
    assert [(tmp_path / name).read_bytes() for name in kept] == edits


def test_a_preset_is_not_lost_under_another(tmp_path):
    presets = tmp_path / "presets"
    presets.mkdir()
    for name in ("ci", "demo"):
        (presets / f"{name}.yaml").write_bytes((ROOT / f"presets/{name}.yaml").read_bytes())
    assert use_preset("ci", presets / "demo.yaml", presets)[1] == presets / "demo.yaml.old"
    with pytest.raises(FaderError, match=r"presets: a folder, no file"):
        use_preset("ci", presets, presets)
