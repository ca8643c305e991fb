"""The parts of the page: Markdown read back, tables, answers, pictures."""

import base64
import io
import math

import numpy as np
import pytest
from factory import BOLT, NUT, REFERENCE, missing, ok, records, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fader.report.layout import build
from fader.report.render import bullets, escaped, pipe
from fader.report.site import images, markdown
from fader.report.site.answers import Effect, agreement, elsewhere, helps
from fader.report.site.checks import check
from fader.report.site.gallery import heat, outcome
from fader.report.site.sheets import LEFT_OUT, number, of_grid, of_table, tone
from fader.report.tables import LAYOUTS

MVTEC = (("mvtec_ad", "bottle"), ("mvtec_ad", "transistor"))

# ---- our Markdown, read back ----

plain = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="`") | st.just(" "), min_size=1
).filter(lambda text: text == " ".join(text.split()) and text)


def text_of(line) -> str:
    return "".join(span.text for span in line)


@settings(deadline=None)
@given(st.lists(st.lists(plain, min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_table_is_read_back_as_it_was_printed(rows):
    headers = [escaped(cell) for cell in ("a | b", "c_d *e*")]
    (grid,) = markdown.blocks(pipe(headers, rows, "lr"))
    assert grid.headers == ["a | b", "c_d *e*"]
    assert [[text_of(cell) for cell in row] for row in grid.rows] == rows
    assert grid.align == "lr"


@settings(deadline=None)
@given(st.lists(plain, min_size=1, max_size=3))
def test_notes_are_read_back_as_they_were_printed(notes):
    (found,) = markdown.blocks(bullets(notes))
    assert [text_of(line) for line in found.lines] == notes


def test_the_errata_are_headings_paragraphs_lists_and_tables():
    blocks = markdown.blocks((REFERENCE / "ERRATA.md").read_text(encoding="utf-8"))
    kinds = {type(block) for block in blocks}
    assert kinds == {markdown.Heading, markdown.Paragraph, markdown.Bullets, markdown.Grid}
    assert markdown.Span("fader errata", code=True) in blocks[1].line


# ---- tables ----


def sheet(name, given, places=(BOLT, NUT), **options):
    found = records(tiny(places, **options), given)
    return of_table(build(LAYOUTS[name](found), found, REFERENCE), found)


def cells(row) -> list[str]:
    return [cell.text for cell in row.cells]


def test_ours_the_papers_and_the_difference_stand_side_by_side():
    given = [ok(pair, "fader-dinov2", image=0.95) for pair in MVTEC]
    found = sheet("table1", given, MVTEC)
    heads = [head for row in found.heads for head in row if head.text == "FADeR"]
    assert (heads[0].columns, heads[0].column) == (3, None)
    leaves = {head.column: head.text for row in found.heads for head in row}
    assert [leaves[column] for column in (4, 5, 6)] == ["ours", "paper", "ours − paper"]
    bottle = found.rows[0].cells
    assert [cell.text for cell in bottle[4:7]] == ["0.950", "0.998", "−0.048"]
    assert bottle[6].kind == "below"
    assert found.rows[-1].average and found.rows[-1].cells[0].text == "average"


@pytest.mark.parametrize(
    ("difference", "kind"),
    [(0.02, "within"), (-0.02, "within"), (0, "within"), (0.0201, "above"), (-0.0201, "below")],
)
def test_a_difference_is_told_by_the_gates_tolerance(difference, kind):
    assert tone(difference) == kind


def test_every_leaf_of_the_header_is_over_its_column():
    found = sheet("table2", [ok(p, "ear-dinov2") for p in MVTEC], MVTEC)
    width = len(found.rows[0].cells)
    leaves = [head.column for row in found.heads for head in row if head.column is not None]
    assert sorted(leaves) == list(range(width))
    for row in found.heads[:1]:
        assert sum(head.columns for head in row) == width


def test_an_empty_cell_has_the_number_of_its_reason():
    given = [
        ok(BOLT, "pca", 0),
        missing(NUT, "pca", "training diverged: loss is nan"),
        *(ok(pair, f"{stage}-dinov2") for pair in (BOLT, NUT) for stage in ("ear", "fader")),
    ]
    found = sheet("table1", given, detectors=("pca",))
    row = next(row for row in found.rows if cells(row)[0] == "nut")
    empty = [cell for cell in row.cells if cell.reason]
    assert found.reasons[empty[0].reason - 1] == "training diverged: loss is nan"
    assert all(cell.reason for cell in row.cells if cell.text == "–")
    assert found.says("pca, nut: training diverged: loss is nan.")


def test_a_masker_that_did_not_run_takes_one_row():
    given = [ok(BOLT, f"{stage}-dinov2") for stage in ("mask", "ear", "fader")]
    given += [missing(BOLT, f"{stage}-vit", "no weights") for stage in ("mask", "ear", "fader")]
    found = sheet("table2", given, (BOLT,), maskers=("dinov2", "vit"))
    assert [row.cells[-1].text for row in found.rows][1:] == ["did not run"]
    assert sum(cell.span for cell in found.rows[1].cells) == len(found.rows[0].cells)
    assert found.reasons == ["no weights"]


def test_the_average_of_one_category_is_that_category():
    one = sheet("table1", [ok(BOLT, "ear-dinov2")], (BOLT,))
    assert [cells(row)[0] for row in one.rows] == ["bolt"]


def test_a_name_left_out_in_markdown_is_that_of_the_row_above():
    grid = markdown.Grid(
        ["System", "Category", "AUROC"],
        [[markdown.line(cell) for cell in row] for row in ROWS],
        "llr",
    )
    found = of_grid("", grid)
    assert [cells(row) for row in found.rows] == [
        ["EAR", "bolt", "0.9"],
        ["EAR", "average", "0.9 ± 0.1"],
        ["FADeR", "bolt", LEFT_OUT],
    ]
    assert [row.average for row in found.rows] == [False, True, False]


ROWS = [["EAR", "bolt", "0.9"], ["", "average", "0.9 ± 0.1"], ["FADeR", "bolt", "–"]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0.5", 0.5), ("−0.012 … +0.2", -0.012), ("1,234", 1234), ("20 + 24", 20)),
        *(("–", None), ("", None), ("224²", None), ("too few", None)),
    ],
)
def test_a_printed_number_sorts_as_a_number(text, value):
    assert number(markdown.line(text)) == value


# ---- answers ----


def effect(low: float | None, high: float | None, base: bool = True, dataset: str = "A") -> Effect:
    middle = None if low is None or high is None else (low + high) / 2
    return Effect("masker", base, dataset, middle, low, high, None, None, {})


@pytest.mark.parametrize(
    ("effects", "mark", "words"),
    [
        ([(0.01, 0.02)], "yes", "Yes: the 95 % interval lies above 0."),
        ([(0.01, 0.02), (0.01, 0.03)], "yes", "on every data set"),
        ([(-0.01, 0.02)], "open", "Not settled: the 95 % interval includes 0"),
        ([(0.0, 0.02)], "open", "Not settled"),
        ([(-0.03, -0.02)], "no", "No: image AUROC falls on A"),
        ([(-0.03, -0.02), (-0.01, 0.01)], "no", "falls on A"),
        ([(0.01, 0.02), (-0.01, 0.02)], "open", "elsewhere the interval includes 0"),
        ([(0.01, 0.02), (-0.03, -0.02)], "open", "it falls on B"),
        ([(None, None)], "open", "cannot be told"),
        ([], "open", "cannot be told"),
    ],
)
def test_whether_it_helps_is_said_as_sure_as_it_is(effects, mark, words):
    found = [effect(*pair, dataset=name) for pair, name in zip(effects, "AB", strict=False)]
    other = effect(0.5, 0.6, base=False)  # no say in it
    verdict = helps([*found, other])
    assert verdict.mark == mark
    assert words in verdict.text
    assert elsewhere([*found, other]).startswith("Under the other maskers 1 of 1")
    assert elsewhere(found) is None


def test_agreement_counts_each_cell_beside_the_paper_once():
    places = MVTEC[:1]
    config = tiny(places)
    found = records(config, [ok(MVTEC[0], "ear-dinov2", image=0.997, pixel=0.5)])
    tables = [build(LAYOUTS[name](found), found, REFERENCE) for name in ("table1", "table2")]
    result = agreement(tables)
    assert (result.cells, result.within, result.above, result.below) == (2, 1, 0, 1)
    assert agreement([]) is None


def test_the_gate_says_when_there_is_nothing_to_compare_with(monkeypatch):
    monkeypatch.chdir(REFERENCE.parent)
    found = records(tiny(run="nowhere"), [])
    assert check(found).passed is None
    assert "no rows for run 'nowhere'" in check(found).text


# ---- pictures ----


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("most", [10**9, 20_000, 3_000])
def test_a_picture_takes_no_more_than_it_may(most):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    uri = images.picture(noise, most)
    assert len(uri.partition(",")[2]) <= most
    width, height = decoded(uri).size
    assert width == height <= 256


@pytest.mark.parametrize("categories", [1, 2, 6, 27, 100])
def test_all_galleries_together_stay_below_the_limit(categories):
    each = images.of_case(categories, 3 * 48) * 3 * 48
    assert each * categories <= images.GALLERIES
    assert images.GALLERIES + images.FIGURES < 50_000_000  # tables and text have the rest of 60 MB
    assert 2 * images.GALLERY + images.FIGURES < 12_000_000  # and of 15 MB for two categories


def test_a_mask_is_black_and_white():
    mask = np.zeros((64, 64), bool)
    mask[:32] = True
    assert np.array(decoded(images.mask(mask))).mean() == 0.5


def test_a_tall_figure_fits_and_keeps_its_size_on_the_page(tmp_path):
    path = tmp_path / "figure.png"
    noise = np.random.default_rng(0).integers(0, 256, (2_000, 200, 3), np.uint8)
    Image.fromarray(noise).save(path)
    uri, size = images.figure(path, 400_000)
    assert size == (200, 2_000)
    assert len(uri.partition(",")[2]) <= 400_000


def test_a_map_is_dark_where_it_is_low():
    colours = heat(np.array([[0.0, 1.0]], np.float16), 0.0, 1.0)
    assert colours.shape == (1, 2, 3)
    assert colours[0, 0].sum() < 30 and colours[0, 1].sum() > 500
    assert heat(np.ones((2, 2)), 1.0, 1.0).max() < 30  # a constant map is no defect


@pytest.mark.parametrize(
    ("score", "label", "expected"),
    [
        (0.6, 1, "correct"),
        (math.nextafter(0.5, 1), 1, "correct"),
        (0.5, 1, "false negative"),
        (0.4, 0, "correct"),
        (0.6, 0, "false positive"),
    ],
)
def test_an_image_is_called_defective_above_the_threshold(score, label, expected):
    assert outcome(score, label, 0.5) == expected
