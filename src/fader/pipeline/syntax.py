"""Modules as their normalised syntax trees: what they define, import, read and do when imported.

Normalised, two trees are equal when they compute the same whatever they tell people: comments,
docstrings, annotations, messages of errors and assertions, and what is printed or logged are gone.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from fader.errors import FaderError

_FIELD_KINDS = ("ClassVar", "InitVar", "KW_ONLY")  # annotations that make another dataclass
_LOGGERS = ("logging", "logger", "warnings")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_WITH_NAME = (*_NAMED, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_IMPORTS = (ast.Import, ast.ImportFrom)
_UNTOLD = ("ctx", "kind", "type_comment", "type_params")  # fields that compute nothing


class Binding(NamedTuple):
    """What an import binds a name to: a module, or an attribute of one; ``*`` is all of them."""

    module: str
    attribute: str | None = None


@dataclass(frozen=True)
class Names:
    """What statements read from around them.

    Parameters
    ----------
    chains : names and their attributes, ``losses.ssim`` as ``("losses", "ssim")``; names that are
        local to a function do not count.
    imports : what the statements import themselves.
    loads : dotted names that these imports load, where they are modules.
    """

    chains: frozenset[tuple[str, ...]]
    imports: Mapping[str, tuple[Binding, ...]]
    loads: frozenset[str]


@dataclass(frozen=True)
class Module:
    """A module of the package, normalised.

    Parameters
    ----------
    name : dotted.
    definitions : name → the statements at the top of the module that bind it.
    imports : name → what imports at the top bind it to.
    loads : dotted names that the module's import loads, where they are modules.
    effects : statements that do something when the module is imported.
    """

    name: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, list[Binding]] = field(default_factory=dict)
    loads: set[str] = field(default_factory=set)
    effects: list[ast.stmt] = field(default_factory=list)

    def binds(self, name: str) -> bool:
        """Whether a name is defined or imported here, the module's own submodules aside."""
        bindings = self.imports.get(name, [])
        return name in self.definitions or any(b != (self.name, name) for b in bindings)


@cache
def parse(name: str, source: str) -> Module:
    """A module from its dotted name and its source.

    Raises
    ------
    FaderError : it is no Python, or has relative imports.
    """
    try:
        tree = _Normaliser().visit(ast.parse(source))
    except SyntaxError as error:
        raise FaderError(f"{name}, line {error.lineno}: {error.msg}; correct it") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise FaderError(f"{name}, line {node.lineno}: relative import; name it in full")
    module = Module(name)
    for statement in tree.body:
        if isinstance(statement, _IMPORTS):
            _note_imports(module, statement)
            continue
        bound = _bound_at_top(statement)
        if bound is None or _registers(module, statement):
            module.effects.append(statement)
        if bound is None:
            bound = set(_bound([statement]))
            for node in ast.walk(statement):
                if isinstance(node, _IMPORTS):
                    _note_imports(module, node)
        for bound_name in bound:
            module.definitions.setdefault(bound_name, []).append(statement)
    return module


def _registers(module: Module, statement: ast.stmt) -> bool:
    """Whether a definition may be entered somewhere by a decorator of the package's own."""
    package = module.name.partition(".")[0]
    for chain in names(getattr(statement, "decorator_list", ())).chains:
        sources = [module.name] if chain[0] in module.definitions else []
        sources += [binding.module for binding in module.imports.get(chain[0], ())]
        if any(source.partition(".")[0] == package for source in sources):
            return True
    return False


def _note_imports(module: Module, node: ast.Import | ast.ImportFrom) -> None:
    for name, binding, loaded in _bindings(node):
        module.imports.setdefault(name, []).append(binding)
        module.loads.update(loaded)


