"""The tables of docs/fidelity.md, from rows worked by hand."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fidelity_tables.py"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fidelity_tables", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(**changes: object) -> pd.DataFrame:
    """Two scales of one training, of which the splits take the worse seven times of ten."""
    frame = pd.DataFrame(
        {
            "machine": "M",
            "category": "bottle",
            "set": "ear.steps=600",
            "detector": "ear",
            "seed": 0,
            "scale": [2, 8],
            "image_auroc": [0.6, 0.8],
            "pixel_auroc": [0.9, 0.7],
            "validation_image": [0.5, 0.5],
            "validation_pixel": [0.5, 0.5],
            "chosen": [7, 3],
            "chosen_best": float("nan"),
            "chosen_before": [0, 10],
        }
    )
    return frame.assign(**changes)


def test_what_the_choice_gets_is_weighted_by_the_splits(tables: ModuleType) -> None:
    found = tables.label_free(rows()).iloc[0]
    assert found.image_auroc == pytest.approx(0.7 * 0.6 + 0.3 * 0.8)
    assert found.pixel_auroc == pytest.approx(0.7 * 0.9 + 0.3 * 0.7)
    assert tables.label_free(rows(), "chosen_before").iloc[0].image_auroc == pytest.approx(0.8)


def test_a_row_of_the_table_over_two_seeds(tables: ModuleType) -> None:
    other = rows(seed=1, image_auroc=[0.7, 0.9])
    line = tables.table(pd.concat([rows(), other]), "scale").iloc[0]
    assert line["set"] == "as it is"
    assert line["seeds"] == 2
    assert line["test image"] == ".650 .850"
    assert line["ties"] == "14 6"
    assert line["regret, ties"] == ".140"  # .8 − .66 and .9 − .76
    assert line["regret, a tenth"] == ".000"
    assert line["best"] == line["regret, best"] == "–"  # not recorded
    assert line["image auroc"] == ".710 ± .071"  # .66 and .76


def test_measures_that_were_not_kept_are_dashes(tables: ModuleType) -> None:
    line = tables.table(rows(pixel_auroc=float("nan")), "scale").iloc[0]
    assert line["pixel auroc"] == "–"
    assert line["image auroc"] == ".660"


def test_faders_settings_do_not_split_ears_rows(tables: ModuleType) -> None:
    assert tables.of_ear("ear.steps=600 fader.lrs=[0.001]") == "ear.steps=600"
    assert tables.named("ear.steps=600 unet.output=clamp") == "unet.output=clamp"
    assert tables.named("ear.steps=200") == "ear.steps=200"
