"""The command line: quick to answer, one line for an error, and a preset written whole or not at
all."""

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
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
        (("run", "evalute", *CI), ("no phase 'evalute'", "did you mean `evaluate`?")),
        (("run", "mask", BOLT, "--system", "dinov3", *CI), ("did you mean `dinov2`?",)),
        (("run", "variant", BOLT, "--system", "hart", *CI), ("did you mean `hard`?",)),
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
    assert "data/made/synthetic_small/manifest.json: no such file; `snakemake" in line
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_run_and_one_that_needs_it_finds_its_files(repository):
    small = yaml.safe_load((ROOT / "presets/ci.yaml").read_text(encoding="utf-8"))
    small["datasets"]["synthetic_small"] |= {"train": 10, "good": 2, "defective": 1}
    (repository / "params.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    for arguments in (("dataset", "synthetic_small"), ("pack", BOLT)):
        result = fader("run", *arguments, cwd=repository)
        assert result.returncode == 0, result.stderr
    packed = repository / "results/ci" / BOLT / "packed"
    expected = {"data.safetensors", "split.safetensors"}
    expected |= {f"side{side}.safetensors" for side in (112, 128)}  # of dinov2 and msflow
    assert {path.name for path in packed.iterdir()} == expected


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_all_is_written_before_the_process_ends(unbuffered, tmp_path):
    with (tmp_path / "schema").open("w") as file:
        subprocess.run(
            [FADER, "schema"], stdout=file, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}
        )
    assert (tmp_path / "schema").read_text() == config.schema()


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
    written = list((repository / "workflow/inputs").rglob("*.json"))
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


def test_edits_of_a_configuration_are_kept_beside_the_preset(repository):
    (repository / "params.yaml").write_text("mine")
    result = fader("preset", "good", cwd=repository)
    assert result.stdout == (
        "params.yaml is now presets/good.yaml\nparams.yaml.old is what params.yaml was before\n"
    )
    assert (repository / "params.yaml.old").read_text() == "mine"


def test_images_of_ones_own_become_params_yaml(repository):
    real = (ROOT / "presets/real.yaml").read_text(encoding="utf-8")
    (repository / "presets/real.yaml").write_text(real, encoding="utf-8")
    for inner in ("train/good/0.png", "test/good/0.png", "test/good/0.txt", "../notes/0.txt"):
        path = repository / "images/Screws M4" / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    result = fader("preset", "own", "--root", "images", cwd=repository)
    assert result.stdout == "params.yaml: images holds Screws M4; no category: notes\n"
    result = fader("validate", cwd=repository)
    counted, about = result.stdout.splitlines()
    assert counted == "mine-screws_m4: train 1, test good 1; ignored: 1 file (.txt)"
    assert about.startswith("params.yaml: run 'own', 1 categories")
    (repository / "images/Screws M4").rename(repository / "images/screws")
    line = error_line(fader("validate", cwd=repository))
    assert "params.yaml: categories.mine-screws_m4.category: " in line
    assert "no category 'Screws M4'" in line
    (repository / "images").rename(repository / "elsewhere")
    line = error_line(fader("validate", cwd=repository))
    assert line == "fader: params.yaml: datasets.mine.root: no folder 'images'\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("own",), "own and --root DIR, the folder of the categories, go together"),
        (("demo", "--root", "."), "own and --root DIR, the folder of the categories, go together"),
        (("good", "--layout", "visa"), "own and --root DIR, the folder of the categories, go"),
        (("own", "--root", "nowhere"), "nowhere: no folder"),
        (("own", "--root", "presets"), "presets: no folder NAME in it with NAME/train/good"),
        (("own", "--root", ".", "--layout", "visas"), "did you mean `visa`?"),
        (("god",), "no preset 'god' (there are: bad, good); did you mean `good`?"),
    ],
)
def test_a_preset_that_cannot_be_had_is_one_line(repository, arguments, words):
    assert words in error_line(fader("preset", *arguments, cwd=repository))
    assert not (repository / "params.yaml").exists()


