"""Folders of textures: the user's own, or the Describable Textures Dataset, made where it is asked
for.

Source: M. Cimpoi, S. Maji, I. Kokkinos, S. Mohamed, A. Vedaldi, "Describing Textures in the Wild",
CVPR 2014; www.robots.ox.ac.uk/~vgg/data/dtd.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fader.config import Dtd
from fader.data import download, made
from fader.data.layout import sort_out
from fader.errors import FaderError
from fader.files import shown

URL = "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz"
# As public download scripts have it; the authors publish none.
SHA256 = "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205"
ARCHIVE = Path("data/archives/dtd-r1.0.1.tar.gz")
EXTRACTED = Path("data/made/textures/dtd")


def images(root: Path) -> list[Path]:
    """Images of a folder of textures, at any depth, sorted.

    Raises
    ------
    FaderError : there is no such folder, or no image in it; as ``layout.sort_out``.
    """
    remedy = "put images of textures there, such as DTD's, or set textures.source to dtd"
    if not root.is_dir():
        raise FaderError(f"{shown(root)}: no such folder (textures.root); {remedy}")
    found, _ = sort_out(root)
    if not found:
        raise FaderError(f"{shown(root)}: no image in it (textures.root); {remedy}")
    return found


def extracted(settings: Dtd) -> Path:
    """The folder of DTD, downloaded and extracted where it is not there as it was made.

    Raises
    ------
    FaderError : as ``download.fetch``; or the folder holds what the project did not make.
    """
    of = {"sha256": SHA256}
    with _alone(ARCHIVE.with_name(f"{ARCHIVE.name}.lock")):
        if not made.is_made(EXTRACTED, of):
            made.check_ours(EXTRACTED)
            download.fetch([*settings.mirrors, URL], SHA256, ARCHIVE)
            made.replace(EXTRACTED, lambda folder: download.extract(ARCHIVE, folder), of)
    return EXTRACTED


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for other jobs that are at it: several may start at once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
