"""The gate on the AUROCs, by hand: verdicts, tolerances from seeds, and the source of the rows."""

import math
import re
from statistics import stdev

import numpy as np
import pytest
from factory import BOLT, MASKERS, REFERENCE, ROOT, ok, records, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fader import config
from fader.errors import FaderError
from fader.pipeline.methods import methods
from fader.report import expected as file
from fader.report.expected import Expected, paper_rows, read, write
from fader.report.gate import compare, passed, render, update

BOTTLE = ("mvtec_ad", "bottle")


def cell(seed=0, image=0.9, pixel=0.8, *, place=BOLT, method="ear-dinov2"):
    return ok(place, method, seed, image, pixel, image_f1=0.5)


def run(*given, **options):
    """Records of a run that has EAR and FADeR of one masker; what is not given did not run."""
    return records(tiny(**options), given)


def expect(
    metric="image_auroc", mean=0.9, tolerance=0.01, *, place=BOLT, method="ear-dinov2", **more
):
    given = {"run": "demo", "seeds": (0, 1, 2), "source": "measured", "how": "by hand"} | more
    return Expected(
        dataset=place[0],
        category=place[1],
        method=method,
        metric=metric,
        mean=mean,
        tolerance=tolerance,
        **given,
    )


def paper_row(place=BOTTLE, mean=0.9):
    more = {"run": "paper", "seeds": (), "source": "paper", "method": "ear-dino"}
    return expect(place=place, mean=mean, tolerance=0.02, **more)


def by_key(rows):
    return {found.key: found for found in rows}


def verdicts(cells):
    return {cell.key[1:]: cell.verdict for cell in cells}


# Comparison.


@pytest.mark.parametrize(
    ("got", "verdict"),
    [(0.9, "ok"), (0.91, "ok"), (0.89, "ok"), (0.910001, "miss"), (0.889999, "miss")],
)
def test_a_cell_is_within_its_tolerance_ends_included(got, verdict):
    compared, _ = compare(run(cell(image=got)), [expect()])
    assert compared.verdict == verdict
    assert compared.difference == pytest.approx(got - 0.9)


def test_the_mean_over_the_seeds_is_compared():
    # 0.86 and 0.94 both lie outside 0.9 ± 0.01, their mean does not.
    compared, _ = compare(run(cell(0, 0.86), cell(1, 0.94), seeds=(0, 1)), [expect()])
    assert compared.got == pytest.approx(0.9)
    assert compared.verdict == "ok"


def test_both_metrics_are_gated_and_no_other():
    cells = compare(run(cell()), [expect(), expect("pixel_auroc", 0.7)])
    assert verdicts(cells) == {
        ("bolt", "ear-dinov2", "image_auroc"): "ok",
        ("bolt", "ear-dinov2", "pixel_auroc"): "miss",
    }
    assert not passed(cells)


def test_an_expected_cell_that_the_run_lacks_fails():
    cells = compare(run(cell()), [expect(), expect(method="fader-dinov2")])
    assert verdicts(cells)["bolt", "fader-dinov2", "image_auroc"] == "missing"
    assert not passed(cells)


def test_a_cell_that_lacks_one_of_the_seeds_is_missing():
    given = [cell(0), cell(1), cell(0, method="fader-dinov2")]
    cells = compare(run(*given, seeds=(0, 1)), [expect(), expect(method="fader-dinov2")])
    assert verdicts(cells)["bolt", "fader-dinov2", "image_auroc"] == "missing"


def test_a_cell_that_nobody_expects_is_listed_and_passes():
    cells = compare(run(cell(), cell(method="fader-dinov2")), [expect()])
    assert verdicts(cells)["bolt", "fader-dinov2", "pixel_auroc"] == "new"
    assert passed(cells)


def test_a_baseline_is_gated():
    found = run(cell(), cell(method="unet", image=0.7), detectors=("unet",))
    cells = compare(found, [expect(), expect(method="unet", mean=0.8)])
    assert verdicts(cells)["bolt", "unet", "image_auroc"] == "miss"


def test_rows_of_other_runs_play_no_part():
    cells = compare(run(cell()), [expect(), expect(mean=0.1, run="ci")])
    assert passed(cells)
    assert len(cells) == 2


