"""The command line: quick to answer, one line for an error, and a preset written whole or not at
all."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fader import config
from fader.cli import app

ROOT = Path(__file__).parents[2]
FADER = Path(sys.executable).with_name("fader")
COMMANDS = [
    *("preset", "validate", "schema", "run", "check"),
    *("make", "inputs", "record", "restore", "dvc-yaml"),
]
CI = ("--config", str(ROOT / "presets/ci.yaml"))
BOLT = "synthetic_small-bolt"


def fader(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([FADER, *arguments], cwd=cwd, capture_output=True, text=True)


def error_line(result: subprocess.CompletedProcess) -> str:
    """The one line of a refusal; anything printed besides it is a failure."""
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("fader: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_help_answers_at_once():
    def spent() -> float:
        """CPU seconds of finished child processes: other work on the machine does not count."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        began = spent()
        assert fader("--help").returncode == 0
        seconds.append(spent() - began)
    assert min(seconds) <= 0.5, f"fader --help took {min(seconds):.2f} s"


def test_nothing_heavy_is_imported_before_a_command_runs():
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'timm', 'pydantic'}"
    code = f"import sys, fader.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_the_commands_are_the_ones_listed():
    named = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    # Further commands may come; none of these goes.
    assert set(COMMANDS) <= set(named)
    shown = fader("--help").stdout
    assert all(f"\n  {name} " in shown for name in named)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = CliRunner().invoke(app, [command, "--help"], prog_name="fader")
    assert result.exit_code == 0, result.output
    assert result.output.strip().startswith(f"Usage: fader {command}")


def test_validate_says_what_will_run():
    result = fader("validate", "--config", "presets/ci.yaml")
    assert result.returncode == 0
    loaded = config.load(ROOT / "presets/ci.yaml")
    count = 3 * len(loaded.masks.maskers) + len(loaded.variants) + len(loaded.detectors)
    assert result.stdout == (
        f"presets/ci.yaml: run 'ci', 1 categories, {count} methods, seeds [0]\n"
    )


def test_schema_is_printed_exactly():
    assert fader("schema").stdout == config.schema()


def test_the_committed_dvc_yaml_is_current():
    printed = fader("dvc-yaml").stdout
    assert (ROOT / "dvc.yaml").read_text(encoding="utf-8") == printed, (
        "stale stages: run `fader dvc-yaml > dvc.yaml`"
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("validate", "--config", "absent.yaml"), ("absent.yaml", "fader preset")),
        (("run", "trian", *CI), ("no phase 'trian'", "there are: dataset, pack")),
        (("run", "ear", "nowhere", "--seed", "0", *CI), ("place 'nowhere'", BOLT)),
        (("run", "ear", BOLT, "--seed", "5", *CI), ("seed 5", "there are: 0")),
        (("run", "mask", BOLT, "--system", "dino", *CI), ("system 'dino'", "dinov2")),
        (("run", "mask", BOLT, *CI), ("system None", "dinov2")),
    ],
)
def test_a_users_error_is_one_line_and_status_1(arguments, names):
    line = error_line(fader(*arguments))
    assert all(name in line for name in names)


def test_a_missing_artefact_names_file_and_command(tmp_path):
    line = error_line(fader("run", "pack", BOLT, *CI, cwd=tmp_path))
    assert "data/raw/synthetic_small/manifest.json: no such file; `snakemake" in line
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_run_and_one_that_needs_it_finds_its_files(repository):
    small = yaml.safe_load((ROOT / "presets/ci.yaml").read_text(encoding="utf-8"))
    small["datasets"]["synthetic_small"] |= {"train": 10, "good": 2, "defective": 1}
    (repository / "params.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    for arguments in (("dataset", "synthetic_small"), ("pack", BOLT)):
        result = fader("run", *arguments, cwd=repository)
        assert result.returncode == 0, result.stderr
    packed = repository / "results/ci" / BOLT / "packed"
    assert {path.name for path in packed.iterdir()} == {"data.safetensors", "split.safetensors"}


def test_a_wrong_option_is_not_a_traceback():
    result = fader("run", "ear", BOLT, "--seed", "-1")
    assert result.returncode == 2
    assert "--seed" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_stage_of_dvc_that_does_not_exist_is_one_line(repository):
    assert fader("preset", "good", cwd=repository).returncode == 0
    for arguments, words in (
        (("trian",), "no phase 'trian'"),
        (("ear", "nowhere"), "has no place 'nowhere'"),
        (("mask", BOLT, "dino"), "has no system 'dino'"),
    ):
        assert words in error_line(fader("make", *arguments, cwd=repository))


def test_inputs_are_written_once(repository):
    assert fader("preset", "good", cwd=repository).returncode == 0
    first, second = (fader("inputs", cwd=repository) for _ in range(2))
    written = list((repository / "workflow/inputs").glob("*.json"))
    assert first.stdout == f"{len(written)} changed\n", first.stderr
    assert second.stdout == "0 changed\n"
    names = {path.name for path in written}
    assert {f"ear.{BOLT}.json", f"mask.{BOLT}.dinov2.json", "report.json"} <= names


@pytest.fixture
def repository(tmp_path):
    """A folder with one good preset and one bad."""
    good = (ROOT / "presets/ci.yaml").read_text(encoding="utf-8")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/good.yaml").write_text(good, encoding="utf-8")
    bad = yaml.safe_load(good)
    bad["ear"]["epochs"] = 0
    (tmp_path / "presets/bad.yaml").write_text(yaml.safe_dump(bad), encoding="utf-8")
    return tmp_path


def test_preset_becomes_params_yaml(repository):
    result = fader("preset", "good", cwd=repository)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "params.yaml is now presets/good.yaml\n"
    written = (repository / "params.yaml").read_bytes()
    assert written == (repository / "presets/good.yaml").read_bytes()
    assert sorted(path.name for path in repository.iterdir()) == ["params.yaml", "presets"]


def test_a_refused_preset_leaves_params_yaml_alone(repository):
    (repository / "params.yaml").write_text("mine")
    assert "presets/bad.yaml: ear.epochs" in error_line(fader("preset", "bad", cwd=repository))
    line = error_line(fader("preset", "absent", cwd=repository))
    assert "no preset 'absent' (there are: bad, good)" in line
    assert (repository / "params.yaml").read_text() == "mine"
    assert sorted(path.name for path in repository.iterdir()) == ["params.yaml", "presets"]
