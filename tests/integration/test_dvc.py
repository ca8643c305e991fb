"""DVC and Snakemake together, with the real tools, on a tiny project in repositories of its own."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny_project import Project, checkout

from fader.pipeline.artifacts import read_header
from fader.pipeline.paths import Files
from fader.pipeline.phases import AXES, PHASES, lookup
from fader.pipeline.record import OF_RUN, RULES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STAGE = "synthetic_small-bolt"
FILES = Files.of("ci", "synthetic_small", "bolt")
EAR, FADER = FILES.ear(0), FILES.fader(0, "dinov2")
METRICS = FILES.metrics(0, "fader-dinov2")
TRAINED = {f"fader@{STAGE}", f"evaluate@{STAGE}", "report"}  # by a change of FADeR's settings
PHASE = {rule: phase for phase, rules in RULES.items() for rule in rules} | {"all": "report"}
TABLES = ("snakemake", "--cores", "2", "--", "tables")


def ran(output: str) -> set[str]:
    """Stages that a `dvc repro` ran."""
    return set(re.findall(r"Running stage '(.+)'", output))


def dvc_status(project: Project) -> dict:
    return json.loads(project.run("dvc", "status", "--json"))


def idle(project: Project) -> bool:
    return "Nothing to be done" in project.run("snakemake", "-n", "--", "tables")


def planned(project: Project) -> set[str]:
    """Phases in which Snakemake would run a job."""
    listing = project.run("snakemake", "-n", "--", "tables")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", listing, flags=re.MULTILINE))
    return {PHASE[rule] for rule in counts if rule != "total"}


def lock(project: Project) -> dict:
    return yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]


def commit(project: Project, message: str) -> None:
    project.git("add", "-A")
    project.git("commit", "-qm", message)


def wait(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def break_phase(project: Project, phase: str) -> Callable[[], None]:
    """Make a phase's code fail; returns what mends it."""
    path = project.root / f"src/fader/phases/{phase}.py"
    sound = path.read_text()
    path.write_text(sound + '\nraise RuntimeError("broken on purpose")\n')
    return lambda: path.write_text(sound) and None


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Project:
    """A checkout in which nothing was made yet."""
    return checkout(tmp_path_factory.mktemp("fresh") / "project")


@pytest.fixture(scope="session")
def made(fresh, tmp_path_factory) -> Project:
    """Made by `dvc repro`, committed and pushed; tests only read it, or copy it."""
    folder = tmp_path_factory.mktemp("made")
    project = fresh.copy(folder / "project")
    project.run("dvc", "remote", "add", "-d", "store", str(folder / "store"))
    assert len(ran(project.run("dvc", "repro"))) == len(PHASES)
    commit(project, "made")
    project.run("dvc", "push")
    return project


@pytest.fixture
def project(made, tmp_path) -> Project:
    return made.copy(tmp_path / "project")


def test_a_second_repro_runs_nothing(made):
    assert ran(made.run("dvc", "repro")) == set()
    assert dvc_status(made) == {}
    assert idle(made)


