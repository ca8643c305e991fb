"""Code as a dependency: what a digest is over, and which edits rerun which jobs."""

import ast
import copy
import hashlib
import inspect
import json
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import PRESET

import fader
from fader import steps
from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import artifacts, code, external, phases, syntax
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job
from fader.seeds import derive_seed

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(fader.__file__).parent

# ---- what a definition leads to, on small packages ----


def write(root: Path, **sources: str) -> Path:
    """A package ``fader`` of these modules; ``a__b`` is module ``a.b``."""
    for name, source in ({"__init__": ""} | sources).items():
        path = root / "fader" / f"{name.replace('__dot__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def test_names_are_followed_to_the_definitions_they_stand_for(tmp_path):
    write(
        tmp_path,
        entry="""
import fader.far.away
import fader.alias as short
from fader import module
from fader.direct import function as renamed
from fader.package import exported

def step():
    from fader import late
    return (renamed(), module.inner(), exported(), late.f(), short.g(), fader.far.away.h(), here())

def here(): ...
def unused(): module.other()
""",
        direct="def function(): return helper() + ONE\ndef helper(): ...\nONE = 1\nNOT = 2",
        module="def inner(): ...\ndef other(): ...",
        package__dot____init__="from fader.package.part import original as exported",
        package__dot__part="def original(): ...",
        late="def f(): ...",
        alias="def g(): ...",
        far__dot____init__="",
        far__dot__away="def h(): ...",
    )
    assert code.reached(["fader.entry:step"], root=tmp_path) == [
        "fader.alias:g",
        "fader.direct:ONE",
        "fader.direct:function",
        "fader.direct:helper",
        "fader.entry:here",
        "fader.entry:step",
        "fader.far.away:h",
        "fader.late:f",
        "fader.module:inner",
        "fader.package.part:original",
    ]


def test_a_class_counts_with_all_methods_bases_decorators_and_defaults(tmp_path):
    write(
        tmp_path,
        m="""
@decorator
class Child(Parent):
    field: Type = default
    def method(self, x: Type = other) -> Type: return helper(x)
def decorator(c): return c
class Parent: ...
class Type: ...
default, other = 1, 2
def helper(x): ...
""",
    )
    expected = ["Child", "Parent", "decorator", "default", "helper", "other"]
    assert code.reached(["fader.m:Child"], root=tmp_path) == [f"fader.m:{n}" for n in expected]


def test_local_names_do_not_stand_for_those_of_the_module(tmp_path):
    write(
        tmp_path,
        m="""
def step(images, *rest, masks=None):
    for index in images:
        scores = [row for row in rest]
    return lambda part: (images, masks, index, scores, part)
def images(): ...
def rest(): ...
def masks(): ...
def index(): ...
def scores(): ...
def row(): ...
def part(): ...
""",
    )
    assert code.reached(["fader.m:step"], root=tmp_path) == ["fader.m:step"]


def test_a_name_that_a_comprehension_binds_is_the_modules_outside_of_it(tmp_path):
    write(tmp_path, m="def step(x): return [row for row in x], row\ndef row(): ...")
    assert code.reached(["fader.m:step"], root=tmp_path) == ["fader.m:row", "fader.m:step"]


def test_what_importing_a_module_executes_counts(tmp_path):
    write(
        tmp_path,
        entry="from fader import loaded\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from fader import typed\n"
        "def step(): ...\n",
        loaded="import torch\ntorch.manual_seed(0)\nX = 1\n",
        typed="import torch\ntorch.manual_seed(1)\n",
    )
    assert code.reached(["fader.entry:step"], root=tmp_path) == ["fader.entry:step", "fader.loaded"]


def test_a_block_at_the_top_of_a_module_counts_for_what_it_binds(tmp_path):
    write(
        tmp_path,
        m="try:\n    import fast\nexcept ImportError:\n    fast = slow()\n"
        "def slow(): ...\ndef step(): return fast\n",
    )
    expected = ["fader.m", "fader.m:fast", "fader.m:slow", "fader.m:step"]
    assert code.reached(["fader.m:step"], root=tmp_path) == expected


