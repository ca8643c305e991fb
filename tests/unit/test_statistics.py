"""Differences between the methods of a run: rows and counts worked by hand."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from factory import BOLT, NUT, REFERENCE, missing, ok, records, row, tiny

from fader.pipeline.methods import Method
from fader.report.gains import EITHER, Step, before_after, gains, tally
from fader.report.paper import printed_values
from fader.report.statistics import ALL, Comparison, comparisons, statistics


def test_gains_are_those_of_the_printed_numbers():
    """0.9004 → 0.9006 prints 0.900 → 0.901; 0.8996 → 0.9004 prints 0.900 twice."""
    cells = [
        {"image": Step(0.9004, 0.9006), "pixel": Step(0.8, 0.7)},
        {"image": Step(0.8996, 0.9004), "pixel": Step(0.8, 0.7)},
        {"image": Step(0.9, 0.8), "pixel": Step(0.8, 0.7)},
    ]
    assert gains(cells, "image") == [Decimal("0.001"), 0, Decimal("-0.1")]
    assert tally(gains(cells, "image")) == (1, 1, 1)
    assert tally(gains(cells, "pixel")) == (0, 0, 3)
    assert tally(gains(cells, EITHER)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("number", "masker", "image", "pixel", "either"),
    [
        (2, "dino", (10, 3, 2), (14, 0, 1), (15, 0, 0)),
        (2, "vit", (13, 1, 1), (13, 0, 2), (15, 0, 0)),
        (2, "winclip", (8, 4, 3), (11, 0, 4), (13, 1, 1)),
        (4, "dsr", (9, 1, 5), (13, 0, 2), (14, 0, 1)),
        (4, "msflow", (10, 2, 3), (15, 0, 0), (15, 0, 0)),
        (4, "aminet", (8, 0, 7), (8, 0, 7), (11, 0, 4)),
    ],
)
def test_counts_of_the_paper_read_off_its_tables(number, masker, image, pixel, either):
    cells = before_after(printed_values(number, REFERENCE))[masker]
    assert len(cells) == 15
    found = [tally(gains(cells.values(), level)) for level in ("image", "pixel", EITHER)]
    assert found == [image, pixel, either]


GOOD, TIED, BAD = (0.1, 0.2, 0.3, 0.4), (0.1, 0.3, 0.3, 0.4), (0.3, 0.4, 0.1, 0.2)
AUROC = {GOOD: 1.0, TIED: 0.875, BAD: 0.0}


def scored(pair, method, scores, seed=0, pixel=0.8):
    return ok(pair, method, seed, AUROC[scores], pixel, scores)


RECORDS = [
    scored(BOLT, "ear-dinov2", TIED),
    scored(BOLT, "fader-dinov2", GOOD, pixel=0.8004),
    scored(NUT, "ear-dinov2", GOOD),
    scored(NUT, "fader-dinov2", GOOD, pixel=0.7),
]


def measured(given=RECORDS, places=(BOLT, NUT), **options):
    found = records(tiny(places, **options), given)
    return statistics(found, REFERENCE, resamples=500)


def test_rows_of_the_table_are_the_bootstrap_of_each_category_and_their_average():
    found = measured().intervals
    assert list(found.category) == ["bolt", "nut", "average"]
    bolt = row(found, category="bolt")
    assert (bolt.method, bolt.against) == ("fader-dinov2", "ear-dinov2")
    assert (bolt.seeds, bolt.normal, bolt.defective) == (1, 2, 2)
    assert (bolt.difference, bolt.low) == (0.125, 0)
    assert 0.25 <= bolt.high <= 0.5  # both tied images twice: probability 1/16, C_b − C_a = 1/2
    nut = row(found, category="nut")
    assert (nut.difference, nut.low, nut.high) == (0, 0, 0)
    mean = row(found, category="average")
    assert (mean.difference, mean.high) == (0.0625, bolt.high / 2)


def test_every_data_set_has_its_own_average_and_counts():
    bottle = ("mvtec_ad", "bottle")
    given = [*RECORDS, scored(bottle, "ear-dinov2", BAD), scored(bottle, "fader-dinov2", GOOD)]
    found = measured(given, (BOLT, NUT, bottle))
    averages = found.intervals[found.intervals.category == "average"].set_index("dataset")
    assert averages.difference.to_dict() == {"synthetic": 0.0625, "mvtec_ad": 1}
    ours = found.counts[(found.counts.source == "ours") & (found.counts.level == "image")]
    assert ours.set_index("dataset").up.to_dict() == {"synthetic": 1, "mvtec_ad": 1}


def test_a_baseline_is_compared_with_fader_and_with_ear():
    given = [*RECORDS, scored(BOLT, "unet", BAD)]
    found = measured(given, detectors=("unet",))
    assert comparisons(tiny(detectors=("unet",)))[1:] == [
        Comparison(Method(stage, "dinov2"), Method("detector", "unet"))
        for stage in ("fader", "ear")
    ]
    beside = row(found.intervals, category="bolt", method="fader-dinov2", against="unet")
    assert beside.difference == 1.0
    beside = row(found.intervals, category="bolt", method="ear-dinov2", against="unet")
    assert beside.difference == 0.875
    assert "FADeR − U-Net" in found.markdown
    # One masker: nothing to count together, and baselines are no maskers.
    ours = found.counts[found.counts.source == "ours"]
    assert ALL not in set(ours.method)


def test_counts_of_the_table_compare_printed_aurocs():
    """Bolt gains 0.125 / 0.0004 (prints as equal), nut 0 / −0.1: neither falls in both."""
    found = measured()
    image, pixel, either = (
        row(found.counts, source="ours", level=level) for level in ("image", "pixel", EITHER)
    )
    assert (image.up, image.equal, image.down, image.n) == (1, 1, 0, 1)
    assert (pixel.up, pixel.equal, pixel.down, pixel.n) == (0, 1, 1, 2)
    assert (either.up, either.equal, either.down) == (1, 1, 0)
    assert np.isnan(image.p)
    assert "too few categories" in found.markdown


def test_the_papers_count_and_the_recount():
    """The text says 44 of 45: 43 gain in either, and 44 do not lose in both."""
    counts = measured().counts
    two, four = (row(counts, source=f"Table {n}", method=ALL, level=EITHER) for n in (2, 4))
    assert (two.up, two.equal, two.down) == (43, 1, 1)
    assert (four.up, four.equal, four.down) == (40, 0, 5)
    fallen = row(counts, source="Table 4", method=ALL, level="image")
    assert (fallen.up, fallen.equal, fallen.down) == (27, 3, 15)


def test_the_papers_signed_ranks_by_hand():
    """Table 2, DINO, image (pill corrected): twelve gains, those of hazelnut and transistor
    negative. In thousandths, sorted: 1, 9−, 11, 14−, 17, 24, 32, 32, 38, 54, 72, 77. W = 2 + 4.
    Sets of the ranks 1 2 3 4 5 6 7½ 7½ 9 … with a sum of at most 6: of 0 to 6, the partitions into
    distinct parts: 1 + 1 + 1 + 2 + 2 + 3 + 4 = 14, twice, of 2¹²."""
    found = row(measured().counts, source="Table 2", method="fader-dino", level="image")
    assert (found.n, found.w, found.p) == (12, 6, 28 / 4096)


def test_seeds_count_where_both_methods_ran():
    given = [
        *RECORDS,
        scored(BOLT, "ear-dinov2", BAD, seed=1),
        scored(BOLT, "fader-dinov2", GOOD, seed=1),
        scored(NUT, "ear-dinov2", BAD, seed=1),
        missing(NUT, "fader-dinov2", "out of memory.", seed=1),
    ]
    found = measured(given, seeds=(0, 1))
    bolt, nut = (row(found.intervals, category=name) for name in ("bolt", "nut"))
    assert (bolt.seeds, bolt.difference) == (2, (0.125 + 1) / 2)
    assert (nut.seeds, nut.difference) == (1, 0)
    assert "fader-dinov2, nut (seed 1): out of memory." in found.markdown
    assert row(found.intervals, category="average").isna().seeds  # one and two


def test_what_did_not_run_is_left_out_with_its_reason():
    given = [*RECORDS, *(missing(BOLT, f"{s}-vit", "no weights <vit>") for s in ("ear", "fader"))]
    found = measured(given, maskers=("dinov2", "vit"))
    assert found.intervals[found.intervals.method == "fader-vit"].difference.isna().all()
    assert r"- Left out: fader-vit, bolt: no weights \<vit>." in found.markdown
    image = row(found.counts, source="ours", method="fader-dinov2", level="image")
    assert (image.up, image.equal, image.down) == (1, 1, 0)


def test_adding_a_category_or_a_masker_changes_no_other_interval():
    alone = row(measured(RECORDS[:2], [BOLT]).intervals, category="bolt")
    dsr = [replace(record, method=Method(record.method.stage, "dsr")) for record in RECORDS]
    both = measured([*RECORDS, *dsr], [NUT, BOLT], maskers=("dsr", "dinov2")).intervals
    for method in ("fader-dsr", "fader-dinov2"):
        same = row(both, category="bolt", method=method)
        assert (same.difference, same.low, same.high) == (alone.difference, alone.low, alone.high)


def test_equal_records_give_equal_bytes_in_any_order():
    one, two = measured(), measured(RECORDS[::-1])
    assert one.intervals_csv() == two.intervals_csv()
    assert one.counts_csv() == two.counts_csv()
    assert one.markdown == two.markdown
    assert one.intervals_csv().splitlines()[:2] == [
        "method,against,dataset,category,seeds,normal,defective,difference,low,high",
        f"fader-dinov2,ear-dinov2,synthetic,bolt,1,2,2,0.125000,0.000000,{one.intervals.high[0]:.6f}",
    ]
    assert one.counts_csv().splitlines()[1] == (
        "ours,synthetic,fader-dinov2,ear-dinov2,image,1,1,0,1,,"
    )


def test_the_page_says_what_the_data_are():
    page = measured().markdown
    assert "synthetic inspection images generated by this repository" in page
    assert "500 resamples" in page
