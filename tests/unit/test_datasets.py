"""Indexing the two layouts and decoding a category: exact on tiny trees, counts on real ones."""

import math
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fader.config import MvtecAd, Visa
from fader.data import mvtec, visa
from fader.data.layout import check_counts
from fader.data.pack import read_category
from fader.data.releases import RELEASES
from fader.errors import FaderError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def spot(row: int = 2, column: int = 5, value: int = 255) -> np.ndarray:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[row, column] = value
    return mask


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    """Root of one category in MVTec layout; its files are not created in sorted order."""
    folder = tmp_path / "nut"
    save(folder / "test/scratch/001.png", noise(5))
    save(folder / "ground_truth/scratch/001_mask.png", spot())
    save(folder / "test/scratch/000.png", noise(4))
    save(folder / "ground_truth/scratch/000_mask.png", spot())
    save(folder / "test/bent/000.PNG", noise(3))
    save(folder / "ground_truth/bent/000.png", spot(7, 0, 1))
    save(folder / "test/good/000.bmp", noise(2))
    save(folder / "train/good/001.Tif", noise(1))
    save(folder / "train/good/000.png", noise(0))
    return tmp_path


@pytest.fixture
def chip(tmp_path: Path) -> Path:
    """Root of one category in VisA layout."""
    images, masks = "chip/Data/Images", "chip/Data/Masks/Anomaly"
    for i, name in enumerate(["Normal/0001.JPG", "Normal/0000.JPG", "Normal/0002.JPG"]):
        save(tmp_path / images / name, noise(i))
    for i in range(2):
        save(tmp_path / images / f"Anomaly/00{i}.JPG", noise(i))
        save(tmp_path / masks / f"00{i}.png", spot(value=i + 1))
    (tmp_path / "split_csv").mkdir()
    split(tmp_path).write_text(
        "object,split,label,image,mask\n"
        f"chip,train,normal,{images}/Normal/0001.JPG,\n"
        f"chip,train,normal,{images}/Normal/0000.JPG,\n"
        f"chip,test,anomaly,{images}/Anomaly/001.JPG,{masks}/001.png\n"
        f"chip,test,normal,{images}/Normal/0002.JPG,\n"
        f"chip,test,anomaly,{images}/Anomaly/000.JPG,{masks}/000.png\n"
        "pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,\n"
    )
    return tmp_path