def test_a_definition_that_registers_itself_counts_once_it_is_imported(tmp_path):
    write(
        tmp_path,
        entry="import fader.plugin\nfrom fader.table import TABLE\ndef step(n): return TABLE[n]()",
        table="TABLE = {}\ndef register(f): TABLE[f.__name__] = f",
        plugin="from fader.table import register\n"
        "@register\ndef one(): return helper()\ndef helper(): ...\n",
    )
    assert code.reached(["fader.entry:step"], root=tmp_path) == [
        "fader.entry:step",
        "fader.plugin",
        "fader.plugin:helper",
        "fader.table:TABLE",
        "fader.table:register",
    ]


@pytest.mark.parametrize(
    "use",
    [
        "from fader import other\ndef step(n): return getattr(other, n)",
        "from fader.other import *\ndef step(): ...",
        "import fader.other as o\ndef step(): return [o]",
    ],
)
def test_a_module_that_is_passed_around_counts_whole(tmp_path, use):
    write(tmp_path, entry=use, other="def a(): ...\nB = 1")
    assert set(code.reached(["fader.entry:step"], root=tmp_path)) > {
        "fader.other:a",
        "fader.other:B",
    }


def test_a_module_as_a_root_is_all_of_its_definitions(tmp_path):
    write(tmp_path, m="def a(): ...\nB = 1")
    assert code.reached(["fader.m"], root=tmp_path) == ["fader.m:B", "fader.m:a"]


def test_plumbing_does_not_count_but_leads_on(tmp_path):
    write(
        tmp_path,
        entry="from fader.steps.training import run_of\ndef step(): return run_of()",
        steps__dot____init__="",
        steps__dot__training="from fader.loop import Run\ndef run_of(): return Run()",
        loop="class Run: ...",
    )
    expected = ["fader.entry:step", "fader.loop:Run"]
    assert code.reached(["fader.entry:step"], root=tmp_path) == expected


def digest_of(folder: Path, **sources: str) -> str:
    return code.digest(["fader.m:step"], root=write(folder, **sources))


@pytest.mark.parametrize(
    "other",
    [
        "from numpy import sqrt as root\ndef step(x): return root(x)",
        "from fader.a import root\ndef step(x): return root(x)",
        "from fader.b import root\ndef step(x): return root(x)",
    ],
)
def test_the_same_name_for_something_else_is_another_digest(tmp_path, other):
    same = dict.fromkeys(("a", "b"), "def root(x): return x")
    one = "from math import sqrt as root\ndef step(x): return root(x)"
    assert digest_of(tmp_path / "1", m=one, **same) != digest_of(tmp_path / "2", m=other, **same)


def test_an_import_may_move_into_the_function(tmp_path):
    top = "from math import sqrt\ndef step(x): return sqrt(x)"
    late = "def step(x):\n    from math import sqrt\n    return sqrt(x)"
    assert digest_of(tmp_path / "1", m=top) == digest_of(tmp_path / "2", m=late)


def test_of_a_registry_only_the_entries_in_use_count(tmp_path):
    write(
        tmp_path,
        m='def step(name): return TABLE[name]\nTABLE: dict = {"a": f, "b": g(2)}\n'
        "def f(): ...\ndef g(x): ...",
    )

    def reached(*keys: str) -> list[str]:
        return code.reached(["fader.m:step"], entries={"fader.m:TABLE": keys}, root=tmp_path)

    assert reached() == reached("unknown") == ["fader.m:step"]
    assert reached("a") == ["fader.m:TABLE[a]", "fader.m:f", "fader.m:step"]
    both = {"fader.m:TABLE[a]", "fader.m:TABLE[b]", "fader.m:f", "fader.m:g", "fader.m:step"}
    assert set(reached("a", "b")) == both
    assert "fader.m:TABLE" in code.reached(["fader.m:step"], root=tmp_path)


