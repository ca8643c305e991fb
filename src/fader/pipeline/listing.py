"""Files of the user's own that a job reads, by content: images, a codebook, weights, textures.

A *listing* names them with their sizes and sha256. It is written when a run is planned, anew only
where something changed; both engines depend on it, and whatever is made from the files carries its
identity. Digests are remembered by size, times and inode, so that unchanged files are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fader.config import Config, TextureFolder
from fader.data import dtd
from fader.data.layout import Category, describe, folders
from fader.data.releases import LAYOUTS
from fader.errors import FaderError
from fader.files import file_sha256, shown, write_text
from fader.pipeline import artifacts, paths, weights
from fader.pipeline.artifacts import Header
from fader.pipeline.jobs import Job, dataset_of

KIND = "files"
CACHE = Path("data/digests.json")
PLACED = Path("data/raw")  # where a copy of a public set is looked for


def listed(config: Config, job: Job) -> str | None:
    """Path of a job's listing; None where it reads no file of the user's own."""
    if job.phase == "pack":
        return of_images(config, job.place)
    return _path(config, job) if _textures(config, job) or _files(config, job) else None


def of_images(config: Config, place: str) -> str | None:
    """Path of the listing of a category's images; None where the project makes them."""
    own = own_root(config, dataset_of(config, place))
    return None if own is None else _path(config, Job("pack", place))


def write(config: Config, job: Job) -> Header | None:
    """Bring a job's listing up to date; None where it has none.

    Raises
    ------
    FaderError : as ``write_images``, or ``dtd.images`` of a folder; or a file cannot be read.
    """
    if job.phase == "pack":
        return write_images(config, job.place)
    folder, path = _textures(config, job), _path(config, job)
    if folder and Path(path).is_file() and not Path(folder.root).is_dir():
        return artifacts.read_header(path)  # as in a checkout of what was made elsewhere
    files = (
        dtd.images(Path(folder.root)) if folder else [Path(file) for file in _files(config, job)]
    )
    if not files:
        return None
    about = {"files": _entries({shown(file): file for file in files})}
    return artifacts.write_changed(path, Header(KIND, {}, {}, about))


def write_images(config: Config, place: str) -> Header | None:
    """Bring the listing of a category's images up to date; None where the project makes them.

    Where their folder is not at hand, as in a checkout of what was made elsewhere, the listing
    stays as it is.

    Raises
    ------
    FaderError : what ``index`` of the layout finds wrong with the folder; a file cannot be read.
    """
    root, path = own_root(config, dataset_of(config, place)), _path(config, Job("pack", place))
    if root is None:
        return None
    if Path(path).is_file() and not root.is_dir():
        return artifacts.read_header(path)
    index = category(config, place)
    name = {file: shown(index.path(file)) for file in index.files()}
    about = {
        "files": _entries({name[file]: file for file in name}),
        "train": [name[sample.image] for sample in index.train],
        "test": [
            [name[sample.image], sample.defect, sample.mask and name[sample.mask]]
            for sample in index.test
        ],
    }
    return artifacts.write_changed(path, Header(KIND, {}, {}, about))


def unlisted(config: Config) -> list[str]:
    """Categories whose images were not listed yet."""
    return [p for p in config.categories if not Path(_path(config, Job("pack", p))).is_file()]


def _path(config: Config, job: Job) -> str:
    return paths.listing(config.run, job.phase, job.place, job.system)


def category(config: Config, place: str) -> Category:
    """Index of a category in a folder of the user's own."""
    dataset = dataset_of(config, place)
    root = own_root(config, dataset)
    if root is None:
        raise FaderError(f"datasets.{dataset}: its images are not a folder of one's own")
    settings = config.datasets[dataset]
    name = config.categories[place].category
    return LAYOUTS[settings.layout](root, name, settings.masks)


