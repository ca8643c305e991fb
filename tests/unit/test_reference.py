"""The transcribed tables: complete, and inconsistent exactly where reference/README.md says so."""

import csv
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from fader.errors import FaderError
from fader.report.paper import (
    AVERAGE,
    PAPER_DATASET,
    corrections,
    paper_values,
    printed_values,
)

REFERENCE = Path(__file__).parents[2] / "reference"
THOUSANDTH = Decimal("0.001")

MVTEC = {
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill"),
    *("screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
}
VISA = {
    *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
    *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
}
SYSTEMS = {
    1: {"mscam", "ganomaly", "scadn", "memae", "unet", "daad", "riad", "ear", "fader"},
    2: {f"{stage}-{masker}" for stage in ("ear", "fader") for masker in ("dino", "vit", "winclip")},
    3: {"ear", "fader-vitpredictor", "fader-hard", "fader-bilinear", "fader"},
    4: {f"{stage}-{m}" for stage in ("ear", "fader") for m in ("dsr", "msflow", "aminet")},
    5: {"draem", "jnld", "omnial", "fader"},
}
METRICS = {table: {"image_auroc"} for table in (1, 3, 5)} | {
    table: {"image_auroc", "pixel_auroc"} for table in (2, 4)
}

IMPOSSIBLE = {
    (2, "fader-dino", "image_auroc"): "0.0029",
    (2, "fader-dino", "pixel_auroc"): "0.0014",
    (2, "fader-winclip", "image_auroc"): "0.0071",
    (4, "fader-dsr", "pixel_auroc"): "-0.0027",
    (5, "jnld", "image_auroc"): "0.0028",
}
WITHIN_ROUNDING = {
    (2, "fader-vit", "pixel_auroc"),
    (3, "fader-hard", "image_auroc"),
    (5, "draem", "image_auroc"),
}


def exact(values):
    return {key: Decimal(str(value)) for key, value in values.items()}


def averages(table, values):
    """{(table, system, metric): (printed average, mean of the rows)} in exact arithmetic."""
    rows = {}
    for (category, system, metric), value in exact(values).items():
        if category != AVERAGE:
            rows.setdefault((system, metric), []).append(value)
    return {
        (table, *key): (exact(values)[(AVERAGE, *key)], sum(column) / len(column))
        for key, column in rows.items()
    }


@pytest.mark.parametrize("table", SYSTEMS)
def test_every_cell_of_the_table_is_there_once(table):
    categories = MVTEC if PAPER_DATASET[table] == "mvtec_ad" else VISA
    assert set(printed_values(table, REFERENCE)) == {
        (category, system, metric)
        for category in categories | {AVERAGE}
        for system in SYSTEMS[table]
        for metric in METRICS[table]
    }


@pytest.mark.parametrize("table", SYSTEMS)
def test_numbers_are_kept_as_printed_with_three_decimals(table):
    with (REFERENCE / f"table{table}.csv").open(newline="") as stream:
        cells = [row[metric] for row in csv.DictReader(stream) for metric in METRICS[table]]
    assert all(len(cell) == 5 and cell[1] == "." for cell in cells)


def test_spot_cells_of_every_table():
    assert paper_values(1, REFERENCE)["screw", "memae", "image_auroc"] == 0.257
    assert paper_values(2, REFERENCE)["cable", "ear-winclip", "pixel_auroc"] == 0.550
    assert paper_values(3, REFERENCE)["screw", "fader-hard", "image_auroc"] == 0.605
    assert paper_values(4, REFERENCE)["wood", "fader-aminet", "pixel_auroc"] == 0.715
    assert paper_values(5, REFERENCE)["chewinggum", "jnld", "image_auroc"] == 0.985


def test_exactly_the_listed_averages_cannot_come_from_their_rows():
    """A rounded row is off by 0.0005 at most and so is a rounded average: together 0.001."""
    found = {}
    for table in SYSTEMS:
        for key, (printed, mean) in averages(table, printed_values(table, REFERENCE)).items():
            if abs(printed - mean) > THOUSANDTH:
                found[key] = str((printed - mean).quantize(Decimal("0.0001")))
    assert found == IMPOSSIBLE


def test_exactly_the_listed_averages_are_not_the_rounded_mean_of_the_printed_rows():
    found = {
        key
        for table in SYSTEMS
        for key, (printed, mean) in averages(table, printed_values(table, REFERENCE)).items()
        if printed != mean.quantize(THOUSANDTH, ROUND_HALF_UP)
    }
    assert found == WITHIN_ROUNDING | set(IMPOSSIBLE)


def test_corrected_pill_mends_both_averages_and_agrees_with_tables_1_and_3():
    assert {(c.category, c.system) for c in corrections(2, REFERENCE)} == {("pill", "fader-dino")}
    assert not any(corrections(table, REFERENCE) for table in (1, 3, 4, 5))
    values = averages(2, paper_values(2, REFERENCE))
    for metric in METRICS[2]:
        printed, mean = values[2, "fader-dino", metric]
        assert printed == mean.quantize(THOUSANDTH, ROUND_HALF_UP)
    pill = paper_values(2, REFERENCE)["pill", "fader-dino", "image_auroc"]
    assert pill == 0.976
    assert pill == paper_values(1, REFERENCE)["pill", "fader", "image_auroc"]
    assert pill == paper_values(3, REFERENCE)["pill", "fader", "image_auroc"]
    assert printed_values(2, REFERENCE)["pill", "fader-dino", "image_auroc"] == 0.933


def test_the_same_system_differs_between_tables_only_where_listed():
    one, two, three = (printed_values(table, REFERENCE) for table in (1, 2, 3))

    def differing(left, right, system, other):
        return {
            category
            for category in MVTEC | {AVERAGE}
            if left[category, system, "image_auroc"] != right[category, other, "image_auroc"]
        }

    assert differing(one, two, "ear", "ear-dino") == {"cable", "tile"}
    assert differing(one, two, "fader", "fader-dino") == {"pill"}
    assert differing(one, three, "ear", "ear") == set()
    assert differing(one, three, "fader", "fader") == set()


@pytest.mark.parametrize(
    ("table", "image", "pixel", "either"),
    [(2, (31, 8, 6), (38, 0, 7), 43), (4, (27, 3, 15), (36, 0, 9), 40)],
)
def test_counts_of_gains_that_the_readme_states(table, image, pixel, either):
    values = paper_values(table, REFERENCE)
    gains = {
        (category, system, metric): value - values[category, f"ear-{system[6:]}", metric]
        for (category, system, metric), value in values.items()
        if system.startswith("fader-") and category != AVERAGE
    }
    for metric, expected in (("image_auroc", image), ("pixel_auroc", pixel)):
        column = [gain for key, gain in gains.items() if key[2] == metric]
        assert (
            sum(gain > 0 for gain in column),
            sum(gain == 0 for gain in column),
            sum(gain < 0 for gain in column),
        ) == expected
    assert len({key[:2] for key, gain in gains.items() if gain > 0}) == either


def test_fader_is_best_in_nine_categories_of_table_1():
    values = printed_values(1, REFERENCE)
    best = [
        values[c, "fader", "image_auroc"] == max(values[c, s, "image_auroc"] for s in SYSTEMS[1])
        for c in MVTEC
    ]
    assert sum(best) == 9


def test_every_listed_inconsistency_carries_a_note():
    noted = set()
    for table in SYSTEMS:
        with (REFERENCE / f"table{table}.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                if row["note"]:
                    stage = {"before": "ear", "after": "fader"}.get(row.get("stage"))
                    noted.add(
                        (table, row["category"], row.get("system") or f"{stage}-{row['masker']}")
                    )
    listed = {(table, AVERAGE, system) for table, system, _ in WITHIN_ROUNDING | set(IMPOSSIBLE)}
    twice = {
        (t, c, s) for c in ("cable", "tile") for t, s in ((1, "ear"), (2, "ear-dino"), (3, "ear"))
    }
    assert noted == listed | twice | {(2, "pill", "fader-dino")}


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FaderError, match="tables 1 to 5"):
        printed_values(6, REFERENCE)
    with pytest.raises(FaderError, match="no such file"):
        printed_values(1, tmp_path)
    path = tmp_path / "table1.csv"
    path.write_text("category,image_auroc\n")
    with pytest.raises(FaderError, match="expected the header"):
        printed_values(1, tmp_path)
    header = "category,system,image_auroc,note\n"
    for cell in ("97.6", "nan", "–", ""):
        path.write_text(f"{header}bottle,ear,{cell},\n")
        with pytest.raises(FaderError, match=r"table1\.csv, line 2"):
            printed_values(1, tmp_path)
    path.write_text(header + "bottle,ear,0.997,\nbottle,ear,0.998,\n")
    with pytest.raises(FaderError, match="given twice"):
        printed_values(1, tmp_path)


def test_a_correction_must_quote_the_print(tmp_path):
    (tmp_path / "table1.csv").write_text("category,system,image_auroc,note\npill,fader,0.976,\n")
    (tmp_path / "corrections.csv").write_text(
        "table,category,system,metric,printed,corrected,evidence\n1,pill,fader,image_auroc,0.933,0.976,x\n"
    )
    with pytest.raises(FaderError, match=r"prints 0\.976"):
        paper_values(1, tmp_path)
