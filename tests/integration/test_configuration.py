"""A mistake in the configuration ends `fader validate` and Snakemake alike: one line, the last."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_project import Project

pytestmark = pytest.mark.slow

FOLDER = {"source": "folder", "layout": "mvtec", "paper": None, "complete": False}


def own(bench: Project, root: str) -> None:
    params = bench.params()
    params["datasets"] = {"mine": FOLDER | {"root": root}}
    params["categories"] = {"mine": {"dataset": "mine", "category": "bolt"}}
    bench.write_params(params)


def appended(data: bytes) -> Callable[[Project], None]:
    def append(bench: Project) -> None:
        with (bench.root / "params.yaml").open("ab") as file:
            file.write(data)

    return append


def folder(bench: Project) -> None:
    (bench.root / "params.yaml").unlink()
    (bench.root / "params.yaml").mkdir()


MISTAKES: dict[str, Callable[[Project], None]] = {
    "`run` is given twice, in lines 1 and ": appended(b"run: other\n"),
    "ear.epoch: unknown key; did you mean `epochs`?": lambda bench: bench.set("ear.epoch", 3),
    "is not UTF-8; save the file as UTF-8": appended(b"# gr\xfc\xdfe\n"),
    "a folder, no file; remove or rename it": folder,
    "root: 'results/mine' is inside results/, the project's own": lambda bench: own(
        bench, "results/mine"
    ),
    "datasets.mine.root: no folder 'nowhere'": lambda bench: own(bench, "nowhere"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_ends_both_tools_with_the_same_line(workspace, tmp_path, line):
    bench = workspace.copy(tmp_path / "bench")
    MISTAKES[line](bench)
    last = []
    for command in (("fader", "validate"), ("snakemake", "-n", "tables")):
        text = bench.run(*command, ok=False)
        assert "Traceback" not in text
        last.append(text.splitlines()[-1])
    assert last[0].startswith("fader: params.yaml: ")
    assert line in last[0]
    assert last[1] == last[0]


def test_a_file_of_another_name_is_read_as_params_yaml_is(workspace, tmp_path):
    """Snakemake reads it, too, and takes numbers otherwise: no override for that."""
    bench = workspace.copy(tmp_path / "bench")
    text = (bench.root / "params.yaml").read_text()
    assert "lr: 0.001" in text
    other = Path("other.yaml")
    (bench.root / other).write_text(text.replace("lr: 0.001", "lr: 1e-3"))
    listing = bench.run("snakemake", "-n", "--configfile", str(other), "--", "tables")
    assert "evaluate" in listing
    for override in (("--config", "run=x"), ("--configfile", "other.yaml", "params.yaml")):
        text = bench.run("snakemake", "-n", *override, "--", "tables", ok=False)
        assert "edit one complete file" in text.splitlines()[-1]
