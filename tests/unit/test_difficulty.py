"""The table of AUROC by difficulty: by hand on made-up records, and from a pack to the page."""

import csv
import io
from pathlib import Path

import chain
import pytest
from factory import BOLT, NUT, missing, ok, records, tiny
from tiny import PRESET

from fader.config import parse
from fader.data.synthetic import difficulty as difficulty_of
from fader.pipeline import paths
from fader.pipeline.artifacts import read_header
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job
from fader.report import difficulty, write
from fader.report.drawings import Findings
from fader.report.records import Records
from fader.report.sources import Source

LABELS = (0, 0, 1, 1, 1, 1)
LEVELS = (None, None, 0.1, 0.2, 0.5, 0.9)
#            good      plain     middling  barely visible
SCORES = (0.1, 0.5, 0.9, 0.4, 0.6, 0.05)  # plain: 1 and ½ of the two good ones


def source(levels=LEVELS) -> Source:
    return Source(9, 2, {"scratch": 4}, "present", {}, [], levels)


def made(given, pairs=(BOLT,), levels=LEVELS, **about) -> tuple[list[dict[str, str]], str]:
    """Rows of the CSV, and the page."""
    config = tiny(pairs, **about)
    sources = {place: source(levels) for place in config.categories}
    texts = difficulty.table(Records(config, records(config, given), sources=sources))
    return list(csv.DictReader(io.StringIO(texts[0]))), texts[1]


def seen(pair, method, scores=SCORES, seed=0):
    return ok(pair, method, seed, scores=scores, labels=LABELS)


def cells(rows, system, category) -> list[str]:
    (row,) = (row for row in rows if (row["system"], row["category"]) == (system, category))
    return [row[name] for name in ("plain", "middling", "barely_visible")]


@pytest.mark.parametrize(
    ("value", "index"),
    [(0.0, 0), (0.333333, 0), (1 / 3, 1), (0.5, 1), (2 / 3, 2), (0.999999, 2), (1.0, 2)],
)
def test_thirds_are_halfopen_and_1_is_barely_visible(value, index):
    assert difficulty.third(value) == index


def test_each_third_is_held_against_all_good_images():
    rows, page = made([seen(BOLT, "ear-dinov2")])
    assert cells(rows, "ear-dinov2", "bolt") == ["0.75", "1", "0"]
    assert cells(rows, "ear-dinov2", "average") == ["0.75", "1", "0"]
    assert "0.750" in page
    assert "Defective images of bolt: plain 2, middling 1, barely visible 1." in page


def test_ties_count_half():
    rows, _ = made([seen(BOLT, "ear-dinov2", [1.0] * 6)])
    assert cells(rows, "ear-dinov2", "bolt") == ["0.5"] * 3


def test_values_are_means_over_seeds_and_averages_over_categories_of_a_data_set():
    best = (0.0, 0.1, 1.0, 1.0, 1.0, 1.0)
    given = [seen(BOLT, "pca"), seen(BOLT, "pca", best, 1), seen(NUT, "pca", best)]
    given += [missing(NUT, "pca", "out of memory", 1)]
    rows, page = made(given, (BOLT, NUT), detectors=("pca",), seeds=(0, 1))
    assert cells(rows, "pca", "bolt") == ["0.875", "1", "0.5"]
    assert cells(rows, "pca", "nut") == ["1"] * 3
    assert cells(rows, "pca", "average") == ["0.9375", "1", "0.75"]
    assert "- pca, nut (seed 1): out of memory." in page


def test_rows_are_ear_and_fader_of_each_masker_and_the_baselines():
    rows, page = made(
        [], maskers=("dinov2", "vit"), detectors=("pca", "unet"), variants=("nomask", "hard")
    )
    systems = ["ear-dinov2", "fader-dinov2", "ear-vit", "fader-vit", "pca", "unet"]
    assert list(dict.fromkeys(row["system"] for row in rows)) == systems
    assert cells(rows, "ear-vit", "bolt") == ["", "", ""]
    assert "fader-vit, bolt: not run." in page


@pytest.mark.parametrize(
    ("levels", "labels", "expected"),
    [
        ((None, None, 0.1, 0.2, 0.3, 0.0), LABELS, ["0.625", "", ""]),
        ((None, None, 0.9, 0.9, 0.8, 0.7), LABELS, ["", "", "0.625"]),
        ((0.1, 0.1, 0.1, 0.2, 0.5, 0.9), (1,) * 6, ["", "", ""]),
    ],
)
def test_a_third_without_images_or_without_good_ones_is_empty(levels, labels, expected):
    given = [ok(BOLT, "ear-dinov2", scores=SCORES, labels=labels)]
    rows, _ = made(given, levels=levels)
    assert cells(rows, "ear-dinov2", "bolt") == expected


def test_images_without_a_difficulty_have_no_row_and_alone_no_table():
    own = ("own", "screw")
    config = tiny((BOLT, own))
    levels = {"synthetic-bolt": LEVELS, "own-screw": (None,) * 6}
    sources = {place: source(each) for place, each in levels.items()}
    given = [seen(BOLT, "ear-dinov2"), seen(own, "ear-dinov2")]
    text, page = difficulty.table(Records(config, records(config, given), sources=sources))
    assert "screw" not in text + page
    assert "difficulty" in config.tables()
    assert "difficulty" not in tiny((own,)).tables()


def test_from_the_manifest_to_the_packed_header(tmp_path, monkeypatch):
    """Generated images carry their difficulty; a folder with such a file of its own is not read."""
    monkeypatch.chdir(tmp_path)
    chain.make(chain.CONFIG, "dataset", "pack")
    images = Path("data/made/synthetic_small/images")
    facts = chain.facts(chain.PACK, "packed")
    expected = [
        None
        if name == "good"
        else round(difficulty_of("bolt", name, int(Path(path).stem), seed=0), 6)
        for name, path in zip(facts["defects"], facts["test"], strict=True)
    ]
    assert facts["difficulty"] == expected
    assert len(set(expected)) == 7  # two images of each of three types, and None
    assert facts["ignored"] == {} and facts["warnings"] == []
    manifest = chain.facts(Job("dataset", "synthetic_small"), "manifest")["difficulty"]
    assert {name for name in manifest if name.startswith("bolt/")} == {
        f"bolt/{path}" for path, level in zip(facts["test"], expected, strict=True) if level
    }

    (images / "difficulty.csv").rename("difficulty.csv")
    images.rename("theirs")
    Path("theirs/difficulty.csv").write_text("image,difficulty\nbolt/test/rust/000.png,easy\n")
    Path("theirs/bolt/difficulty.csv").write_text("no table\n")
    values = PRESET | {
        "datasets": {
            "mine": {"source": "folder", "layout": "mvtec", "root": "theirs", "paper": None}
            | {"complete": False}
        },
        "categories": {"mine-bolt": {"dataset": "mine", "category": "bolt"}},
    }
    config = parse(values, "own")
    chain.make(config, "dataset", "pack")
    packed = read_header(Context(config, Job("pack", "mine-bolt")).output("packed")).facts
    assert set(packed["difficulty"]) == {None}
    assert packed["ignored"] == {".csv": 1}


def test_the_files_are_written_beside_the_other_tables():
    config = tiny((BOLT,))
    given = Records(
        config, records(config, [seen(BOLT, "ear-dinov2")]), sources={"synthetic-bolt": source()}
    )
    files = write.table(Findings(given, Path()), "difficulty").files
    assert list(files) == paths.table(config.run, "difficulty")
    assert [Path(path).suffix for path in files] == [".csv", ".md"]