def split(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def error_of(index, root: Path, category: str) -> str:
    with pytest.raises(FaderError) as error:
        index(root, category)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- published counts


def test_mvtec_totals_are_the_published_ones():
    totals = np.sum(list(mvtec.RELEASE.counts.values()), axis=0)
    assert (len(mvtec.RELEASE.counts), *totals) == (15, 3629, 467, 1258)


def test_visa_totals_are_the_published_ones():
    totals = np.sum(list(visa.RELEASE.counts.values()), axis=0)
    assert (len(visa.RELEASE.counts), *totals) == (12, 8659, 962, 1200)


def test_every_release_is_a_source_of_the_configuration_and_has_a_whole_sha256():
    sources = {member.model_fields["source"].annotation.__args__[0] for member in (MvtecAd, Visa)}
    assert RELEASES.keys() == sources
    for release in RELEASES.values():
        assert re.fullmatch(r"[0-9a-f]{64}", release.sha256)
        assert all(url.endswith("/" + release.archive) for url in release.urls)


# ---- MVTec layout


def test_mvtec_index_sorts_good_first_then_by_defect_and_name(nut):
    category = mvtec.index(nut, "nut")
    assert category.folder == nut / "nut"
    assert [s.image.name for s in category.train] == ["000.png", "001.Tif"]
    assert [(s.defect, s.image.name, s.mask and s.mask.name) for s in category.test] == [
        ("good", "000.bmp", None),
        ("bent", "000.PNG", "000.png"),
        ("scratch", "000.png", "000_mask.png"),
        ("scratch", "001.png", "001_mask.png"),
    ]


def test_mvtec_index_ignores_hidden_files_and_masks_of_good_images(nut):
    whole = mvtec.index(nut, "nut")
    (nut / "nut/test/scratch/._000.png").write_bytes(b"resource fork")
    (nut / "nut/test/.ipynb_checkpoints").mkdir()
    save(nut / "nut/ground_truth/good/000_mask.png", np.zeros((8, 8), dtype=np.uint8))
    assert mvtec.index(nut, "nut") == whole


def test_mvtec_missing_root_is_named(tmp_path):
    message = error_of(mvtec.index, tmp_path / "nowhere", "nut")
    assert message.startswith(f"{tmp_path / 'nowhere'}: no such folder")
    assert "datasets.<name>.root" in message


def test_mvtec_missing_category_lists_what_is_there(nut):
    (nut / "bolt").mkdir()
    assert "no category 'wood'; there is bolt, nut" in error_of(mvtec.index, nut, "wood")


def remove(folder: Path, pattern: str) -> None:
    found = list(folder.glob(pattern))
    assert found
    for path in found:
        path.unlink()


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("train/good/*", "train/good: no images"),
        ("test/good/*", "test/good: no images"),
        ("test/scratch/*", "test/scratch: no images"),
        ("ground_truth/scratch/001_mask.png", "test/scratch/001.png: no mask; expected 001_mask"),
        ("ground_truth/bent/*", "test/bent/000.PNG: no mask"),
        ("test/scratch/001.png", "scratch/001_mask.png: mask without an image in test/scratch"),
    ],
)
def test_mvtec_missing_file_is_named(nut, removed, named):
    remove(nut / "nut", removed)
    assert f"{nut / 'nut'}/" in error_of(mvtec.index, nut, "nut")
    assert named in error_of(mvtec.index, nut, "nut")


@pytest.mark.parametrize(
    ("moved", "named"),
    [
        ("train/good", "train/good: no such folder"),
        ("test/good", "test: no good images, but AUROC needs both"),
        ("test", "test: no test images"),
        ("ground_truth", "test/bent/000.PNG: no mask"),
        ("test/bent", "ground_truth/bent/000.png: mask without an image"),
    ],
)
def test_mvtec_missing_folder_is_named(nut, moved, named):
    (nut / "nut" / moved).rename(nut / "elsewhere")
    assert named in error_of(mvtec.index, nut, "nut")


def test_mvtec_test_split_without_defects_is_an_error(nut):
    (nut / "nut/test/bent").rename(nut / "a")
    (nut / "nut/test/scratch").rename(nut / "b")
    assert "test: no defective images" in error_of(mvtec.index, nut, "nut")


def test_two_masks_for_one_image_are_an_error(nut):
    save(nut / "nut/ground_truth/scratch/000.png", spot())
    assert "scratch/000.png: mask without an image" in error_of(mvtec.index, nut, "nut")


def test_check_complete_says_what_is_missing(nut):
    (nut / "nut").rename(nut / "toothbrush")
    with pytest.raises(FaderError, match="2 train good instead of 60, 1 test good instead of 12"):
        check_counts(mvtec.index(nut, "toothbrush"), mvtec.RELEASE)
    (nut / "toothbrush").rename(nut / "nut")
    with pytest.raises(FaderError, match="nut: not a category of MVTec AD; choose from bottle"):
        check_counts(mvtec.index(nut, "nut"), mvtec.RELEASE)


# ---- VisA layout


def test_visa_index_follows_the_split_file(chip):
    category = visa.index(chip, "chip")
    assert [s.image.name for s in category.train] == ["0000.JPG", "0001.JPG"]
    assert [(s.defect, s.image.name, s.mask and s.mask.name) for s in category.test] == [
        ("good", "0002.JPG", None),
        ("anomaly", "000.JPG", "000.png"),
        ("anomaly", "001.JPG", "001.png"),
    ]
    assert all(s.mask is None and s.defect == "good" for s in category.train)