def _bindings(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Binding, list[str]]]:
    """Each name that an import binds, to what, and which dotted names it loads."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""  # only a relative import, which ``parse`` refuses, has none
            loaded = [module, f"{module}.{alias.name}"]
            yield alias.asname or alias.name, Binding(module, alias.name), loaded
        elif alias.asname:
            yield alias.asname, Binding(alias.name), [alias.name]
        else:
            first = alias.name.partition(".")[0]
            yield first, Binding(first), [alias.name]


def _bound_at_top(statement: ast.stmt) -> set[str] | None:
    """Names that a plain definition binds; None for a statement that does something else too."""
    if isinstance(statement, _NAMED):
        return {statement.name}
    if isinstance(statement, ast.Pass):
        return set()
    targets: list[ast.expr]
    if isinstance(statement, ast.Assign):
        targets = list(statement.targets)
    elif isinstance(statement, ast.AugAssign):
        targets = [statement.target]
    else:
        return None
    names = set()
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Name):
            names.add(target.id)
        elif isinstance(target, ast.Tuple | ast.List):
            targets += target.elts
        elif isinstance(target, ast.Starred):
            targets.append(target.value)
        else:
            return None
    return names


@cache
def described(nodes: tuple[ast.AST, ...]) -> tuple[str, Names]:
    """Text of statements or expressions, and what they read."""
    return text(list(nodes)), names(nodes)


def names(nodes: Iterable[ast.AST]) -> Names:
    """What statements or expressions read from their module and import themselves."""
    reader = _Reader()
    for node in nodes:
        reader.visit(node)
    imports: dict[str, tuple[Binding, ...]] = {}
    loads: set[str] = set()
    for node in reader.imports:
        for name, binding, loaded in _bindings(node):
            imports[name] = (*imports.get(name, ()), binding)
            loads.update(loaded)
    return Names(frozenset(reader.chains), imports, frozenset(loads))


class _Reader(ast.NodeVisitor):
    """Collects the names that are read, but for those local to a function or comprehension."""

    def __init__(self) -> None:
        self.chains: set[tuple[str, ...]] = set()
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self._local: list[set[str]] = []

    def _read(self, chain: tuple[str, ...]) -> None:
        if not any(chain[0] in local for local in self._local):
            self.chains.add(chain)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _FUNCTIONS):
            self._visit_function(node)
        elif isinstance(node, _COMPREHENSIONS):
            self.visit(node.generators[0].iter)  # in the scope around it
            targets = [generator.target for generator in node.generators]
            self._within(set(_bound(targets)), ast.iter_child_nodes(node))
        elif isinstance(node, _IMPORTS):
            self.imports.append(node)
        else:
            super().visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._read((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._read((inner.id, *reversed(attributes)))
        else:
            self.visit(inner)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        for outer in (*getattr(node, "decorator_list", ()), node.args):
            self.visit(outer)
        parameters = {arg.arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
        self._within(parameters | set(_bound(body)), body)

    def _within(self, local: set[str], nodes: Iterable[ast.AST]) -> None:
        self._local.append(local)
        for node in nodes:
            self.visit(node)
        self._local.pop()


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names bound in the scope of statements or targets, other than by imports."""
    pending = list(nodes)
    shared: set[str] = set()
    bound: list[str | None] = []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.append(node.id)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            shared.update(node.names)
        elif isinstance(node, _WITH_NAME):
            bound.append(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            bound.append(node.rest)
        if not isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef)):
            pending += ast.iter_child_nodes(node)
    return (name for name in bound if name and name not in shared)


def display(statements: list[ast.stmt]) -> dict[str, ast.expr] | None:
    """Entries of a dictionary display that a name is bound to, once, with strings as keys; None
    when it is bound to something else."""
    value = getattr(statements[0], "value", None) if len(statements) == 1 else None
    if not isinstance(value, ast.Dict):
        return None
    constants = [key.value for key in value.keys if isinstance(key, ast.Constant)]
    keys = [key for key in constants if isinstance(key, str)]
    return dict(zip(keys, value.values, strict=True)) if len(keys) == len(value.keys) else None


def text(node: object) -> str:
    """A normalised tree as text, the same under every version of Python, unlike ``ast.dump``.

    Imports are left out: what names stand for is told by whoever resolves them.
    """
    if isinstance(node, list):
        return f"[{' '.join(text(item) for item in node if not isinstance(item, _IMPORTS))}]"
    if isinstance(node, ast.Constant):
        return f"Constant({node.value!r})"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={text(value)}"
        for name, value in ast.iter_fields(node)
        if name not in _UNTOLD and value is not None and value != []
    ]
    return f"{type(node).__name__}({' '.join(fields)})"


class _Normaliser(ast.NodeTransformer):
    """Takes out of a tree what computes nothing."""

    def __init__(self) -> None:
        self._in_class = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]  # it has one
        return node

    def _visit_definition(self, node: ast.AST, is_class: bool) -> ast.AST:
        outer, self._in_class = self._in_class, is_class
        node = self.generic_visit(node)
        self._in_class = outer
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._visit_definition(node, is_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._visit_definition(node, is_class=False)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._visit_definition(node, is_class=False)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """A field of a class keeps its name and default; elsewhere this is an assignment."""
        if self._in_class:
            if not any(kind in ast.unparse(node.annotation) for kind in _FIELD_KINDS):
                node.annotation = ast.Constant(...)
            return self.generic_visit(node)
        if node.value is None:
            return None
        return self.generic_visit(ast.Assign([node.target], node.value))

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """The exception's class alone."""
        exception = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return self.generic_visit(ast.Raise(exc=exception, cause=None))

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """None for docstrings and other constants, and for what is printed or logged."""
        value = node.value
        if isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and _told(value.func)):
            return None
        return self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return self.generic_visit(node)
        rest = ast.Module(node.orelse, [])
        if node.orelse:
            self.generic_visit(rest)
        return rest.body

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node


def _told(function: ast.expr) -> bool:
    """Whether a function prints or logs."""
    if isinstance(function, ast.Attribute):
        return isinstance(function.value, ast.Name) and function.value.id in _LOGGERS
    return isinstance(function, ast.Name) and function.id == "print"
