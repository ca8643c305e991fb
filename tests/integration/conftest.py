"""A tiny run through the real Snakemake, made once and copied by tests that change something."""

from pathlib import Path

import pytest
from tiny_project import Project, checkout


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
    """A fresh working copy with tiny parameters; nothing has run in it."""
    return Bench(checkout(tmp_path_factory.mktemp("bench")).root)


@pytest.fixture(scope="session")
def finished(workspace, tmp_path_factory) -> Bench:
    """The tiny run, finished through Snakemake. Tests that change it work on a copy."""
    bench = workspace.copy(tmp_path_factory.mktemp("finished") / "bench")
    bench.snakemake("tables")
    return bench
