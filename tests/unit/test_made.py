"""What the project made is replaced as a whole; what it did not make is never removed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from fader.data import made
from fader.errors import FaderError


def build(**contents: str):
    """A ``build`` that writes ``name``: text; ``__`` in a name is a folder."""

    def write(folder: Path) -> None:
        for name, text in contents.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != made.LIST
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    target = tmp_path / "made" / "set" / "images"
    made.replace(target, build(a="1", deep__b="2"), {"seed": 0})
    return target


def test_a_made_folder_lists_its_files(folder):
    assert contents(folder) == {"a": "1", "deep/b": "2"}
    assert made.files(folder).keys() == {"a", "deep/b"}
    assert made.is_made(folder, {"seed": 0})
    assert not made.is_made(folder, {"seed": 1})


def test_a_made_folder_is_replaced_whole_and_nothing_is_left_beside_it(folder):
    made.replace(folder, build(c="3"), {"seed": 1})
    assert contents(folder) == {"c": "3"}
    assert [path.name for path in folder.parent.iterdir()] == ["images"]


def added(folder: Path) -> Path:
    path = folder / "mine.png"
    path.write_text("mine")
    return path


def added_deep(folder: Path) -> Path:
    path = folder / "mine" / "train" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    return path


def changed(folder: Path) -> Path:
    path = folder / "deep/b"
    path.write_text("X")
    return path


def a_link(folder: Path) -> Path:
    path = folder / "linked.png"
    path.symlink_to(folder.parent.parent / "elsewhere.png")
    return path


def a_linked_folder(folder: Path) -> Path:
    mine = folder.parent.parent / "mine"
    mine.mkdir()
    (mine / "0.png").write_text("mine")
    (folder / "linked").symlink_to(mine)
    return folder / "linked" / "0.png"


def without_list(folder: Path) -> Path:
    (folder / made.LIST).unlink()
    return folder


def damaged_list(folder: Path) -> Path:
    (folder / made.LIST).write_text("{")
    return folder / made.LIST


@pytest.mark.parametrize(
    "change", [added, added_deep, changed, a_link, without_list, damaged_list, a_linked_folder]
)
def test_what_the_project_did_not_make_stops_it_and_everything_stays(folder, change):
    named = change(folder)
    before = contents(folder)
    with pytest.raises(FaderError) as caught:
        made.replace(folder, build(c="3"), {"seed": 1})
    assert str(caught.value).startswith(f"{named}: ")
    assert contents(folder) == before


@pytest.mark.parametrize("lost", [["a"], ["deep/b"], ["a", "deep/b"]])
def test_what_the_user_deleted_is_made_again(folder, lost):
    for name in lost:
        (folder / name).unlink()
    assert not made.is_made(folder, {"seed": 0})
    made.replace(folder, build(a="1", deep__b="2"), {"seed": 0})
    assert contents(folder) == {"a": "1", "deep/b": "2"}


def test_a_failed_replacement_leaves_the_folder_as_it_was(folder):
    def fails(target: Path) -> None:
        build(c="3")(target)
        raise FaderError("no space")

    with pytest.raises(FaderError, match="no space"):
        made.replace(folder, fails, {"seed": 1})
    assert contents(folder) == {"a": "1", "deep/b": "2"}
    assert [path.name for path in folder.parent.iterdir()] == ["images"]


@pytest.mark.parametrize("old_is_back", [True, False])
def test_what_a_kill_between_two_renames_left_is_cleared(folder, old_is_back):
    partial = folder.parent / ".images.killed"
    partial.mkdir()
    build(c="half")(partial / "new")
    if old_is_back:
        folder.rename(partial / "old")
    made.replace(folder, build(c="3"), {"seed": 1})
    assert contents(folder) == {"c": "3"}
    assert [path.name for path in folder.parent.iterdir()] == ["images"]


def test_what_the_user_added_before_a_kill_is_not_lost(folder):
    mine = added(folder)
    partial = folder.parent / ".images.killed"
    partial.mkdir()
    folder.rename(partial / "old")
    with pytest.raises(FaderError, match=mine.name):
        made.replace(folder, build(c="3"), {"seed": 1})
    assert mine.read_text() == "mine"


def test_times_do_not_matter_but_contents(folder):
    shutil.copystat(__file__, folder / "a")
    os.utime(folder / "deep/b", (0, 0))
    assert made.is_made(folder, {"seed": 0})
    assert json.loads((folder / made.LIST).read_text())["of"] == {"seed": 0}


def test_a_made_folder_can_be_removed_but_no_other(folder):
    mine = added(folder)
    with pytest.raises(FaderError, match=mine.name):
        made.remove(folder)
    mine.unlink()
    made.remove(folder)
    assert not folder.exists()
    made.remove(folder)
