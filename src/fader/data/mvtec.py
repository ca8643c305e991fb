"""MVTec AD and any folder in its layout.

::

    <root>/<category>/train/good/*.png
    <root>/<category>/test/{good,<defect>}/*.png
    <root>/<category>/ground_truth/<defect>/<stem>_mask.png      (or <stem>.png)

Source: P. Bergmann, M. Fauser, D. Sattlegger, C. Steger, "MVTec AD: A Comprehensive Real-World
Dataset for Unsupervised Anomaly Detection", CVPR 2019.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from fader.data.layout import (
    GOOD,
    Category,
    Counts,
    Release,
    Sample,
    category_folder,
    folders,
    images,
)
from fader.errors import FaderError

# sha256, size and counts agree in several independent public download scripts and audits. MVTec
# hands out share links and replaces them now and then: the first is the newest in use, the others
# are older. None of the links has been tried by us.
RELEASE = Release(
    title="MVTec AD",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    licence="CC BY-NC-SA 4.0: non-commercial use only, "
    "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    archive="mvtec_anomaly_detection.tar.xz",
    urls=(
        "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/"
        "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f283/"
        "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/"
        "download/420938113-1629952094/mvtec_anomaly_detection.tar.xz",
    ),
    sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
    size=5_264_982_680,
    counts={
        "bottle": Counts(209, 20, 63),
        "cable": Counts(224, 58, 92),
        "capsule": Counts(219, 23, 109),
        "carpet": Counts(280, 28, 89),
        "grid": Counts(264, 21, 57),
        "hazelnut": Counts(391, 40, 70),
        "leather": Counts(245, 32, 92),
        "metal_nut": Counts(220, 22, 93),
        "pill": Counts(267, 26, 141),
        "screw": Counts(320, 41, 119),
        "tile": Counts(230, 33, 84),
        "toothbrush": Counts(60, 12, 30),
        "transistor": Counts(213, 60, 40),
        "wood": Counts(247, 19, 60),
        "zipper": Counts(240, 32, 119),
    },
)


def index(root: Path, category: str) -> Category:
    """Index ``root/category``. ``ground_truth/good`` (empty masks in some conversions) is not read.

    Raises
    ------
    FaderError : naming the folder or file: root, category or a split is missing or empty; the test
        split lacks good or defective images (AUROC needs both); a defective image has no mask; a
        mask has no image.
    """
    folder = category_folder(root, category)
    train = tuple(Sample(path, None, GOOD) for path in images(folder / "train" / GOOD))
    test = folder / "test"
    kinds = folders(test) if test.is_dir() else []
    if not kinds:
        raise FaderError(f"{test}: no test images; expected test/good and test/<defect> folders")
    if GOOD not in kinds or kinds == [GOOD]:
        lacking = "defective" if GOOD in kinds else "good"
        raise FaderError(f"{test}: no {lacking} images, but AUROC needs both; there is {kinds}")
    good = tuple(Sample(path, None, GOOD) for path in images(test / GOOD))
    defects = [kind for kind in kinds if kind != GOOD]
    defective = tuple(sample for defect in defects for sample in _defective(folder, defect))
    _check_every_mask_used(folder / "ground_truth", defective)
    return Category(category, folder, train, good + defective)


def _defective(folder: Path, defect: str) -> Iterator[Sample]:
    masks = {path.stem: path for path in _masks(folder / "ground_truth" / defect)}
    for image in images(folder / "test" / defect):
        mask = masks.get(f"{image.stem}_mask") or masks.get(image.stem)
        if mask is None:
            raise FaderError(
                f"{image}: no mask; expected {image.stem}_mask.png or {image.stem}.png in "
                f"{folder / 'ground_truth' / defect}"
            )
        yield Sample(image, mask, defect)


def _check_every_mask_used(ground_truth: Path, defective: Iterable[Sample]) -> None:
    used = {sample.mask for sample in defective}
    for defect in folders(ground_truth):
        unused = [p for p in _masks(ground_truth / defect) if p not in used and defect != GOOD]
        if unused:
            raise FaderError(f"{unused[0]}: mask without an image in test/{defect}")


def _masks(folder: Path) -> list[Path]:
    """PNG only: lossy masks have no exact zeros, and every non-zero pixel is a defect."""
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith(".")
    )