def test_visa_label_values_are_one_mask(chip):
    arrays = read_category(visa.index(chip, "chip"), 8)
    np.testing.assert_array_equal(arrays.mask[1], spot(value=1))
    np.testing.assert_array_equal(arrays.mask[2], spot(value=1))
    assert arrays.test_names[1] == "Data/Images/Anomaly/000.JPG"


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("chip/Data/Images/Normal/0001.JPG", "Normal/0001.JPG: no such file, but"),
        ("chip/Data/Masks/Anomaly/000.png", "Anomaly/000.png: no such file, but"),
        ("split_csv/1cls.csv", "split_csv/1cls.csv: no such file"),
    ],
)
def test_visa_missing_file_is_named(chip, removed, named):
    remove(chip, removed)
    assert named in error_of(visa.index, chip, "chip")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("object,split", "category,split", "1cls.csv: columns ['category'"),
        ("chip,test,normal", "chip,train,normal", "1cls.csv: no test normal images of chip"),
        ("chip,train,normal", "pcb1,train,normal", "1cls.csv: no train normal images of chip"),
        ("chip,test,anomaly", "pcb1,test,anomaly", "1cls.csv: no test anomaly images of chip"),
        ("chip,test,anomaly", "chip,train,anomaly", "1cls.csv: line 4: split 'train'"),
        ("chip,test,normal", "chip,test,fine", "1cls.csv: line 5: split 'test' with label 'fine'"),
        (",chip/Data/Masks/Anomaly/001.png", ",", "line 4: chip/Data/Images/Anomaly/001.JPG has"),
    ],
)
def test_visa_errors_name_the_line_of_the_split_file(chip, old, new, named):
    edit(split(chip), old, new)
    assert named in error_of(visa.index, chip, "chip")


def test_visa_mask_without_an_image_is_named(chip):
    save(chip / "chip/Data/Masks/Anomaly/099.png", spot())
    assert "Anomaly/099.png: mask without an image" in error_of(visa.index, chip, "chip")


def test_visa_missing_category_lists_what_is_there(chip):
    assert "no category 'pcb9'; there is chip, split_csv" in error_of(visa.index, chip, "pcb9")


def test_visa_check_complete(chip):
    with pytest.raises(FaderError, match="chip: not a category of VisA"):
        check_counts(visa.index(chip, "chip"), visa.RELEASE)


# ---- decoding


def test_arrays_hold_the_files_pixels_in_index_order(nut):
    arrays = read_category(mvtec.index(nut, "nut"), 8)
    np.testing.assert_array_equal(arrays.train, [noise(i).transpose(2, 0, 1) for i in (0, 1)])
    np.testing.assert_array_equal(arrays.test, [noise(i).transpose(2, 0, 1) for i in (2, 3, 4, 5)])
    expected = [np.zeros((8, 8)), spot(7, 0, 1), spot(value=1), spot(value=1)]
    np.testing.assert_array_equal(arrays.mask, expected)
    np.testing.assert_array_equal(arrays.label, [0, 1, 1, 1])
    assert {a.dtype for a in (arrays.train, arrays.test, arrays.mask, arrays.label)} == {
        np.dtype(np.uint8)
    }
    assert arrays.train_names == ["train/good/000.png", "train/good/001.Tif"]
    assert arrays.test_names == [
        "test/good/000.bmp",
        "test/bent/000.PNG",
        "test/scratch/000.png",
        "test/scratch/001.png",
    ]
    assert arrays.defects == ["good", "bent", "scratch", "scratch"]


def first_train_image(nut: Path, image: Image.Image) -> np.ndarray:
    image.save(nut / "nut/train/good/000.png")
    return read_category(mvtec.index(nut, "nut"), image.size[0]).train[0]


