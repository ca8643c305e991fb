"""Records: what contradicts itself is refused, and named."""

from dataclasses import replace

import pytest
from factory import BOLT, NUT, missing, ok, records, tiny

from fader.errors import FaderError
from fader.pipeline.methods import Method
from fader.report.records import Records

EAR, FADER = Method("ear", "dinov2"), Method("fader", "dinov2")
PLACE = "synthetic-bolt"
CPU = {"device": "A processor", "precision": "fp32"}
GPU = {"device": "A card", "precision": "bf16"}


def test_values_are_those_of_the_seeds_that_ran():
    given = [ok(BOLT, "ear-dinov2", 0, 0.9), missing(BOLT, "ear-dinov2", "no memory", 1)]
    found = records(tiny(seeds=(0, 1)), given)
    assert found.values(PLACE, EAR, "image_auroc") == {0: 0.9}
    assert found.values(PLACE, EAR, "oracle_gain") == {}
    assert found.values(PLACE, FADER, "image_auroc") == {}


def test_iteration_is_in_table_order_whatever_the_order_of_the_files():
    given = [ok(pair, m) for pair in (NUT, BOLT) for m in ("fader-dinov2", "ear-dinov2")]
    ran = [record for record in records(tiny([BOLT, NUT]), given) if record.missing is None]
    assert [(record.place, str(record.method)) for record in ran] == [
        (place, method)
        for place in ("synthetic-bolt", "synthetic-nut")
        for method in ("ear-dinov2", "fader-dinov2")
    ]


def test_a_gap_is_told_with_its_reason_its_categories_and_its_seeds():
    given = [
        missing(BOLT, "ear-dinov2", "no weights.", 0),
        missing(BOLT, "ear-dinov2", "no weights.", 1),
        ok(NUT, "ear-dinov2", 0),
        missing(NUT, "ear-dinov2", "no weights.", 1),
    ]
    found = records(tiny([BOLT, NUT], seeds=(0, 1)), given)
    assert found.gaps([(EAR, "image_auroc")], found.places) == [
        "ear-dinov2, bolt, nut (seed 1): no weights."
    ]
    assert found.gaps([(EAR, "oracle_gain")], ["synthetic-nut"]) == [
        "ear-dinov2, nut (seed 0): oracle_gain not measured.",
        "ear-dinov2, nut (seed 1): no weights.",
    ]


def test_a_mixture_of_machines_is_told():
    given = [ok(BOLT, "ear-dinov2", machine=CPU), ok(BOLT, "fader-dinov2", machine=GPU)]
    mixed = records(tiny(), given).provenance([PLACE])
    assert "more than one kind of machine: A card, bf16; A processor, fp32." in mixed
    assert "machine" not in records(tiny(), given[:1]).provenance([PLACE])


def test_a_machine_of_the_training_counts_too():
    config = tiny()
    complete = list(records(config, [ok(BOLT, "ear-dinov2", machine=CPU)]))
    assert Records(config, complete).machines == [("A processor", "fp32")]
    trained = Records(config, complete, [("A card", "bf16")])
    assert "A card, bf16; A processor, fp32" in trained.provenance([PLACE])


DATA = {"synthetic": True, "paper_dataset": None, "size": 64}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([ok(BOLT, "ear-dinov2"), ok(BOLT, "ear-dinov2")], "bolt/ear-dinov2/seed0: given twice"),
        (
            [ok(BOLT, "ear-vit", data=DATA)],
            "not in the configuration: synthetic-bolt/ear-vit/seed0",
        ),
        ([ok(("visa", "x"), "ear-dinov2", data=DATA)], "not in the configuration: visa-x"),
        ([ok(BOLT, "ear-dinov2", image=float("nan"))], "image_auroc is nan, no finite number"),
        ([ok(BOLT, "ear-dinov2", image="0.9")], "image_auroc is '0.9', no finite number"),
        ([ok(BOLT, "ear-dinov2", pixel=None)], "no pixel_auroc"),
        ([ok(BOLT, "ear-dinov2", scores=(0.1, 0.2))], "not a finite score for every label"),
        ([ok(BOLT, "ear-dinov2", scores=(0, 0, 0, float("inf")))], "not a finite score"),
        (
            [ok(BOLT, "ear-dinov2"), ok(BOLT, "fader-dinov2", labels=(1, 1, 0, 0))],
            "bolt/fader-dinov2/seed0: its labels are not those of .*bolt/ear-dinov2",
        ),
        ([ok(BOLT, "ear-dinov2", data=DATA | {"size": 128})], "disagree on their data"),
    ],
)
def test_bad_records_are_named(given, message):
    with pytest.raises(FaderError, match=message):
        records(tiny(), given)


def test_synthetic_images_are_no_public_set():
    config = tiny()
    data = DATA | {"paper_dataset": "mvtec_ad"}
    complete = [replace(record, data=data) for record in records(config, [])]
    with pytest.raises(FaderError, match="synthetic images cannot be mvtec_ad"):
        Records(config, complete)


def test_a_record_that_is_lacking_is_named():
    config = tiny()
    complete = list(records(config, []))
    with pytest.raises(FaderError, match="no record of synthetic-bolt/fader-dinov2/seed0"):
        Records(config, [record for record in complete if record.method != FADER])
