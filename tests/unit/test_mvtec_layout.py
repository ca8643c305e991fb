"""The layout of MVTec AD: every image below a category is used, or named."""

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, move, noise, remove, save, spot, write_nut

from fader.data.layout import Category, check_counts
from fader.data.mvtec import RELEASE, index

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")
NFC, NFD = (unicodedata.normalize(form, "Prüfung") for form in ("NFC", "NFD"))


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    return write_nut(tmp_path)


def names(category: Category) -> list[tuple[str, str | None]]:
    """Test images and their masks, less the folders that all have in common."""
    return [
        (
            category.label(sample).removeprefix("test/"),
            sample.mask and category.path(sample.mask).removeprefix("ground_truth/"),
        )
        for sample in category.test
    ]


def test_good_comes_first_then_defects_by_name(nut):
    category = index(nut, "nut")
    assert category.folder == nut / "nut"
    assert [s.image.name for s in category.train] == ["000.png", "001.Tif"]
    assert [(s.defect, s.image.name, s.mask and s.mask.name) for s in category.test] == [
        ("good", "000.bmp", None),
        ("bent", "000.PNG", "000.png"),
        ("scratch", "000.png", "000_mask.png"),
        ("scratch", "001.png", "001_mask.png"),
    ]


# ---- masks and their images


@pytest.mark.parametrize("name", ["000", "000_mask", "000_gt", "000_seg", "000_label", "000_MASK"])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".jpg", ".webp", ".gif"])
def test_a_mask_has_its_images_stem_an_ending_and_any_format(nut, name, suffix):
    move(nut / "nut/ground_truth", "scratch/000_mask.png", f"scratch/{name}{suffix}")
    assert names(index(nut, "nut"))[2] == ("scratch/000.png", f"scratch/{name}{suffix}")


@pytest.mark.parametrize("image", ["b1/000.png", "b1/b2/000.png"])
@pytest.mark.parametrize("deep", [True, False])
def test_a_mask_lies_at_its_images_place_or_flat(nut, image, deep):
    move(nut / "nut/test", "scratch/000.png", f"scratch/{image}")
    mask = "000_mask.png"
    if deep:
        mask = image.replace(".png", "_mask.png")
        move(nut / "nut/ground_truth", "scratch/000_mask.png", f"scratch/{mask}")
    assert (f"scratch/{image}", f"scratch/{mask}") in names(index(nut, "nut"))


@pytest.mark.parametrize("stem", [("ä", "a\u0308"), ("a\u0308", "ä")])
def test_letters_are_one_composed_or_decomposed(nut, stem):
    move(nut / "nut/test", "scratch/000.png", f"scratch/{stem[0]}.png")
    move(nut / "nut/ground_truth", "scratch/000_mask.png", f"scratch/{stem[1]}_mask.png")
    move(nut / "nut/test", "scratch", NFC)
    move(nut / "nut/ground_truth", "scratch", NFD)
    category = index(nut, "nut")
    assert (f"{NFC}/{stem[0]}.png", f"{NFD}/{stem[1]}_mask.png") in names(category)
    assert {sample.defect for sample in category.test} == {"good", "bent", NFC}


def two_masks(folder: Path) -> None:
    save(folder / "ground_truth/scratch/000.png", spot())


def two_formats(folder: Path) -> None:
    save(folder / "ground_truth/scratch/000_mask.bmp", spot())


def two_images(folder: Path) -> None:
    save(folder / "test/scratch/000.bmp", noise(8))


def two_nested_images(folder: Path) -> None:
    move(folder, "test/scratch/000.png", "test/scratch/a/000.png")
    save(folder / "test/scratch/b/000.png", noise(8))


def no_mask(folder: Path) -> None:
    remove(folder, "ground_truth/scratch/001_mask.png")


def other_case(folder: Path) -> None:
    move(folder, "ground_truth/scratch/001_mask.png", "ground_truth/scratch/001_other.png")


def masks_elsewhere(folder: Path) -> None:
    move(folder, "ground_truth/bent", "elsewhere")
    remove(folder, "elsewhere/*")