def test_metrics_and_plots_show_the_run(made, tmp_path):
    shown = json.loads(made.run("dvc", "metrics", "show", "--json"))
    average = shown[""]["data"]["results/ci/tables/metrics.json"]["data"]["average"]
    facts = read_header(made.root / METRICS).facts["metrics"]
    assert average["fader-dinov2"]["pixel_auroc"] == pytest.approx(facts["pixel_auroc"])
    made.run("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    for curve in ("roc", "pr", "losses"):
        assert f"curves/{curve}/synthetic_small/bolt.csv" in page


def closed(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs joined by a path, but of a phase with itself."""
    while True:
        longer = {(a, d) for a, b in edges for c, d in edges if b == c} - edges
        if not longer:
            return {(a, b) for a, b in edges if a != b}
        edges = edges | longer


def test_both_engines_have_the_same_graph(made):
    dot = made.run("snakemake", "--rulegraph", "--", "tables")
    rule = dict(re.findall(r'(\d+)\[label = "(\w+)"', dot))
    snakemake = {(PHASE[rule[a]], PHASE[rule[b]]) for a, b in re.findall(r"(\d+) -> (\d+)", dot)}
    dvc = {
        (a.partition("@")[0], b.partition("@")[0])
        for a, b in re.findall(r'"(\S+)" -> "(\S+)"', made.run("dvc", "dag", "--dot"))
    }
    # What reads all categories has, in DVC, files that stand for them (see records.summarise and
    # paths.normals_path): paths, not edges.
    inner = {(a, b) for a, b in snakemake if a != b and b not in OF_RUN}
    assert {(a, b) for a, b in dvc if b not in OF_RUN} == inner
    assert closed(dvc) == closed(snakemake)


def test_both_engines_depend_on_the_same_settings_and_code(made):
    """Snakemake's records of what its jobs depended on against the values in dvc.lock."""
    params, stages = made.params(), lock(made)
    code = json.loads((made.root / "workflow/closure.json").read_text())
    seen = set()
    for path in (made.root / ".snakemake/metadata").rglob("*"):
        if not path.is_file():
            continue
        record = json.loads(path.read_text())
        phase = PHASE[record["rule"]]
        name = {"dataset": "dataset@synthetic_small"} | {key: key for key in OF_RUN}
        stage = stages[name.get(phase, f"{phase}@{STAGE}")]
        named = re.search(r"--masker (\w+)", record["shellcmd"])
        masker = named.group(1) if named else ""
        keys = [k.format(dataset="synthetic_small", masker=masker) for k in PHASES[phase]]
        # A rule may have params beside the settings: which files it makes of what it is given.
        assert {repr(lookup(params, key)) for key in keys} <= set(record["params"])
        whole = {k.removesuffix(f".{masker}") for k in keys}
        assert set(stage["params"]["params.yaml"]) == whole | set(AXES.get(phase, ()))
        modules = {dep["path"] for dep in stage["deps"] if dep["path"].startswith("src/")}
        assert modules == set(code[phase])
        kind = params["masks"]["maskers"].get(masker, {}).get("kind")
        read = {file for file in record["input"] if file.startswith("src/")}
        assert read == set(code.get(f"{phase}.{kind}", modules)) <= modules
        seen.add(record["rule"])
    assert seen == set(PHASE) - {"all", "tables", "evaluate_variants"}


def test_snakemake_makes_the_same_bytes_and_its_run_can_be_recorded(fresh, made, tmp_path):
    direct = fresh.copy(tmp_path / "project")
    direct.run(*TABLES)
    times = {file: (direct.root / file).stat().st_mtime for file in (EAR, FADER, METRICS)}
    direct.run("fader", "record")
    assert dvc_status(direct) == {}
    assert times == {file: (direct.root / file).stat().st_mtime for file in times}
    assert ran(direct.run("dvc", "repro")) == set()
    for name, stage in lock(made).items():
        for ours, theirs in zip(lock(direct)[name]["outs"], stage["outs"], strict=True):
            assert ours["path"] == theirs["path"]
            if re.search(r"/(metrics|summary|cost|tables)(/|$)", ours["path"]):  # they hold timings
                continue
            assert ours["md5"] == theirs["md5"], ours["path"]
    for path in (direct.root / "results/ci/tables").glob("*"):
        if path.stem != "cost":
            same = (made.root / "results/ci/tables" / path.name).read_bytes()
            assert path.read_bytes() == same, path.name
    mine, theirs = (read_header(p.root / METRICS) for p in (direct, made))
    assert mine == theirs


def test_a_setting_remakes_its_phase_and_later_ones_and_a_failure_keeps_the_rest(project):
    project.set("fader.lrs", [1e-4])
    mend = break_phase(project, "evaluate")
    before = lock(project)
    output = project.run("dvc", "repro", ok=False)
    assert ran(output) == TRAINED - {"report"}
    assert "broken on purpose" in output
    after = lock(project)
    assert after[f"fader@{STAGE}"] != before[f"fader@{STAGE}"]
    assert after[f"evaluate@{STAGE}"] == before[f"evaluate@{STAGE}"]
    mend()
    assert ran(project.run("dvc", "repro")) == {f"evaluate@{STAGE}", "report"}
    assert dvc_status(project) == {}
    assert idle(project)
    assert read_header(project.root / FADER).settings["fader"]["lrs"] == [1e-4]


def test_a_new_category_runs_alone(project):
    place = {"dataset": "synthetic_small", "category": "weave"}
    project.set("categories.new", place)
    phases = {f"{phase}@new" for phase in PHASES if phase not in ("dataset", *OF_RUN)}
    # The codebook is trained on all categories, and what it is part of is made again.
    of_codebook = {"masker", "mask", "fader", "evaluate"}
    again = {"codebook", "report", *(f"{phase}@{STAGE}" for phase in of_codebook)}
    assert ran(project.run("dvc", "repro")) == phases | again
    assert dvc_status(project) == {}
    assert idle(project)


def test_an_experiment_runs_what_its_setting_touches(project):
    output = project.run("dvc", "exp", "run", "-S", "report.images=1")
    assert ran(output) == {f"evaluate@{STAGE}", "report"}
    assert project.params()["report"]["images"] == 1
    assert idle(project)


def clone(made: Project, target: Path) -> Project:
    made.run("git", "clone", "-q", ".", str(target))
    copied = Project(target)
    copied.run("dvc", "pull", "-q")
    return copied


def test_a_restored_clone_is_idle_and_sees_changes(made, tmp_path):
    cloned = clone(made, tmp_path / "clone")
    assert dvc_status(cloned) == {}
    cloned.run("fader", "restore")
    assert idle(cloned)
    assert dvc_status(cloned) == {}
    for key, value, phases in (
        ("fader.hidden", 16, {"fader", "cost", "evaluate", "report"}),
        ("mosaic.policy", "fixed", {"mosaic", "fader", "evaluate", "report"}),
    ):
        before = lookup(cloned.params(), key)
        cloned.set(key, value)
        assert {name.partition("@")[0] for name in dvc_status(cloned)} <= phases
        assert min(phases, key=list(PHASES).index) + f"@{STAGE}" in dvc_status(cloned)
        assert planned(cloned) == phases
        line = cloned.run("fader", "restore", ok=False).strip()
        assert line.startswith("fader: ") and "make record" in line and "\n" not in line
        cloned.set(key, before)
    code = cloned.root / "src/fader/report/tables.py"
    code.write_text(code.read_text() + "\n")
    assert set(dvc_status(cloned)) == {"report"}
    assert planned(cloned) == {"report"}


def evaluate(project: Project) -> str:
    """What reading FADeR's weights says when they are stale."""
    place = ("--dataset", "synthetic_small", "--category", "bolt", "--seed", "0")
    command = ("fader", "evaluate", *place, "--method", "fader-dinov2")
    return project.run(*command, ok=False).strip().splitlines()[-1]


def test_stale_files_of_a_clone_are_refused_and_remade_before_they_are_recorded(made, tmp_path):
    """Hazard: pulled files without Snakemake's records, then another setting and a direct run."""
    cloned = clone(made, tmp_path / "clone")
    cloned.set("fader.lrs", [1e-4])
    line = evaluate(cloned)
    assert line.startswith(f"fader: {FADER}: stale, made with another fader; run `make record`")
    cloned.run("fader", "record")
    assert read_header(cloned.root / FADER).settings["fader"]["lrs"] == [1e-4]
    assert read_header(cloned.root / METRICS).inputs[FADER] == (
        read_header(cloned.root / FADER).identity
    )
    assert dvc_status(cloned) == {}
    assert ran(cloned.run("dvc", "repro")) == set()


def test_files_of_another_version_are_refused_and_a_failed_run_is_not_recorded(project):
    """Hazards: a checkout of older outputs under settings that Snakemake's records fit, and
    `dvc commit` after a failed call."""
    old = (project.root / "dvc.lock").read_text()
    project.set("fader.lrs", [1e-4])
    mend = break_phase(project, "evaluate")
    output = project.run("fader", "record", ok=False)
    assert output.strip().splitlines()[-1].endswith("failed: nothing recorded")
    assert (project.root / "dvc.lock").read_text() == old
    mend()
    project.run("fader", "record")
    assert dvc_status(project) == {}
    (project.root / "dvc.lock").write_text(old)
    project.run("dvc", "checkout", "--force")
    assert read_header(project.root / FADER).settings["fader"]["lrs"] == [1e-3]
    assert f"{FADER}: stale" in evaluate(project)
    project.run("fader", "record")
    assert read_header(project.root / FADER).settings["fader"]["lrs"] == [1e-4]
    assert dvc_status(project) == {}


def test_the_second_engine_says_so_and_harms_nothing(project):
    project.set("fader.lrs", [1e-4])
    log = project.root / f"logs/ci/dvc/fader.{STAGE}.log"
    log.unlink()
    first = project.start("dvc", "repro")
    wait(log.exists)
    lines = project.run(*TABLES, ok=False).strip().splitlines()
    said = [line for line in lines if not line.startswith("Using ")]
    assert len(said) == 1
    assert re.match(r"fader: DVC \(process \d+\) is at work here: one engine at a time", said[0])
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert dvc_status(project) == {}

    project.set("report.images", 1)
    log = project.root / "logs/ci/synthetic_small/bolt/evaluate.dinov2.seed0.log"
    log.unlink()
    first = project.start(*TABLES)
    wait(log.exists)
    output = project.run("dvc", "repro", ok=False)
    assert "Unable to acquire lock" in output
    assert ran(output) == set()
    output, _ = first.communicate()
    assert first.returncode == 0, output
    project.run("fader", "record")
    assert dvc_status(project) == {}
