"""The guard of a rebuild: what every artefact of a run is made of, and what differs between two.

``python benchmarks/identities.py RESULTS [OTHER]``: RESULTS is a folder such as ``results/ci``.
Alone it prints one line an artefact: path, identity (settings, inputs, facts and contents) and the
digest of the contents alone. With another folder it prints the artefacts that are new, gone, or
differ, and in what; the exit status is 1 where contents differ. A step that only moves or renames
changes neither; one that moves files changes the paths in their headers, hence identities, but no
contents.

Contents are the tensors of a safetensors file by name, and the facts of a fact file without the
names of where and how they were made.
"""

import hashlib
import json
import sys
from pathlib import Path

from fader.files import digest
from fader.pipeline import artifacts

# Facts that say where a number comes from, not what it is.
LABELS = ("run", "dataset", "category", "method", "machine", "root")


def contents(path: Path) -> str:
    """Digest of what an artefact holds, whatever its header says."""
    if path.suffix == ".json":
        facts = artifacts.read_header(path).facts
        return digest({name: value for name, value in facts.items() if name not in LABELS})
    tensors = artifacts.read_tensors(path)
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.contiguous().flatten().numpy().tobytes())
    return hasher.hexdigest()[:16]


def is_artefact(path: Path) -> bool:
    """Whether a file is one with a header."""
    if path.suffix == ".safetensors":
        return True
    return path.suffix == ".json" and "identity" in json.loads(path.read_text(encoding="utf-8"))


def inventory(folder: Path) -> dict[str, tuple[str, str]]:
    """Path below ``folder`` → (identity, digest of the contents)."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    return {
        path.relative_to(folder).as_posix(): (artifacts.read_header(path).identity, contents(path))
        for path in filter(is_artefact, files)
    }


def compare(old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]]) -> tuple[list, bool]:
    """Lines that say what differs, and whether any contents do."""
    lines, differs = [], False
    for path in sorted(old.keys() | new.keys()):
        if path not in new or path not in old:
            lines.append(f"{'gone' if path in old else 'new':9} {path}")
        elif old[path][1] != new[path][1]:
            lines, differs = [*lines, f"contents  {path}"], True
        elif old[path][0] != new[path][0]:
            lines.append(f"identity  {path}")
    return lines, differs


def main(folders: list[Path]) -> int:
    """Print one run, or what differs between two; the exit status."""
    found = [inventory(folder) for folder in folders]
    if len(found) == 1:
        for path, (identity, held) in found[0].items():
            print(identity, held, path)
        return 0
    lines, differs = compare(*found)
    same = len(found[0].keys() & found[1].keys()) - sum(
        line.startswith(("identity", "contents")) for line in lines
    )
    print("\n".join([*lines, f"{same} artefacts are the same in identity and contents"]))
    return int(differs)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
