"""Every command that README and docs/ show, run as it stands, in the order of the pages.

One checkout is used from the first command to the last. Its presets are one tiny run on a folder of
images, so that `make demo` makes it and every later command finds it finished; presets/ci.yaml is
another, for the pages that add a system, and `patchcore` of presets/real.yaml is a PCA, which takes
less to fit. What the pages call DIR, GOOD, IMAGES and so on are folders of these names. `.venv` is
the environment of the tests, stamped as new, so that `make env` does nothing.

Not run as they stand are the commands of ``INSTEAD``, which says what is run in their place and
why, and those of ``NOT_RUN``. docs/own-images.md is run by tests/unit/test_model_docs.py. A command
that a page names by its beginning (`fader fit`) is run where it stands in full.
"""

import contextlib
import shlex
import shutil
import sys
from pathlib import Path

import pages
import pytest
import yaml
from tiny_project import ROOT, Project, checkout, tiny

from fader.data import own, synthetic
from fader.report.expected import EXPECTED, Expected, write

pytestmark = pytest.mark.slow

OF_OTHER_TESTS = {"docs/own-images.md": "tests/unit/test_model_docs.py"}
LOCAL = "--executor local --cores 1"
PACKED = "results/own/mine-bolt/packed/data.safetensors"
# Command → what is run instead, and why.
INSTEAD = {
    "fader preset own --root DIR && snakemake --cores all tables": (
        "fader preset own --root DIR && snakemake --cores all -n tables && fader preset demo",
        "a second whole run; test_incomplete_runs.py makes one of own images",
    ),
    "make test": ("make --dry-run test", "this is one of its tests"),
    "pytest tests/unit/test_detectors.py tests/unit/test_pca.py": (
        "ls tests/unit/test_detectors.py tests/unit/test_pca.py",
        "they run beside this one, for minutes",
    ),
    "fader run PHASE [CATEGORY] [--system NAME] [--seed K]": (
        "fader run pack mine-bolt",
        "the form of a command",
    ),
    "snakemake --profile profiles/slurm --resources gpu=8 -n -- tables": (
        f"snakemake --profile profiles/slurm {LOCAL} --resources gpu=8 -n -- tables",
        "neither Slurm nor its plugin is here",
    ),
    "snakemake --profile profiles/slurm --resources gpu=8 -- tables": (
        f"snakemake --profile profiles/slurm {LOCAL} --resources gpu=8 -- {PACKED}",
        "likewise; one job is enough",
    ),
}
NOT_RUN = {
    "pip install snakemake-executor-plugin-slurm": "it would change the environment of all tests",
    "dvc commit": "README says never to run it",
}
# What is made before, so that a command finds finished work.
BEFORE = {"dvc repro": "fader record"}  # from nothing: tests/integration/test_dvc.py


def shown() -> list[str]:
    """Commands of all pages, each once, but for those of other tests, and beginnings of others."""
    full = [command for page in pages.PAGES for command in pages.commands(page)]
    blocks = {page: pages.commands(page, inline=False) for page in pages.PAGES}
    of_others = {command for page in OF_OTHER_TESTS for command in blocks.pop(page)}
    in_blocks = {command for page in blocks for command in blocks[page]}

    def begins(command: str) -> bool:
        return command not in in_blocks and any(c.startswith(f"{command} ") for c in full)

    return [c for c in dict.fromkeys(full) if c not in of_others and not begins(c)]


COMMANDS = [command for command in shown() if command not in NOT_RUN]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """The checkout, its images and its environment."""
    bench = checkout(tmp_path_factory.mktemp("commands") / "project")
    root = bench.root
    synthetic.generate(root / "DIR", "mvtec", seed=0, size=64, train=12, good=4, defective=1)
    for other in [path for path in (root / "DIR").iterdir() if path.name != "bolt"]:
        shutil.rmtree(other) if other.is_dir() else other.unlink()
    (root / "GOOD").symlink_to("DIR/bolt/train/good")
    (root / "IMAGES").symlink_to("DIR/bolt/test/good")
    (root / "parts").symlink_to("DIR")
    (root / "found").symlink_to("RESULTS")

    full = tiny()
    masks = full["masks"] | {"maskers": {"dinov2": full["masks"]["maskers"]["dinov2"]}}
    small = full | {"masks": masks, "detectors": {"pca": full["detectors"]["pca"]}}
    with contextlib.chdir(root):
        shared = own.configuration(own.find(Path("DIR")), yaml.safe_dump(small, sort_keys=False))
    for path in (root / "presets").glob("*.yaml"):
        path.write_text(shared)
    real = small | {"detectors": {"patchcore": small["detectors"]["pca"]}}  # cheaper
    (root / "presets/real.yaml").write_text(yaml.safe_dump(real, sort_keys=False))
    (root / "presets/ci.yaml").write_text(yaml.safe_dump(full, sort_keys=False))
    pages.add_masker(root)
    expected = Expected(
        *("own", "mine", "bolt", "fader-dinov2", "image_auroc"),
        mean=0.5,
        tolerance=1,
        seeds=(0,),
        source="measured",
        how="any",
    )
    write(root / EXPECTED, [expected])

    (root / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (root / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (root / ".venv/.ready").touch()
    assert "venv" not in bench.run("make", "--dry-run", "env")
    return bench


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_runs(command, project):
    if command in BEFORE:
        project.run(*shlex.split(BEFORE[command]))
    instead, _ = INSTEAD.get(command, (command, None))
    project.run("bash", "-c", f"set -e -o pipefail; {instead}")


def test_the_pages_python_reads_the_map_that_was_predicted(project):
    (code,) = pages.blocks("docs/reading-the-heat-map.md", "python")
    check = "assert len(rows) == 4 and pixels.max() == 65535 and np.isclose(values.max(), white)"
    project.run("python", "-c", f"{code}\n{check}")


def test_the_tables_of_exceptions_are_of_commands_that_are_shown():
    every = shown()
    assert {*INSTEAD, *NOT_RUN, *BEFORE} <= {*every}
    for page, test in OF_OTHER_TESTS.items():
        assert page in (ROOT / test).read_text()
