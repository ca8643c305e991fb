"""The synthetic data set: reproducible to the byte, in the published layouts, with exact masks."""

import csv
import hashlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr

from fader.data.synthetic import (
    CATEGORIES,
    difficulty,
    generate,
    read_difficulties,
    render,
    writing,
)
from fader.errors import FaderError

SMALL = {"seed": 3, "size": 64, "train": 3, "good": 2, "defective": 2}
DEFECTS = [(name, defect) for name, spec in CATEGORIES.items() for defect in spec.defects]
NAMES = {
    layout: [name for name, spec in CATEGORIES.items() if spec.layout == layout]
    for layout in ("mvtec", "visa")
}


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module", params=["mvtec", "visa"])
def tree(request, tmp_path_factory) -> tuple[str, Path]:
    root = tmp_path_factory.mktemp(request.param) / "data"
    generate(root, request.param, **SMALL)
    return request.param, root


def test_categories_cover_objects_textures_and_both_layouts():
    kinds = [(spec.layout, spec.kind) for spec in CATEGORIES.values()]
    assert kinds.count(("mvtec", "object")) >= 2
    assert ("mvtec", "texture") in kinds
    assert "visa" in {layout for layout, _ in kinds}
    assert all(len(spec.defects) >= 3 for spec in CATEGORIES.values())


def test_same_seed_same_bytes_and_another_seed_other_pictures(tree, tmp_path):
    layout, root = tree
    generate(tmp_path / "again", layout, **SMALL)
    assert digests(tmp_path / "again") == digests(root)
    generate(tmp_path / "other", layout, **{**SMALL, "seed": 4})
    first, other = digests(root), digests(tmp_path / "other")
    pictures = [name for name in first if name.endswith(".JPG") or "/good/" in name]
    assert pictures
    assert all(first[name] != other[name] for name in pictures)


def test_asking_for_more_images_changes_none_of_the_old(tree, tmp_path):
    layout, root = tree
    generate(tmp_path / "more", layout, **{**SMALL, "train": 5, "good": 3, "defective": 3})
    old = {name: digest for name, digest in digests(root).items() if not name.endswith(".csv")}
    more = digests(tmp_path / "more")
    assert len(more) > len(old)
    assert {name: more.get(name) for name in old} == old


def test_an_image_depends_on_its_own_name_alone(tree):
    layout, root = tree
    if layout == "visa":
        image = render("softgels", "normal", 4, seed=3, size=64)[0]
        with Image.open(root / "softgels/Data/Images/Normal/0004.JPG") as stored:
            assert np.abs(np.asarray(stored).astype(int) - image).mean() < 5
        return
    for category in NAMES["mvtec"]:
        for defect in (None, *CATEGORIES[category].defects):
            split = f"test/{defect or 'good'}"
            image, _ = render(category, split, 1, seed=3, size=64, defect=defect)
            with Image.open(root / category / split / "001.png") as stored:
                np.testing.assert_array_equal(np.asarray(stored), image)


def test_mvtec_layout(tmp_path):
    generate(tmp_path / "d", "mvtec", **SMALL)
    expected = {"difficulty.csv"}
    for name in NAMES["mvtec"]:
        expected |= {f"{name}/train/good/{i:03d}.png" for i in range(3)}
        expected |= {f"{name}/test/good/{i:03d}.png" for i in range(2)}
        for defect in CATEGORIES[name].defects:
            expected |= {f"{name}/test/{defect}/{i:03d}.png" for i in range(2)}
            expected |= {f"{name}/ground_truth/{defect}/{i:03d}_mask.png" for i in range(2)}
    assert set(digests(tmp_path / "d")) == expected
    for path in (tmp_path / "d").rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (64, 64)
            if path.name.endswith("_mask.png"):
                assert image.mode == "L"
                assert set(np.unique(np.asarray(image))) == {0, 255}
            else:
                assert image.mode == "RGB"


