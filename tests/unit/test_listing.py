"""The listing of a user's files: their contents decide, whatever their time stamps say."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fader import steps
from fader.config import Config, parse
from fader.data import synthetic
from fader.errors import FaderError
from fader.pipeline import listing
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job

ROOT = Path(__file__).resolve().parents[2]
LONG_AGO = (1_500_000_000, 1_500_000_000)


def configured(layout: str, category: str, source: dict | None = None) -> Config:
    values = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text())
    values["categories"] = {"mine": {"dataset": "mine", "category": category}}
    own = {"source": "folder", "layout": layout, "root": "own", "paper": None, "complete": False}
    values["datasets"] = {"mine": source or own}
    return parse(values, "test")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FADER_WEIGHTS", "")
    return tmp_path


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Folders ``mvtec`` and ``visa``."""
    folder = tmp_path_factory.mktemp("images")
    for layout in ("mvtec", "visa"):
        synthetic.generate(folder / layout, layout, seed=0, size=32, train=4, good=2, defective=2)
    return folder


@pytest.fixture
def mvtec(images, elsewhere) -> Config:
    shutil.copytree(images / "mvtec", "own")
    return configured("mvtec", "bolt")


@pytest.fixture
def visa(images, elsewhere) -> Config:
    shutil.copytree(images / "visa", "own")
    return configured("visa", "softgels")


def identity(config: Config, job: Job | None = None) -> str:
    header = listing.write(config, job or Job("pack", "mine"))
    assert header is not None
    return header.identity


def picture(path: str, value: int, mode: str = "RGB") -> None:
    """Another picture, with a time stamp older than what was there."""
    Image.fromarray(np.full((32, 32), value, np.uint8)).convert(mode).save(path)
    os.utime(path, LONG_AGO)


def replaced_by_an_older_image():
    picture("own/bolt/train/good/000.png", 9)


def replaced_by_an_older_mask():
    picture("own/bolt/ground_truth/scratch/000_mask.png", 255, "L")