@pytest.mark.parametrize("side", [4, 16])
def test_a_constant_image_stays_constant_at_any_size(nut, side):
    save(nut / "nut/train/good/000.png", np.full((8, 8, 3), (10, 128, 255), dtype=np.uint8))
    train = read_category(mvtec.index(nut, "nut"), side).train[0]
    assert train.shape == (3, side, side)
    np.testing.assert_array_equal(train, np.broadcast_to([[[10]], [[128]], [[255]]], train.shape))


def test_downscaling_is_antialiased(nut):
    checkerboard = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    save(nut / "nut/train/good/000.png", checkerboard)
    train = read_category(mvtec.index(nut, "nut"), 8).train[0]
    assert np.abs(train.astype(int) - 127.5).max() <= 2  # a point sampler would give 0 or 255


def test_grey_becomes_three_equal_channels(nut):
    grey = noise(9)[..., 0]
    np.testing.assert_array_equal(first_train_image(nut, Image.fromarray(grey)), [grey] * 3)


def test_sixteen_bit_grey_keeps_its_upper_byte(nut):
    deep = np.random.default_rng(0).integers(0, 1 << 16, (8, 8), dtype=np.uint16)
    deep[0, :2] = 0, 65535
    train = first_train_image(nut, Image.fromarray(deep))
    np.testing.assert_array_equal(train, [deep // 256] * 3)


def test_palette_and_alpha_images_keep_their_colours(nut):
    colours = np.array([[200, 10, 30], [0, 250, 90]], dtype=np.uint8)
    indices = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
    palette = Image.fromarray(indices)
    palette.putpalette(colours.tobytes())
    assert palette.mode == "P"
    expected = colours[indices].transpose(2, 0, 1)
    np.testing.assert_array_equal(first_train_image(nut, palette), expected)

    transparent = Image.fromarray(np.dstack([colours[indices], indices]))
    assert transparent.mode == "RGBA"
    np.testing.assert_array_equal(first_train_image(nut, transparent), expected)


def test_float_images_are_refused(nut):
    (nut / "nut/train/good/001.Tif").unlink()
    save(nut / "nut/train/good/001.tif", np.zeros((8, 8), dtype=np.float32))
    with pytest.raises(FaderError, match=r"good/001\.tif: 32-bit pixels"):
        read_category(mvtec.index(nut, "nut"), 8)


def bent_mask(nut: Path, mask: Image.Image, size: int = 8) -> np.ndarray:
    mask.save(nut / "nut/ground_truth/bent/000.png")
    arrays = read_category(mvtec.index(nut, "nut"), size)
    assert arrays.label[1] == 1
    return arrays.mask[1]


def test_masks_of_every_pixel_type(nut):
    defect = spot(value=1)
    two_labels = Image.fromarray(spot(value=1))
    two_labels.putpalette(bytes([0, 0, 0, 0, 0, 200]))
    inverted = Image.fromarray(1 - spot(value=1))  # index 0 is white, index 1 is black
    inverted.putpalette(bytes([255, 255, 255, 0, 0, 0]))
    opaque = np.zeros((8, 8, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    opaque[2, 5, 1] = 3
    masks = [
        Image.fromarray(defect.astype(np.uint16)),  # 1 of 65535 must not be scaled away
        Image.fromarray(defect.astype(bool)),
        two_labels,
        inverted,
        Image.fromarray(opaque),
    ]
    assert [mask.mode for mask in masks] == ["I;16", "1", "P", "P", "RGBA"]
    for mask in masks:
        np.testing.assert_array_equal(bent_mask(nut, mask), defect)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.integers(1, 24),
    points=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1),
)
def test_mask_resize_takes_the_pixel_at_the_centre(nut, size, points):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[tuple(np.array(sorted(points)).T)] = 255
    centres = [math.floor((i + Fraction(1, 2)) * Fraction(8, size)) for i in range(size)]
    expected = [[mask[row, column] > 0 for column in centres] for row in centres]
    np.testing.assert_array_equal(bent_mask(nut, Image.fromarray(mask), size), expected)


def test_a_defect_lost_in_the_resize_keeps_its_label(nut):
    assert bent_mask(nut, Image.fromarray(spot(0, 0)), size=2).sum() == 0


def test_the_same_tree_gives_the_same_bytes(nut):
    for i in range(20):
        save(nut / f"nut/train/good/{i:03d}.png", noise(i, 30 + i, 40 - i))
    first, second = (read_category(mvtec.index(nut, "nut"), 16) for _ in range(2))
    assert first.train.tobytes() == second.train.tobytes()
    one_by_one = [
        np.asarray(
            Image.fromarray(noise(i, 30 + i, 40 - i)).resize((16, 16), Image.Resampling.BICUBIC)
        )
        for i in (3, 17)
    ]
    index = [first.train_names.index(f"train/good/{i:03d}.png") for i in (3, 17)]
    np.testing.assert_array_equal(first.train[index].transpose(0, 2, 3, 1), one_by_one)


@pytest.mark.parametrize(
    "damaged", ["train/good/000.png", "test/good/000.bmp", "ground_truth/bent/000.png"]
)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_file_is_named(nut, damaged, keep):
    path = nut / "nut" / damaged
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(FaderError, match=re.escape(f"{path}: unreadable image")):
        read_category(mvtec.index(nut, "nut"), 8)


def test_a_truncated_jpeg_is_named(chip):
    path = chip / "chip/Data/Images/Anomaly/001.JPG"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(FaderError, match=re.escape(f"{path}: unreadable image")):
        read_category(visa.index(chip, "chip"), 8)


def test_of_several_bad_files_the_first_is_reported(nut):
    for path in (nut / "nut/test/scratch").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(FaderError, match=r"scratch/000\.png"):
        read_category(mvtec.index(nut, "nut"), 8)


def test_a_mask_of_another_size_is_named(nut):
    path = save(nut / "nut/ground_truth/bent/000.png", np.full((8, 9), 255, dtype=np.uint8))
    with pytest.raises(FaderError, match=re.escape(f"{path}: mask of (9, 8) pixels")):
        read_category(mvtec.index(nut, "nut"), 8)


def test_an_empty_mask_is_named(nut):
    path = save(nut / "nut/ground_truth/bent/000.png", np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(FaderError, match=re.escape(f"{path}: no defect pixel")):
        read_category(mvtec.index(nut, "nut"), 8)


# ---- real images


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("name", ["bottle", "transistor"])
def test_real_mvtec_category_is_complete(name):
    category = mvtec.index(SHARED / "mvtec_ad", name)
    check_counts(category, mvtec.RELEASE)
    assert category.test[0].defect == "good"


@pytest.mark.shared
@needs_shared
def test_real_bottle_is_read_whole():
    arrays = read_category(mvtec.index(SHARED / "mvtec_ad", "bottle"), 256)
    assert arrays.train.shape == (209, 3, 256, 256)
    assert arrays.test.shape == (83, 3, 256, 256)
    assert Counter(arrays.defects) == {
        "good": 20,
        "broken_large": 20,
        "broken_small": 22,
        "contamination": 21,
    }
    np.testing.assert_array_equal(arrays.label, np.arange(83) >= 20)
    np.testing.assert_array_equal(arrays.mask.any(axis=(1, 2)), arrays.label == 1)
    assert np.unique(arrays.mask).tolist() == [0, 1]


@pytest.mark.shared
@needs_shared
def test_another_data_set_in_mvtec_layout_is_indexed():
    category = mvtec.index(SHARED / "mvtec_3d_ad_rgb", "tire")
    defects = Counter(sample.defect for sample in category.test)
    assert len(category.train) == 239
    assert defects == {"good": 25, "combined": 5, "contamination": 28, "cut": 27, "hole": 27}
