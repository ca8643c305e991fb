"""VisA as published: all 10,821 official file names, with the official counts of each category.

The names are the archive's, numbers of as many digits as the last one needs; which normal images
are for the test is drawn here, and read from the authors' list where that is at hand.
"""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, noise, remove, save, split

from fader.data.layout import check_counts
from fader.data.pack import read_category
from fader.data.visa import COLUMNS, RELEASE, index
from fader.report.paper import paper_values

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = ROOT.parent / "shared" / "data" / "visa_splits" / "1cls.csv"
IMAGES = 10_821

Rows = list[list[str]]


def drawn_rows() -> Rows:
    random = np.random.default_rng(0)
    rows = []
    for category, counts in RELEASE.counts.items():
        images, masks = f"{category}/Data/Images", f"{category}/Data/Masks/Anomaly"
        normal = random.permutation(counts.train_good + counts.test_good)
        digits = 4 if len(normal) >= 1000 else 3
        for place, number in enumerate(normal):
            part = "train" if place < counts.train_good else "test"
            rows.append([category, part, "normal", f"{images}/Normal/{number:0{digits}d}.JPG", ""])
        rows += [
            [category, "test", "anomaly", f"{images}/Anomaly/{i:03d}.JPG", f"{masks}/{i:03d}.png"]
            for i in range(counts.test_defective)
        ]
    return rows


def official_rows() -> Rows:
    with OFFICIAL.open(newline="") as file:
        return list(csv.reader(file))[1:]


def write_release(root: Path, rows: Rows) -> Path:
    """The tree of the rows: images that are not square, masks of one of three codes of defects."""
    first: dict[str, Path] = {}
    for row in rows:
        for name in filter(None, row[3:]):
            path = root / name
            source = first.get(path.parent.name + path.suffix)
            if source is None:
                code = np.zeros((6, 9), np.uint8)
                code[1:3, 2:5] = 1 + len(first)
                pixels = code if path.suffix == ".png" else noise(0, 6, 9)
                first[path.parent.name + path.suffix] = save(path, pixels)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, path)
    write_split(root, rows)
    return root


def write_split(root: Path, rows: Rows, **dialect) -> None:
    split(root).parent.mkdir(exist_ok=True)
    with split(root).open("w", newline="") as file:
        csv.writer(file, **dialect).writerows([COLUMNS, *rows])


@pytest.fixture(
    scope="module",
    params=[
        drawn_rows,
        pytest.param(
            official_rows,
            marks=[
                pytest.mark.shared,
                pytest.mark.skipif(not OFFICIAL.is_file(), reason=f"{OFFICIAL} is absent"),
            ],
        ),
    ],
)
def rows(request) -> Rows:
    return request.param()


@pytest.fixture(scope="module")
def release(rows, tmp_path_factory) -> Path:
    return write_release(tmp_path_factory.mktemp("visa"), rows)


def test_the_names_are_those_of_the_release(rows):
    kinds = Counter((category, part, label) for category, part, label, _, _ in rows)
    for category, counts in RELEASE.counts.items():
        assert kinds.pop((category, "train", "normal")) == counts.train_good
        assert kinds.pop((category, "test", "normal")) == counts.test_good
        assert kinds.pop((category, "test", "anomaly")) == counts.test_defective
    assert not kinds
    assert len({row[3] for row in rows}) == len(rows) == IMAGES
    # Which normal images are for the test may differ from the drawn ones; what there is does not.
    assert {row[3] for row in rows} == {row[3] for row in drawn_rows()}


@pytest.mark.parametrize(
    "dialect",
    [{}, {"lineterminator": "\r\n", "quoting": csv.QUOTE_ALL}],
    ids=["as published", "Windows lines, quoted"],
)
def test_every_category_is_complete(release, rows, dialect):
    write_split(release, rows, **dialect)
    seen = 0
    for name in RELEASE.counts:
        category = index(release, name)
        check_counts(category, RELEASE)
        seen += len(category.train) + len(category.test)
    assert seen == IMAGES


def test_a_category_is_decoded(release):
    counts = RELEASE.counts["cashew"]
    arrays = read_category(index(release, "cashew"), [8])
    assert len(arrays.train[8]) == counts.train_good
    assert arrays.label.sum() == counts.test_defective
    assert arrays.mask.any((1, 2)).tolist() == arrays.label.astype(bool).tolist()


def test_the_papers_rows_are_the_categories():
    rows = {category for category, _, _ in paper_values(5, ROOT / "reference")}
    assert rows == {*RELEASE.counts, "average"}


# ---- what is not as published; each in a small tree of its own


@pytest.fixture
def gum(tmp_path: Path) -> Path:
    return write_release(tmp_path, [row for row in drawn_rows() if row[0] == "chewinggum"])


def test_a_row_without_its_image_is_one_line(gum):
    remove(gum, "chewinggum/Data/Images/Normal/007.JPG")
    assert "007.JPG: no such file, but" in line_of(index, gum, "chewinggum")


def test_an_image_in_no_split_is_one_line(gum):
    extra = save(gum / "chewinggum/Data/Images/Normal/503.JPG", noise(1))
    assert line_of(index, gum, "chewinggum").startswith(f"{extra}: image without a split in")


def test_a_mask_without_a_defective_pixel_is_one_line(gum):
    mask = gum / "chewinggum/Data/Masks/Anomaly/042.png"
    mask.unlink()
    save(mask, np.zeros((6, 9), np.uint8))
    line = line_of(lambda: read_category(index(gum, "chewinggum"), [8]))
    assert line.startswith(f"{mask}: no defect pixel, but")


def test_missing_images_that_no_row_names_are_counted(gum):
    (last,) = (
        row for row in drawn_rows() if row[3].endswith("chewinggum/Data/Images/Normal/007.JPG")
    )
    remove(gum, last[3])
    rows = [row for row in drawn_rows() if row[0] == "chewinggum" and row != last]
    write_split(gum, rows)
    assert "chewinggum" in line_of(check_counts, index(gum, "chewinggum"), RELEASE)