def test_a_registry_that_is_no_plain_dictionary_counts_whole(tmp_path):
    write(tmp_path, m='def step(n): return T[n]\nT = {**BASE, "a": 1}\nBASE = {}')
    reached = code.reached(["fader.m:step"], entries={"fader.m:T": []}, root=tmp_path)
    assert reached == ["fader.m:BASE", "fader.m:T", "fader.m:step"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from fader.gone import f\ndef step(): f()", "fader.gone: no such module"),
        ("from fader import gone\ndef step(): ...", "fader:gone: not found"),
        ("from fader.there import f\ndef step(): ...", "fader.there:f: not found"),
        ("from fader import there\ndef step(): there.f()", "fader.there:f: not found"),
        ("def other(): ...", "fader.m:step: not found"),
        ("from . import there\ndef step(): ...", "fader.m, line 1: relative import"),
        ("def step(:", "fader.m, line 1: "),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path, source, message):
    with pytest.raises(FaderError, match=message) as raised:
        digest_of(tmp_path, m=source, there="")
    assert "\n" not in str(raised.value)


# ---- what is normalised away ----


def text(source: str) -> str:
    return syntax.text(syntax.parse("fader.m", source).definitions["x"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def x(a): return a", "def x(a: int) -> 'int':\n    '''Says.'''\n    return (a)  # same"),
        ("def x(): y = 1", "def x(): y: int = 1"),
        ("def x(): pass", "def x():\n    '''Nothing.'''\n    y: int"),
        ("def x(a): raise E", "def x(a): raise E(f'{a}: wrong', a) from None"),
        ("def x(a): assert a", "def x(a): assert a, 'why not'"),
        ("def x(a): return a", "def x(a):\n    print(a)\n    logger.info('%s', a)\n    return a"),
        ("def x(a):\n    if a: pass", "def x(a):\n    if a: print(a)"),
        ("class x: a: int = 1", "class x:\n    '''A value.'''\n    a: float = 1"),
        ("class x: a: int", "class x: a: 'Tensor'"),
        ("x = 1", "x: int = 1"),
        ("x = 'a' 'b'", 'x = "ab"'),
        ("def x(): return 1", "def x():\n    if TYPE_CHECKING: from a import B\n    return 1"),
    ],
)
def test_these_are_the_same(one, other):
    assert text(one) == text(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = {None: y}", "x = {**y}"),
        ("x = a", "x = 'a'"),
        ("def x(a=1): return a", "def x(a=2): return a"),
        ("def x(a, b): return a - b", "def x(b, a): return a - b"),
        ("def x(a): raise E", "def x(a): raise F"),
        ("class x: a: int = 1", "class x: a: int = 2"),
        ("class x: a: int = 1", "class x: b: int = 1"),
        ("class x:\n    a: int\n    b: int", "class x:\n    b: int\n    a: int"),
        ("class x: a: int = 1", "class x: a: ClassVar[int] = 1"),
        ("class x(A): ...", "class x(B): ..."),
        ("@a\ndef x(): ...", "def x(): ..."),
        ("def x(a): return a and 1", "def x(a): return a or 1"),
        ("def x(a): yield a", "def x(a): return a"),
        ("def x(a): f(a)", "def x(a): pass"),
    ],
)
def test_these_are_not(one, other):
    assert text(one) != text(other)


# ---- twenty edits and more, and what must rerun ----


def configuration() -> Config:
    """The ci preset, with a public data set beside the synthetic one."""
    values = copy.deepcopy(PRESET)
    values["datasets"]["mvtec_ad"] = {"source": "mvtec_ad", "layout": "mvtec", "mirrors": []}
    values["categories"]["bottle"] = {"dataset": "mvtec_ad", "category": "bottle"}
    return Config.model_validate(values)


CONFIG = configuration()

NOTHING: set[str] = set()
PACKS = {"pack.synthetic_small-bolt", "pack.bottle"}
TRAINED_MASKS = {"mask.dsr", "mask.msflow", "mask.aminet"}
MASKS = {"mask.dinov2", "mask.vit", "mask.winclip"} | TRAINED_MASKS
WITH_MEMORY = {"detector.memae", "detector.daad"}
ADVERSARIAL = {"detector.ganomaly", "detector.scadn", "detector.mscam"}
SYNTHESIS = {"detector.draem", "detector.jnld", "detector.omnial"}
UNTRAINED = {"detector.pca", "detector.patchcore"}
DETECTORS = {"detector.unet", "detector.riad"} | UNTRAINED
DETECTORS |= ADVERSARIAL | WITH_MEMORY | SYNTHESIS
ON_UNET = {"ear", "mosaic", "fader", "detector.unet", "detector.riad"}
ON_UNET |= {"evaluate", "gallery", "cost"}
COMPUTE = MASKS | DETECTORS | ON_UNET | {"codebook"}


