"""FADeR over its grid: what is watched and validated, and what must not change: the outcome of a
point, the bytes of a run, also after a kill."""

import math

import pytest
import torch
from tiny import normals, run_in, same, search_in, some_variants, tiny, trained

from fader.detectors.fader import Fader, Point
from fader.detectors.fader.search import grid
from fader.pipeline import artifacts
from fader.training import loop
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run

EVERY = {"watch": "every"}


def probe(detector: Fader) -> list[float]:
    """Image scores of the first three normals."""
    return detector.scores(normals()[:3]).images.tolist()


class Watching:
    """Calls ``probe``, and keeps what it was given and what it gave."""

    def __init__(self) -> None:
        self.scores: list[list[float]] = []

    def __call__(self, detector: Fader) -> list[float]:
        assert not any(module.training for module in detector.modules())
        self.scores.append(probe(detector))
        return self.scores[-1]

    def validate(self, detector: Fader) -> dict[str, float]:
        self(detector)
        return {"value": 0.5}


# What is watched


@some_variants
def test_what_is_watched_is_recorded_after_every_epoch(tmp_path, name):
    watch, validated = Watching(), Watching()
    (outcome,) = search_in(
        tmp_path,
        name=name,
        config=tiny(fader=EVERY | {"epochs": 3}),
        watch=watch,
        validate=validated.validate,
    )
    assert outcome.watched.shape == (3, 3)
    assert outcome.watched.equal(torch.tensor(watch.scores))
    assert len({tuple(row) for row in watch.scores}) == 3
    # What is validated is the system of the last epoch.
    assert validated.scores == watch.scores[-1:]
    assert [row["watched"] for row in outcome.history] == watch.scores


@some_variants
def test_watching_the_last_epoch_only_is_cheaper_and_the_same(tmp_path, name):
    every, last = Watching(), Watching()
    (first,) = search_in(tmp_path, name=name, config=tiny(fader=EVERY), watch=every)
    (second,) = search_in(tmp_path, name=name, config=tiny(fader={"watch": "last"}), watch=last)
    assert (len(every.scores), len(last.scores)) == (2, 1)
    assert second.watched.shape == (1, 3)
    assert second.watched.equal(first.watched[-1:])
    assert same(first.state, second.state)
    losses = {"epoch", "step", "lr", "loss", "l2", "ssim", "msgms"}
    losses |= {"rank"} if name != "none" else set()
    assert [set(row) for row in second.history] == [losses] * 2
    assert [row | {"watched": None} for row in second.history] == [
        row | {"watched": None} for row in first.history
    ]
    assert len(second.history) == 2


@pytest.mark.parametrize("watch", ["every", "last"])
def test_watching_decides_nothing(tmp_path, watch):
    config = tiny(fader={"watch": watch})
    (watched,) = search_in(tmp_path, config=config, watch=probe)
    (blind,) = search_in(tmp_path, config=config, watch=lambda detector: [])
    assert same(watched.state, blind.state)
    assert [row["loss"] for row in watched.history] == [row["loss"] for row in blind.history]
    assert blind.watched.shape == (2 if watch == "every" else 1, 0)


# A run that is killed


class Killed(Exception):
    pass


class Dying(Checkpoint):
    """Saves after the first epoch, and the process dies."""

    def save(self, epoch, *state):
        super().save(epoch, *state)
        raise Killed


@pytest.mark.parametrize("watch", ["every", "last"])
@some_variants
def test_killed_and_resumed_is_a_run_that_was_not(tmp_path, monkeypatch, name, watch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    settings = {"name": name, "config": tiny(fader={"watch": watch, "epochs": 3})}
    (whole,) = search_in(tmp_path, watch=probe, **settings)
    dying = Run(1, "fader tiny", lambda stage: Dying(tmp_path / f"{stage}.ckpt", "run"))
    with pytest.raises(Killed):
        search_in(tmp_path, watch=probe, run=dying, **settings)
    watching, kept = Watching(), run_in(tmp_path)
    (resumed,) = search_in(tmp_path, watch=watching, run=kept, **settings)
    assert len(watching.scores) == (
        2 if watch == "every" else 1
    )  # the first epoch is not done again
    assert resumed.watched.equal(whole.watched)
    assert resumed.history == whole.history
    assert same(resumed.state, whole.state)
    (finished,) = search_in(tmp_path, watch=probe, run=kept, **settings)
    assert finished.history == whole.history
    assert finished.watched.equal(whole.watched)
    assert same(finished.state, whole.state)


# Bytes


@some_variants
def test_the_same_run_makes_the_same_bytes_and_they_give_back_what_was_validated(tmp_path, name):
    scores = []

    def validate(detector: Fader) -> dict[str, float]:
        scores.append(detector.scores(normals()))
        return {"value": 0.5}

    config = tiny(fader={"epochs": 1})
    (first,) = search_in(tmp_path, name=name, config=config, validate=validate)
    torch.manual_seed(99)  # what ran before in the process does not matter
    (second,) = search_in(tmp_path, name=name, config=config, validate=validate)
    assert first.history == second.history
    assert all(math.isfinite(value) for value in first.history[0].values())
    assert scores[0].maps.equal(scores[1].maps)
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for path, outcome in zip(paths, (first, second), strict=True):
        artifacts.write_tensors(path, outcome.state, artifacts.Header("fader", {}, {}, {}))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = trained(artifacts.read_tensors(paths[0]), name).scores(normals())
    assert again.maps.equal(scores[0].maps)
    assert again.images.equal(scores[0].images)


# Points of the grid


def test_outcomes_do_not_depend_on_the_other_points(tmp_path):
    config = tiny(fader={"schedules": ["fixed", "warmup"], "warmup": 2})
    points = grid(config.fader)
    assert len(points) == 4
    together = {o.point: o for o in search_in(tmp_path, *points, config=config)}
    backwards = {o.point: o for o in search_in(tmp_path, *reversed(points), config=config)}
    assert list(together) == points
    for point in points:
        (alone,) = search_in(tmp_path, point, config=config)
        for other in (together[point], backwards[point]):
            assert same(alone.state, other.state)
            assert alone.history == other.history
    assert len({outcome.history[-1]["loss"] for outcome in together.values()}) == len(points)


def test_every_point_is_validated_with_its_own_network(tmp_path):
    values, scores = iter([0.25, 0.75]), []

    def validate(detector: Fader) -> dict[str, float]:
        scores.append(probe(detector))
        return {"value": next(values)}

    points = Point(0.01, "fixed"), Point(0.001, "fixed")
    first, second = search_in(tmp_path, *points, validate=validate)
    assert (first.validation, second.validation) == ({"value": 0.25}, {"value": 0.75})
    assert scores[0] != scores[1]
    for outcome, expected in zip((first, second), scores, strict=True):
        assert probe(trained(outcome.state, "soft")) == expected
