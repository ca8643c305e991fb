"""DVC and Snakemake together, with the real tools, on a tiny project in repositories of its own."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from tiny_project import ROOT, Project, checkout

from fader.config import load
from fader.pipeline import external, phases
from fader.pipeline.artifacts import read_header
from fader.pipeline.jobs import Job
from fader.pipeline.phases import PHASES, lookup
from fader.pipeline.record import RULES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STAGE = "synthetic_small-bolt"
EAR = f"results/ci/{STAGE}/ear/seed0.safetensors"
FADER = f"results/ci/{STAGE}/models/fader/seed0.safetensors"
METRICS = f"results/ci/metrics/{STAGE}/seed0/fader-dinov2.json"
OF_RUN = [phase for phase, about in PHASES.items() if about.over == "run"]
PLUGINS = {f"plugin@{STAGE}-{masker}" for masker in ("dinov2", "dsr")}
# By a change of FADeR's settings; `inputs` is looked at always.
AFTER = {f"evaluate@{STAGE}", f"gallery@{STAGE}", "report"}
TRAINED = {f"fader@{STAGE}", *PLUGINS} | AFTER
AGAIN = {"evaluate", "gallery", "report"}
PHASE = {phase: phase for phase in PHASES} | {"all": "report"}
PHASE |= {rule: phase for phase, rules in RULES.items() for rule in rules}
TABLES = ("snakemake", "--cores", "2", "--", "tables")


def ran(output: str) -> set[str]:
    """Stages that a `dvc repro` ran."""
    return set(re.findall(r"Running stage '(.+)'", output)) - {"inputs"}


def dvc_status(project: Project) -> dict:
    """What DVC finds stale, but for the stage that is run always."""
    stages = json.loads(project.run("dvc", "status", "--json"))
    stages.pop("inputs", None)
    return stages


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
    path = project.root / f"src/fader/steps/{phase}.py"
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
    project.run("dvc", "repro")
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
    numbers = shown[""]["data"]["results/ci/tables/metrics.json"]["data"]
    average = numbers["average"]["synthetic_small"]
    facts = read_header(made.root / METRICS).facts["metrics"]
    assert average["fader-dinov2"]["pixel_auroc"] == pytest.approx(facts["pixel_auroc"])
    made.run("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    for curve in ("roc", "pr", "losses"):
        assert f"curves/{curve}/{STAGE}.csv" in page


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
    # What reads all categories has, in DVC, files that stand for them (see paths.normals): paths,
    # not edges.
    dvc = {(a, b) for a, b in dvc if a != "inputs"}  # digests of code, which are params of rules
    inner = {(a, b) for a, b in snakemake if a != b and b not in OF_RUN}
    assert {(a, b) for a, b in dvc if b not in OF_RUN} == inner
    assert closed(dvc) == closed(snakemake)


def job_of(command: str) -> Job:
    """The job that a rule's shell command does."""
    words = command.partition(">")[0].split()[2:]
    options = dict(pairwise(words))
    place = words[1] if len(words) > 1 and not words[1].startswith("--") else None
    seed = options.get("--seed")
    return Job(words[0], place, options.get("--system"), None if seed is None else int(seed))


def test_both_engines_depend_on_the_same_settings_and_code(made, monkeypatch):
    """Snakemake's records of what its jobs depended on against dvc.lock: one file, one content."""
    monkeypatch.chdir(made.root)
    config, stages = load(Path("params.yaml")), lock(made)
    seen = set()
    for path in (made.root / ".snakemake/metadata").rglob("*"):
        if not path.is_file():
            continue
        record = json.loads(path.read_text())
        if record["rule"] == "tables":
            continue
        job = job_of(record["shellcmd"])
        stage = stages["@".join(filter(None, [job.phase, stage_name(job)]))]
        sections = set(phases.sections(config, job))
        keys = set(phases.keys(config, job)) - sections
        assert set(stage["params"]["params.yaml"]) == keys | set(PHASES[job.phase].axes)
        state = external.state_file(config, job)
        states = [
            dep["path"] for dep in stage["deps"] if dep["path"].startswith("workflow/inputs/")
        ]
        assert states == [state]
        assert [path for path in record["input"] if path.startswith("workflow/inputs/")] == [state]
        assert json.loads((made.root / state).read_text()) == external.state(config, job)
        seen.add(job.phase)
    assert seen == {job.phase for job in phases.jobs(config)}


def stage_name(job: Job) -> str:
    """What DVC calls a job's stage, after the phase."""
    return "-".join(part for part in (job.place, job.system) if part)


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
            if re.search(r"/(metrics|cost|tables|figures|report)(/|$)", ours["path"]):
                continue  # they hold timings
            assert ours["md5"] == theirs["md5"], ours["path"]
    for folder, timed in (("tables", "cost"), ("figures", "tradeoff")):
        for path in (direct.root / "results/ci" / folder).glob("*"):
            if path.stem != timed:
                same = (made.root / "results/ci" / folder / path.name).read_bytes()
                assert path.read_bytes() == same, path.name
    mine, theirs = (read_header(p.root / METRICS) for p in (direct, made))
    assert mine == theirs


def test_a_setting_remakes_its_phase_and_later_ones_and_a_failure_keeps_the_rest(project):
    project.set("fader.lrs", [1e-4])
    mend = break_phase(project, "evaluate")
    before = lock(project)
    output = project.run("dvc", "repro", ok=False)
    assert ran(output) == TRAINED - (AFTER - {f"evaluate@{STAGE}"})
    assert "broken on purpose" in output
    after = lock(project)
    assert after[f"fader@{STAGE}"] != before[f"fader@{STAGE}"]
    assert after[f"evaluate@{STAGE}"] == before[f"evaluate@{STAGE}"]
    mend()
    assert ran(project.run("dvc", "repro")) == AFTER
    assert dvc_status(project) == {}
    assert idle(project)
    assert read_header(project.root / FADER).settings["fader"]["lrs"] == [1e-4]