def label(job: Job) -> str:
    """What the table calls a job: all FADeRs run the same code."""
    if job.phase in ("plugin", "variant"):
        return "fader"
    of = job.system or (job.place if job.phase in ("dataset", "pack") else None)
    return f"{job.phase}.{of}" if of else job.phase


JOBS = phases.jobs(CONFIG)


def digests(root: Path) -> dict[Job, str]:
    return {job: external.code_digest(CONFIG, job, root) for job in JOBS}


@dataclass(frozen=True)
class Edit:
    """A change of the package: ``old`` becomes ``new`` in a file; a new file where there is no
    ``old``."""

    what: str
    file: str
    old: str
    new: str
    reruns: set[str]

    def apply(self, package: Path) -> None:
        path = package / self.file
        if not self.old:
            assert not path.exists()
            path.write_text(self.new)
            return
        source = path.read_text()
        assert self.old in source, f"{self.file} has no {self.old!r}"
        path.write_text(source.replace(self.old, self.new, 1))


ENTRY = 'Backbone("a", "b", "c", 1, "d", None, None, None)'
EDITS = [
    Edit("a comment", "vision/losses.py", "GMS_C = 0.0026", "GMS_C = 0.0026  # why", NOTHING),
    Edit("a docstring", "vision/losses.py", '"""Mean struct', '"""The mean struct', NOTHING),
    Edit("a type", "vision/losses.py", "def ssim(a: Tensor", "def ssim(a: object", NOTHING),
    Edit(
        "a line break", "vision/losses.py", "1 - total / scales", "(\n1 - total / scales)", NOTHING
    ),
    Edit("an error message", "training/loop.py", "at least 2 are needed", "give 2", NOTHING),
    Edit(
        "a message printed",
        "training/loop.py",
        "    updater = _Updater(optimizers)\n",
        "    updater = _Updater(optimizers)\n    print(count)\n",
        NOTHING,
    ),
    Edit(
        "a function nobody calls",
        "vision/losses.py",
        "EPS = 1e-12\n",
        "EPS = 1e-12\n\ndef total_variation(x): return x.diff().abs().mean()\n",
        NOTHING,
    ),
    # Registries.
    Edit(
        "a new backbone",
        "vision/registry.py",
        "BACKBONES: dict[str, Backbone] = {",
        f'BACKBONES: dict[str, Backbone] = {{"resnet18": {ENTRY},',
        NOTHING,
    ),
    Edit(
        "another mean for a backbone",
        "vision/registry.py",
        "mean=(0.5, 0.5, 0.5)",
        "mean=(0.4, 0.5, 0.5)",
        {"mask.vit", "cost", "report"},
    ),
    Edit(
        "another option for a backbone",
        "vision/registry.py",
        '"bn_eps": 1e-3',
        '"bn_eps": 1e-5',
        {"mask.msflow", "mask.aminet", "cost", "report"},
    ),
    Edit(
        "a new release",
        "data/releases.py",
        "RELEASES = {",
        'RELEASES = {"btad": mvtec.RELEASE, ',
        NOTHING,
    ),
    Edit(
        "another archive of a release",
        "data/mvtec.py",
        "size=5_264_982_680",
        "size=5_264_982_681",
        {"dataset.mvtec_ad", "pack.bottle"},
    ),
    Edit(
        "a new layout", "data/releases.py", "LAYOUTS = {", 'LAYOUTS = {"b": visa.index, ', NOTHING
    ),
    Edit(
        "a new source of data",
        "steps/dataset.py",
        '    "folder": _found,',
        '    "folder": _found,\n    "btad": _downloaded,',
        NOTHING,
    ),
    Edit(
        "a new rule for masks",
        "maskers/threshold.py",
        '    "mass": (',
        '    "all": (_mass, math.isfinite, "finite"),\n    "mass": (',
        NOTHING,
    ),
    Edit("a rule not in use", "maskers/threshold.py", "best = valid &", "best = ~valid &", NOTHING),
    Edit(
        "a new kind of painted defect",
        "data/defects/__init__.py",
        "_PAINTERS = {",
        '_PAINTERS = {"thread": scar,',
        NOTHING,
    ),
    Edit("a new masker", "maskers/new.py", "", "def create(*args): ...\n", NOTHING),
    Edit("a new detector", "detectors/new.py", "", "def create(*args): ...\n", NOTHING),
    # Numbers.
    Edit(
        "the synthetic images",
        "data/synthetic/light.py",
        "SUPERSAMPLING = 2",
        "SUPERSAMPLING = 3",
        {"dataset.synthetic_small"},
    ),
    Edit("the download", "data/download.py", "CHUNK = 1 << 20", "CHUNK = 2", {"dataset.mvtec_ad"}),
    Edit("the resizing", "data/pack.py", "Resampling.BICUBIC", "Resampling.BOX", PACKS),
    Edit("the painted defects", "data/defects/__init__.py", "VISIBLE = 8", "VISIBLE = 9", PACKS),
    Edit(
        "the noise they share with DSR",
        "data/defects/__init__.py",
        "np.sqrt(2) * noise",
        "np.sqrt(3) * noise",
        PACKS | SYNTHESIS | {"codebook", "mask.dsr", "evaluate", "cost"},
    ),
    Edit(
        "the anomalies that detectors train on",
        "data/defects/batches.py",
        "TURNED = 0.3",
        "TURNED = 0.2",
        SYNTHESIS | {"evaluate", "cost"},
    ),
    Edit(
        "the codebook's training",
        "maskers/dsr/codebook.py",
        "WARM = 0.3",
        "WARM = 0.4",
        {"codebook"},
    ),
    Edit(
        "the quantised autoencoder",
        "vision/vqvae.py",
        "DISTANCES = 2**24",
        "DISTANCES = 2**23",
        {"codebook", "mask.dsr", "cost"},
    ),
    Edit(
        "one masker",
        "maskers/msflow.py",
        "GRADIENT_NORM = 2.0",
        "GRADIENT_NORM = 1.0",
        {"mask.msflow", "cost"},
    ),
    Edit(
        "the rule for masks",
        "maskers/threshold.py",
        "masked = cumulative >",
        "masked = cumulative >=",
        {"ear", "mosaic", "fader", "evaluate", "gallery", "cost"},
    ),
    Edit(
        "a loss",
        "vision/losses.py",
        "(gx * gx + gy * gy + EPS).sqrt()",
        "(gx.abs() + gy.abs())",
        ON_UNET | {"detector.pca", "detector.mscam"},
    ),
    Edit(
        "the ranking loss",
        "vision/losses.py",
        "(margin - sign * difference)",
        "(margin + sign * difference)",
        {"fader", "evaluate", "gallery"},
    ),
    Edit("the U-Net", "vision/unet.py", "LEAK = 0.01", "LEAK = 0.02", ON_UNET | {"detector.daad"}),
    Edit(
        "the shrinkage of a memory",
        "vision/memory.py",
        "weights > threshold",
        "weights >= threshold",
        WITH_MEMORY | {"evaluate", "cost"},
    ),
    Edit(
        "a setting of torch at import",
        "vision/unet.py",
        "LEAK = 0.01\n",
        'LEAK = 0.01\ntorch.set_float32_matmul_precision("high")\n',
        ON_UNET | DETECTORS,
    ),
    Edit(
        "the training loop",
        "training/loop.py",
        "            step(indices, random, updater)",
        "            step(indices.flip(0), random, updater)",
        COMPUTE - (MASKS - TRAINED_MASKS) - UNTRAINED,
    ),
    Edit(
        "a stage's seed",
        "training/loop.py",
        "derive_seed(self.seed, name)",
        'derive_seed(self.seed, "stage", name)',
        COMPUTE - {"mosaic", "evaluate", "gallery", "cost"},
    ),
    Edit(
        "FADeR's schedule",
        "training/schedules.py",
        "min(1.0, (iteration + 1) / iterations)",
        "min(1.0, iteration / iterations)",
        {"fader", "evaluate", "gallery"},
    ),
    Edit(
        "deterministic algorithms",
        "runtime.py",
        'torch.set_deterministic_debug_mode("error")',
        'torch.set_deterministic_debug_mode("default")',
        COMPUTE,
    ),
    Edit(
        "AUROC",
        "evaluation/metrics.py",
        "return exact_curve(scores, labels).auroc()",
        "return 1 - exact_curve(scores, labels).auroc()",
        {"mosaic", "fader", "evaluate", "gallery", "report"},
    ),
    # Steps and plumbing.
    Edit("a step", "steps/ear.py", 'context.seed("ear")', 'context.seed("EAR")', {"ear"}),
    Edit("an option of the command line", "cli.py", "import", "VERBOSE = True\nimport", NOTHING),
    Edit(
        "the table of phases", "pipeline/phases.py", '"image", *_SPLIT', '"seeds", *_SPLIT', NOTHING
    ),
    Edit("a check of headers", "pipeline/artifacts.py", "def check(", "def check(a, ", NOTHING),
    Edit("a default of the settings", "config/base.py", "frozen=True", "frozen=False", NOTHING),
    Edit("where checkpoints are", "steps/training.py", 'Path("work")', 'Path("tmp")', NOTHING),
    Edit(
        "how seeds are derived", "seeds.py", "def derive_seed", "SALT = 1\ndef derive_seed", NOTHING
    ),
    Edit(
        "a table of the report",
        "report/tables.py",
        "_ABLATIONS = {",
        "_ABLATIONS = X = {",
        {"report"},
    ),
]


