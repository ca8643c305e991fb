"""The layout of VisA: the split file and the files below a category agree."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from folders import edit, line_of, move, noise, remove, save, split, spot, write_chip

from fader.data import visa
from fader.data.layout import check_counts
from fader.data.pack import read_category
from fader.data.visa import index
from fader.errors import FaderError

NFC, NFD = (unicodedata.normalize(form, "Prüfung") for form in ("NFC", "NFD"))


@pytest.fixture
def chip(tmp_path: Path) -> Path:
    return write_chip(tmp_path)


def test_the_split_file_is_followed(chip):
    category = index(chip, "chip")
    assert [s.image.name for s in category.train] == ["0000.JPG", "0001.JPG"]
    assert [(s.defect, s.image.name, s.mask and s.mask.name) for s in category.test] == [
        ("good", "0002.JPG", None),
        ("anomaly", "000.JPG", "000.png"),
        ("anomaly", "001.JPG", "001.png"),
    ]
    assert all(s.mask is None and s.defect == "good" for s in category.train)


def test_label_values_are_one_mask(chip):
    arrays = read_category(index(chip, "chip"), [8])
    np.testing.assert_array_equal(arrays.mask[1], spot(value=1))
    np.testing.assert_array_equal(arrays.mask[2], spot(value=1))
    assert arrays.test_names[1] == "Data/Images/Anomaly/000.JPG"


# ---- how names are written


def as_windows_lines(chip: Path) -> None:
    split(chip).write_bytes(split(chip).read_bytes().replace(b"\n", b"\r\n"))


def as_excel(chip: Path) -> None:
    split(chip).write_bytes(b"\xef\xbb\xbf" + split(chip).read_bytes())


def with_backslashes(chip: Path) -> None:
    edit(split(chip), "/", "\\")


def with_quotes(chip: Path) -> None:
    text = split(chip).read_text().splitlines()
    quoted = [",".join(f'"{field}"' for field in line.split(",")) for line in text]
    split(chip).write_text("\n".join(quoted) + "\n")


def with_commas_in_quotes(chip: Path) -> None:
    move(chip / "chip/Data/Images/Normal", "0002.JPG", "0002, 2.JPG")
    edit(split(chip), "chip/Data/Images/Normal/0002.JPG", '"chip/Data/Images/Normal/0002, 2.JPG"')


def with_spaces(chip: Path) -> None:
    edit(split(chip), ",", " , ")
    edit(split(chip), "object , split , label , image , mask", "object,split,label,image,mask")


def from_here(chip: Path) -> None:
    edit(split(chip), "chip/Data/Images", "./chip/Data/Images")


def suffixes_in_lower_case(chip: Path) -> None:
    edit(split(chip), ".JPG", ".jpg")


def composed(chip: Path) -> None:
    move(chip / "chip/Data/Images/Normal", "0002.JPG", f"{NFD}.JPG")
    edit(split(chip), "Normal/0002", f"Normal/{NFC}")


def not_utf_8(chip: Path) -> None:
    folder = os.fsencode(chip / "chip/Data/Images/Normal")
    os.rename(folder + b"/0002.JPG", folder + b"/pr\xfcf.JPG")  # noqa: PTH104  # bytes
    content = split(chip).read_bytes()
    split(chip).write_bytes(content.replace(b"Normal/0002", b"Normal/pr\xfcf"))


@pytest.mark.parametrize(
    "written",
    [
        as_windows_lines,
        as_excel,
        with_backslashes,
        with_quotes,
        with_commas_in_quotes,
        with_spaces,
        from_here,
        suffixes_in_lower_case,
        composed,
        not_utf_8,
    ],
)
def test_names_are_found_however_they_are_written(chip, written):
    written(chip)
    category = index(chip, "chip")
    assert (len(category.train), len(category.test)) == (2, 3)
    assert all(sample.image.is_file() for sample in (*category.train, *category.test))


def test_the_category_itself_may_be_composed_otherwise(chip):
    move(chip, "chip", NFD)
    edit(split(chip), "chip", NFC)
    assert len(index(chip, NFC).train) == 2


# ---- what does not fit together


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("chip/Data/Images/Normal/0001.JPG", "Normal/0001.JPG: no such file, but"),
        ("chip/Data/Masks/Anomaly/000.png", "Anomaly/000.png: no such file, but"),
        ("split_csv/1cls.csv", "split_csv/1cls.csv: no such file"),
    ],
)
def test_a_missing_file_is_named(chip, removed, named):
    remove(chip, removed)
    assert named in line_of(index, chip, "chip")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("object,split", "category,split", "1cls.csv: columns ['category'"),
        ("chip,train,normal", "chip,test,normal", "1cls.csv: no train normal images of chip"),
        ("chip,", "bolt,", "1cls.csv: no train normal images of chip"),
        ("chip,test,anomaly", "chip,train,anomaly", "1cls.csv: line 4: split 'train'"),
        ("chip,test,normal", "chip,test,fine", "1cls.csv: line 5: split 'test' with label 'fine'"),
        (",chip/Data/Masks/Anomaly/001.png", ",", "line 4: chip/Data/Images/Anomaly/001.JPG has"),
        ("Normal/0002.JPG", "Normal/0002, 2.JPG", "line 5: more than 5 fields"),
        ("Normal/0002.JPG", "Normal/0001.JPG", "line 5: chip/Data/Images/Normal/0001.JPG is named"),
        ("Anomaly/001.png", "Anomaly/000.png", "line 6: chip/Data/Masks/Anomaly/000.png is named"),
        ("chip/Data/Images/Normal/0002", "Images/Normal/0002", "Images/Normal/0002.JPG: no such"),
        ("chip/Data/Images/Normal/0002", "../0002", "../0002.JPG: no such file, but"),
    ],
)
def test_errors_name_the_line_of_the_split_file(chip, old, new, named):
    edit(split(chip), old, new)
    assert named in line_of(index, chip, "chip")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("Data/Masks/Anomaly/099.png", "mask without an image"),
        ("Data/Images/Normal/0099.JPG", "image without a split"),
        ("Data/Images/Anomaly/deep/er/0099.JPG", "image without a split"),
        ("000.png", "image without a split"),
    ],
)
def test_what_the_split_file_does_not_name_is_named(chip, place, what):
    path = save(chip / "chip" / place, noise(9))
    assert line_of(index, chip, "chip").startswith(f"{path}: {what} in {split(chip)}")


def test_files_that_the_split_file_cannot_tell_apart_are_named(chip):
    save(chip / "chip/Data/Images/Normal/0000.jpg", noise(9))
    assert "0000.JPG and 0000.jpg: one name to a split file" in line_of(index, chip, "chip")


def test_other_files_are_ignored_and_counted(chip):
    (chip / "chip/image_anno.csv").touch()
    assert index(chip, "chip").ignored == {".csv": 1}


# ---- empty classes, and no masks


def without_good(chip: Path) -> None:
    remove(chip, "chip/Data/Images/Normal/0002.JPG")
    edit(split(chip), "chip,test,normal,chip/Data/Images/Normal/0002.JPG,\n", "")


def without_anomalies(chip: Path) -> None:
    remove(chip, "chip/Data/*/Anomaly/*")
    text = split(chip).read_text().splitlines(keepends=True)
    split(chip).write_text("".join(line for line in text if "anomaly" not in line))


@pytest.mark.parametrize(
    ("change", "left"), [(without_good, ["anomaly"] * 2), (without_anomalies, ["good"])]
)
def test_good_or_defective_test_images_may_be_missing(chip, change, left):
    change(chip)
    assert [sample.defect for sample in index(chip, "chip").test] == left


def test_test_images_of_one_kind_are_needed(chip):
    without_anomalies(chip)
    without_good(chip)
    assert "1cls.csv: no test images of chip" in line_of(index, chip, "chip")


def test_absent_masks_are_not_looked_for_and_those_there_are_ignored_and_counted(chip):
    edit(split(chip), ",chip/Data/Masks/Anomaly/001.png", ",")
    category = index(chip, "chip", "absent")
    assert [sample.mask for sample in category.test] == [None] * 3
    assert (category.masks, category.ignored) == ("absent", {"Data/Masks": 2})


@pytest.mark.parametrize("masks", ["present", "absent"])
def test_masks_of_normal_images_are_ignored_and_counted(chip, masks):
    save(chip / "chip/empty/0002.png", noise(9))
    edit(split(chip), "Normal/0002.JPG,", "Normal/0002.JPG,chip/empty/0002.png")
    category = index(chip, "chip", masks)
    assert category.test[0].mask is None
    assert category.ignored["masks of normal images"] == 1


def test_a_missing_category_lists_what_is_there(chip):
    assert "no category 'pcb9'; there is chip, split_csv" in line_of(index, chip, "pcb9")


def test_check_complete(chip):
    with pytest.raises(FaderError, match="chip: not a category of VisA"):
        check_counts(index(chip, "chip"), visa.RELEASE)