def no_image(folder: Path) -> None:
    remove(folder, "test/scratch/001.png")


def no_images(folder: Path) -> None:
    remove(folder, "test/scratch/*")


def no_folder(folder: Path) -> None:
    remove(folder, "test/bent/*")
    (folder / "test/bent").rmdir()


def nested_mask(folder: Path) -> None:
    move(folder, "ground_truth/scratch/000_mask.png", "ground_truth/scratch/a/000_mask.png")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (two_masks, "test/scratch/000.png: two masks, ground_truth/scratch/000.png and ground_tru"),
        (two_formats, "test/scratch/000.png: two masks, ground_truth/scratch/000_mask.bmp and"),
        (two_images, "test/scratch/000.bmp and 000.png: two images, or one and its mask?"),
        (
            two_nested_images,
            "000_mask.png: one mask for two images, test/scratch/a/000.png and test/scratch/b/000",
        ),
        (no_mask, "test/scratch/001.png: no mask; expected 001_mask.png or 001.png"),
        (other_case, "test/scratch/001.png: no mask; expected 001_mask.png"),
        (masks_elsewhere, "test/bent/000.PNG: no mask"),
        (nested_mask, "test/scratch/000.png: no mask"),
        (no_image, "scratch/001_mask.png: mask without an image in test/scratch"),
        (no_images, "scratch/000_mask.png: mask without an image in test/scratch"),
        (no_folder, "ground_truth/bent/000.png: mask without an image in test/bent"),
    ],
)
def test_a_mask_without_one_image_and_an_image_without_one_mask_are_named(nut, change, named):
    change(nut / "nut")
    line = line_of(index, nut, "nut")
    assert line.startswith(f"{nut / 'nut'}/")
    assert named in line


def test_who_has_no_masks_is_told_how_to_say_so(nut):
    remove(nut / "nut", "ground_truth/*/*")
    assert "datasets.<name>.masks: absent" in line_of(index, nut, "nut")


def test_masks_of_good_images_are_ignored_and_counted(nut):
    save(nut / "nut/ground_truth/good/000_mask.png", np.zeros((8, 8), dtype=np.uint8))
    category = index(nut, "nut")
    assert names(category)[0] == ("good/000.bmp", None)
    assert category.ignored == {"ground_truth/good": 1}


def test_absent_masks_are_not_looked_for_and_those_there_are_ignored_and_counted(nut):
    no_mask(nut / "nut")
    save(nut / "nut/ground_truth/of_nothing.png", spot())
    category = index(nut, "nut", "absent")
    assert [sample.mask for sample in category.test] == [None] * 4
    assert [sample.defect for sample in category.test] == ["good", "bent", "scratch", "scratch"]
    assert (category.masks, category.ignored) == ("absent", {"ground_truth": 3})


# ---- places of images


