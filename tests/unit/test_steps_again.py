"""The steps of the chain once more: what must not matter to them, and what must."""

from pathlib import Path

import pytest
import torch
from chain import (
    CONFIG,
    EAR,
    EVALUATE,
    FADER,
    MOSAIC,
    PACK,
    PLACE,
    alone,
    copied,
    file,
    make,
    record,
    run,
)

from fader.config import parse
from fader.pipeline import artifacts, phases
from fader.pipeline.artifacts import Header, read_header, read_tensors
from fader.pipeline.jobs import Job
from fader.pipeline.methods import methods


def test_permuted_test_labels_change_no_training_and_no_choice(whole, tmp_path, monkeypatch):
    copied(whole, tmp_path / "permuted", monkeypatch)
    path = file(CONFIG, PACK, "packed")
    header, tensors = read_header(path), read_tensors(path)
    tensors |= {name: tensors[name].flip(0).clone() for name in ("label", "mask")}
    artifacts.write_tensors(path, tensors, header)
    assert read_header(path).identity != header.identity
    trained = ("codebook", "mask", "ear", "mosaic", "fader", "plugin", "variant", "detector")
    make(CONFIG, *trained, "evaluate")
    for job in phases.jobs(CONFIG):
        if job.phase in trained:
            for made in phases.artefacts(CONFIG, job):
                assert read_header(made).facts == read_header(whole / made).facts
                if made.endswith(".safetensors"):
                    now, before = read_tensors(made), read_tensors(whole / made)
                    assert now.keys() == before.keys()
                    assert all(now[name].equal(before[name]) for name in now)
    for method in methods(CONFIG):
        made = file(CONFIG, EVALUATE, f"metrics {method}")
        now, before = read_header(made).facts, read_header(whole / made).facts
        assert now["scores"] == before["scores"]
        assert now["metrics"] != before["metrics"]


def test_the_same_run_elsewhere_makes_the_same_bytes(lone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(99)  # what ran before in the process does not matter
    make(alone())
    for path in (path for path in Path().rglob("*") if path.is_file()):
        if path.parts[2:3] == ("metrics",):  # they hold timings
            assert read_header(path) == read_header(lone / path)
        else:
            assert path.read_bytes() == (lone / path).read_bytes(), path


def test_seeds_differ_in_what_they_train_and_share_the_rest(lone, tmp_path, monkeypatch):
    copied(lone, tmp_path / "seeds", monkeypatch)
    config = alone(seeds=[0, 1])
    for job in phases.jobs(config):
        if job.seed == 1:
            run(config, job)
    first, second = (
        read_tensors(file(config, Job("ear", PLACE, seed=s), "weights")) for s in (0, 1)
    )
    assert any(not first[name].equal(second[name]) for name in first)
    other = record(config, "fader-dinov2", Job("evaluate", PLACE, seed=1))
    assert other["seed"] == 1
    assert other["scores"] != record(config, "fader-dinov2")["scores"]
    assert (
        record(config, "mask-dinov2", Job("evaluate", PLACE, seed=1))["scores"]
        == (record(config, "mask-dinov2")["scores"])
    )


def test_a_stale_input_is_refused(lone, tmp_path, monkeypatch):
    copied(lone, tmp_path / "stale", monkeypatch)
    config = alone()
    path = file(config, EAR, "weights")
    header = read_header(path)
    artifacts.write_tensors(
        path, read_tensors(path), Header(header.kind, {"ear": {}}, header.inputs, header.facts)
    )
    for job in (MOSAIC, FADER, EVALUATE):
        with pytest.raises(ValueError, match=rf"^{path}: stale, made with another ear"):
            run(config, job)


def test_a_training_starts_again_under_other_settings(lone, tmp_path, monkeypatch):
    """A checkpoint of other settings is never resumed, and none is left behind."""
    copied(lone, tmp_path / "again", monkeypatch)
    config = alone()
    changed = parse(config.plain | {"ear": config.plain["ear"] | {"epochs": 1}}, "changed")
    changed = changed.without(config.missing)
    make(changed, "ear")
    assert read_header(file(changed, EAR, "weights")).settings["ear"]["epochs"] == 1
    assert len(Path(file(changed, EAR, "losses")).read_text().splitlines()) == 2
    assert not list(Path("work").rglob("*.ckpt"))
