"""The table of phases: the graph of every preset, and what a change of configuration touches."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
from tiny import PRESET

from fader.config import Config, load, parse
from fader.errors import FaderError
from fader.pipeline import phases
from fader.pipeline.jobs import Job, inherits
from fader.pipeline.phases import PHASES, lookup

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.yaml"))
every_preset = pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
BOLT = "synthetic_small-bolt"
FADERS = {"fader", "plugin", "variant"}
DROP = object()


def changed(path: str, value) -> Config:
    """The ci preset with ``value`` at a dotted path, or without that key."""
    values = copy.deepcopy(PRESET)
    *parents, last = path.split(".")
    section = lookup(values, ".".join(parents)) if parents else values
    if value is DROP:
        del section[last]
    else:
        section[last] = value
    return parse(values, "changed")


CI = parse(PRESET, "ci")


# The graph


@every_preset
def test_every_job_comes_after_what_it_reads(path):
    """Hence what it reads is part of the run, and nothing reads itself in a circle."""
    config, done = load(path), set()
    for job in phases.jobs(config):
        assert set(phases.inputs(config, job)) <= done, job
        done.add(job)


@every_preset
def test_no_job_is_there_twice_and_no_file_is_written_twice(path):
    config = load(path)
    jobs = phases.jobs(config)
    written = Counter(p for job in jobs for p in phases.outputs(config, job).values())
    assert len(set(jobs)) == len(set(map(str, jobs))) == len(jobs)
    assert [path for path, times in written.items() if times > 1] == []


@every_preset
def test_everything_made_is_read_by_the_report_or_on_the_way_to_it(path):
    config = load(path)
    used, pending = set(), [Job("report")]
    while pending:
        job = pending.pop()
        if job not in used:
            used.add(job)
            pending += phases.inputs(config, job)
    # A data set that no category is from is made for whoever asks, and for nobody else.
    named = {place.dataset for place in config.categories.values()}
    idle = {job for job in phases.jobs(config) if job not in used}
    assert all(job.phase == "dataset" and job.place not in named for job in idle)


@every_preset
def test_whoever_reads_a_job_reads_an_artefact_of_it(path):
    config = load(path)
    for job in phases.jobs(config):
        if job.phase == "report":
            continue
        read = phases.artefacts(config, job)
        assert read
        assert set(read) <= set(phases.outputs(config, job).values())
        assert all(path.endswith((".json", ".safetensors")) for path in read)


def test_the_jobs_of_a_phase_at_a_place():
    jobs = phases.jobs(CI, "mask", BOLT)
    learning = {"dsr", "msflow", "aminet"}
    assert [job.system for job in jobs] == list(CI.masks.maskers)
    assert {job.system for job in jobs if job.seed == 0} == learning
    assert {job.seed for job in jobs if job.system not in learning} == {None}
    assert phases.jobs(CI, "dataset") == [Job("dataset", "synthetic_small")]
    assert phases.jobs(CI, "cost", BOLT) == []
    assert Job("plugin", BOLT, "dinov2", 0) not in phases.jobs(CI)


def test_a_codebook_is_made_only_where_a_masker_needs_it():
    assert Job("codebook") in phases.jobs(CI)
    assert Job("codebook") not in phases.jobs(changed("masks.maskers.dsr", DROP))
    assert Job("pack", BOLT) in phases.inputs(CI, Job("codebook"))
    given = changed("codebook.file", "weights.pckl")
    assert phases.inputs(given, Job("codebook")) == []


def test_masks_that_learn_belong_to_a_seed_and_others_to_all():
    config = changed("seeds", [0, 1])
    for seed in (0, 1):
        read = phases.inputs(config, Job("evaluate", BOLT, seed=seed))
        assert Job("mask", BOLT, "dinov2") in read
        assert Job("mask", BOLT, "dsr", seed) in read
        assert Job("mask", BOLT, "dsr", 1 - seed) not in read


@pytest.mark.parametrize(("tuning", "taken"), [("each", False), ("base", True)])
def test_the_pick_of_the_base_masker_is_taken_over_where_tuning_says_so(tuning, taken):
    config, fader = changed("fader.tuning", tuning), Job("fader", BOLT, seed=0)
    plugin, variant = Job("plugin", BOLT, "msflow", 0), Job("variant", BOLT, "nomask", 0)
    assert not inherits(config, fader)
    assert inherits(config, plugin) == taken
    assert inherits(config, variant)  # by the variant's own word
    for job in (plugin, variant):
        assert (fader in phases.inputs(config, job)) == inherits(config, job)
    own = changed("variants.nomask.grid", "own")
    assert not inherits(own, variant)
    assert fader not in phases.inputs(own, variant)


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job("trian"), ["no phase 'trian'", "there are: dataset, pack"]),
        (Job("ear", "nowhere", seed=0), ["place 'nowhere'", BOLT]),
        (Job("ear", BOLT), ["seed None", "there are: 0"]),
        (Job("ear", BOLT, seed=7), ["seed 7", "there are: 0"]),
        (Job("mask", BOLT, "dino"), ["system 'dino'", "dinov2, vit"]),
        (Job("plugin", BOLT, "dinov2", 0), ["system 'dinov2'", "vit, winclip"]),
        (Job("cost", BOLT), [f"place '{BOLT}'", "there are: none"]),
        (Job("mask", BOLT, "dinov2", 0), ["mask.synthetic_small-bolt.dinov2.seed0"]),
    ],
)
def test_a_job_that_is_none_of_the_runs_is_one_line(job, words):
    with pytest.raises(FaderError) as error:
        phases.known(CI, job)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words)


# Settings


@every_preset
def test_settings_are_parts_of_the_configuration(path):
    config = load(path)
    plain = config.model_dump(mode="json")
    for job in phases.jobs(config):
        settings = phases.settings(config, job)
        if job.phase == "pack":
            assert settings.pop("sides") == config.sides
        if job.phase == "gallery":
            assert settings.pop("seed") == config.seeds[0]
        if job.phase == "plugin":
            rule, level = config.masks.threshold(job.system)
            assert settings.pop("threshold") == {"rule": rule, "level": level}
        assert len(settings) == len(PHASES[job.phase].keys) + len(phases.sections(config, job))
        assert settings == {key: lookup(plain, key) for key in settings}
        assert json.loads(json.dumps(settings)) == settings


def test_a_baseline_depends_on_the_sections_that_its_training_reads():
    config = load(Path(__file__).parents[2] / "presets/ci.yaml")
    (place,) = config.categories
    sections = {
        name: phases.sections(config, Job("detector", place, name, 0)) for name in config.detectors
    }
    on_unet = {"unet": ("unet", "loss"), "riad": ("unet",)}
    assert sections == dict.fromkeys(config.detectors, ()) | on_unet


def test_lookup_names_the_path():
    with pytest.raises(KeyError, match=r"ear\.rate"):
        lookup(PRESET, "ear.rate")
    with pytest.raises(KeyError, match=r"ear\.lr\.x"):
        lookup(PRESET, "ear.lr.x")


def about(config: Config, job: Job) -> tuple:
    """All that the table says of a job."""
    return (
        phases.settings(config, job),
        phases.outputs(config, job),
        phases.inputs(config, job),
        phases.modules(config, job),
    )


def touched(before: Config, after: Config) -> set[str]:
    """Phases of the jobs, in both runs, of which the table says something else."""
    common = set(phases.jobs(before)) & set(phases.jobs(after))
    return {job.phase for job in common if about(before, job) != about(after, job)}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("datasets.synthetic_small.seed", 9, {"dataset", "pack"}),
        ("validation.most", 0.2, {"pack", "report"}),
        ("validation.tie", 0.2, {"mosaic", "fader", "plugin", "variant", "report"}),
        ("image.size", 32, {"pack", "cost"}),
        (
            "masks.level",
            0.5,
            {"ear", "mosaic", *FADERS, "evaluate", "gallery", "cost", "report"},
        ),
        ("codebook.steps", 3, {"codebook", "cost"}),
        ("ear.lr", 0.002, {"ear"}),
        ("ear.scales", [4, 8], {"ear", "mosaic"}),
        ("mosaic.policy", "oracle", {"mosaic", "evaluate", "report"}),
        ("fader.lrs", [0.1], {*FADERS, "evaluate", "gallery"}),
        ("fader.hidden", 16, {*FADERS, "evaluate", "gallery", "cost"}),
        ("variants.hard.mask", "soft", {"variant", "evaluate", "report"}),
        ("report.images", 1, {"evaluate", "report"}),
        ("report.warn_below", 0.5, {"report"}),
        ("report.warn_by", "pixel", {"report"}),
    ],
)
def test_a_change_touches_the_phases_that_it_should_and_no_others(path, value, expected):
    assert touched(CI, changed(path, value)) == expected


def test_a_change_of_a_system_touches_no_other_system():
    after = changed("variants.hard.mask", "soft")
    variants = [job for job in phases.jobs(CI, "variant") if job.system != "hard"]
    assert variants
    assert all(about(CI, job) == about(after, job) for job in variants)
    after = changed("masks.maskers.msflow.lr", 0.1)
    masks = [job for job in phases.jobs(CI, "mask") if job.system != "msflow"]
    assert all(about(CI, job) == about(after, job) for job in masks)


PCA = {"kind": "pca", "components": 4}
ATTENTION = {"kind": "attention", "backbone": "dinov2", "input_size": 56, "batch": 4}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("detectors.another", PCA, {"evaluate", "cost", "report"}),
        ("variants.another", PRESET["variants"]["hard"], {"evaluate", "report"}),
        ("masks.maskers.another", ATTENTION, {"evaluate", "cost", "report"}),
        ("seeds", [0, 1], {"report"}),
        # The codebook is trained on all categories.
        (
            "categories.another",
            {"dataset": "synthetic_small", "category": "weave"},
            {"codebook", "report"},
        ),
    ],
)
def test_what_is_added_leaves_what_was_there_as_it_was(path, value, expected):
    after = changed(path, value)
    assert set(phases.jobs(CI)) < set(phases.jobs(after))
    assert touched(CI, after) == expected


def test_a_job_runs_the_code_of_its_own_system_only():
    config = changed("detectors.another", PCA)
    masker = phases.modules(config, Job("mask", BOLT, "msflow", 0))
    detector = phases.modules(config, Job("detector", BOLT, "another", 0))
    assert (masker, detector) == (["fader.maskers.msflow"], ["fader.detectors.pca"])
    assert phases.modules(config, Job("ear", BOLT, seed=0)) == []
    assert "fader.detectors.pca" in phases.modules(config, Job("evaluate", BOLT, seed=0))