@pytest.mark.parametrize("place", ["train/good", "test/good", "test/scratch"])
def test_images_lie_at_any_depth(nut, place):
    before = index(nut, "nut", "absent")
    save(nut / "nut" / place / "batch1/000.png", noise(9))
    save(nut / "nut" / place / "batch1/deep/er/000.png", noise(10))
    after = index(nut, "nut", "absent")
    assert len(after.train + after.test) == len(before.train + before.test) + 2
    assert after.ignored == before.ignored


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("000.png", "nut/000.png: an image directly in nut"),
        ("train/000.png", "train/000.png: an image directly in train"),
        ("test/000.png", "test/000.png: an image directly in test"),
        ("ground_truth/000.png", "ground_truth/000.png: an image directly in ground_truth"),
        ("train/bad/000.png", "train/bad: images in a folder that the layout does not have"),
        ("train/Good/000.png", "train/Good: images in a folder that the layout does not have"),
        ("validation/good/000.png", "nut/validation: images in a folder that the layout"),
        ("Test/scratch/000.png", "nut/Test: images in a folder that the layout does not have"),
        ("masks/scratch/000.png", "nut/masks: images in a folder that the layout does not have"),
        ("Data/Images/Normal/0.png", "nut/Data: images in a folder that the layout"),
        ("test/Good/000.png", "test/Good: normal images or a defect?"),
        ("test/ok/000.png", "test/ok: normal images or a defect?"),
        ("test/No Defect/000.png", "test/No Defect: normal images or a defect?"),
        ("test/scratch/000_mask.png", "000_mask.png: called as a mask of 000.png beside it"),
        ("test/scratch/000_GT.bmp", "000_GT.bmp: called as a mask of 000.png beside it"),
        ("test/good/000_label.png", "000_label.png: called as a mask of 000.bmp beside it"),
        ("train/good/001_seg.png", "001_seg.png: called as a mask of 001.Tif beside it"),
        ("test/scratch/001.bmp", "001.bmp and 001.png: two images, or one and its mask?"),
    ],
)
@pytest.mark.parametrize("masks", ["present", "absent"])
def test_what_could_be_meant_in_two_ways_is_named(nut, place, named, masks):
    save(nut / "nut" / place, noise(9))
    if masks == "absent" and place.startswith("ground_truth"):
        assert index(nut, "nut", masks).ignored == {"ground_truth": 4}
        return
    line = line_of(index, nut, "nut", masks)
    assert named in line
    assert line.startswith(f"{nut / 'nut'}")


def test_an_image_called_as_a_mask_without_an_image_is_an_image(nut):
    save(nut / "nut/test/scratch/blind_mask.png", noise(9))
    save(nut / "nut/ground_truth/scratch/blind_mask.png", spot())
    assert ("scratch/blind_mask.png", "scratch/blind_mask.png") in names(index(nut, "nut"))


def test_two_folders_that_differ_in_how_letters_are_composed_are_named(nut):
    for name in (NFC, NFD):
        save(nut / f"nut/test/{name}/000.png", noise(9))
    assert "two folders of that name" in line_of(index, nut, "nut", "absent")


# ---- empty classes


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (["test/good"], ["bent", "scratch", "scratch"]),
        (["test/bent", "test/scratch", "ground_truth/bent", "ground_truth/scratch"], ["good"]),
    ],
)
@pytest.mark.parametrize("folder_too", [True, False])
def test_good_or_defective_test_images_may_be_missing(nut, gone, left, folder_too):
    for place in gone:
        remove(nut / "nut", f"{place}/*")
        if folder_too:
            (nut / "nut" / place).rmdir()
    category = index(nut, "nut")
    assert [sample.defect for sample in category.test] == left
    empty = [place for place in gone if place.startswith("test") and not folder_too]
    assert category.warnings == tuple(f"{place} is empty" for place in empty)


@pytest.mark.parametrize(
    ("gone", "named"),
    [("train/good", "train/good: no training images"), ("test", "nut/test: no test images")],
)
def test_training_and_test_images_are_needed(nut, gone, named):
    move(nut, f"nut/{gone}", "elsewhere")
    if gone == "test":
        move(nut, "nut/ground_truth", "masks")
    assert named in line_of(index, nut, "nut")
    (nut / "nut" / gone).mkdir()
    assert named in line_of(index, nut, "nut")


def test_a_folder_of_files_that_are_no_images_is_named(nut):
    path = nut / "nut/test/dent/000.npy"
    path.parent.mkdir()
    path.touch()
    assert line_of(index, nut, "nut").startswith(f"{path}: no image by its suffix")


# ---- real images


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("name", ["bottle", "transistor"])
def test_real_mvtec_category_is_complete(name):
    category = index(SHARED / "mvtec_ad", name)
    check_counts(category, RELEASE)
    assert category.test[0].defect == "good"


@pytest.mark.shared
@needs_shared
def test_another_data_set_in_mvtec_layout_is_indexed():
    category = index(SHARED / "mvtec_3d_ad_rgb", "tire")
    defects = Counter(sample.defect for sample in category.test)
    assert len(category.train) == 239
    assert defects == {"good": 25, "combined": 5, "contamination": 28, "cut": 27, "hole": 27}
