"""A job at work: its names and seeds, and what it refuses to be made from."""

import copy
import dataclasses
from pathlib import Path

import pytest
from tiny import PRESET

from fader.config import Config, parse
from fader.errors import FaderError
from fader.pipeline import artifacts, phases
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job
from fader.seeds import derive_seed

BOLT = "synthetic_small-bolt"
EVALUATE = Job("evaluate", BOLT, seed=0)


def config(**changes: dict) -> Config:
    """A base masker, one that learns, two variants; ``changes`` of sections."""
    values = copy.deepcopy(PRESET) | {"detectors": {}}
    maskers = values["masks"]["maskers"]
    values["masks"] |= {"maskers": {name: maskers[name] for name in ("dinov2", "dsr")}}
    values["masks"]["optional"] = []
    values["variants"] = {name: values["variants"][name] for name in ("nomask", "hard")}
    for section, keys in changes.items():
        values[section] |= keys
    return parse(values, "small")


def write(context: Context, contents: str = "") -> None:
    """A job's artefacts, with nothing in them but ``contents``."""
    header = context.header({"contents": contents})
    for path in phases.artefacts(context.config, context.job):
        if path.endswith(".json"):
            artifacts.write_json(path, header)
        else:
            artifacts.write_arrays(path, {}, header)


@pytest.fixture
def made(tmp_path, monkeypatch) -> Config:
    """A run, made up to its metrics and cost."""
    monkeypatch.chdir(tmp_path)
    run = config()
    for job in phases.jobs(run):
        if job.phase != "report":
            write(Context(run, job))
    return run


def refusal(context: Context) -> str:
    with pytest.raises(FaderError) as error:
        context.verify()
    assert "\n" not in str(error.value)
    return str(error.value)


def path(run: Config, job: Job) -> str:
    return phases.artefacts(run, job)[0]


@pytest.mark.parametrize("job", phases.jobs(config()), ids=str)
def test_every_job_of_a_finished_run_is_verified(made, job):
    Context(made, job).verify()


@pytest.mark.parametrize("phase", ["dataset", "pack", "mask", "ear", "mosaic", "fader", "plugin"])
def test_a_missing_file_is_found_however_far_back(made, phase):
    job = phases.jobs(made, phase)[-1]
    file = path(made, job)
    Path(file).unlink()
    for whoever in (EVALUATE, Job("report")):
        assert f"{file}: no such file" in refusal(Context(made, whoever))


@pytest.mark.parametrize("phase", ["dataset", "pack", "mask", "ear", "mosaic"])
def test_a_file_made_again_otherwise_makes_stale_what_was_made_from_it(made, phase):
    job = phases.jobs(made, phase)[-1]
    write(Context(made, job), "other")
    Context(made, job).verify()
    assert f": stale, made from another {path(made, job)}" in refusal(Context(made, EVALUATE))
    # Made again in order, all is well.
    for later in phases.jobs(made):
        if later.phase not in (phase, "report"):
            write(Context(made, later))
    Context(made, Job("report")).verify()


@pytest.mark.parametrize(
    ("changes", "job", "key"),
    [
        ({"ear": {"lr": 0.1}}, Job("ear", BOLT, seed=0), "ear"),
        ({"fader": {"lrs": [0.1]}}, Job("fader", BOLT, seed=0), "fader"),
        ({"mosaic": {"fixed": 4}}, Job("mosaic", BOLT, seed=0), "mosaic"),
        ({"validation": {"most": 0.3}}, Job("pack", BOLT), "validation"),
    ],
)
def test_a_file_of_other_settings_is_stale_and_the_line_names_the_key(made, changes, job, key):
    line = refusal(Context(config(**changes), Job("report")))
    assert ": stale, made with another " in line and key in line
    stale = refusal(Context(config(**changes), EVALUATE)).partition(":")[0]
    assert stale in [path(made, other) for other in phases.jobs(made)]
    direct = Context(config(**changes), EVALUATE)
    with pytest.raises(FaderError, match=f"^{path(made, job)}: stale, made with another {key}"):
        direct.check(job, next(iter(phases.outputs(made, job))))


def test_a_header_says_what_it_was_made_with_and_from(made):
    job = Job("mosaic", BOLT, seed=0)
    header = Context(made, job).header({"mosaic": 8})
    assert (header.kind, header.facts) == ("mosaic", {"mosaic": 8})
    assert header.settings == phases.settings(made, job)
    read = [
        *phases.artefacts(made, Job("pack", BOLT)),
        path(made, Job("mask", BOLT, "dinov2")),
        path(made, Job("ear", BOLT, seed=0)),
    ]
    assert header.inputs == {file: artifacts.read_header(file).identity for file in read}


def test_what_has_a_stale_input_gets_no_header(made):
    write(Context(made, Job("pack", BOLT)), "other")
    with pytest.raises(FaderError, match="stale, made from another"):
        Context(made, Job("mosaic", BOLT, seed=0)).header({})


def test_a_job_that_is_none_of_the_runs_has_no_context():
    with pytest.raises(FaderError, match="seed 3 is not in the configuration"):
        Context(config(), dataclasses.replace(EVALUATE, seed=3))


def test_the_category_the_label_and_the_seeds_of_a_job():
    run = config()
    labels = {
        Job("dataset", "synthetic_small"): "dataset synthetic_small",
        Job("codebook"): "codebook ci",
        Job("mask", BOLT, "dinov2"): "mask-dinov2 synthetic_small/bolt",
        Job("mask", BOLT, "dsr", 0): "mask-dsr synthetic_small/bolt seed 0",
        Job("variant", BOLT, "hard", 0): "variant-hard synthetic_small/bolt seed 0",
    }
    assert {job: Context(run, job).label for job in labels} == labels
    context = Context(run, Job("ear", BOLT, seed=0))
    assert (context.dataset, context.category) == ("synthetic_small", "bolt")
    assert context.seed("ear") == derive_seed(0, "synthetic_small", "bolt", "ear")
    seven = parse(run.plain | {"seeds": [7]}, "seven")
    assert Context(seven, Job("ear", BOLT, seed=7)).seed("ear") == (
        derive_seed(7, "synthetic_small", "bolt", "ear")
    )
    # What all seeds share has a stream of its own.
    assert Context(seven, Job("pack", BOLT)).seed("split") == Context(run, Job("pack", BOLT)).seed(
        "split"
    )
