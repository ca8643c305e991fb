"""docs/adding-a-masker.md: added to a copy of the package as the page says, its masker works.

The test that the page shows is run by tests/integration/test_commands.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest

USE = """
import torch
from pathlib import Path
from fader import maskers
from fader.config import load
from fader.maskers.threshold import binarise
from fader.report import labels
from fader.runtime import Machine

config = load(Path("presets/ci.yaml"))
machine = Machine(torch.device("cpu"), "fp32")
settings = config.masks.settings("contrast")
masker = maskers.create("contrast", settings, maskers.Context("x", machine))
images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 10
images[1, :, 20:24, 40:44] += 0.8
saliency = masker.saliency(images)
assert saliency.shape == (3, 16, 16) and saliency.dtype == torch.float32 and saliency.min() >= 0
assert all(torch.equal(saliency[[i]], masker.saliency(images[[i]])) for i in range(3))
assert saliency.flatten(1).argmax(1)[1] == 5 * 16 + 10
assert binarise(saliency, *config.masks.threshold("contrast"))[1, 5, 10]
assert labels.maskers(config)["contrast"] == "Contrast"
assert not config.masks.trained("contrast")
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package and the ci preset, with the page's masker."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(pages.ROOT / "src/fader", root / "src/fader")
    (root / "presets").mkdir()
    shutil.copy(pages.ROOT / "presets/ci.yaml", root / "presets")
    shutil.copy(pages.ROOT / "pyproject.toml", root)
    pages.add_masker(root)
    return root


@pytest.mark.parametrize(
    "command",
    [
        ["python", "-c", USE],
        ["ruff", "check", "src/fader/maskers", "src/fader/config/maskers.py", "tests"],
        ["ruff", "format", "--check", "src/fader/maskers", "src/fader/config/maskers.py", "tests"],
    ],
    ids=["used", "lint", "format"],
)
def test_the_pages_masker(command, copy):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(command, cwd=copy, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
