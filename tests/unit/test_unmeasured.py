"""The report of test sets without masks, without good or without defective images: cells that are
empty say why, and averages are over the others."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from factory import BOLT, NUT, REFERENCE, missing, ok, records, row, tiny

from fader.errors import FaderError
from fader.files import write_text
from fader.pipeline import paths
from fader.report import data, gate, numbers, render, warnings, write
from fader.report import expected as file
from fader.report.drawings import Findings
from fader.report.gate import compare, passed, update
from fader.report.layout import build
from fader.report.records import Records
from fader.report.sources import Source
from fader.report.statistics import statistics
from fader.report.tables import LAYOUTS

NO_MASKS = "no masks (datasets.synthetic.masks: absent)"
NO_GOOD, NO_DEFECTIVE = "no good test images", "no defective test images"
METHODS = ("mask-dinov2", "ear-dinov2", "fader-dinov2", "pca")
ORACLES = ("ear-dinov2", "fader-dinov2")
VALIDATION = {"validation_image_auroc": 0.7, "validation_pixel_auroc": 0.9}
COVERAGE = ("mask_recall", "mask_complete")
KINDS = {  # of test set → labels, why there are no image metrics, and why no pixel metrics
    "whole": ((0, 0, 1, 1), "", ""),
    "bare": ((0, 0, 1, 1), "", NO_MASKS),
    "bad": ((1, 1, 1, 1), NO_GOOD, ""),
    "bad_bare": ((1, 1, 1, 1), NO_GOOD, NO_MASKS),
    "good": ((0, 0, 0, 0), NO_DEFECTIVE, NO_DEFECTIVE),
}


def place(kind):
    return "synthetic", kind


def measured(kind, value=0.9, seed=0):
    """Records of every method on a test set of a kind."""
    labels, image, pixel = KINDS[kind]
    found = []
    for method in METHODS:
        of_image, of_pixel = ["image_auroc"], ["pixel_auroc"]
        of_image += ["oracle_gain"] if method in ORACLES else []
        of_pixel += COVERAGE if method.startswith("mask") else []
        values = {} if method.startswith("mask") else dict(VALIDATION)
        values |= {"mask_area": 0.25} if method.startswith("mask") else {}
        values |= {} if image else dict.fromkeys(of_image, value)
        values |= {} if pixel else dict.fromkeys(of_pixel, value)
        why = dict.fromkeys(of_image, image) if image else {}
        why |= dict.fromkeys(of_pixel, pixel) if pixel else {}
        named = {"image": values.pop("image_auroc", None), "pixel": values.pop("pixel_auroc", None)}
        more = {"labels": labels, "unmeasured": why}
        found.append(ok(place(kind), method, seed, **named, **more, **values))
    return found


def run(*kinds, values=None, given=(), **options):
    """Records of a run over test sets of these kinds; ``values`` : kind → every number of it."""
    options = {"detectors": ("pca",), "run": "some"} | options
    config = tiny([place(kind) for kind in kinds], **options)
    found = [r for kind in kinds for r in measured(kind, (values or {}).get(kind, 0.9))]
    return records(config, [*found, *given])


def table(name, found):
    return build(LAYOUTS[name](found), found, REFERENCE)


def cells(text, first):
    """Cells of the first line of a Markdown table that has ``first`` among its cells."""
    lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return next(line for line in lines if first in line)


# Tables.


def test_an_empty_cell_is_a_dash_and_the_note_says_why():
    made = table("table2", run("whole", "bare", "bad", "good"))
    text = render.markdown(made)
    assert cells(text, "whole")[-2:] == ["0.900 → 0.900", "0.900 → 0.900"]
    assert cells(text, "bare")[-2:] == ["0.900 → 0.900", "–"]
    assert cells(text, "bad")[-2:] == ["–", "0.900 → 0.900"]
    assert cells(text, "good")[-2:] == ["–", "–"]
    assert made.notes[-5:] == (
        "Averages of image metrics are over 2 of 4 categories: whole, bare.",
        "Averages of pixel metrics are over 2 of 4 categories: whole, bad.",
        f"No image metrics on the test images of bad: {NO_GOOD}.",
        f"No image metrics and no pixel metrics on the test images of good: {NO_DEFECTIVE}.",
        f"No pixel metrics on the test images of bare: {NO_MASKS}.",
    )
    assert "bare & 0.900 $\\to$ 0.900 & --" in render.latex(made)


def test_averages_are_over_the_cells_that_are_there():
    found = run("whole", "bare", values={"bare": 0.7})
    frame = table("table2", found).frame
    average = row(frame, category="average")
    assert average.ear_image_mean == pytest.approx(0.8)
    assert average.ear_pixel_mean == 0.9


def test_what_stands_in_one_cell_is_averaged_over_the_same_categories():
    """The validation AUROC is always there; beside a test AUROC it is that of its categories."""
    given = [
        replace(record, metrics=dict(record.metrics) | dict.fromkeys(VALIDATION, 0.5))
        for record in measured("good")
    ]
    config = tiny([place("whole"), place("good")], detectors=("pca",))
    made = table("validation", records(config, [*measured("whole"), *given]))
    average = row(made.frame, category="average", system="ear-dinov2")
    assert (average.validation_image_mean, average.test_image_mean) == (0.7, 0.9)
    good = row(made.frame, category="good", system="ear-dinov2")
    assert good.validation_image_mean == 0.5
    assert "Averages of image metrics are over 1 of 2 categories: whole." in made.notes


def test_a_method_that_did_not_run_keeps_its_own_reason():
    found = run("bare", maskers=("dinov2", "vit"), given=[missing(place("bare"), "ear-vit", "x")])
    notes = table("table2", found).notes
    assert "ear-vit, bare: x." in notes
    assert notes[-1] == f"No pixel metrics on the test images of bare: {NO_MASKS}."
    assert not any("not measured" in note for note in notes)


def test_the_oracle_is_absent_with_its_reason():
    made = table("table1", run("bad"))
    assert cells(render.markdown(made), "bad") == ["bad", *["–"] * 5]
    assert f"No image metrics and no oracle gains on the test images of bad: {NO_GOOD}." in (
        made.notes
    )


def test_masks_cover_an_area_whatever_is_known_of_the_defects():
    text = render.markdown(table("masks", run("whole", "bare")))
    assert cells(text, "bare")[-4:] == ["0.250", "–", "–", "–"]
    assert cells(text, "whole")[-4:] == ["0.250", "0.900", "0.900", "0.900"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("good", "the 0 cells (category and method) of the run: not defined for so few."),
        (
            "whole",
            "the 3 cells (category and method) of the run: not defined, since one of them is the"
            " same in all.",
        ),
    ],
)
def test_a_rank_correlation_that_there_is_not_says_so(kind, text):
    notes = table("validation", run(kind)).notes
    for level in ("image", "pixel"):
        start = f"Rank correlation (Spearman) of validation and test {level} AUROC over"
        assert f"{start} {text}" in notes


KINDS_OF_RUN = [
    ("bare",),
    ("bad",),
    ("good",),
    ("bad_bare",),
    ("good", "bad_bare"),
    ("whole", "bare", "bad", "good", "bad_bare"),
]


@pytest.mark.parametrize("kinds", KINDS_OF_RUN)
@pytest.mark.parametrize(
    "name", ["table1", "table2", "masks", "validation", "metrics", "statistics"]
)
def test_every_page_is_made_and_says_why_cells_are_empty(kinds, name):
    texts = list(write.table(Findings(run(*kinds), REFERENCE), name).files.values())
    assert not any("nan" in text.lower() for text in texts)
    page = next(text for text in texts if "|:--" in text)
    shown = {"table1": (1,), "masks": (2,)}.get(name, (1, 2))  # image, pixel metrics or both
    for kind in kinds:
        for why in (KINDS[kind][level] for level in shown):
            assert not why or why in page


# Statistics.


def test_statistics_have_the_levels_that_are_measured():
    found = statistics(run("whole", "bare", "bad", "good"), REFERENCE, resamples=100)
    rows = found.intervals[found.intervals.against == "ear-dinov2"].set_index("category")
    assert rows.difference.notna().to_dict() == {
        "whole": True,
        "bare": True,
        "bad": False,
        "good": False,
        "average": True,
    }
    assert rows[["normal", "defective"]].loc["bad"].tolist() == [0, 4]
    ours = found.counts[(found.counts.source == "ours") & (found.counts.against == "ear-dinov2")]
    assert ours.set_index("level").equal.to_dict() == {"image": 2, "pixel": 2, "either": 1}
    assert "Nothing to count" not in found.markdown


def test_statistics_of_nothing_say_so():
    found = statistics(run("good"), REFERENCE, resamples=100)
    assert found.intervals.difference.isna().all()
    assert "ours" not in set(found.counts.source)
    assert "Nothing to count: no comparison has an AUROC on both sides." in found.markdown
    assert (
        f"- No image metrics and no pixel metrics on the test images of good: {NO_DEFECTIVE}."
        in (found.markdown)
    )


# Numbers for DVC.


def test_averages_for_machines_are_over_what_is_there_and_name_the_rest():
    found = run("whole", "bare", values={"bare": 0.7})
    made = numbers.averages(found)
    ear = made["average"]["synthetic"]["ear-dinov2"]
    assert (ear["image_auroc"], ear["pixel_auroc"]) == (pytest.approx(0.8), 0.9)
    assert made["pixel_auroc"]["pca"] == {"synthetic/whole": 0.9}
    assert made["unmeasured"] == {"synthetic/bare": {"pixel_auroc": NO_MASKS}}
    assert json.loads(numbers.metrics_json(made)) == made
    assert "unmeasured" not in numbers.averages(run("whole"))


def test_a_chart_of_nothing_has_words():
    rows = list(csv.reader(io.StringIO(numbers.auroc_csv(numbers.averages(run("good", "bad"))))))
    assert [f"synthetic/bad {method}: {NO_GOOD}" for method in sorted(METHODS)] == [
        name for name, *_ in rows[1:5]
    ]
    assert rows[1][1:] == ["", "0.9"]
    assert rows[5:] == [[f"synthetic/good: {NO_DEFECTIVE}", "", ""]]
    for made in (numbers.roc_csv, numbers.pr_csv):
        assert made([], NO_GOOD).splitlines()[1:] == [f"{NO_GOOD},0,,"]


# The gate.


def test_the_gate_skips_what_cannot_be_measured_with_words():
    found = run("bare", seeds=(0,))
    expected = file.Expected(
        "some", *place("bare"), "pca", "image_auroc", 0.9, 0.01, (0,), "measured", "by hand"
    )
    made = compare(found, [expected])
    assert passed(made)
    text = gate.render(made, colour=False)
    assert f"skipped: {NO_MASKS}" in text
    assert text.endswith("1 ok, 0 miss, 0 missing, 3 new, 4 skipped")


def test_the_gate_misses_what_is_expected_though_it_cannot_be_measured():
    expected = file.Expected(
        "some", *place("bare"), "pca", "pixel_auroc", 0.9, 0.01, (0,), "measured", "by hand"
    )
    made = compare(run("bare"), [expected])
    assert not passed(made)
    assert f"missing: {NO_MASKS}" in gate.render(made, colour=False)


def test_a_run_of_which_nothing_can_be_expected_passes_with_words(tmp_path):
    made = compare(run("good"), [])
    assert passed(made)
    assert {cell.verdict for cell in made} == {"skipped"}
    path = tmp_path / "expected.csv"
    file.write(path, [])
    found = [record for seed in range(3) for record in measured("good", seed=seed)]
    config = tiny([place("good")], detectors=("pca",), run="some", seeds=(0, 1, 2))
    with pytest.raises(FaderError, match=f"'some' has no AUROC to expect: {NO_DEFECTIVE}"):
        update(records(config, found), path)


# Records that contradict themselves.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([ok(BOLT, "ear-dinov2", pixel=None)], "no pixel_auroc"),
        (
            [ok(BOLT, "ear-dinov2", unmeasured={"pixel_auroc": NO_MASKS})],
            "ear-dinov2/seed0: has pixel_auroc, another record says no masks",
        ),
        (
            [
                ok(BOLT, "ear-dinov2", pixel=None, unmeasured={"pixel_auroc": NO_MASKS}),
                ok(BOLT, "fader-dinov2", pixel=None, unmeasured={"pixel_auroc": NO_DEFECTIVE}),
            ],
            "pixel_auroc is not measured, .*another record says",
        ),
        (
            [
                ok(BOLT, "ear-dinov2"),
                ok(BOLT, "fader-dinov2", pixel=None, unmeasured={"pixel_auroc": NO_MASKS}),
            ],
            "ear-dinov2/seed0: has pixel_auroc, another record says no masks",
        ),
    ],
)
def test_records_that_contradict_one_another_are_named(given, message):
    with pytest.raises(FaderError, match=message):
        records(tiny(), given)


# What was read.

ODD = ("2 images are in train and in test: a.png, b.png", "1 defect vanishes at 64 × 64.")


@pytest.fixture
def read() -> Records:
    """Records of two categories, one of them with warnings and ignored files."""
    sources = {
        "synthetic-bolt": Source(12, 4, {"scratch": 3, "hole": 1}, "present", {".txt": 2}, ODD),
        "synthetic-nut": Source(9, 0, {"bad": 2}, "absent", {}, []),
    }
    config = tiny([BOLT, NUT])
    return Records(config, records(config, []), sources=sources)


def test_the_data_are_counted_on_a_page(read):
    page = data.table(read)[1]
    assert cells(page, "bolt") == ["bolt", "12", "4", "4", "scratch 3, hole 1", "present"]
    assert cells(page, "nut") == ["nut", "9", "0", "2", "bad 2", "absent"]
    assert "- Files ignored in bolt: .txt 2.\n" in page
    assert f"- Warning: synthetic/bolt: {ODD[0]}.\n" in page


def test_warnings_of_the_reader_stand_beside_the_numbers_and_end_the_run(
    read, tmp_path, monkeypatch
):
    expected = [f"Warning: synthetic/bolt: {ODD[0]}.", f"Warning: synthetic/bolt: {ODD[1]}"]
    assert [n for n in table("table1", read).notes if n.startswith("Warning")] == expected
    monkeypatch.chdir(tmp_path)
    assert warnings(read.config) == []
    write_text(Path(paths.table(read.config.run, "data")[0]), data.table(read)[0])
    assert warnings(read.config) == expected
