"""Code as a dependency: the digest of the normalised syntax trees of what a step can run.

From its roots, the names that a definition uses lead to further definitions of the package, and
so on. The digest is over all of these, not over files: a change reruns what uses it, and a comment,
a docstring, a type, a message (``fader.pipeline.syntax``) or what a step does not use reruns
nothing. ``reached`` tells why something reruns.

What counts. A definition at the top of a module counts whole, a class with all of its methods,
since these are found by the object. So do the statements that importing a module executes. What a
used name stands for counts too: another ``import`` of the same name is another digest. A module
that is passed around, or imported with ``*``, counts whole.

What does not. Modules imported by name (``importlib.import_module``), which is how maskers and
detectors are found: whoever asks gives that of the job as a root. Other packages, whose versions
are those of the lock file. And plumbing:
"""

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from fader.errors import FaderError
from fader.files import digest as digest_of
from fader.files import write_text
from fader.pipeline import syntax
from fader.pipeline.syntax import Binding, Module

PACKAGE = "fader"
SOURCE = Path(__file__).resolve().parents[2]
# Digests of the package as it was last, which every process would take a second to find out anew.
KNOWN = Path("work/code.json")

# What does not count itself, but leads on to what it uses; ``.*``: with all below it. Where a
# change here could change a number, tests pin it (tests/unit/test_code.py).
OUTSIDE = {
    "fader.cli": "what is typed",
    "fader.config.*": "values are tracked key by key",
    "fader.digests": "digests are pinned",
    "fader.errors": "messages",
    "fader.files": "files are written whole or not at all",
    "fader.pipeline.*": "which values and files belong together; headers are checked by readers",
    "fader.seeds": "the derivation is pinned",
    "fader.steps": "finds the step",
    "fader.steps.training": "where trainings are saved",
    "fader.training.checkpoint": "a resumed training makes the same bytes",
}

Entries = Mapping[str, Collection[str]]


def digest(roots: Iterable[str], *, entries: Entries | None = None, root: Path = SOURCE) -> str:
    """Digest of the code that ``roots`` can run, 16 hexadecimal digits.

    Parameters
    ----------
    roots : ``module:name`` for a definition, ``module`` for all of a module.
    entries : ``module:NAME`` of a registry, that is a dictionary display with strings as keys → the
        keys whose entries count. Of a dictionary that is not among them, all count.
    root : folder of the package. A file is read once in the life of a process.

    Raises
    ------
    FaderError : a root, or something imported from the package and used, is not there.
    """
    return _digest(*_frozen(roots, entries), root)


def reached(
    roots: Iterable[str], *, entries: Entries | None = None, root: Path = SOURCE
) -> list[str]:
    """What the digest is over, sorted: ``module:name`` of definitions, ``module:NAME[key]`` of
    entries of a registry, and ``module`` for statements that its import executes."""
    return [piece.name for piece in _counted(*_frozen(roots, entries), root)]


def snapshot(root: Path = SOURCE) -> None:
    """Read the package now: digests of this process are those of the code as it is."""
    _package(root).read()


_Roots = tuple[str, ...]
_Entries = tuple[tuple[str, tuple[str, ...]], ...]


def _frozen(roots: Iterable[str], entries: Entries | None) -> tuple[_Roots, _Entries]:
    keys = sorted((name, tuple(sorted(set(keys)))) for name, keys in (entries or {}).items())
    return tuple(sorted(set(roots))), tuple(keys)


@cache
def _digest(roots: _Roots, entries: _Entries, root: Path) -> str:
    if root != SOURCE:
        return _computed(roots, entries, root)
    sources, wanted = _package(root).fingerprint, digest_of([roots, entries])
    known = _known(sources)
    if wanted not in known:
        known[wanted] = _computed(roots, entries, root)
        write_text(KNOWN, json.dumps({"sources": sources, "digests": known}, indent=2) + "\n")
    return known[wanted]


