"""The walk of a category's folder: what is an image, what is ignored, and what ends the reading."""

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from folders import line_of, noise, save, write_nut

from fader.config import MvtecAd, Visa
from fader.data import layout, mvtec, visa
from fader.data.layout import check_counts, describe, files, sort_out
from fader.data.releases import RELEASES
from fader.errors import FaderError
from fader.files import shown

NFC, NFD = (unicodedata.normalize(form, "Prüfung") for form in ("NFC", "NFD"))


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    return write_nut(tmp_path)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


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


def test_check_complete_says_what_is_missing(nut):
    (nut / "nut").rename(nut / "toothbrush")
    with pytest.raises(FaderError, match="2 train good instead of 60, 1 test good instead of 12"):
        check_counts(mvtec.index(nut, "toothbrush"), mvtec.RELEASE)
    (nut / "toothbrush").rename(nut / "nut")
    with pytest.raises(FaderError, match="nut: not a category of MVTec AD; choose from bottle"):
        check_counts(mvtec.index(nut, "nut"), mvtec.RELEASE)


# ---- the walk


def test_files_are_sorted_by_the_parts_of_their_paths_and_hidden_ones_are_among_them(tmp_path):
    names = ["b.png", "a/2.png", "a/b/1.png", "a-b/0.png", "A/9.txt", ".hidden", "a/.git/config"]
    for name in names:
        touch(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in files(tmp_path)]
    assert found == sorted(names, key=lambda name: Path(name).parts)


def test_links_to_files_and_folders_are_followed_and_circles_end(tmp_path):
    inside = tmp_path / "nut"
    touch(inside / "train/good/0.png")
    touch(tmp_path / "elsewhere/batch/1.png")
    (inside / "train/good/linked").symlink_to(tmp_path / "elsewhere")
    (inside / "train/good/2.png").symlink_to(tmp_path / "elsewhere/batch/1.png")
    (inside / "train/good/around").symlink_to(inside)
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "elsewhere/batch")
    (tmp_path / "elsewhere/batch/up").symlink_to("..")
    found = [path.relative_to(inside).as_posix() for path in files(inside)]
    assert found == [
        "train/good/0.png",
        "train/good/2.png",
        "train/good/linked/back/1.png",
        "train/good/linked/batch/1.png",
    ]


def to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere.png")


def to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (to_nowhere, "a link to nowhere"),
        (to_itself, "cannot be read"),
        (os.mkfifo, "neither file nor folder"),
    ],
)
def test_what_is_neither_file_nor_folder_is_named_unless_hidden(tmp_path, make, what):
    make(tmp_path / "0.png")
    assert line_of(files, tmp_path).startswith(f"{tmp_path / '0.png'}: {what}")


def test_a_hidden_link_to_nowhere_is_an_editors_lock(tmp_path):
    to_nowhere(tmp_path / ".#0.png")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes.txt", ".txt"),
        ("NOTES.TXT", ".txt"),
        ("labels.csv", ".csv"),
        ("000.json", ".json"),
        ("Thumbs.db", ".db"),
        ("desktop.ini", ".ini"),
        ("LICENSE", "no suffix"),
        ("000.png.bak", ".bak"),
        ("train/good/000.xml", ".xml"),
        ("train/good/000.psd", ".psd"),
        (".DS_Store", "hidden"),
        ("train/good/._000.png", "hidden"),
        (".ipynb_checkpoints/000.png", "hidden"),
        ("__MACOSX/train/000.png", "__MACOSX"),
        ("train/good/@eaDir/000.png", "@eaDir"),
    ],
)
def test_no_images_are_ignored_and_counted(nut, name, reason):
    whole = mvtec.index(nut, "nut")
    touch(nut / "nut" / name)
    category = mvtec.index(nut, "nut")
    assert (category.train, category.test) == (whole.train, whole.test)
    assert category.ignored == {reason: 1}
    assert describe(category) == (
        f"train 2, test good 1, bent 1, scratch 2; ignored: 1 file ({reason})"
    )


def test_the_line_of_a_category_counts_by_reason(nut):
    for name in ("a.txt", "b.txt", ".DS_Store"):
        touch(nut / "nut" / name)
    line = describe(mvtec.index(nut, "nut"))
    assert line.endswith("; ignored: 3 files (.txt 2, hidden 1)")


@pytest.mark.parametrize(
    "suffix", [".webp", ".gif", ".jp2", ".ppm", ".jpeg", ".JPG", ".Tiff", ".avif", ".png "]
)
def test_images_of_every_format_are_images(tmp_path, suffix):
    path = touch(tmp_path / f"000{suffix}")
    assert sort_out(tmp_path) == ([path], {})


@pytest.mark.parametrize("name", ["0.heic", "0.DNG", "0.cr2", "0.NEF", "0.svg", "0.raw", "0.dcm"])
def test_images_that_are_not_read_are_named(nut, name):
    path = touch(nut / "nut/test/good" / name)
    line = line_of(mvtec.index, nut, "nut")
    assert line.startswith(f"{path}: {path.suffix.lower()} images are not read")
    assert "save them as PNG" in line


def test_a_format_that_pillow_was_built_without_is_named(nut, monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "avif")
    monkeypatch.setattr(layout, "_readable", layout._readable.__wrapped__)
    path = touch(nut / "nut/train/good/002.avif")
    assert line_of(mvtec.index, nut, "nut").startswith(f"{path}: .avif images are not read")


# ---- names


@pytest.mark.parametrize("name", ["NUT", "Nut 2", "{x}", "ä", "100%", "a'b"])
def test_a_category_may_have_any_name(tmp_path, name):
    write_nut(tmp_path)
    (tmp_path / "nut").rename(tmp_path / name)
    assert len(mvtec.index(tmp_path, name).train) == 2


@pytest.mark.parametrize(("asked", "there"), [(NFC, NFD), (NFD, NFC)])
def test_composed_and_decomposed_letters_are_one_category(tmp_path, asked, there):
    write_nut(tmp_path)
    (tmp_path / "nut").rename(tmp_path / there)
    category = mvtec.index(tmp_path, asked)
    assert category.folder == tmp_path / there
    assert category.name == asked


@pytest.mark.parametrize("asked", ["Nut", "nuts", "wood", ".git"])
def test_a_missing_category_lists_what_is_there(nut, asked):
    (nut / "bolt").mkdir()
    assert f"no category {asked!r}; there is bolt, nut" in line_of(mvtec.index, nut, asked)


def test_a_missing_root_is_named(tmp_path):
    line = line_of(mvtec.index, tmp_path / "nowhere", "nut")
    assert line.startswith(f"{tmp_path / 'nowhere'}: no such folder")
    assert "datasets.<name>.root" in line


def test_names_that_are_not_utf_8_are_shown_escaped(nut):
    path = Path(os.fsdecode(os.fsencode(nut / "nut/train/good") + b"/pr\xfcfling.png"))
    save(nut / "nut/train/good/2.png", noise(9)).rename(path)
    category = mvtec.index(nut, "nut")
    assert category.path(path) == "train/good/pr\udcfcfling.png"
    assert category.label(category.train[-1]) == r"train/good/pr\xfcfling.png"
    path.rename(nut / "nut/train" / path.name)
    line = line_of(mvtec.index, nut, "nut")
    assert line.startswith(shown(nut) + r"/nut/train/pr\xfcfling.png: an image directly in train")
    assert line.encode()
