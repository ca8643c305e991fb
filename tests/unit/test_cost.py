"""The cost table from facts worked by hand."""

import csv
import io

import pytest
from factory import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.report import cost
from fader.report.cost import figure, label

CONFIG = tiny(maskers=("dino", "msflow", "winclip"), detectors=("unet", "pca"))

CPU = {"device": "cpu", "name": "A processor", "precision": "bf16", "threads": 2}
GPU = {"device": "cuda", "name": "A card", "precision": "bf16", "threads": 2}


def timing(where, batch, milliseconds, note=None):
    return where | {"batch": batch, "milliseconds": milliseconds, "passes": 3, "note": note}


def row(name, kind="component", times=(1.0, 0.5), where=(CPU,), **facts):
    timings = [
        timing(place, batch, time, None if time is not None else "one image takes 4.2 s")
        for place in where
        for batch, time in zip((1, 16), times, strict=True)
    ]
    row = {"name": name, "kind": kind, "parts": {name: 1}, "input": 256, "patch": None}
    row |= {"parameters": 0, "trained": 0, "macs": 0, "bytes": 0, "note": None}
    return row | {"timings": timings} | facts


def facts(**options):
    return [
        row(
            "mask-winclip",
            times=(4200.0, None),
            parameters=208_377_345,
            macs=336_725_841_408,
            bytes=833_509_380,
            input=240,
            note="the text encoder runs once",
            **options,
        ),
        row("network", parameters=25_858_755, trained=25_858_755, macs=63_040_389_120, **options),
        row("phi-mlp", parameters=98_561, trained=98_561, macs=25_198_592, patch=16, **options),
        row(
            "fader-winclip",
            "system",
            times=(4201.0, None),
            parts={"mask-winclip": 1, "network": 1, "phi-mlp": 1},
            **options,
        ),
        row("unet", "system", **options),
    ]


def markdown(rows):
    return cost.table(CONFIG, rows)[1]


def cells(markdown: str, name: str) -> list[str]:
    line = next(line for line in markdown.splitlines() if f"| {name} " in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_shows_three_digits_and_a_dash_for_what_was_not_timed():
    page = markdown(facts())
    expected = ["Component", "Masker, WinCLIP", "240²", "208", "0", "337", "834", "4200", "–"]
    assert cells(page, "Masker, WinCLIP") == expected
    found = cells(page, "U-Net, one pass")
    assert found == ["", "U-Net, one pass", "256²", "25.9", "25.9", "63.0", "0", "1.00", "0.500"]
    found = cells(page, "Φ, MLP (m = 16)")
    assert found[3:6] == ["0.0986", "0.0986", "0.0252"]
    assert cells(page, "FADeR, WinCLIP")[0] == "System"
    assert cells(page, "U-Net")[0] == ""


def test_caption_says_size_and_machine_and_notes_say_what_is_left_out_once():
    page = markdown(facts())
    caption, *_ = page.split("\n\n")
    assert "256 × 256 pixels" in caption
    assert "random weights" in caption
    assert caption.endswith("on A processor (bf16, 2 threads).")
    notes = [line for line in page.splitlines() if line.startswith("- ")]
    assert notes == [
        "- Masker, WinCLIP: the text encoder runs once.",
        "- Masker, WinCLIP, CPU: batch 16 not timed, one image takes 4.2 s.",
    ]


def test_a_gpu_adds_its_columns():
    page = markdown(facts(where=(CPU, GPU)))
    header = next(line for line in page.splitlines() if "System" in line)
    found = [cell.strip() for cell in header.strip("|").split("|")][-4:]
    assert found == [f"{place}, batch {batch}, ms" for place in ("CPU", "GPU") for batch in (1, 16)]
    assert "on A processor (bf16, 2 threads) and A card (bf16, deterministic" in page
    assert "GPU" not in markdown(facts())


def test_csv_holds_every_number_as_measured():
    rows = list(csv.DictReader(io.StringIO(cost.table(CONFIG, facts(where=(CPU, GPU)))[0])))
    assert [r["name"] for r in rows] == [r["name"] for r in facts()]
    masker, network, phi, fader, unet = rows
    assert masker["macs"] == "336725841408" and masker["bytes"] == "833509380"
    assert masker["cpu_ms_batch1"] == "4200" and masker["cpu_ms_batch16"] == ""
    assert network["cuda_ms_batch16"] == "0.5" and network["patch"] == ""
    assert phi["patch"] == "16"
    assert fader["parts"] == "1 × mask-winclip + 1 × network + 1 × phi-mlp"
    assert unet["parts"] == "1 × unet"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mask-dino", "Masker, DINO ViT-S/8"),
        ("ear-dino", "EAR, DINO ViT-S/8"),
        ("fader-msflow", "FADeR, MSFlow (EfficientNet-Lite0)"),
        ("map", "Anomaly map"),
        ("unet", "U-Net"),
        ("pca", "PCA"),
    ],
)
def test_rows_are_called_what_the_other_tables_call_them(name, expected):
    assert label(CONFIG, row(name)) == expected


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_a_figure_is_within_half_a_unit_of_its_third_digit(value):
    text = figure(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=0.005)


def test_figures_by_hand():
    assert [figure(x) for x in (None, 0, 0.025198, 9.876, 63.04, 999.4, 12345.6)] == [
        "–",
        "0",
        "0.0252",
        "9.88",
        "63.0",
        "999",
        "12346",
    ]