def test_a_run_that_nothing_is_expected_of_is_refused():
    with pytest.raises(FaderError, match=r"'demo'.*fader check --update.*3 seeds"):
        compare(run(cell()), [expect(run="ci")])


# The paper's rows are for the paper's data and maskers.


def paper_run(place=BOTTLE, maskers=("dino",), method="ear-dino", image=0.915):
    given = cell(image=image, place=place, method=method)
    return run(given, places=[place], maskers=maskers, run="paper")


def test_the_paper_is_compared_on_its_own_data():
    (compared, _) = compare(paper_run(), [paper_row()])
    assert compared.verdict == "ok"


@pytest.mark.parametrize(
    ("found", "row", "message"),
    [
        (paper_run(BOLT), paper_row(BOLT), "no public set"),
        (paper_run(maskers={"dino": MASKERS["dinov2"]}), paper_row(), "DINOv2-S/14"),
        (paper_run(maskers={"dino": MASKERS["vit"]}), paper_row(), "the paper's vit"),
    ],
)
def test_the_paper_is_never_compared_with_other_data_or_weights(found, row, message):
    with pytest.raises(FaderError, match=message):
        compare(found, [row])


def test_the_committed_rows_of_the_paper_are_the_generated_ones():
    committed = [found for found in read(REFERENCE / file.EXPECTED.name) if found.run == "paper"]
    assert by_key(committed) == by_key(paper_rows(REFERENCE))


def test_the_rows_of_the_paper_are_cells_of_its_preset():
    paper = config.load(ROOT / "presets" / "paper.yaml")
    rows = paper_rows(REFERENCE)
    assert {(found.dataset, found.category) for found in rows} == set(paper.pairs())
    assert {found.method for found in rows} <= set(map(str, methods(paper)))
    assert len(rows) == len(by_key(rows)) == 15 * 4 * 2 + 12
    assert {found.run for found in rows} == {paper.run}
    assert {(found.tolerance, found.source, found.how, found.seeds) for found in rows} == {
        (0.02, "paper", "stated tolerance, not measured", ())
    }


def test_the_rows_of_the_paper_are_its_corrected_numbers():
    rows = by_key(paper_rows(REFERENCE))
    # Read off the paper's Table 2 (bottle; pill as corrected) and Table 5 by eye.
    assert rows["mvtec_ad", "bottle", "ear-dino", "pixel_auroc"].mean == 0.914
    assert rows["mvtec_ad", "bottle", "fader-dino", "image_auroc"].mean == 0.998
    assert rows["mvtec_ad", "pill", "fader-dino", "image_auroc"].mean == 0.976
    assert rows["mvtec_ad", "pill", "fader-dino", "pixel_auroc"].mean == 0.945
    assert {key[2:] for key in rows if key[0] == "visa"} == {("fader-dino", "image_auroc")}


# Making expectations.


def measured(*auroc, **more):
    return [cell(seed, image, **more) for seed, image in enumerate(auroc)]


def run_of(given, **options):
    """A run with the seeds that the records have."""
    return run(*given, seeds=sorted({record.seed for record in given}), **options)


@pytest.fixture
def expected(tmp_path):
    path = tmp_path / "expected.csv"
    write(
        path,
        [
            expect(run="ci", mean=0.5),
            expect(mean=0.1),
            expect(mean=0.2, method="gone"),
            paper_row(),
        ],
    )
    return path


def test_update_writes_mean_and_tolerance(expected):
    update(run_of(measured(0.90, 0.92, 0.94)), expected)
    rows = {(found.run, *found.key[2:]): found for found in read(expected)}
    image = rows["demo", "ear-dinov2", "image_auroc"]
    assert image.mean == 0.92
    # Sample deviation 0.02; 3 · 0.02 · √(4/3) = 0.069282, rounded up.
    assert image.tolerance == 0.070
    assert image.seeds == (0, 1, 2)
    assert image.source == "measured"
    # Three equal seeds say nothing of the spread elsewhere: the floor.
    assert rows["demo", "ear-dinov2", "pixel_auroc"].tolerance == 0.005


