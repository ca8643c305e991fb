"""A tiny run through the real Snakemake, made once and copied by tests that change something."""

from pathlib import Path

import pytest
import yaml
from tiny_project import ROOT, Project, checkout


class Bench(Project):
    """A project and what its Snakemake does."""

    def snakemake(self, *arguments: str) -> str:
        """Output of ``snakemake --cores 2 ARGUMENTS``."""
        return self.run("snakemake", "--cores", "2", *arguments)

    def jobs(self) -> dict[str, int]:
        """Jobs that ``snakemake tables`` would run: rule → how many."""
        rows = [line.split() for line in self.snakemake("-n", "--", "tables").splitlines()]
        counts = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
        counts.pop("total", None)
        return counts

    def copy(self, target: Path) -> "Bench":
        return Bench(super().copy(target).root)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Bench:
    """A fresh working copy with tiny parameters, one control arm and one masker without weights;
    nothing has run in it."""
    bench = Bench(checkout(tmp_path_factory.mktemp("bench")).root)
    preset = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text())
    bench.set("variants.nomask", preset["variants"]["nomask"])
    bench.set("masks.maskers.vit", preset["masks"]["maskers"]["vit"])
    bench.set("masks.optional", ["vit"])
    return bench


@pytest.fixture(scope="session")
def finished(workspace, tmp_path_factory) -> Bench:
    """The tiny run, finished through Snakemake. Tests that change it work on a copy."""
    bench = workspace.copy(tmp_path_factory.mktemp("finished") / "bench")
    bench.snakemake("tables")
    return bench
