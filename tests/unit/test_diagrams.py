"""Figures 3, 4 and 5: what they show, and the arithmetic in them; the charts beside them."""

import factory
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from factory import BOLT, NUT, make_run, tiny
from scipy.stats import spearmanr
from test_figures import assert_clean

from fader.config import Config
from fader.pipeline import paths
from fader.report.drawings import DRAWINGS, Findings
from fader.report.figures import charts
from fader.report.figures.diagrams import (
    LEVELS,
    Skip,
    Trace,
    correlation,
    figure3,
    figure4,
    figure5,
    hinge,
)
from fader.report.pictures import traces
from fader.report.records import Records
from fader.vision.losses import rank_loss

SIDE, SCALE = 32, 4
GRID = SIDE // SCALE


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def trace(levels: int = 3, **changes) -> Trace:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:20, 8:20] = True
    skips = [Skip(*random.random((3, SIDE >> level, SIDE >> level))) for level in range(levels)]
    predicted, error, soft = random.random((3, GRID, GRID))
    raw, smoothed = random.random((2, SIDE, SIDE))
    values = {"title": "bolt, scratch", "scale": SCALE, "truth": mask}
    values |= {"image": image, "obfuscated": image, "reconstruction": image, "mask": mask}
    values |= {"predicted": predicted, "error": error, "soft_mask": soft, "skips": skips}
    return Trace(**values | {"raw": raw, "map": smoothed} | changes)


DIAGRAMS = [figure3, lambda subject: figure4(subject, 1.0), figure5]


@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("draw", DIAGRAMS, ids=["figure3", "figure4", "figure5"])
def test_nothing_overlaps_however_deep_the_network(draw, levels):
    assert_clean(draw(trace(levels)))


def pictures_of(figure) -> list[np.ndarray]:
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


@pytest.mark.parametrize("draw", [figure3, figure5])
def test_every_skip_is_shown_before_and_after(draw):
    subject = trace(levels=5)
    shown = pictures_of(draw(subject))
    for skip in subject.skips[:LEVELS]:
        for part in (skip.before, skip.mask, skip.after):
            assert any(np.array_equal(part, other) for other in shown)


def test_figure4_shows_what_phi_is_trained_on():
    subject = trace()
    shown = pictures_of(figure4(subject, 1.0))
    for part in (subject.image, subject.reconstruction, subject.error, subject.predicted):
        assert any(np.array_equal(part, other) for other in shown)


def test_a_trace_without_mask_says_so():
    said = [text.get_text() for text in figure5(trace(truth=None)).texts]
    assert "no mask" in said


def test_the_pairs_cost_what_equation_3_says():
    subject, margin = trace(), 0.5
    predicted, error = subject.predicted.ravel(), subject.error.ravel()
    difference, cost = hinge(predicted, error, margin)
    halves = np.random.default_rng(0).permutation(len(error)).reshape(2, -1)
    rows = (torch.from_numpy(values)[None] for values in (predicted, error))
    loss = rank_loss(*rows, *torch.from_numpy(halves), margin)
    assert cost.mean() == pytest.approx(float(loss))
    assert (cost == 0).tolist() == (difference >= margin).tolist()


def test_the_rank_correlation_is_spearmans():
    subject = trace()
    ranks, others = (
        each.ravel().argsort().argsort() for each in (subject.predicted, subject.error)
    )
    assert correlation(ranks, others) == pytest.approx(spearmanr(ranks, others).statistic)
    assert correlation(ranks, np.ones(len(ranks))) == 0


# ---- charts


def test_the_front_is_what_nothing_beats():
    cost = np.array([1.0, 2.0, 2.0, 3.0, 4.0])
    value = np.array([0.5, 0.7, 0.6, 0.7, 0.9])
    assert charts.front(cost, value) == [0, 1, 4]


def test_a_dumbbell_goes_from_ear_to_fader():
    figure = charts.gains([charts.Gain("DSR", "bolt", 0.6, 0.9, 0.1, 0.5)])
    left, right = figure.axes
    assert [list(line.get_xdata()) for line in left.lines] == [[0.6], [0.9]]
    assert right.lines[-1].get_xdata() == pytest.approx([0.3])
    assert [label.get_text() for label in left.get_yticklabels()] == ["bolt, DSR"]


def test_the_search_shows_what_was_chosen_and_says_where_there_was_none():
    searches = [
        charts.Search("bolt", [2, 4], [4], [[0.8, 0.7]], [[0.6, 0.9]]),
        charts.Search("nut", [], [], [], []),
    ]
    bolt, nut = charts.scales(searches, "validation, mean").axes
    ring = bolt.lines[1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([1], [0.7])
    assert [text.get_text() for text in nut.texts] == ["$m$ is fixed"]


@pytest.mark.parametrize("count", [1, 4, 13, 27])
def test_a_category_without_curve_says_why_and_all_have_a_panel(count):
    one = charts.Curves("bolt", {"EAR": (np.arange(2), np.arange(2))})
    none = charts.Curves("nut", {}, "no good test images")
    figure = charts.curves([one] * (count - 1) + [none], ("x", "y"))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == count
    assert [text.get_text() for text in shown[-1].texts] == ["no good test images"]


# ---- from a run


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    made = tiny((BOLT, NUT), ("dinov2",))
    make_run(made)
    return made


def test_traces_are_read_as_they_were_written(config):
    kept = factory.trace(config)
    for name, found in zip(("normal", "tested"), traces(config), strict=True):
        for part in ("predicted", "error", "soft_mask", "raw", "map"):
            np.testing.assert_array_equal(getattr(found, part), kept[f"{name} {part}"])
        image = kept[f"{name} reconstruction"].permute(1, 2, 0)
        np.testing.assert_array_equal(found.reconstruction, image)
        np.testing.assert_array_equal(found.skips[1].after, kept[f"{name} after 1"])
    assert [found.title for found in traces(config)] == ["bolt, normal", "bolt, scratch"]


def test_every_figure_of_the_run_can_be_drawn_and_has_a_caption(config):
    assert set(DRAWINGS) == set(paths.FIGURES)
    found = Findings(Records.read(config), factory.REFERENCE)
    for drawing in DRAWINGS.values():
        assert drawing(found).axes
    for name in DRAWINGS:
        assert (factory.ROOT / paths.CAPTIONS / f"{name}.rst").read_text().endswith(".\n")