def descriptions(config: Config) -> list[str]:
    """A line a category of the user's own that is at hand: how many images of what, and what is
    ignored."""
    lines = []
    for place in config.categories:
        root = own_root(config, dataset_of(config, place))
        if root is not None and root.is_dir():
            lines.append(f"{place}: {describe(category(config, place))}")
    return lines


def digests(config: Config, place: str, index: Category) -> dict[str, str]:
    """Path relative to the category's folder → sha256, of the images and masks of a category of the
    user's own, as they were listed when the run was planned."""
    path = of_images(config, place)
    if path is None:
        raise FaderError(f"{place}: its images are not the user's own")
    if not Path(path).is_file():
        write_images(config, place)
    listed = artifacts.read_header(path).facts["files"]
    names = [index.path(file) for file in index.files()]
    return {name: listed[shown(name)]["sha256"] for name in names if shown(name) in listed}


def own_root(config: Config, dataset: str) -> Path | None:
    """Folder of a data set that the user keeps: ``datasets.<name>.root``, or a copy of a public set
    below ``data/raw/<name>``. None where the project makes the images.

    Raises
    ------
    FaderError : a copy lacks a category that the run has.
    """
    settings = config.datasets[dataset]
    if settings.source == "folder":
        return Path(settings.root)
    return None if settings.source == "synthetic" else _placed(config, dataset)


def _placed(config: Config, dataset: str) -> Path | None:
    folder = PLACED / dataset
    if not folder.is_dir():
        return None
    wanted = {place.category for place in config.categories.values() if place.dataset == dataset}
    for root in (folder, *(folder / name for name in folders(folder))):
        lacking = sorted(name for name in wanted if not (root / name).is_dir())
        if not lacking:
            return root
        if len(lacking) < len(wanted):
            raise FaderError(
                f"{root}: no category {', '.join(lacking)}; complete this copy of the data set, or"
                " move it away to have the data set downloaded"
            )
    return None


def _files(config: Config, job: Job) -> list[str]:
    """Files of the user's own, other than images, that a job reads."""
    if job.phase == "codebook" and config.codebook.file:
        return [config.codebook.file] if Path(config.codebook.file).is_file() else []
    if job.phase == "mask":
        return weights.local_files(config, job.system)
    if job.phase == "detector":
        backbone = getattr(config.detectors[job.system], "backbone", None)
        return [] if backbone is None else weights.backbone_files(config, backbone)
    vit = config.fader.vit.backbone
    if job.phase == "variant" and vit and config.variants[job.system].predictor == "vit":
        return weights.backbone_files(config, vit)
    return []


def _textures(config: Config, job: Job) -> TextureFolder | None:
    """The folder of textures that a job reads."""
    if job.phase != "detector":
        return None
    textures = getattr(config.detectors[job.system], "textures", None)
    return textures if isinstance(textures, TextureFolder) else None


def _entries(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    digests = sha256(files.values())
    return {
        name: {"size": path.stat().st_size, "sha256": digests[path]} for name, path in files.items()
    }


def sha256(files: Iterable[Path]) -> dict[Path, str]:
    """Sha256 of files; of one that has the size, times and inode of the last time, without reading
    it."""
    known: dict[str, list[Any]] = _remembered()
    stamps = {path: _stamp(path) for path in files}
    keys = {path: str(path.absolute()) for path in stamps}
    changed = [path for path in stamps if known.get(keys[path], [None])[:-1] != stamps[path]]
    if changed:
        bar = tqdm(desc="reading files", total=len(changed), disable=None, leave=False)
        with ThreadPoolExecutor() as pool, bar:
            for path, digest in zip(changed, pool.map(file_sha256, changed), strict=True):
                known[keys[path]] = [*stamps[path], digest]
                bar.update()
        write_text(CACHE, json.dumps(known))
    return {path: known[keys[path]][-1] for path in stamps}


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise FaderError(f"{shown(path)}: cannot be read ({error.strerror})") from None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _remembered() -> dict[str, list[Any]]:
    """What is known from before; nothing where the memory was lost or damaged."""
    try:
        return dict(json.loads(CACHE.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