def same_size_and_times():
    path = Path("own/bolt/train/good/000.png")
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def renamed_over_with_the_same_times():
    path, other = Path("own/bolt/train/good/000.png"), Path("own/bolt/train/good/001.png")
    status = path.stat()
    shutil.copyfile(other, "copy.png")
    os.utime("copy.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    Path("copy.png").replace(path)


def an_image_more():
    picture("own/bolt/train/good/zzz.png", 9)


def an_image_less():
    Path("own/bolt/train/good/000.png").unlink()


def a_swap_of_two_names():
    first, second = Path("own/bolt/train/good/000.png"), Path("own/bolt/train/good/001.png")
    first.rename("x"), second.rename(first), Path("x").rename(second)


def a_defect_under_another_name():
    Path("own/bolt/test/scratch").rename("own/bolt/test/dent_2")
    Path("own/bolt/ground_truth/scratch").rename("own/bolt/ground_truth/dent_2")


def a_good_image_moved_to_train():
    Path("own/bolt/test/good/000.png").rename("own/bolt/train/good/moved.png")


def behind_a_link():
    Path("own/bolt").rename("real")
    Path("own/bolt").symlink_to(Path("real").absolute())
    picture("real/train/good/000.png", 9)


CHANGES = [
    replaced_by_an_older_image,
    replaced_by_an_older_mask,
    same_size_and_times,
    renamed_over_with_the_same_times,
    an_image_more,
    an_image_less,
    a_swap_of_two_names,
    a_defect_under_another_name,
    a_good_image_moved_to_train,
    behind_a_link,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_contents_is_a_change(mvtec, change):
    before = identity(mvtec)
    change()
    assert identity(mvtec) != before


def touched():
    for path in Path("own").rglob("*"):
        os.utime(path)


def copied_elsewhere_and_back():
    shutil.copytree("own", "copy")
    shutil.rmtree("own")
    Path("copy").rename("own")


def a_note_beside_the_images():
    Path("own/bolt/train/good/notes.txt").write_text("washed on Monday")


def another_category_changed():
    picture("own/weave/train/good/000.png", 9)


def the_folder_became_a_link():
    Path("own").rename("real")
    Path("own").symlink_to("real")


def the_memory_of_digests_was_lost():
    listing.CACHE.unlink()


def the_memory_of_digests_was_damaged():
    listing.CACHE.write_text("{")


NO_CHANGES = [
    touched,
    copied_elsewhere_and_back,
    a_note_beside_the_images,
    another_category_changed,
    the_folder_became_a_link,
    the_memory_of_digests_was_lost,
    the_memory_of_digests_was_damaged,
]


@pytest.mark.parametrize("change", NO_CHANGES)
def test_anything_else_is_not(mvtec, change):
    before = identity(mvtec)
    path = Path(listing.listed(mvtec, Job("pack", "mine")))
    written = path.stat().st_mtime_ns
    change()
    assert identity(mvtec) == before
    assert path.stat().st_mtime_ns == written


def test_a_row_of_the_split_file_is_part_of_it(visa):
    before = identity(visa)
    split = Path("own/split_csv/1cls.csv")
    rows = split.read_text()
    last = next(row for row in reversed(rows.splitlines()) if ",train,normal," in row)
    split.write_text(rows.replace(last, last.replace(",train,", ",test,")))
    os.utime(split, LONG_AGO)
    assert identity(visa) != before


def test_unchanged_files_are_not_read_again(mvtec, monkeypatch):
    identity(mvtec)
    read = []
    monkeypatch.setattr(listing, "file_sha256", lambda path: read.append(path) or "0" * 64)
    identity(mvtec)
    assert read == []
    picture("own/bolt/train/good/000.png", 9)
    identity(mvtec)
    assert [str(path) for path in read] == ["own/bolt/train/good/000.png"]


def test_sizes_and_digests_are_those_of_the_files(mvtec):
    facts = listing.write(mvtec, Job("pack", "mine")).facts
    image = Path("own/bolt/train/good/000.png")
    assert facts["files"]["train/good/000.png"] == {
        "size": image.stat().st_size,
        "sha256": listing.file_sha256(image),
    }
    assert ["test/scratch/000.png", "scratch", "ground_truth/scratch/000_mask.png"] in facts["test"]


def test_what_the_project_makes_itself_has_no_listing(elsewhere):
    values = yaml.safe_load((ROOT / "presets" / "ci.yaml").read_text())
    config = parse(values, "test")
    assert listing.listed(config, Job("pack", "synthetic_small-bolt")) is None
    assert listing.write(config, Job("pack", "synthetic_small-bolt")) is None


def test_a_replaced_codebook_is_a_change(mvtec):
    values = mvtec.plain | {"codebook": mvtec.plain["codebook"] | {"file": "codebook.safetensors"}}
    config = parse(values, "test")
    assert listing.listed(config, Job("codebook")) is None
    Path("codebook.safetensors").write_bytes(b"one")
    before = identity(config, Job("codebook"))
    Path("codebook.safetensors").write_bytes(b"two")
    os.utime("codebook.safetensors", LONG_AGO)
    assert identity(config, Job("codebook")) != before


def test_replaced_weights_are_a_change(mvtec, monkeypatch):
    vit = yaml.safe_load((ROOT / "presets" / "demo.yaml").read_text())["masks"]["maskers"]["vit"]
    masks = mvtec.plain["masks"]
    values = mvtec.plain | {"masks": masks | {"maskers": masks["maskers"] | {"vit": vit}}}
    patchcore = values["detectors"]["patchcore"] | {"backbone": "vit"}
    values["detectors"] = values["detectors"] | {"patchcore": patchcore}
    config = parse(values, "test")
    jobs = [Job("mask", "mine", "vit"), Job("detector", "mine", "patchcore", 0)]
    monkeypatch.setenv("FADER_WEIGHTS", "weights")
    assert [listing.listed(config, job) for job in jobs] == [None, None]
    file = Path("weights/vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors")
    file.parent.mkdir()
    file.write_bytes(b"one")
    before = [identity(config, job) for job in jobs]
    file.write_bytes(b"two")
    os.utime(file, LONG_AGO)
    after = [identity(config, job) for job in jobs]
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert listing.listed(config, Job("detector", "mine", "pca", 0)) is None


PUBLIC = {"source": "mvtec_ad", "layout": "mvtec", "mirrors": []}


@pytest.mark.parametrize("below", ["", "images", "mvtec_anomaly_detection"])
def test_a_copy_of_a_public_set_is_used_where_it_lies(images, elsewhere, below):
    config = configured("mvtec", "bolt", PUBLIC)
    assert listing.own_root(config, "mine") is None
    root = Path("data/raw/mine", below)
    shutil.copytree(images / "mvtec", root)
    assert listing.own_root(config, "mine") == root
    assert identity(config)


def test_an_incomplete_copy_is_named(images, elsewhere):
    values = configured("mvtec", "bolt", PUBLIC).plain
    values["categories"]["other"] = {"dataset": "mine", "category": "cable"}
    shutil.copytree(images / "mvtec", "data/raw/mine")
    with pytest.raises(FaderError, match="data/raw/mine: no category cable; complete this copy"):
        listing.own_root(parse(values, "test"), "mine")


def test_a_missing_root_is_named_unless_its_images_were_listed_before(mvtec):
    before = identity(mvtec)
    Path("own").rename("away")
    assert identity(mvtec) == before
    Path(listing.listed(mvtec, Job("pack", "mine"))).unlink()
    with pytest.raises(FaderError, match=r"own: no such folder; set datasets\.<name>\.root"):
        identity(mvtec)


def test_a_data_set_whose_root_is_away_has_no_manifest(mvtec):
    Path("own").rename("away")
    with pytest.raises(FaderError, match=r"datasets\.mine\.root: no folder own"):
        steps.run(Context(mvtec, Job("dataset", "mine")))
    assert not Path("data/made/mine/manifest.json").exists()
