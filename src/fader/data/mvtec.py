"""MVTec AD and any folder in its layout.

::

    <root>/<category>/train/good/**/*.png
    <root>/<category>/test/{good,<defect>}/**/*.png
    <root>/<category>/ground_truth/<defect>/**/<stem>_mask.png

Images may lie in folders of any depth. A mask lies at its image's place below
``ground_truth/<defect>``, or directly in there where that leaves no doubt; it is called as its
image (``<stem>``), or ``<stem>_mask``, ``_gt``, ``_seg`` or ``_label``, in any image format.
``ground_truth/good`` (empty masks in some conversions) is ignored and counted. Images anywhere else
are refused, because nobody can tell what they are meant to be.

Source: P. Bergmann, M. Fauser, D. Sattlegger, C. Steger, "MVTec AD: A Comprehensive Real-World
Dataset for Unsupervised Anomaly Detection", CVPR 2019.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePath

from fader.config.data import MaskUse
from fader.data.layout import (
    GOOD,
    Category,
    Counts,
    Release,
    Sample,
    category_folder,
    files,
    folders,
    ignored,
    nfc,
    sort_out,
)
from fader.data.pairs import Named, beside, pairs
from fader.errors import FaderError
from fader.files import shown

TRAIN, TEST, MASKS = "train", "test", "ground_truth"
# Folders of test images that say "no defect" but are not called so here, lower case.
MEANT_AS_GOOD = frozenset(
    ("good", "ok", "okay", "normal", "nominal", "pass", "no_defect", "defect_free", "non_defective")
)

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


def index(root: Path, category: str, masks: MaskUse = "present") -> Category:
    """Index ``root/category`` by names alone. Masks that are absent are not looked for.

    Raises
    ------
    FaderError : naming the folder or file: root or category is missing; there are no training or no
        test images; an image lies where the layout has none, or beside an image as its mask; a
        defective image has no mask or two; a mask has no image or two.
    """
    folder = category_folder(root, category)
    without = MASKS if masks == "absent" else f"{MASKS}/{GOOD}"
    images, reasons = sort_out(folder, (without,))
    placed = _placed(folder, images)
    warnings = _without_images(folder, placed[TEST])
    if not placed[TRAIN][GOOD]:
        raise FaderError(
            f"{shown(folder / TRAIN / GOOD)}: no training images; the data set is incomplete or in"
            " another layout"
        )
    if not any(placed[TEST].values()):
        raise FaderError(
            f"{shown(folder / TEST)}: no test images; expected {TEST}/{GOOD} and {TEST}/<defect>"
            " folders"
        )
    test = [Sample(path, None, GOOD) for path in placed[TEST].pop(GOOD, [])]
    for defect, defective in sorted(placed[TEST].items()):
        if masks == "absent":
            test += [Sample(path, None, shown(defect)) for path in defective]
        else:
            test += _masked(folder, defect, defective, placed[MASKS].pop(defect, []))
    for defect, unused in sorted(placed[MASKS].items()):
        raise FaderError(
            f"{shown(unused[0])}: mask without an image in {TEST}/{shown(defect)}, which has none"
        )
    train = tuple(Sample(path, None, GOOD) for path in placed[TRAIN][GOOD])
    return Category(category, folder, train, tuple(test), masks, reasons, warnings)


Placed = dict[str, dict[str, list[Path]]]


def _placed(folder: Path, images: Sequence[Path]) -> Placed:
    """Images by the two folders that they lie in: ``{"test": {"scratch": […]}}``.

    Raises
    ------
    FaderError : an image lies elsewhere; or two folders have one name, or a name that says good.
    """
    placed: Placed = {TRAIN: defaultdict(list), TEST: defaultdict(list), MASKS: defaultdict(list)}
    called: dict[tuple[str, str], str] = {}
    layout = f"{TRAIN}/{GOOD}, {TEST}/{GOOD}, {TEST}/<defect> and {MASKS}/<defect>"
    for path in images:
        top, *inner = path.relative_to(folder).parts
        if len(inner) < 2:
            raise FaderError(
                f"{shown(path)}: an image directly in {shown(path.parent.name)}; they lie in"
                f" {layout}: move it there or away"
            )
        if top not in placed or (top == TRAIN and inner[0] != GOOD):
            where = folder / top / inner[0] if top == TRAIN else folder / top
            raise FaderError(
                f"{shown(where)}: images in a folder that the layout does not have; they lie in"
                f" {layout}: rename it or move it away"
            )
        name = nfc(inner[0])
        if called.setdefault((top, name), inner[0]) != inner[0]:
            raise FaderError(
                f"{shown(folder / top / inner[0])}: two folders of that name, with composed and"
                " with decomposed letters; make them one"
            )
        if top == TEST and name != GOOD and _plain(name) in MEANT_AS_GOOD:
            raise FaderError(
                f"{shown(folder / top / inner[0])}: normal images or a defect? call the folder of"
                f" normal images {GOOD!r}, or the defect by another name"
            )
        placed[top][name].append(path)
    _check_beside(placed[TRAIN][GOOD], lone=False)
    for name, tested in placed[TEST].items():
        _check_beside(tested, lone=name != GOOD)
    return placed


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _without_images(folder: Path, tested: Collection[str]) -> tuple[str, ...]:
    """A line about each empty folder in ``test``; FaderError where one has files but no image."""
    lines = []
    for name in folders(folder / TEST) if (folder / TEST).is_dir() else ():
        if nfc(name) in tested or ignored(PurePath(name, "any.png")):
            continue
        there = [path for path in files(folder / TEST / name) if not path.name.startswith(".")]
        if there:
            raise FaderError(
                f"{shown(there[0])}: no image by its suffix, and {TEST}/{shown(name)} has none;"
                " save its images as PNG, or move the folder away"
            )
        lines.append(f"{TEST}/{shown(name)} is empty")
    return tuple(lines)


def _check_beside(images: Sequence[Path], *, lone: bool) -> None:
    """FaderError where an image of a folder is called as the mask of another one beside it; or, of
    defects (``lone``), where two are called the same but for their suffix."""
    there: dict[tuple[Path, str], Path] = {}
    for path in images if lone else ():
        other = there.setdefault((path.parent, nfc(path.stem)), path)
        if other is not path:
            raise FaderError(
                f"{shown(other)} and {shown(path.name)}: two images, or one and its mask? rename"
                f" one, or move the mask to {MASKS}/<defect>"
            )
    for path, image in beside(images):
        raise FaderError(
            f"{shown(path)}: called as a mask of {shown(image.name)} beside it; masks lie in"
            f" {MASKS}/<defect>: move it there, or rename it if it is an image"
        )


def _masked(
    folder: Path, defect: str, images: Sequence[Path], masks: Sequence[Path]
) -> Iterator[Sample]:
    """Images of a defect, each with its mask.

    Raises
    ------
    FaderError : an image has no mask or two; a mask has no image or two.
    """
    mask_of = pairs([_named(folder, image) for image in images], [_named(folder, m) for m in masks])
    for row, image in enumerate(images):
        if row not in mask_of:
            stem, place = shown(image.stem), shown(folder / MASKS / defect)
            raise FaderError(
                f"{shown(image)}: no mask; expected {stem}_mask.png or {stem}.png (or _gt, _seg,"
                f" _label) in {place}; where there are no masks, say so: datasets.<name>.masks:"
                " absent"
            )
        yield Sample(image, masks[mask_of[row]], shown(defect))
    unused = sorted(set(range(len(masks))) - set(mask_of.values()))
    if unused:
        raise FaderError(
            f"{shown(masks[unused[0]])}: mask without an image in {TEST}/{shown(defect)}; correct"
            " its name or remove it"
        )


def _named(folder: Path, path: Path) -> Named:
    """An image or mask, placed below ``<split>/<defect>``."""
    inner = path.relative_to(folder)
    return Named(PurePath(*inner.parts[2:]), shown(path), shown(inner))
