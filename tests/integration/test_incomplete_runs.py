"""Test sets of one's own that have no masks, no good or no defective images: the whole run, through
the real Snakemake, ends well and its pages say why cells are empty."""

import re

import pytest
from conftest import Bench
from incomplete import NO_DEFECTIVE, NO_GOOD, NO_MASKS, images, sections
from tiny_project import checkout

pytestmark = pytest.mark.slow

PLACES = ("bare", "bad", "good")


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> tuple[Bench, str]:
    """A finished run of three categories, two of them with masks, and what Snakemake said."""
    bench = Bench(checkout(tmp_path_factory.mktemp("incomplete") / "bench").root)
    root = tmp_path_factory.mktemp("images") / "own"
    images(root, PLACES)
    params = bench.params() | sections(root, PLACES)
    params["run"] = "own"
    params["masks"]["maskers"] = {"dinov2": params["masks"]["maskers"]["dinov2"]}
    params["detectors"] = {"pca": params["detectors"]["pca"]}
    params["fader"]["schedules"] = ["fixed"]
    bench.write_params(params)
    return bench, bench.snakemake("tables")


def row(text: str, category: str) -> list[str]:
    """Cells of the first row of a category."""
    lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return next(line for line in lines if category in line)


def test_every_table_is_there_and_none_has_a_number_that_is_none(ended):
    tables = ended[0].root / "results/own/tables"
    for name in ("table1", "table2", "masks", "validation", "metrics", "statistics", "data"):
        page = (tables / f"{name}.md").read_text()
        assert "nan" not in page.lower()
    assert not [path for path in tables.glob("*.csv") if "nan" in path.read_text().lower()]
    for name in ("fig1", "fig2", "fig6"):
        assert (tables.parent / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_a_cell_that_is_empty_has_its_reason_below(ended):
    page = (ended[0].root / "results/own/tables/table2.md").read_text()
    numbers = {name: ["–" not in cell for cell in row(page, name)[-2:]] for name in PLACES}
    assert numbers == {
        "bare": [True, False],
        "bad": [False, True],
        "good": [False, False],
    }
    assert f"- No pixel metrics on the test images of unmasked/bare: {NO_MASKS}." in page
    assert f"- No image metrics on the test images of masked/bad: {NO_GOOD}." in page
    assert (
        f"- No image metrics and no pixel metrics on the test images of masked/good:"
        f" {NO_DEFECTIVE}." in page
    )
    assert "- Averages of pixel metrics on masked are over 1 of 2 categories: masked/bad." in page


def test_the_page_shows_every_kind_of_set(ended):
    page = (ended[0].root / "results/own/report/index.html").read_text()
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page), re.IGNORECASE)
    assert page.count('class="part gallery"') == len(PLACES)
    assert '<span class="none">no masks</span>' in page
    assert NO_GOOD in page and NO_DEFECTIVE in page


def test_what_was_read_is_counted(ended):
    page = (ended[0].root / "results/own/tables/data.md").read_text()
    found = {name: row(page, f"{'un' * (name == 'bare')}masked/{name}")[1:4] for name in PLACES}
    assert found == {
        "bare": ["10", "3", "6"],
        "bad": ["10", "0", "6"],
        "good": ["10", "3", "0"],
    }


def test_the_low_validation_is_said_aloud_for_every_kind_of_set(ended):
    """It needs no test label."""
    said = [line for line in ended[1].splitlines() if line.startswith("Warning: ")]
    assert {line.split()[1] for line in said} >= {
        f"{'un' * (name == 'bare')}masked/{name}:" for name in PLACES
    }


def test_a_second_run_does_nothing(ended):
    assert "Nothing to be done" in ended[0].snakemake("tables")


def test_the_gate_names_what_it_cannot_compare(ended):
    bench = ended[0]
    expected = bench.root / "reference/expected.csv"
    measured = (bench.root / "results/own/tables/table1.csv").read_text().splitlines()
    names, values = (line.split(",") for line in measured[:2])
    ear = values[names.index("ear_mean")]
    with expected.open("a") as stream:
        stream.write(f"own,unmasked,bare,ear-dinov2,image_auroc,{ear},0.01,0,measured,by hand\n")
    said = bench.run("fader", "check")
    assert "1 ok, 0 miss, 0 missing" in said
    assert f"skipped: {NO_MASKS}" in said
    assert f"skipped: {NO_GOOD}" in said and f"skipped: {NO_DEFECTIVE}" in said


def test_dvc_shows_the_numbers_and_plots(ended):
    bench = ended[0]
    assert "unmasked/bare" in bench.run("dvc", "metrics", "show", "--json")
    bench.run("dvc", "plots", "show", "-o", "shown")
    page = (bench.root / "shown/index.html").read_text()
    assert NO_GOOD in page and NO_DEFECTIVE in page
