"""Textures: generated, from a folder, from DTD's archive; and what a job knows of their files."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import PRESET
from torch import Tensor

from fader.config import Config, Dtd, GeneratedTextures, TextureFolder, parse
from fader.data import dtd, textures
from fader.errors import FaderError
from fader.pipeline import external, listing, phases
from fader.pipeline.jobs import Job
from fader.runtime import generator

BOLT = "synthetic_small-bolt"
DRAEM = Job("detector", BOLT, "draem", 0)


def normals(count: int = 3) -> Tensor:
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator(0))


def painted(path: Path, level: int, side: int = 40, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (side, side + 8), (level,) * 3 if mode == "RGB" else level).save(path)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(here) -> TextureFolder:
    for number in range(5):
        painted(Path(f"mine/kind{number % 2}/{number}.png"), 10 * number)
    Path("mine/notes.txt").write_text("not a texture")
    return TextureFolder(source="folder", root="mine", count=99)


# Tensors.


def test_generated_textures_are_the_same_again_and_further_ones_change_none():
    few, many = (textures.generate(count, normals(), 7) for count in (4, 6))
    assert (many.shape, many.dtype) == ((6, 3, 32, 32), torch.uint8)
    assert torch.equal(many[:4], few)
    assert len(torch.unique(many, dim=0)) == 6
    assert not torch.equal(textures.generate(4, normals(), 8), few)
    settings = GeneratedTextures(source="generated", count=4)
    assert torch.equal(textures.read(settings, normals(), 7), few)


@pytest.mark.parametrize(
    ("count", "levels"), [(99, [0, 20, 40, 10, 30]), (5, [0, 20, 40, 10, 30]), (3, [0, 40, 30])]
)
def test_a_folder_is_read_at_the_size_of_the_images_evenly(folder, count, levels):
    found = textures.read(folder.model_copy(update={"count": count}), normals(), 0)
    assert found.shape == (len(levels), 3, 32, 32)
    assert found[:, 0, 0, 0].tolist() == levels  # by folder, then by name
    assert (found.amax((1, 2, 3)) == found.amin((1, 2, 3))).all()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16"])
def test_textures_of_every_mode_become_rgb(here, mode):
    values = np.linspace(0, 255, 40 * 40).reshape(40, 40)
    if mode == "I;16":
        image = Image.fromarray((values * 257).astype(np.uint16))
    else:
        image = Image.fromarray(values.astype(np.uint8)).convert(mode)
    Path("mine").mkdir()
    image.save("mine/one.tiff")
    found = textures.read(TextureFolder(source="folder", root="mine", count=1), normals(), 0)
    assert found.shape == (1, 3, 32, 32)
    assert found.float().mean().item() == pytest.approx(127, abs=3)


# Folders.


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_missing_or_empty_is_one_line(here, there):
    if there:
        Path("mine").mkdir()
    why = "no image in it" if there else "no such folder"
    with pytest.raises(FaderError, match=rf"^mine: {why} \(textures.root\); put .* to dtd$"):
        dtd.images(Path("mine"))


def archive(path: Path, members: dict[str, bytes]) -> str:
    """Written to ``path``; returns its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (50, 60), (level,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def mirrored(here, monkeypatch) -> Dtd:
    """A small archive in DTD's layout."""
    members = {
        "dtd/images/banded/banded_1.png": png(5),
        "dtd/images/woven/woven_1.png": png(9),
        "dtd/images/woven/.directory": b"",
        "dtd/labels/test1.txt": b"banded/banded_1.png",
        "dtd/imdb/imdb.mat": b"MATLAB",
    }
    monkeypatch.setattr(dtd, "SHA256", archive(here / "mirror/dtd.tar.gz", members))
    monkeypatch.setattr(dtd, "URL", "file:///nowhere/dtd.tar.gz")
    return Dtd(source="dtd", mirrors=[(here / "mirror/dtd.tar.gz").as_uri()], count=9)


def test_dtd_is_downloaded_checked_and_extracted_once(mirrored):
    names = [
        path.relative_to(dtd.EXTRACTED).as_posix() for path in dtd.images(dtd.extracted(mirrored))
    ]
    assert names == ["dtd/images/banded/banded_1.png", "dtd/images/woven/woven_1.png"]
    dtd.ARCHIVE.unlink()
    gone = mirrored.model_copy(update={"mirrors": []})
    found = textures.read(gone, normals(), 0)  # as it was made
    assert found[:, 0, 0, 0].tolist() == [5, 9]


def test_another_archive_than_dtds_is_refused_in_one_line(mirrored, monkeypatch):
    monkeypatch.setattr(dtd, "SHA256", "0" * 64)
    with pytest.raises(FaderError, match=r"cannot be downloaded: .*expected 0000.*textures\.root"):
        dtd.images(dtd.extracted(mirrored))
    assert not dtd.EXTRACTED.exists()


def test_a_texture_that_is_lost_is_extracted_again(mirrored):
    first = dtd.images(dtd.extracted(mirrored))
    first[0].unlink()
    assert dtd.images(dtd.extracted(mirrored)) == first


def test_the_archive_is_the_published_one():
    assert dtd.URL.startswith("https://www.robots.ox.ac.uk/~vgg/data/dtd/")
    assert dtd.URL.endswith(dtd.ARCHIVE.name)
    assert len(dtd.SHA256) == 64


# What jobs know.


def config(root: str = "mine") -> Config:
    own = {"source": "folder", "root": root, "count": 5}
    detectors = PRESET["detectors"] | {"draem": PRESET["detectors"]["draem"] | {"textures": own}}
    return parse(PRESET | {"detectors": detectors}, "test")


def test_a_changed_texture_makes_its_detector_stale_and_no_other(folder):
    jobs = [DRAEM, Job("detector", BOLT, "jnld", 0), Job("detector", BOLT, "riad", 0)]
    before = [external.state(config(), job) for job in jobs]
    assert before[0]["files"]
    assert [state["files"] for state in before[1:]] == [None, None]
    os.utime("mine/kind0/0.png", (1_500_000_000, 1_500_000_000))
    assert [external.state(config(), job) for job in jobs] == before  # contents decide
    painted(Path("mine/kind0/0.png"), 200)
    after = [external.state(config(), job) for job in jobs]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    painted(Path("mine/new.png"), 3)
    assert external.state(config(), DRAEM) not in (before[0], after[0])


def test_a_listing_stays_where_the_textures_are_not_at_hand(folder):
    kept = listing.write(config(), DRAEM)
    Path("mine").rename("away")
    assert listing.write(config(), DRAEM) == kept
    assert listing.listed(config(), DRAEM)


def test_a_missing_folder_is_said_when_the_run_is_planned(here):
    with pytest.raises(FaderError, match=r"^mine: no such folder \(textures.root\)"):
        external.state(config(), DRAEM)


@pytest.mark.parametrize("name", ["generated", "dtd"])
def test_what_is_pinned_needs_no_listing(here, name):
    known = {"generated": {"count": 5}, "dtd": {"count": 5, "mirrors": []}}[name]
    detectors = {"draem": PRESET["detectors"]["draem"] | {"textures": {"source": name} | known}}
    run = parse(PRESET | {"detectors": detectors}, "test")
    assert listing.listed(run, DRAEM) is None
    assert phases.settings(run, DRAEM)["detectors.draem"]["textures"]["source"] == name
