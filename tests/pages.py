"""The commands and the code that README and docs/ show."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
SHELL = ("", "bash", "sh", "console")
PIECES = r"^```(\w*)\n(.*?)^```$|`([^`]+)`"
PROGRAMS = "dvc|export|fader|git|make|pip|pytest|python|snakemake|source"


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """Fenced blocks of a page in some languages."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE)
    return [block for language, block in fenced if language in languages]


def commands(page: str, inline: bool = True) -> list[str]:
    """Commands of a page in their order: lines of its shell blocks, without comments, and, where
    ``inline``, what stands between backticks and begins with a program and a space."""
    found = []
    for language, block, span in re.findall(PIECES, text(page), re.DOTALL | re.MULTILINE):
        if span:
            span = " ".join(span.split())
            found += [span] if inline and re.match(rf"(?:{PROGRAMS}) \S", span) else []
        elif language in SHELL:
            lines = block.replace("\\\n", "").splitlines()
            bare = (re.sub(r"(^|\s+)#\s.*", "", line).strip() for line in lines)
            found += [line for line in bare if line]
    return found


MASKER = "docs/adding-a-masker.md"


def add_masker(root: Path) -> None:
    """Add the masker of docs/adding-a-masker.md to the checkout ``root``, as the page says."""
    settings, *_ = blocks(MASKER, "python")
    (block,) = blocks(MASKER, "yaml")
    files = re.findall(r"`(\S+\.py)`[^`]*\n\n```python\n(.*?)^```$", text(MASKER), re.DOTALL | re.M)
    for path, code in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(code, encoding="utf-8")
    name = settings.removeprefix("class ").partition("(")[0]
    config, exports = (root / f"src/fader/config/{file}.py" for file in ("maskers", "__init__"))
    _replace(config, "\nSalient = ", f"\n{settings}\n\nSalient = {name} | ")
    _replace(exports, "maskers import (\n", f"maskers import (\n    {name},\n")
    _replace(exports, "__all__ = [\n", f'__all__ = [\n    "{name}",\n')
    preset = root / "presets/ci.yaml"
    values = yaml.safe_load(preset.read_text(encoding="utf-8"))
    values["masks"]["maskers"] |= yaml.safe_load(block)["masks"]["maskers"]
    preset.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _replace(path: Path, old: str, new: str) -> None:
    """Replace what a file has once."""
    code = path.read_text(encoding="utf-8")
    assert code.count(old) == 1, f"{path}: {old!r}"
    path.write_text(code.replace(old, new), encoding="utf-8")
