"""A small synthetic inspection data set, rendered by code, in the layouts of MVTec AD and VisA.

It lets the whole pipeline run without a download. Each category is a parametric scene: parts on a
ground plane, described by three maps (height, albedo, gloss) and photographed from above by one
shading model (Blinn-Phong, cast shadows of the heightfield, ambient occlusion, illumination
gradient, sensor noise). A defect changes the maps or the parts, never the pixels, so its light and
shadow are right and its mask is known: the pixels whose material or cast shadow changed. Defects
reach from plain to barely visible, by size and contrast at once, and normal images differ by pose,
light, focus, texture phase and batch, so that systems can be told apart.

Lengths are in half image widths: the picture spans [-1, 1]², x to the right and y down, at every
size. Scenes are rendered at twice the size and averaged. A random stream is a SHA-256 hash of the
seed and the image's identity, so an image depends on nothing but its own name: asking for more
images, or adding a category, changes no other image.
"""

import shutil
import tempfile
from pathlib import Path

from fader.data.synthetic.rendering import difficulty, render
from fader.data.synthetic.scenes import CATEGORIES
from fader.data.synthetic.writing import read_difficulties, write_mvtec, write_visa
from fader.errors import FaderError

__all__ = ["CATEGORIES", "difficulty", "generate", "read_difficulties", "render"]


def generate(
    target: Path, layout: str, *, seed: int, size: int, train: int, good: int, defective: int
) -> None:
    """Write every category of ``layout`` under ``target``, which appears only when it is complete.

    ``train`` and ``good`` count a category's normal images for training and testing, ``defective``
    the anomalous images of each defect type; pictures are RGB, ``size`` x ``size`` pixels.

    ``mvtec``: ``<category>/{train/good,test/good,test/<defect>}/NNN.png`` and
    ``<category>/ground_truth/<defect>/NNN_mask.png`` (0 or 255).
    ``visa``: ``<category>/Data/Images/{Normal,Anomaly}/NNNN.JPG``, ``Data/Masks/Anomaly/NNNN.png``
    (0, or the number of the defect type, from 1), ``<category>/image_anno.csv`` (the defect type of
    each image) and ``split_csv/1cls.csv``.
    Both: ``difficulty.csv`` (image, difficulty), of every defective image: its name relative to
    ``target``, and how hard it is to see, 0 plain … 1 barely visible (see ``difficulty``).

    Raises FaderError when ``layout`` is unknown, a number is out of range or ``target`` exists.
    """
    writers = {"mvtec": write_mvtec, "visa": write_visa}
    if layout not in writers:
        raise FaderError(f"synthetic data: unknown layout {layout!r}; choose mvtec or visa")
    least = {"size": 32, "train": 1, "good": 1, "defective": 1}
    given = {"size": size, "train": train, "good": good, "defective": defective}
    for name, value in given.items():
        if value < least[name]:
            raise FaderError(f"synthetic data: {name} is {value}; give at least {least[name]}")
    if target.exists():
        raise FaderError(f"synthetic data: {target} already exists; remove it or choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp's 0700 would hide a shared data set from everyone else
        writers[layout](partial, seed, size, train, good, defective)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