def test_a_new_category_runs_alone(project):
    place = {"dataset": "synthetic_small", "category": "weave"}
    project.set("categories.new", place)
    output = ran(project.run("dvc", "repro"))
    assert {f"{phase}@new" for phase in ("pack", "ear", "mosaic", "fader", "evaluate")} <= output
    # The codebook is trained on all categories, and what it is part of is made again.
    assert {"codebook", f"mask@{STAGE}-dsr", f"plugin@{STAGE}-dsr", "report"} <= output
    assert not {f"{phase}@{STAGE}" for phase in ("pack", "ear", "mosaic", "fader")} & output
    assert not {f"detector@{STAGE}-{name}" for name in ("unet", "pca")} & output
    assert dvc_status(project) == {}
    assert idle(project)


def test_an_experiment_runs_what_its_setting_touches(project):
    output = project.run("dvc", "exp", "run", "-S", "report.images=1")
    assert ran(output) == AFTER
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
    for key, value, stale in (
        ("fader.hidden", 16, {"fader", "plugin", "cost", *AGAIN}),
        ("mosaic.policy", "fixed", {"mosaic", "fader", "plugin", *AGAIN}),
    ):
        before = lookup(cloned.params(), key)
        cloned.set(key, value)
        cloned.run("fader", "inputs")
        assert {name.partition("@")[0] for name in dvc_status(cloned)} <= stale
        assert min(stale, key=list(PHASES).index) + f"@{STAGE}" in dvc_status(cloned)
        assert planned(cloned) == stale
        line = cloned.run("fader", "restore", ok=False).strip()
        assert line.startswith("fader: ") and "make record" in line and "\n" not in line
        cloned.set(key, before)
    code = cloned.root / "src/fader/report/render.py"
    text = code.read_text()
    code.write_text(text + "\n# A comment reruns nothing, in either engine.\n")
    cloned.run("fader", "inputs")
    assert dvc_status(cloned) == {}
    assert idle(cloned)
    code.write_text(text.replace('float_format="%.6f"', 'float_format="%.5f"'))
    assert text != code.read_text()
    cloned.run("fader", "inputs")
    assert set(dvc_status(cloned)) == {"report"}
    assert planned(cloned) == {"report"}


def test_another_detector_or_variant_trains_alone(project):
    preset = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text())
    project.set("detectors.other", preset["detectors"]["pca"] | {"components": 2})
    project.set("variants.nomask", preset["variants"]["nomask"])
    trained = {f"detector@{STAGE}-other", f"variant@{STAGE}-nomask"}
    again = {"cost"} | AFTER
    assert planned(project) == {stage.partition("@")[0] for stage in trained | again}
    assert ran(project.run("dvc", "repro")) == trained | again
    assert dvc_status(project) == {}


def test_own_images_stay_and_both_engines_see_a_change_whatever_its_time(made, tmp_path):
    """In the folder where data sets used to lie, with time stamps older than all that was made."""
    project = made.copy(tmp_path / "project")
    images = project.root / "data/raw/synthetic_small"
    images.parent.mkdir()
    (project.root / "data/made/synthetic_small/images").rename(images)
    names = sorted(path for path in images.rglob("*") if path.is_file())
    project.run("dvc", "checkout", "--force")
    root = str(images.relative_to(project.root))
    own = {"source": "folder", "layout": "mvtec", "root": root, "paper": None, "complete": False}
    project.set("datasets.synthetic_small", own)
    pack = f"pack@{STAGE}"
    project.run("dvc", "repro", pack)
    assert sorted(path for path in images.rglob("*") if path.is_file()) == names
    assert pack not in dvc_status(project)
    assert "pack" not in planned(project)

    image = images / "bolt/train/good/000.png"
    image.write_bytes((images / "bolt/train/good/001.png").read_bytes())
    os.utime(image, (1_500_000_000, 1_500_000_000))
    assert "pack" in planned(project)
    assert pack in dvc_status(project)
    shutil.rmtree(project.root / ".snakemake")
    assert "pack" in planned(project)
    project.set("report.images", 2)
    assert {"evaluate", "report"} <= planned(project)


def evaluate(project: Project) -> str:
    """What reading FADeR's weights says when they are stale."""
    command = ("fader", "run", "evaluate", STAGE, "--seed", "0")
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
    assert output.strip().splitlines()[-1].startswith("fader: nothing recorded: RuntimeError: ")
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


def test_a_damaged_file_is_not_recorded(project, made):
    """Hazard: by its time of modification it is the one that Snakemake made."""
    path = project.root / EAR
    status, data = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-64] + bytes(64))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    line = project.run("fader", "record", ok=False).strip().splitlines()[-1]
    assert line.startswith(f"fader: {EAR}: damaged: ") and "delete it and run again" in line
    assert lock(project) == lock(made)
    path.unlink()
    project.run("fader", "record")
    assert path.read_bytes() == data
    assert dvc_status(project) == {}


def test_the_second_engine_says_so_and_harms_nothing(project):
    project.set("report.images", 2)
    log = project.root / f"logs/ci/dvc/evaluate.{STAGE}.log"
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
    log = project.root / f"logs/ci/evaluate.{STAGE}.seed0.log"
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