def test_runs_of_another_processor_are_further_ones(expected):
    update(run_of(measured(0.90, 0.92, 0.94)), expected)
    write(expected, [*read(expected), expect(method="gone")])
    update(run_of(measured(0.80, 0.83, 0.86)), expected, pool=True)
    rows = by_key(read(expected))
    row = rows["synthetic", "bolt", "ear-dinov2", "image_auroc"]
    assert row.mean == 0.875
    assert row.seeds == (0, 1, 2, 0, 1, 2)
    six = 3 * stdev([0.90, 0.92, 0.94, 0.80, 0.83, 0.86]) * math.sqrt(1 + 1 / 6)
    assert six < row.tolerance < six + 0.002  # of deviations that were rounded up
    assert "several processors" in row.how
    assert rows["synthetic", "bolt", "ear-dinov2", "pixel_auroc"].tolerance == 0.005
    assert expect(method="gone") in read(expected)


def test_update_leaves_other_runs_and_drops_the_runs_old_rows(expected):
    update(run_of(measured(0.90, 0.92, 0.94)), expected)
    rows = read(expected)
    assert expect(run="ci", mean=0.5) in rows
    assert paper_row() in rows
    assert not any(found.method == "gone" for found in rows)
    assert [(found.run, *found.key) for found in rows] == sorted(
        (found.run, *found.key) for found in rows
    )
    assert passed(compare(run_of(measured(0.90, 0.92, 0.94)), rows))


def test_a_cell_with_a_small_spread_by_luck_takes_the_runs(expected):
    # Deviations 0 and 0.02, of which the median is 0.01; the cell with 0.02 keeps its own.
    given = measured(0.9, 0.9, 0.9) + measured(0.90, 0.92, 0.94, method="fader-dinov2")
    rows = by_key(update(run_of(given), expected))
    assert rows[*BOLT, "ear-dinov2", "image_auroc"].tolerance == 0.035  # 0.034641
    assert rows[*BOLT, "fader-dinov2", "image_auroc"].tolerance == 0.070


@given(
    aurocs=st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=3, max_size=6),
)
@settings(max_examples=25, deadline=None)
def test_an_updated_run_passes_its_own_gate(tmp_path_factory, aurocs):
    path = tmp_path_factory.mktemp("gate") / "expected.csv"
    write(path, [])
    found = run_of(measured(*aurocs))
    update(found, path)
    assert passed(compare(found, read(path)))


@given(sigma=st.floats(0, 0.5), seeds=st.integers(3, 20))
@settings(max_examples=25, deadline=None)
def test_the_tolerance_is_rounded_up_by_less_than_a_thousandth(sigma, seeds):
    exact = max(0.005, 3 * sigma * math.sqrt(1 + 1 / seeds))
    assert -1e-9 <= file.tolerance(sigma, seeds) - exact < 0.001


def test_unseen_seeds_seldom_fail_the_gate():
    # Simulated AUROCs of 16 cells with one σ: how often any cell of a run of new seeds is off.
    draw = np.random.default_rng(0)
    known = 0.012 * draw.standard_normal((1000, 16, 3))
    sigma = known.std(axis=-1, ddof=1)
    pooled = np.maximum(sigma, np.sqrt((sigma**2).mean(axis=1, keepdims=True)))
    fails = {}
    for seeds in (1, 3):
        unseen = 0.012 * draw.standard_normal((1000, 16, seeds))
        off = abs(unseen.mean(axis=-1) - known.mean(axis=-1))
        for name, spread in (("own", sigma), ("pooled", pooled)):
            outside = off > np.vectorize(file.tolerance)(spread, 3)
            fails[name, seeds] = outside.any(axis=1).mean()
    assert fails["own", 1] > 0.7
    assert fails["own", 3] > 0.45
    assert fails["pooled", 1] < 0.1
    assert fails["pooled", 3] < 0.01


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (measured(0.9, 0.9), {}, r"has 2 seeds;.*at least 3"),
        (measured(0.9), {}, r"has 1 seed;.*at least 3"),
        ([*measured(0.9, 0.9, 0.9), cell(method="fader-dinov2")], {}, r"\[0\] of \[0, 1, 2"),
        (
            measured(0.9, 0.9, 0.9, place=BOTTLE, method="ear-dino"),
            {"run": "paper", "places": [BOTTLE], "maskers": ("dino",)},
            "are the paper's",
        ),
    ],
)
def test_an_update_that_is_refused_leaves_the_file(expected, given, options, message):
    before = expected.read_bytes()
    with pytest.raises(FaderError, match=message):
        update(run_of(given, **options), expected)
    assert expected.read_bytes() == before
    assert [path.name for path in expected.parent.iterdir()] == [expected.name]