@cache
def _known(sources: str) -> dict[str, str]:
    """Digests that were found of the very same sources, each by that of what it is of."""
    try:
        kept = json.loads(KNOWN.read_text(encoding="utf-8"))
        return dict(kept["digests"]) if kept["sources"] == sources else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _computed(roots: _Roots, entries: _Entries, root: Path) -> str:
    hasher = hashlib.sha256()
    for piece in _counted(roots, entries, root):
        hasher.update(f"{piece.name} {piece.digest}\n".encode())
    return hasher.hexdigest()[:16]


@cache
def _counted(roots: _Roots, entries: _Entries, root: Path) -> list["_Piece"]:
    """Pieces of code that can run and count, by name."""
    package = _package(root)
    keys = dict(entries)
    pieces: dict[str, _Piece] = {}
    pending = [place for name in roots for place in package.root(name)]
    while pending:
        name = pending.pop()
        if name not in pieces:
            pieces[name] = package.piece(name, keys.get(name))
            pending += pieces[name].leads_to
    return [pieces[name] for name in sorted(pieces) if pieces[name].digest]


@cache
def _package(root: Path) -> "_Package":
    return _Package(root)


@dataclass(frozen=True)
class _Piece:
    """Something that can run: a definition, an entry of a registry, or what an import executes.

    Parameters
    ----------
    name : as ``reached`` tells it; ``module:*`` stands for all of a module.
    digest : of its text and of what its names stand for; empty where it does not count.
    leads_to : names of pieces that run with it.
    """

    name: str
    digest: str
    leads_to: tuple[str, ...]