@pytest.fixture(scope="module")
def before() -> dict[Job, str]:
    return digests(code.SOURCE)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.what)
def test_an_edit_reruns_what_it_changes_and_nothing_else(edit, before, tmp_path):
    shutil.copytree(SOURCE, tmp_path / "fader", ignore=shutil.ignore_patterns("__pycache__"))
    edit.apply(tmp_path / "fader")
    after = digests(tmp_path)
    assert {label(job) for job in JOBS if after[job] != before[job]} == edit.reruns


def test_the_digest_is_that_of_the_sources_wherever_they_are(before, tmp_path, monkeypatch):
    shutil.copytree(SOURCE, tmp_path / "fader")
    monkeypatch.chdir(tmp_path)
    assert digests(tmp_path) == before
    assert SOURCE.parent == code.SOURCE


@pytest.mark.parametrize(
    "kept",
    [
        None,
        "",
        "[]",
        "{",
        "{}",
        '{"sources": "of another package", "digests": "ANY"}',
        '{"sources": "SAME"}',
        '{"sources": "SAME", "digests": {}}',
        '{"sources": "SAME", "digests": null}',
        '{"sources": "SAME", "digests": {"of something else": "0"}}',
    ],
)
def test_what_an_earlier_process_found_changes_no_digest(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = code._package(code.SOURCE)
    if kept is not None:
        code.KNOWN.parent.mkdir()
        code.KNOWN.write_text(kept.replace("SAME", package.fingerprint))
    code._known.cache_clear()
    code._digest.cache_clear()
    roots = ["fader.steps.ear:train_ear"]
    assert code.digest(roots) == code._computed(*code._frozen(roots, None), code.SOURCE)
    known = json.loads(code.KNOWN.read_text())
    assert known["sources"] == package.fingerprint
    assert code.digest(roots) in known["digests"].values()


def test_of_the_same_sources_a_digest_is_found_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = ["fader.steps.ear:train_ear"]

    def again() -> str:
        code._known.cache_clear()
        code._digest.cache_clear()
        return code.digest(roots)

    found = again()
    monkeypatch.setattr(code, "_computed", None)
    assert again() == found
    monkeypatch.setattr(code._package(code.SOURCE), "fingerprint", "another")
    with pytest.raises(TypeError):
        again()


@pytest.mark.parametrize("registry", external.REGISTRIES)
def test_every_registry_is_a_plain_dictionary(registry):
    module, _, name = registry.partition(":")
    path = code.SOURCE / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = syntax.parse(module, source.read_text(encoding="utf-8")).definitions[name]
    assert syntax.display(found)


# ---- independent of the syntax tree ----


def calls(step) -> set[tuple[str, str]]:
    """(module, definition) of every function of the package that runs."""
    seen: set[tuple[str, str]] = set()

    def profile(frame, event, argument):
        where = frame.f_code
        ours = where.co_filename.startswith(str(SOURCE)) and where.co_filename.endswith(".py")
        if event == "call" and ours:  # a template has a file of its own, too
            name = where.co_qualname.partition(".")[0]
            # Neither bodies of classes and modules, nor what has no name of its own.
            if where.co_flags & inspect.CO_OPTIMIZED and not name.startswith("<"):
                seen.add((frame.f_globals["__name__"], name))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


def small() -> Config:
    """The ci preset as small as it gets, with one masker that learns."""
    values = copy.deepcopy(PRESET)
    values["datasets"]["synthetic_small"] |= {"train": 12, "good": 4, "defective": 1}
    values["image"]["size"] = 32
    dsr = {"input_size": 64, "width": 4, "steps": None, "epochs": 1, "upsampler": 1.0}
    dsr = values["masks"]["maskers"]["dsr"] | dsr
    values["masks"] |= {"base": "dsr", "optional": [], "maskers": {"dsr": dsr}}
    values["codebook"] |= {"channels": 8, "codes": 8, "crop": 32, "steps": None, "epochs": 1}
    values["unet"]["widths"] = [4, 8]
    values["ear"] |= {"steps": None, "epochs": 1, "scales": [4, 8]}
    values["fader"] |= {
        "steps": None,
        "epochs": 1,
        "lrs": [1e-3],
        "schedules": ["fixed", "warmup"],
        "hidden": 8,
    }
    values["detectors"] = {
        name: detector | ({"steps": None, "epochs": 1} if "steps" in detector else {})
        for name, detector in values["detectors"].items()
    }
    values["variants"] = {"shuffled": values["variants"]["shuffled"]}
    values["score"]["smooth"] = 3
    return Config.model_validate(values)


@pytest.fixture
def restored_settings():
    """Threads and determinism of torch as they were."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.slow
@pytest.mark.usefixtures("restored_settings")
def test_all_that_a_step_calls_is_in_its_digest(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "reference", tmp_path / "reference")
    monkeypatch.chdir(tmp_path)
    config = small()
    for job in phases.jobs(config):
        ran = calls(lambda job=job: steps.run(Context(config, job)))
        reached = code.reached(external.roots(config, job), entries=external.entries(config, job))
        counted = {f"{module}:{name}" for module, name in ran if not outside(module)}
        assert len(counted) > 3
        assert counted <= set(reached), job


def outside(module: str) -> bool:
    """Whether a module is plumbing, by the table alone."""
    return any(
        module == name or (name.endswith(".*") and f"{module}.".startswith(name[:-1]))
        for name in code.OUTSIDE
    )


def test_the_package_itself_does_nothing():
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    docstring, typing, names, *constants, later = tree.body
    assert [type(node) for node in (docstring, typing, names)] == [ast.Expr, ast.ImportFrom, ast.If]
    assert ast.unparse(names.test) == "TYPE_CHECKING"
    assert [ast.unparse(each.targets[0]) for each in constants] == [
        "__version__",
        "__all__",
        "_LATER",
    ]
    assert all(ast.literal_eval(each.value) for each in constants)
    assert isinstance(later, ast.FunctionDef) and later.name == "__getattr__"


def test_what_no_digest_counts_is_pinned(tmp_path):
    """Seeds and bytes of artefacts: to change them, change this test and remake every result."""
    assert derive_seed(0, "set", "category", "ear") == 444413642106543164
    job = Job("ear", "bottle", None, 0)
    assert Context(CONFIG, job).seed("ear") == derive_seed(0, "mvtec_ad", "bottle", "ear")
    path = tmp_path / "x.safetensors"
    header = artifacts.Header("ear", {"lr": 0.001}, {"in": "0"}, {"seed": 0})
    written = artifacts.write_tensors(path, {"a": torch.arange(4, dtype=torch.float32)}, header)
    assert written.identity == "a0b10a23ebdbd03b"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == "8aa06145d272f69a"
