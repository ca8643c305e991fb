"""Which source files a phase runs: the closure of its imports within the package.

Both engines take them as inputs, so that a change of the code remakes what the code made, and
nothing else. ``workflow/closure.json`` is generated from here, and so is ``dvc.yaml``.

An import counts wherever it stands (inside a function too), with the packages around it; one made
by name (``importlib.import_module``) counts as all modules beside it. Not followed:
"""

import ast
import json
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

from fader.config import KINDS
from fader.errors import FaderError
from fader.pipeline.phases import PHASES

SOURCE = Path("src")

# Plumbing that every phase imports. A change there (a new option, a file name, a message) must not
# train everything again; what could change a number is pinned by tests/unit/test_closure.py.
OUTSIDE = {
    "fader": "the package's name and version",
    "fader.errors": "messages",
    "fader.files": "written whole or not at all",
    "fader.seeds": "their derivation is pinned",
    "fader.config": "its values are tracked key by key",
    **{f"fader.config.{part}": "part of it" for part in ("base", "data", "detectors", "files")},
    **{f"fader.config.{part}": "part of it" for part in ("maskers", "run")},
    "fader.pipeline": "what is made from what",
    "fader.pipeline.artifacts": "files carry digests that readers check; their bytes are pinned",
    "fader.pipeline.paths": "names of files",
    "fader.pipeline.phases": "which values are tracked",
}

ENTRIES = {phase: (f"fader.steps.{phase}",) for phase in PHASES} | {
    "evaluate": ("fader.steps.evaluate", "fader.steps.records"),
    "report": ("fader.report",),
}


def source_file(module: str, root: Path = SOURCE) -> Path | None:
    """File of a dotted module or package below ``root``; None when there is none."""
    path = root / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(module: str, root: Path = SOURCE) -> set[str]:
    """Dotted names that a module imports or may import (attributes of modules among them)."""
    path = source_file(module, root)
    found: set[str] = set()
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise FaderError(f"{path}:{node.lineno}: relative import; name the module in full")
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute) and node.attr == "import_module":
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            found |= {f"{package}.{file.stem}" for file in path.parent.glob("*.py")}
    return found


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a tree but for blocks that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _nodes(node)


def closure(
    *modules: str,
    root: Path = SOURCE,
    outside: Collection[str] = OUTSIDE,
    imports: Callable[[str, Path], set[str]] = imports,
) -> list[str]:
    """Source files that run when ``modules`` are imported, sorted; ``outside`` is not followed."""
    files: set[str] = set()
    seen: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in seen or module in outside:
            continue
        seen.add(module)
        package = module.rpartition(".")[0]
        if package:
            pending.append(package)
        path = source_file(module, root)
        if path:
            files.add(path.as_posix())
            pending += imports(module, root)
    return sorted(files)


def closures() -> dict[str, list[str]]:
    """Phase → source files."""
    once = cache(imports)  # for this call only: files may change before the next
    return {phase: _of_phase(phase, KINDS if phase == "codebook" else (), once) for phase in PHASES}


def masker_closures() -> dict[str, list[str]]:
    """``phase.kind`` → source files, for the phases of one masker: without the other kinds'."""
    once = cache(imports)
    return {
        f"{phase}.{kind}": _of_phase(phase, [other for other in KINDS if other != kind], once)
        for phase in ("masker", "mask")
        for kind in KINDS
    }


def _of_phase(phase: str, without: Collection[str], imports: Callable) -> list[str]:
    """Closure of a phase, without some kinds of masker, which are imported by name."""
    outside = {*OUTSIDE, *(f"fader.maskers.{kind}" for kind in without)}
    return closure(*ENTRIES[phase], outside=outside, imports=imports)


def text() -> str:
    """``workflow/closure.json`` as committed."""
    return json.dumps(closures() | masker_closures(), indent=2) + "\n"
