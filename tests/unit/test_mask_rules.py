"""Rules by masker: a method's own masks, and a second arm of the same saliency."""

import pytest
import torch
from chain import PLACE, PRESET, small
from factory import MASKERS, ok, tiny
from test_tables import MVTEC, table

from fader.config import Config, parse
from fader.errors import FaderError
from fader.maskers import msflow
from fader.maskers.aminet import AmiNetMasker
from fader.maskers.attention import AttentionMasker
from fader.maskers.dsr.masker import DsrMasker
from fader.maskers.winclip import WinClipMasker
from fader.pipeline import phases
from fader.pipeline.jobs import Job
from fader.pipeline.methods import methods
from fader.report import labels

ARM = {"kind": "again", "of": "dsr", "rule": "mass", "level": 0.5}


def config(**maskers: dict) -> Config:
    """The ci preset at its smallest, with DSR's own masks and further maskers."""
    values = small()
    values["masks"]["maskers"]["dsr"] |= {"rule": "native"}
    values["masks"]["maskers"] |= maskers
    return parse(values, "rules")


@pytest.mark.parametrize(
    ("masker", "settings", "line"),
    [
        ("dinov2", {"rule": "native"}, "attention has no binary masks of its own"),
        ("dinov2", {"rule": "mass"}, "level: rule mass needs one"),
        ("dinov2", {"level": 0.5}, "level: given without rule"),
        ("arm", ARM | {"of": "dsrr"}, "did you mean `dsr`?"),
        ("arm", {"kind": "again", "of": "dsr"}, "give the rule under which"),
        ("arm", ARM | {"of": "dinov2", "rule": "native"}, "attention has no binary masks"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(masker, settings, line):
    values = small()
    maskers = values["masks"]["maskers"]
    maskers[masker] = maskers.get(masker, {}) | settings
    with pytest.raises(FaderError, match=line) as error:
        parse(values, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("base", "arm", "base: arm has no saliency of its own"),
        ("optional", ["arm"], "optional: arm follows dsr"),
    ],
)
def test_an_arm_is_neither_the_base_nor_optional_by_itself(key, value, line):
    values = small()
    values["masks"]["maskers"] |= {"arm": ARM}
    values["masks"][key] = value
    with pytest.raises(FaderError, match=line):
        parse(values, "x")


def test_an_arm_of_an_arm_is_refused():
    with pytest.raises(FaderError, match="arm has no saliency of its own"):
        config(arm=ARM, other=ARM | {"of": "arm"})


def test_an_arm_shares_the_saliency_and_has_models_of_its_own():
    made = config(arm=ARM)
    assert made.masks.salient == ["dinov2", "dsr"]
    assert [made.masks.threshold(m) for m in ("dinov2", "dsr", "arm")] == [
        ("mass", 0.6),
        ("native", 0.0),
        ("mass", 0.5),
    ]
    assert [job.system for job in phases.jobs(made, "mask")] == ["dinov2", "dsr"]
    plugin = Job("plugin", PLACE, "arm", 0)
    assert plugin in phases.jobs(made)
    assert Job("mask", PLACE, "dsr", 0) in phases.inputs(made, plugin)
    assert phases.settings(made, plugin)["threshold"] == {"rule": "mass", "level": 0.5}
    names = [str(each) for each in methods(made)]
    assert {"mask-arm", "ear-arm", "fader-arm"} <= set(names)


def test_without_its_source_an_arm_is_missing_too():
    from fader.pipeline import weights

    values = small(codebook={"file": "absent.pckl"})
    values["masks"]["maskers"] |= {"arm": ARM}
    values["masks"]["optional"] = ["dsr"]
    assert list(weights.decide(parse(values, "x"))) == ["dsr", "arm"]


def test_both_arms_stand_in_table_4_beside_the_paper():
    maskers = {"dinov2": MASKERS["dinov2"], "dsr": MASKERS["dsr"] | {"rule": "native"}}
    maskers |= {"arm": ARM}
    given = [ok(MVTEC[0], "ear-dsr", image=0.9), ok(MVTEC[0], "ear-arm", image=0.8)]
    made = table("table4", given, MVTEC[:1], maskers=maskers)
    rows = made.frame[made.frame.category == MVTEC[0][1]]
    assert list(rows.masker) == ["dsr", "arm"]
    assert list(rows.ear_image_mean) == [0.9, 0.8]
    assert rows.paper_ear_image.nunique() == 1
    assert any(note.startswith("Native: the binary masks") for note in made.notes)
    known = labels.maskers(tiny(MVTEC[:1], maskers=maskers))
    assert (known["dsr"], known["arm"]) == ("DSR, native", "DSR, mass 0.5")


def test_the_maskers_that_segment_are_those_that_say_so():
    """By their class, and by what their settings declare."""
    kinds = {
        "attention": AttentionMasker,
        "winclip": WinClipMasker,
        "dsr": DsrMasker,
        "msflow": msflow.MsFlowMasker,
        "aminet": AmiNetMasker,
    }
    for name, settings in parse(PRESET, "ci").masks.maskers.items():
        segments = hasattr(kinds[settings.kind], "native")
        assert segments == settings.segments, name


def test_msflows_threshold_is_a_quantile_of_all_values():
    values = torch.arange(1000.0).view(10, 100)
    assert msflow._quantile(values, 0.99) == 989
    assert msflow._quantile(values, 0.5) == 499