def test_a_refused_preset_leaves_params_yaml_alone(repository):
    (repository / "params.yaml").write_text("mine")
    assert "presets/bad.yaml: ear.epochs" in error_line(fader("preset", "bad", cwd=repository))
    line = error_line(fader("preset", "absent", cwd=repository))
    assert "no preset 'absent' (there are: bad, good)" in line
    assert (repository / "params.yaml").read_text() == "mine"
    assert sorted(path.name for path in repository.iterdir()) == ["params.yaml", "presets"]


# What goes wrong outside


def limited(what: int, soft: int) -> Callable[[], None]:
    """Sets a lower limit in a process that starts."""
    return lambda: resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))


@pytest.mark.parametrize(
    ("make", "target", "limits", "line"),
    [
        (lambda: None, "x" * 300, None, "the name is too long for the file system; shorten it"),
        (lambda: None, "presets", None, "presets: a folder, no file; remove or rename it"),
        (lambda: None, "presets/good.yaml/x", None, "good.yaml: a file where a folder belongs"),
        (lambda: None, "new.yaml", (resource.RLIMIT_FSIZE, 512), "new.yaml: larger than a file"),
        (lambda: Path("gone").symlink_to("no/where"), "gone/x", None, "gone: a file where a"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_leaves_nothing(
    repository, monkeypatch, make, target, limits, line
):
    monkeypatch.chdir(repository)
    make()
    before = sorted(repository.rglob("*"))
    result = subprocess.run(
        [FADER, "preset", "good", "--to", target],
        capture_output=True,
        text=True,
        preexec_fn=limited(*limits) if limits else None,
    )
    assert line in error_line(result)
    assert sorted(repository.rglob("*")) == before


def test_a_full_disk_under_the_output_is_one_line():
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([FADER, "schema"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "fader: no space left on the disk; free some and run again\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"set -o pipefail; '{FADER}' schema | head -c 10"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert len(result.stdout) == 10
    assert result.stderr == ""


def broken(raised: str) -> subprocess.CompletedProcess:
    """`fader validate` where a step raises."""
    code = (
        "import sys, fader.config, fader.cli\n"
        f"def load(path): {raised}\n"
        "fader.config.load = load; sys.argv[1:] = ['validate']; fader.cli.main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted; run the same command again to go on"),
        ("raise MemoryError", 1, "out of memory; take smaller images or batches"),
        ("raise OSError(28, 'No space left', 'a')", 1, "a: no space left on the disk; free some"),
        ("open('nowhere/x')", 1, "nowhere/x: no such file or folder; put it there and run again"),
        ("raise TimeoutError('timed out')", 1, "timed out; mend that and run again"),
        ("raise fader.cli.typer.Exit(3)", 3, None),
    ],
)
def test_what_is_no_defect_of_ours_is_one_line(raised, status, line):
    result = broken(raised)
    assert result.returncode == status
    assert result.stderr.startswith(f"fader: {line}") if line else result.stderr == ""
    assert result.stderr.count("\n") == (1 if line else 0)


def test_a_defect_of_ours_keeps_its_traceback():
    result = broken("raise RuntimeError('broken')")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("RuntimeError: broken\n")


def test_a_name_that_is_no_text_can_be_printed():
    result = broken("print('a\\udcff'); raise FileNotFoundError(2, 'none', 'b\\udcff')")
    assert result.stdout == "a\\udcff\n"
    assert result.stderr.startswith("fader: b\\xff: no such file or folder")


@pytest.mark.parametrize(
    ("job", "status"), [(("dataset", "synthetic_small"), 0), (("pack", BOLT), 1)]
)
def test_a_job_leaves_the_garbage_collector_as_it_was(job, status, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = gc.get_freeze_count()
    assert CliRunner().invoke(app, ["run", *job, *CI]).exit_code == status
    assert gc.isenabled()
    assert gc.get_freeze_count() == kept
