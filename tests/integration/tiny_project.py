"""A tiny project in a repository of its own, for tests that run the real engines."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


class Project:
    """A checkout that tests run commands in and change."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self, *command: str) -> subprocess.Popen:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "PYTHONPATH": str(self.root / "src")}
        env |= {"OMP_NUM_THREADS": "1"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # every job starts a Python
        env |= {"HF_HUB_OFFLINE": "1", "FADER_WEIGHTS": ""}  # no weights but the packaged ones
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *command: str, ok: bool = True) -> str:
        """Output of a command, both streams; an assertion fails unless it ends as ``ok`` says."""
        process = self.start(*command)
        text, _ = process.communicate(timeout=3000)
        assert (process.returncode == 0) == ok, f"{' '.join(command)}\n{text}"
        return text

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        return self.run("git", *who, *arguments)

    def params(self) -> dict:
        return yaml.safe_load((self.root / "params.yaml").read_text())

    def set(self, path: str, value: object) -> None:
        """Change one value of params.yaml by its dotted key."""
        params = self.params()
        *parents, last = path.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
        self.write_params(params)

    def write_params(self, params: dict) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def copy(self, target: Path) -> "Project":
        shutil.copytree(self.root, target, symlinks=True)
        return Project(target)


def tiny() -> dict:
    """presets/ci.yaml as small as it gets: one category of 32-pixel images, one epoch,
    a zero-shot masker and one that learns, a detector with a loop and one without."""
    params = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text())
    params["categories"] = dict(list(params["categories"].items())[:1])
    params["datasets"]["synthetic_small"] |= {"train": 12, "good": 4, "defective": 1}
    params["image"]["size"] = 32
    maskers = params["masks"]["maskers"]
    small = {"input_size": 64, "width": 4, "steps": None, "epochs": 1, "upsampler": 1.0}
    params["masks"] |= {
        "optional": [],
        "maskers": {
            "dinov2": maskers["dinov2"] | {"input_size": 28},
            "dsr": maskers["dsr"] | small,
        },
    }
    params["codebook"] |= {"channels": 8, "codes": 8, "crop": 32, "steps": None, "epochs": 1}
    params["unet"]["widths"] = [4, 8]
    params["ear"] |= {"steps": None, "epochs": 1, "batch": 8, "scales": [4, 8]}
    params["fader"] |= {
        "steps": None,
        "epochs": 1,
        "batch": 8,
        "lrs": [1e-3],
        "schedules": ["fixed", "warmup"],
    }
    params["fader"]["hidden"] = 8
    params["variants"] = {}
    detectors = params["detectors"]
    params["detectors"] = {
        "unet": detectors["unet"] | {"steps": None, "epochs": 1},
        "pca": detectors["pca"] | {"components": 4},
    }
    params["score"]["smooth"] = 3
    return params


def checkout(target: Path) -> Project:
    """The working tree (tracked and new files, uncommitted changes too) as a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith("results/") and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    project = Project(target)
    project.write_params(tiny())
    # Snakemake ends only when the span in which it started its last job is over.
    (profile,) = (target / "profiles/default").iterdir()
    profile.write_text(profile.read_text().replace("10000/5s", "10000/1s"))
    project.git("init", "-q")
    project.git("add", "-A")
    project.git("commit", "-qm", "start")
    return project