# The file.


def test_rows_survive_the_file(tmp_path):
    rows = [paper_row(), expect(how="a, b"), expect(mean=0.123456, tolerance=0.069, run="ci")]
    write(tmp_path / "expected.csv", rows)
    assert read(tmp_path / "expected.csv") == sorted(rows, key=lambda found: (found.run, found.key))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,mean\n", "expected the header run,dataset,"),
        ("{head}demo,synthetic,bolt,ear,image_auroc,0.9\n", "line 2: not a row of 10 fields"),
        ("{head}demo,synthetic,bolt,ear,image_auroc,x,0.01,0,measured,h\n", "line 2: not a row"),
        ("{head}demo,synthetic,bolt,ear,image_auroc,1.9,0.01,0,measured,h\n", "mean is not in"),
        ("{head}demo,synthetic,bolt,ear,image_auroc,0.9,nan,0,measured,h\n", "mean is not in"),
        ("{head}demo,synthetic,bolt,ear,image_f1,0.9,0.01,0,measured,h\n", "'image_f1'"),
        ("{head}demo,synthetic,bolt,ear,image_auroc,0.9,0.01,0,guess,h\n", "'guess'"),
        (2 * "demo,synthetic,bolt,ear,image_auroc,0.9,0.01,0,measured,h\n", "line 3.*given twice"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, message):
    head = ",".join(file.COLUMNS) + "\n"
    text = text.replace("{head}", head) if not text.startswith("demo") else head + text
    path = tmp_path / "expected.csv"
    path.write_text(text)
    with pytest.raises(FaderError, match=message):
        read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FaderError, match="no such file"):
        read(tmp_path / "expected.csv")


# The printed table.


def test_the_table_shows_every_number_once():
    found = run(cell(image=0.93, pixel=0.8), cell(method="fader-dinov2", image=0.7))
    expected = [expect(), expect("pixel_auroc", 0.8), expect(method="gone")]
    text = render(compare(found, expected), colour=False)
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert lines[0] == ["cell", "expected", "got", "difference", "verdict"]
    assert lines[2:-2] == [
        ["synthetic bolt ear-dinov2 image_auroc", "0.900 ± 0.010", "0.930", "+0.030", "miss"],
        ["synthetic bolt ear-dinov2 pixel_auroc", "0.800 ± 0.010", "0.800", "+0.000", "ok"],
        ["synthetic bolt fader-dinov2 image_auroc", "0.700", "new"],
        ["synthetic bolt fader-dinov2 pixel_auroc", "0.800", "new"],
        ["synthetic bolt gone image_auroc", "0.900 ± 0.010", "missing"],
    ]
    assert lines[-1] == ["1 ok, 1 miss, 1 missing, 2 new"]


def test_colour_changes_nothing_but_the_colour():
    cells = compare(run(cell(image=0.93)), [expect(), expect(method="gone")])
    plain, coloured = render(cells, colour=False), render(cells, colour=True)
    assert "\033" not in plain
    assert "\033[31mmiss\033[0m" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured) == plain


def test_every_masker_beats_chance_by_more_than_its_tolerance():
    """The committed expectation of the ci run, over three seeds: saliency finds defects."""
    rows = [
        row
        for row in file.read(ROOT / file.EXPECTED)
        if (row.run, row.metric) == ("ci", "pixel_auroc") and row.method.startswith("mask-")
    ]
    assert {row.method for row in rows} >= {
        f"mask-{m}" for m in ("dinov2", "dsr", "msflow", "aminet")
    }
    assert all(len(row.seeds) >= 3 and row.mean - row.tolerance > 0.5 for row in rows)
