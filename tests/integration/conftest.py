"""A tiny run through the real Snakemake, made once and copied by tests that change something."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOW = ("Snakefile", "workflow", "profiles", "reference", "presets", "src")


@dataclass(frozen=True)
class Bench:
    """A working copy with its own params.yaml and results."""

    root: Path

    def run(self, *command: str, fails: bool = False) -> subprocess.CompletedProcess:
        """Run a command here with the environment's own tools; asserts whether it succeeds."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(self.root / "src")}
        environment.pop("FADER_PARAMS", None)
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    def snakemake(self, *arguments: str, fails: bool = False) -> str:
        """Output of ``snakemake --cores 2 ARGUMENTS``."""
        done = self.run("snakemake", "--cores", "2", *arguments, fails=fails)
        return done.stdout + done.stderr

    def jobs(self, *arguments: str) -> dict[str, int]:
        """Jobs that ``snakemake -n ARGUMENTS tables`` would run: rule → how many."""
        lines = self.snakemake("-n", *arguments, "--", "tables").splitlines()
        table = [line.split() for line in lines]
        counts = {row[0]: int(row[1]) for row in table if len(row) == 2 and row[1].isdigit()}
        counts.pop("total", None)
        return counts

    def edit(self, **changes) -> None:
        """Set dotted keys of params.yaml (``fader__margin=2.0`` sets fader.margin)."""
        path = self.root / "params.yaml"
        values = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            section = values
            for parent in parents:
                section = section[parent]
            section[last] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def copy(self, target: Path) -> "Bench":
        shutil.copytree(self.root, target, symlinks=True)
        return Bench(target)


def tiny() -> dict:
    """The ci preset, cut down to one category, one epoch and two grid points."""
    values = yaml.safe_load((REPOSITORY / "presets" / "ci.yaml").read_text())
    values["categories"] = dict(list(values["categories"].items())[:1])
    values["ear"]["epochs"] = 2
    values["fader"] |= {"epochs": 1, "lrs": [0.001], "schedules": ["fixed", "sgdr"]}
    return values


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Bench:
    """A fresh working copy with tiny parameters; nothing has run in it."""
    root = tmp_path_factory.mktemp("bench")
    for name in WORKFLOW:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny(), sort_keys=False))
    return Bench(root)


@pytest.fixture(scope="session")
def finished(workspace, tmp_path_factory) -> Bench:
    """The tiny run, finished through Snakemake. Tests that change it work on a copy."""
    bench = workspace.copy(tmp_path_factory.mktemp("finished") / "bench")
    bench.snakemake("tables")
    return bench
