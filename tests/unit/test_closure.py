"""Code as a dependency: each phase's closure of imports, and the generated files made from it."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fader.errors import FaderError
from fader.pipeline import artifacts
from fader.pipeline import code as closure
from fader.pipeline import record as engines
from fader.pipeline.phases import PHASES
from fader.seeds import derive_seed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def write(root: Path, **sources: str) -> None:
    for name, source in sources.items():
        path = root / f"{name.replace('__dot__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def files(root: Path, *modules: str) -> list[str]:
    found = closure.closure(*modules, root=root, outside=frozenset({"p"}))
    return [Path(file).relative_to(root).as_posix() for file in found]


def test_imports_are_followed_with_their_packages(tmp_path):
    write(
        tmp_path,
        p__dot____init__="",
        p__dot__entry="import math\nfrom p.inner import one\n",
        p__dot__inner__dot____init__="from p import other\n",
        p__dot__inner__dot__one="def f():\n    import p.late\n",
        p__dot__other="X = 1\n",
        p__dot__late="",
        p__dot__unused="",
    )
    expected = ["p/entry.py", "p/inner/__init__.py", "p/inner/one.py", "p/late.py", "p/other.py"]
    assert files(tmp_path, "p.entry") == expected


def test_an_import_by_name_counts_as_all_modules_beside_it(tmp_path):
    write(
        tmp_path,
        p__dot____init__="",
        p__dot__plug__dot____init__="import importlib\nimportlib.import_module(__name__)\n",
        p__dot__plug__dot__a="",
        p__dot__plug__dot__b="from p import other\n",
        p__dot__other="",
    )
    expected = ["p/other.py", "p/plug/__init__.py", "p/plug/a.py", "p/plug/b.py"]
    assert files(tmp_path, "p.plug") == expected


def test_what_only_type_checkers_import_does_not_count(tmp_path):
    write(
        tmp_path,
        p__dot____init__="",
        p__dot__entry="if TYPE_CHECKING:\n    from p import other\n",
        p__dot__other="",
    )
    assert files(tmp_path, "p.entry") == ["p/entry.py"]


def test_relative_imports_are_refused(tmp_path):
    write(tmp_path, p__dot____init__="", p__dot__entry="from . import other\n")
    with pytest.raises(FaderError, match=r"entry\.py:1: relative import"):
        files(tmp_path, "p.entry")


def test_the_closure_holds_all_that_python_imports():
    """Independent of the syntax tree: what the interpreter has loaded after the import."""
    code = """
import importlib, json, sys
loaded = {}
for phase, modules in json.loads(sys.argv[1]).items():
    for name in [name for name in sys.modules if name.partition(".")[0] == "fader"]:
        del sys.modules[name]
    for module in modules:
        importlib.import_module(module)
    loaded[phase] = {n: m.__file__ for n, m in sys.modules.items() if n.startswith("fader.")}
print(json.dumps(loaded))
"""
    command = [sys.executable, "-c", code, json.dumps(closure.ENTRIES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "src")
    closures = closure.closures()
    for phase, modules in json.loads(done.stdout).items():
        files = {
            Path(file).relative_to(ROOT).as_posix()
            for name, file in modules.items()
            if name not in closure.OUTSIDE
        }
        assert files <= set(closures[phase])


def test_a_change_retrains_only_what_it_touches():
    closures = closure.closures()

    def phases_of(file: str) -> set[str]:
        """Apart from the cost, which is measured anew after any change of what it measures."""
        phases = closures.keys() - {"cost"}
        return {phase for phase in phases if f"src/fader/{file}" in closures[phase]}

    assert phases_of("detectors/fader.py") == {"fader", "evaluate"}
    assert phases_of("detectors/ear.py") == {"ear", "mosaic", "fader", "evaluate"}
    assert phases_of("vision/losses.py") >= {"ear", "mosaic", "fader", "evaluate"}
    assert phases_of("report/tables.py") == {"report"}
    assert phases_of("data/mvtec.py") == {"dataset", "pack"}
    assert phases_of("maskers/attention.py") == {"masker", "mask"}
    of_kind = closure.masker_closures()
    assert "src/fader/maskers/attention.py" in of_kind["mask.attention"]
    assert "src/fader/maskers/dsr.py" not in of_kind["mask.attention"]
    assert "src/fader/codebook.py" not in of_kind["mask.attention"]
    assert "ear" not in phases_of("metrics.py")
    for everywhere in ("cli.py", "__init__.py", "config.py", "artifacts.py", "errors.py"):
        assert phases_of(everywhere) == set()


def test_the_package_itself_does_nothing():
    tree = ast.parse((ROOT / "src/fader/__init__.py").read_text())
    assert [type(node) for node in tree.body] == [ast.Expr, ast.Assign]


def test_what_no_phase_depends_on_is_pinned(tmp_path):
    """Seeds and bytes of artefacts: to change them, change this test and remake every result."""
    assert derive_seed(0, "set", "category", "ear") == 444413642106543164
    path = tmp_path / "x.safetensors"
    header = artifacts.Header("ear", {"lr": 0.001}, {"in": "0"}, {"seed": 0})
    artifacts.write_tensors(path, {"a": torch.arange(4, dtype=torch.float32)}, header)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == "17088c1417d329b5"


def test_the_generated_files_are_not_stale():
    closures = json.loads((ROOT / "workflow/closure.json").read_text())
    expected = closure.closures() | closure.masker_closures()
    assert closures == expected, "run `fader closure > workflow/closure.json`"
    assert (ROOT / "dvc.yaml").read_text() == engines.dvc_yaml(), "run `fader dvc-yaml > dvc.yaml`"


def test_dvc_and_snakemake_know_the_same_phases():
    stages = yaml.safe_load(engines.dvc_yaml())["stages"]
    assert list(stages) == list(PHASES) == list(engines.RULES)