def test_visa_layout(tmp_path):
    root = tmp_path / "d"
    generate(root, "visa", **SMALL)
    with (root / "split_csv" / "1cls.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["object", "split", "label", "image", "mask"]
    named = {row["image"] for row in rows} | {row["mask"] for row in rows} - {""}
    assert named == {name for name in digests(root) if not name.endswith(".csv")}
    for name in NAMES["visa"]:
        own = [row for row in rows if row["object"] == name]
        count = {
            (s, k): sum((r["split"], r["label"]) == (s, k) for r in own)
            for s in ("train", "test")
            for k in ("normal", "anomaly")
        }
        types = list(CATEGORIES[name].defects)
        assert count == {
            ("train", "normal"): 3,
            ("test", "normal"): 2,
            ("train", "anomaly"): 0,
            ("test", "anomaly"): 2 * len(types),
        }
        with (root / name / "image_anno.csv").open(newline="") as file:
            label = {row["image"]: row["label"] for row in csv.DictReader(file)}
        assert set(label) == {row["image"] for row in own}
        for row in own:
            folder = "Anomaly" if row["label"] == "anomaly" else "Normal"
            assert Path(row["image"]).parent.as_posix() == f"{name}/Data/Images/{folder}"
            with Image.open(root / row["image"]) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
            if row["mask"]:
                assert row["mask"] == f"{name}/Data/Masks/Anomaly/{Path(row['image']).stem}.png"
                with Image.open(root / row["mask"]) as mask:
                    assert (mask.mode, mask.size) == ("L", (64, 64))
                    number = types.index(label[row["image"]]) + 1
                    assert set(np.unique(np.asarray(mask))) == {0, number}
            else:
                assert label[row["image"]] == "normal"


@pytest.mark.parametrize(("category", "defect"), DEFECTS)
def test_the_mask_is_where_the_defect_changes_the_picture(category, defect):
    """Against the same picture (pose, light, noise) without the defect, in steps of 1/255; a plain
    defect differs from it at a glance, a barely visible one in most of its pixels."""
    for index in range(4):
        identity = {"category": category, "split": defect, "index": index, "seed": 11, "size": 128}
        least = 12 if difficulty(category, defect, index, seed=11) < 0.4 else 2
        damaged, mask = render(**identity, defect=defect)
        intact, nothing = render(**identity)
        assert damaged.shape == intact.shape == (128, 128, 3)
        assert damaged.dtype == np.uint8
        assert mask.shape == (128, 128)
        assert mask.dtype == bool
        assert not nothing.any()
        assert 16 <= mask.sum() < 0.25 * mask.size
        change = np.abs(damaged.astype(int) - intact.astype(int)).max(axis=2)
        assert (change[mask] > least).mean() > 0.6
        assert change[~ndimage.binary_dilation(mask, np.ones((7, 7)))].max() <= 12  # out of focus


@pytest.mark.parametrize(("category", "defect"), DEFECTS)
def test_the_harder_a_defect_the_less_it_changes_the_picture_inside_its_mask(category, defect):
    """Of 20 images: from plain, by more than 30 steps of 255 on average, to barely visible, by less
    than 20; yet a mask of several pixels is left of the hardest."""
    split = f"test/{defect}" if CATEGORIES[category].layout == "mvtec" else defect
    levels, changes = [], []
    for index in range(20):
        identity = {"category": category, "split": split, "index": index, "seed": 0, "size": 128}
        (damaged, mask), (intact, _) = render(**identity, defect=defect), render(**identity)
        assert mask.sum() >= 12
        levels.append(difficulty(category, defect, index, seed=0))
        changes.append(np.abs(damaged.astype(int) - intact.astype(int))[mask].mean())
    assert spearmanr(levels, changes).statistic < -0.8
    plainest, hardest = (changes[np.argmin(levels)], changes[np.argmax(levels)])
    assert hardest < 21 and plainest > 30 and 2.5 * hardest < plainest


@given(
    seed=st.integers(0, 2**32),
    index=st.integers(0, 999),
    size=st.sampled_from([32, 64]),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_no_mask_is_empty(seed, index, size, data):
    category, defect = data.draw(st.sampled_from(DEFECTS))
    _, mask = render(category, defect, index, seed=seed, size=size, defect=defect)
    assert mask.any()


@given(seed=st.integers(0, 2**32), count=st.integers(2, 60), kind=st.sampled_from(DEFECTS))
@settings(max_examples=25, deadline=None)
def test_difficulty_covers_its_range_evenly_for_any_number_of_images(seed, count, kind):
    """No stretch of [0, 1) (a circle) without an image exceeds twice the even spacing."""
    values = np.sort([difficulty(*kind, index, seed=seed) for index in range(count)])
    assert values.min() >= 0
    assert values.max() < 1
    assert np.diff(values, append=values[0] + 1).max() < 2 / count


def test_every_defect_of_a_set_is_listed_with_its_difficulty(tree):
    layout, root = tree
    listed = read_difficulties(root)
    expected = {}
    for category in NAMES[layout]:
        kinds = list(CATEGORIES[category].defects)
        for index, (number, defect) in product(range(2), enumerate(kinds)):
            name = f"{category}/test/{defect}/{index:03d}.png"
            if layout == "visa":
                name = f"{category}/Data/Images/Anomaly/{index * len(kinds) + number:04d}.JPG"
            expected[name] = round(difficulty(category, defect, index, seed=3), 6)
    assert listed == expected
    assert all((root / name).is_file() for name in listed)


@pytest.mark.parametrize("kind", DEFECTS)
def test_the_demos_eight_images_of_a_type_are_of_every_third(kind):
    values = [difficulty(*kind, index, seed=0) for index in range(8)]
    assert min(np.bincount([int(3 * value) for value in values], minlength=3)) >= 2


@pytest.mark.parametrize("category", CATEGORIES)
def test_normal_images_differ_by_light_focus_and_pose(category):
    images = np.stack([render(category, "train/good", i, seed=0, size=64)[0] for i in range(8)])
    brightness = images.mean(axis=(1, 2, 3))
    edges = [np.abs(ndimage.laplace(image.mean(axis=2))).mean() for image in images]
    assert brightness.max() > 1.02 * brightness.min()
    assert max(edges) > 1.1 * min(edges)
    assert images.std(axis=0).mean() > 4


def test_a_picture_at_twice_the_size_is_the_same_scene():
    for category in CATEGORIES:
        small, _ = render(category, "train/good", 0, seed=0, size=64)
        large, _ = render(category, "train/good", 0, seed=0, size=128)
        halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - small).mean() < 8


def test_a_run_that_dies_leaves_nothing(tmp_path, monkeypatch):
    finished = []

    def dying_render(*args, **kwargs):
        if len(finished) == 4:
            raise KeyboardInterrupt
        finished.append(args)
        return render(*args, **kwargs)

    monkeypatch.setattr(writing, "render", dying_render)
    for layout in NAMES:
        finished.clear()
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "data", layout, **SMALL)
        assert list(tmp_path.iterdir()) == []


def test_user_errors_name_the_fault(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(FaderError, match="already exists"):
        generate(tmp_path / "taken", "mvtec", **SMALL)
    assert list((tmp_path / "taken").iterdir()) == []
    with pytest.raises(FaderError, match="unknown layout 'mvtech'"):
        generate(tmp_path / "new", "mvtech", **SMALL)
    for name in ("size", "train", "good", "defective"):
        with pytest.raises(FaderError, match=f"{name} is 0"):
            generate(tmp_path / "new", "mvtec", **{**SMALL, name: 0})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
