"""Images of the user's own: which categories a folder holds, and what is written for them."""

import os
from pathlib import Path

import pytest
from test_config import without_nulls

from fader import config
from fader.config.syntax import plain
from fader.data import own
from fader.errors import FaderError

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / own.TEMPLATE).read_text(encoding="utf-8")


def folders(*names: str) -> None:
    for name in names:
        Path(name).mkdir(parents=True, exist_ok=True)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """An empty project as the working directory; a folder of images lies beside it."""
    folders(str(tmp_path / "project/presets"), str(tmp_path / "images"))
    monkeypatch.chdir(tmp_path / "project")
    Path(own.TEMPLATE).write_text(TEMPLATE, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def written(folder: str, layout: str | None = None) -> dict:
    """The configuration that is written for a folder, read and validated."""
    own.use(Path(folder), layout, Path("params.yaml"))
    config.load(Path("params.yaml"))
    return plain(Path("params.yaml").read_bytes())


def refused(folder: str, layout: str | None = None) -> str:
    with pytest.raises(FaderError) as caught:
        own.use(Path(folder), layout, Path("params.yaml"))
    assert "\n" not in str(caught.value)
    assert not Path("params.yaml").exists()
    return str(caught.value)


def test_it_is_the_template_with_other_images():
    folders("../images/screws/train/good", "../images/nuts/train/good", "../images/screws/test/bad")
    values, template = written("../images"), plain(TEMPLATE.encode())
    assert values == template | {
        "run": "own",
        "categories": {
            "mine-nuts": {"dataset": "mine", "category": "nuts"},
            "mine-screws": {"dataset": "mine", "category": "screws"},
        },
        "datasets": {
            "mine": {
                "source": "folder",
                "layout": "mvtec",
                "root": "../images",
                "paper": None,
                "complete": False,
                "masks": "absent",
                "white": None,
            }
        },
    }
    assert list(values) == list(template)
    # Nothing is filled in but nulls: what is computed with is what is written.
    assert without_nulls(config.load(Path("params.yaml")).plain) == without_nulls(values)


@pytest.mark.parametrize(
    ("names", "layout", "masks"),
    [
        (["a/train/good"], "mvtec", "absent"),
        (["a/train/good", "a/ground_truth/bad"], "mvtec", "absent"),
        (["a/train/good", "b/train/good", "b/ground_truth/bad/0_mask.png"], "mvtec", "present"),
        (["a/train"], "mvtec", "absent"),
        (["a/Data/Images/Normal", "split_csv"], "visa", "absent"),
        (["a/Data/Images/Normal", "a/Data/Masks/Anomaly/0.png"], "visa", "present"),
    ],
)
def test_layout_and_masks_are_what_is_there(names, layout, masks):
    folders(*(f"../images/{name}" for name in names))
    dataset = written("../images")["datasets"]["mine"]
    assert (dataset["layout"], dataset["masks"]) == (layout, masks)


def test_a_folder_of_both_layouts_needs_a_word():
    folders("../images/a/train/good", "../images/b/Data/Images", "../images/c")
    assert refused("../images") == "../images: categories in both layouts; take one by --layout"
    assert list(written("../images", "visa")["categories"]) == ["mine-b"]
    assert list(written("../images", "mvtec")["categories"]) == ["mine-a"]
    assert own.find(Path("../images"), "mvtec").others == ("b", "c")


@pytest.mark.parametrize(
    "names",
    [
        ["Screws M4", "screws_m4", "screws-m4"],
        ["größe", "GRÖSSE", "gro\u0308ße"],
        ["螺丝", "ねじ", "-", "_"],
        ["{x}", "a&b|c%d#e", 'it\'s "q"', "a: b", "$HOME", "`x`", "x\u2028y", "🔩"],
        ["on", "null", "1e3", "2024", "~", "#", "!a", "*b", "&c", "- d", "? e"],
        ["a" * 200, "a" * 201],
    ],
    ids=["case", "umlaut", "letters", "signs", "yaml", "long"],
)
def test_a_category_keeps_its_name_and_has_a_key_that_names_files(names):
    folders(*(f"../images/{name}/train/good" for name in names))
    categories = written("../images")["categories"]
    assert sorted(each["category"] for each in categories.values()) == sorted(names)
    assert len(categories) == len(names)
    assert all(key.startswith("mine-") and len(key) < 50 for key in categories)


def test_hidden_folders_are_none_of_it_and_others_are_named():
    folders("../images/a/train/good", "../images/.b/train/good", "../images/c/test")
    Path("../images/readme.txt").touch()
    images = own.find(Path("../images"))
    assert str(images) == "../images holds a; no category: c"


@pytest.mark.parametrize(
    ("folder", "root"),
    [
        ("../images/screws", "../images"),
        ("../images/screws/", "../images"),
        ("~/images/screws", "{}/images"),
        ("{}/images/screws", "{}/images"),
        ("../images/screws/train/..", "{}/images"),
    ],
)
def test_a_category_itself_is_taken_alone(place, folder, root):
    folders("../images/screws/train/good", "../images/nuts/train/good")
    values = written(folder.format(place))
    assert values["datasets"]["mine"]["root"] == root.format(place)
    assert [each["category"] for each in values["categories"].values()] == ["screws"]


def test_links_are_followed():
    folders("../elsewhere/screws/train/good")
    Path("../images/linked").symlink_to(Path("../elsewhere/screws").resolve())
    assert [each["category"] for each in written("../images")["categories"].values()] == ["linked"]


def test_what_holds_no_images_is_refused():
    folders("../images/a/test")
    Path("../images.zip").touch()
    assert refused("nowhere").startswith("nowhere: no folder")
    assert refused("../images.zip").startswith("../images.zip: no folder")
    assert refused("../images").startswith("../images: no folder NAME in it with NAME/train/good")
    assert refused("../images", "mvtek").endswith("(there are: mvtec, visa); did you mean `mvtec`?")


def test_nor_may_they_lie_where_the_project_writes():
    folders("results/a/train/good", "b/train/good", "data/raw/mine/c/train/good")
    assert "is inside results/, the project's own" in refused("results")
    assert "is inside results/, the project's own" in refused("results/a")
    for folder in (".", "b", "../project"):
        assert "holds results/, the project's own; put the categories" in refused(folder)
    assert list(written("data/raw/mine")["categories"]) == ["mine-c"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (os.fsdecode(b"gr\xfc\xdfe"), r"gr\xfc\xdfe: a name that is not UTF-8; rename the folder"),
        ("a\nb", "'a\\nb' cannot be printed; rename the folder"),
        ("average", "'average' is a row of every table; rename the folder"),
    ],
)
def test_a_name_that_cannot_be_written_is_named(name, reason):
    folders(f"../images/{name}/train/good")
    assert refused("../images").endswith(reason)
