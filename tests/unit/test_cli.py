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
    *("preset", "validate", "schema", "dataset", "pack", "validation", "mask", "train-ear"),
    *("search-mosaic", "train-fader", "evaluate", "table", "figure"),
]


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
    assert result.stdout == ("presets/ci.yaml: run 'ci', 1 categories, 27 methods, seeds [0]\n")


def test_schema_is_printed_exactly():
    assert fader("schema").stdout == config.schema()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("validate", "--config", "absent.yaml"), ("absent.yaml", "fader preset")),
        (
            ("pack", "--dataset", "d", "--category", "c", "--config", "presets/ci.yaml"),
            ("d/c", "categories"),
        ),
    ],
)
def test_a_users_error_is_one_line_and_status_1(arguments, names):
    line = error_line(fader(*arguments))
    assert all(name in line for name in names)


def test_a_missing_artefact_names_file_and_command(tmp_path):
    line = error_line(
        fader(
            *("pack", "--dataset", "synthetic_small", "--category", "bolt"),
            *("--config", str(ROOT / "presets/ci.yaml")),
            cwd=tmp_path,
        )
    )
    assert "data/raw/synthetic_small/manifest.json: no such file; `snakemake" in line
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_is_not_a_traceback():
    result = fader("train-ear", "--dataset", "d", "--category", "c", "--seed", "-1")
    assert result.returncode == 2
    assert "--seed" in result.stderr
    assert "Traceback" not in result.stderr


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