class _Package:
    """The package below a folder, read as far as it is asked for."""

    def __init__(self, root: Path) -> None:
        self.folder = root
        self._sources: dict[str, str | None] = {}
        self._modules: dict[str, Module | None] = {}
        self._pieces: dict[str, _Piece] = {}

    def read(self) -> None:
        """Read every module that was not read yet."""
        for path in self.folder.glob("fader/**/*.py"):
            parts = path.relative_to(self.folder).with_suffix("").parts
            self._source(".".join(parts[:-1] if parts[-1] == "__init__" else parts))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of every source, as read."""
        self.read()
        return digest_of({name: source for name, source in self._sources.items() if source})

    def _source(self, name: str) -> str | None:
        if name not in self._sources:
            path = self.folder / name.replace(".", "/")
            files = [path.with_suffix(".py"), path / "__init__.py"]
            self._sources[name] = next(
                (file.read_text(encoding="utf-8") for file in files if file.is_file()), None
            )
        return self._sources[name]

    def module(self, name: str) -> Module | None:
        """A module by its dotted name; None when there is none."""
        if name not in self._modules:
            source = self._source(name)
            self._modules[name] = None if source is None else syntax.parse(name, source)
        return self._modules[name]

    def _existing(self, name: str) -> Module:
        module = self.module(name)
        if module is None:
            raise FaderError(f"{name}: no such module in {self.folder}; correct what imports it")
        return module

    def root(self, name: str) -> list[str]:
        """Pieces that a root stands for."""
        module, _, attribute = name.partition(":")
        return list(self._follow(module, (attribute,) if attribute else ()))

    def piece(self, name: str, keys: tuple[str, ...] | None) -> _Piece:
        """A piece by its name; of a registry, the entries of ``keys`` alone."""
        if keys is not None and (registry := self._registry(name)) is not None:
            there = tuple(f"{name}[{key}]" for key in keys if key in registry)
            return _Piece(name, "", (*there, name.partition(":")[0]))
        if name not in self._pieces:
            self._pieces[name] = self._build(name)
        return self._pieces[name]

    def _registry(self, name: str) -> dict[str, ast.expr] | None:
        """Entries of a registry; None when it is no dictionary display."""
        module, _, attribute = name.partition(":")
        return syntax.display(self._existing(module).definitions.get(attribute, []))

    def _build(self, name: str) -> _Piece:
        place, _, attribute = name.partition(":")
        module = self._existing(place)
        if not attribute:
            return self._executed(module)
        if attribute == "*":
            members = [f"{place}:{defined}" for defined in module.definitions]
            imported = [piece for bound in module.imports for piece in self._read(module, (bound,))]
            return _Piece(name, "", (place, *members, *filter(_inside, imported)))
        attribute, _, key = attribute.removesuffix("]").partition("[")
        nodes: Sequence[ast.AST] = module.definitions[attribute]
        if key:
            nodes = [(self._registry(f"{place}:{attribute}") or {})[key]]
        return self._described(name, module, nodes, [place])

    def _executed(self, module: Module) -> _Piece:
        """What importing a module executes, the imports and packages around it included."""
        parents = [module.name.rpartition(".")[0]] if "." in module.name else []
        whole = [f"{place}:*" for place, _ in module.imports.get("*", ()) if _inside(place)]
        loaded = [*parents, *whole, *self._loaded(module.loads)]
        return self._described(module.name, module, module.effects, loaded)

    def _loaded(self, names: Iterable[str]) -> Iterator[str]:
        """Those of the names that imports give that are modules; FaderError when one is nothing."""
        for name in filter(_inside, names):
            if self.module(name):
                yield name
            else:
                place, _, attribute = name.rpartition(".")
                list(self._follow(place, (attribute,)))

    def _described(
        self, name: str, module: Module, nodes: Sequence[ast.AST], leads_to: Iterable[str]
    ) -> _Piece:
        """A piece from its syntax: its text with what the names in it stand for."""
        text, read = syntax.described(tuple(nodes))
        stands_for: set[str] = set()
        led: set[str] = {*leads_to, *self._loaded(read.loads)}
        for chain in read.chains:
            for meaning in self._read(module, chain, read.imports):
                if not _outside(meaning):
                    stands_for.add(f"{'.'.join(chain)} {meaning}")
                if _inside(meaning):
                    led.add(meaning)
        digest = ""
        if nodes and not _outside(name):
            lines = "\n".join([text, *sorted(stands_for)])
            digest = hashlib.sha256(lines.encode()).hexdigest()
        return _Piece(name, digest, tuple(sorted(led)))

    def _read(
        self,
        module: Module,
        chain: tuple[str, ...],
        imports: Mapping[str, Iterable[Binding]] | None = None,
    ) -> Iterator[str]:
        """What a name with attributes stands for in a module: pieces, or names of others'
        packages."""
        name, *attributes = chain
        if name in module.definitions:
            yield f"{module.name}:{name}"
        for binding in (*module.imports.get(name, ()), *(imports or {}).get(name, ())):
            attribute = () if binding.attribute is None else (binding.attribute,)
            if _inside(binding.module):
                yield from self._follow(binding.module, (*attribute, *attributes))
            else:
                yield ".".join((binding.module, *attribute))

    def _follow(self, place: str, attributes: tuple[str, ...]) -> Iterator[str]:
        """Pieces behind attributes of a module, its submodules among them."""
        module = self._existing(place)
        first = attributes[0] if attributes else "*"
        if first == "*":
            yield f"{place}:*"
        elif module.binds(first):
            yield from self._read(module, attributes)
        elif self.module(f"{place}.{first}"):
            yield from self._follow(f"{place}.{first}", attributes[1:])
        elif "*" in module.imports:
            yield f"{place}:*"
        elif not (first.startswith("__") and first.endswith("__")):
            raise FaderError(f"{place}:{first}: not found; correct what imports it, or define it")


def _inside(name: str) -> bool:
    """Whether a module or piece is the package's."""
    return name.partition(".")[0].partition(":")[0] == PACKAGE


@cache
def _outside(name: str) -> bool:
    """Whether a module or piece is plumbing."""
    module = name.partition(":")[0]
    parts = module.split(".")
    below = (".".join((*parts[:n], "*")) for n in range(1, len(parts) + 1))
    return module in OUTSIDE or any(pattern in OUTSIDE for pattern in below)
