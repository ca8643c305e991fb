"""The layouts of the paper's tables and of those beside them.

Each function declares one table for the maskers and variants of a run; ``report.table.build`` fills
it. Methods are named as in the metrics records: ``ear-<masker>``, ``fader-<masker>``,
``mask-<masker>``, and ``fader-<masker>-<variant>`` or ``control-<masker>-<variant>``.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import pandas as pd

from fader.report.table import MASKER_LABEL, Column, Group, Layout, Pair, Record

STAND_IN = {"dinov2": "dino"}  # masker → the masker of the paper that it is compared with
_ABLATIONS = {
    "vit": "FADeR: ViT, soft, nearest",
    "hard": "FADeR: MLP, hard, nearest",
    "bilinear": "FADeR: MLP, soft, bilinear",
}
_CONTROLS = {
    "nomask": "no mask",
    "shuffled": "M_S shuffled",
    "constant": "M_S constant",
    "sigmoid": "M_S by sigmoid",
    "quantile": "M_S by quantiles",
    "twopass": "Φ reads Î",
}
_NOTES = {
    "aminet": "AMI-Net's saliency, its own anomaly map, masks the image for EAR's U-Net, as for the"
    " other maskers. The paper's column, FADeR_AMI-Net, may instead attach FADeR to AMI-Net's own"
    " inpainting network.",
    "msflow": "MSFlow's map is taken relative to the fitted normals, not scaled by each image's own"
    " maximum, so that maps of different images can be compared.",
}
_ORACLE = (
    "Oracle − label-free is a diagnostic: how much higher the image AUROC would be if test labels"
    " had chosen m* (EAR), or learning rate, schedule and epoch (FADeR), among the same trainings."
)


def table1(masker: str, control: str | None = None) -> Layout:
    """Image AUROC of EAR, FADeR and the control, per category and on average.

    control : method of the control arm (the decoder fine-tuned without the mask), e.g.
    ``control-dinov2-nomask``, or None.
    """
    columns = [
        Column("ear", f"ear-{masker}", "image_auroc", "ear"),
        Column("fader", f"fader-{masker}", "image_auroc", "fader"),
    ]
    groups = [Group("EAR", ("ear",)), Group("FADeR", ("fader",))]
    if control is not None:
        columns.append(Column("control", control, "image_auroc"))
        groups.append(Group("Control (decoder fine-tuned, no mask)", ("control",)))
    for stage, name in (("ear", "EAR"), ("fader", "FADeR")):
        columns.append(Column(f"{stage}_oracle", f"{stage}-{masker}", "oracle_gain"))
        groups.append(Group(f"{name}, oracle − label-free", (f"{stage}_oracle",)))
    return Layout(
        name="table1",
        title="Image AUROC per category, in the form of the paper's Table 1",
        number=1,
        blocks={"": tuple(columns)},
        groups=tuple(groups),
        notes=(*_other_attention(masker), _ORACLE),
    )


def table2(maskers: Sequence[str], base: str, tuning: str) -> Layout:
    """Image and pixel AUROC before (EAR) and after FADeR, per zero-shot masker and category.

    maskers : the blocks, in order; the paper has dino, vit and winclip, and ``STAND_IN`` says what
    others are compared with. base : the masker under which EAR is trained and m* chosen. tuning :
    FADeR's grid is searched for ``each`` masker, or under the ``base`` alone.
    """
    return _before_after(2, maskers, base, tuning)


def table3(masker: str, variants: Mapping[str, str]) -> Layout:
    """Image AUROC of EAR, of FADeR's ablations and of FADeR as proposed.

    variants : ablations of the run, in order → their grid, ``own`` or ``inherit``; the paper has
    ``vit``, ``hard`` and ``bilinear``.
    """
    paper = {"vit": "fader-vitpredictor", "hard": "fader-hard", "bilinear": "fader-bilinear"}
    columns = [
        Column("ear", f"ear-{masker}", "image_auroc", "ear"),
        *(
            Column(name, f"fader-{masker}-{name}", "image_auroc", paper.get(name))
            for name in variants
        ),
        Column("fader", f"fader-{masker}", "image_auroc", "fader"),
    ]
    headers = {"ear": "EAR", "fader": "FADeR: MLP, soft, nearest"} | _ABLATIONS
    return Layout(
        name="table3",
        title="Image AUROC of FADeR's ablations, in the form of the paper's Table 3",
        number=3,
        blocks={"": tuple(columns)},
        groups=tuple(Group(headers.get(c.key, c.key), (c.key,)) for c in columns),
        notes=(*_other_attention(masker), *_trained_alike(headers, variants)),
    )


def table4(maskers: Sequence[str], base: str, tuning: str) -> Layout:
    """As ``table2``, for the maskers that learn: the paper has dsr, msflow and aminet."""
    return _before_after(4, maskers, base, tuning)


def _before_after(number: int, maskers: Sequence[str], base: str, tuning: str) -> Layout:
    notes = [note for masker in maskers if masker in STAND_IN for note in _other_attention(masker)]
    notes += [_NOTES[masker] for masker in maskers if masker in _NOTES]
    if set(maskers) - {base}:
        tuned = {
            "each": "FADeR's learning rate and schedule are picked for each masker.",
            "base": f"FADeR's learning rate and schedule, picked under {base}, serve all maskers.",
        }
        shared = f"EAR is trained, and m* chosen, under the masks of {base}, once for all maskers."
        notes.append(f"{shared} {tuned[tuning]}")
    return Layout(
        name=f"table{number}",
        title="Image and pixel AUROC, EAR → FADeR, per masker, in the form of the paper's Table"
        f" {number}",
        number=number,
        blocks={masker: _before_and_after(masker) for masker in maskers},
        block_name="masker",
        groups=(
            Group("Image AUROC", ("ear_image", "fader_image")),
            Group("Pixel AUROC", ("ear_pixel", "fader_pixel")),
        ),
        notes=tuple(notes),
    )


def _before_and_after(masker: str) -> tuple[Column, ...]:
    other = STAND_IN.get(masker, masker)
    return tuple(
        Column(f"{stage}_{level}", f"{stage}-{masker}", f"{level}_auroc", f"{stage}-{other}")
        for level in ("image", "pixel")
        for stage in ("ear", "fader")
    )


def _other_attention(masker: str) -> tuple[str, ...]:
    """What to know where the paper's numbers stand beside another backbone than its own."""
    if masker == "dino":
        return ()
    return (
        f"The masks of {masker} come from {MASKER_LABEL.get(masker, masker)}; the paper's come from"
        " DINO-ViT (read here as ViT-S/8).",
    )


def masks(maskers: Sequence[str]) -> Layout:
    """What each masker's masks cover: the incomplete mask in numbers. The paper prints nothing of
    the kind."""
    columns = {
        "area": "mask_area",
        "recall": "mask_recall",
        "complete": "mask_complete",
        "saliency": "pixel_auroc",
    }
    return Layout(
        name="masks",
        title="What the binary masks of each masker cover",
        number=None,
        blocks={
            masker: tuple(Column(key, f"mask-{masker}", metric) for key, metric in columns.items())
            for masker in maskers
        },
        block_name="masker",
        groups=(
            Group("Masked area", ("area",)),
            Group("Defective pixels masked (recall)", ("recall",)),
            Group("Defects masked to the last pixel", ("complete",)),
            Group("Pixel AUROC of the saliency", ("saliency",)),
        ),
        notes=(
            "Masked area: share of all pixels of the test images. Recall: share of the defective"
            " pixels. To the last pixel: share of the defective images.",
        ),
    )


def controls(masker: str, variants: Mapping[str, str]) -> Layout:
    """Image and pixel AUROC of EAR, FADeR and its controls: what is due to the mask.

    The paper has none. variants : controls of the run, in order → their grid, ``own`` or
    ``inherit``.
    """
    methods = {"EAR": f"ear-{masker}", "FADeR": f"fader-{masker}"}
    methods |= {_CONTROLS.get(name, name): f"control-{masker}-{name}" for name in variants}
    return Layout(
        name="controls",
        title="EAR, FADeR and its controls, a supplement to Table 3",
        number=None,
        blocks={
            label: (
                Column("image", method, "image_auroc"),
                Column("pixel", method, "pixel_auroc"),
            )
            for label, method in methods.items()
        },
        block_name="system",
        groups=(Group("Image AUROC", ("image",)), Group("Pixel AUROC", ("pixel",))),
        notes=_trained_alike(_CONTROLS, variants),
    )


def _trained_alike(labels: Mapping[str, str], variants: Mapping[str, str]) -> tuple[str, ...]:
    """What variants share with FADeR, and which of them share its point of the grid too."""
    named = {grid: [] for grid in ("inherit", "own")}
    for name, grid in variants.items():
        named[grid].append(labels.get(name, name))
    texts = {
        "inherit": "at the learning rate and schedule that FADeR picked",
        "own": "with a label-free pick of learning rate and schedule of their own",
    }
    return tuple(
        f"Trained for FADeR's epochs, on the same images in the same order, {texts[grid]}:"
        f" {'; '.join(found)}."
        for grid, found in named.items()
        if found
    )


def validation(
    masker: str, records: Sequence[Record], categories: Sequence[Pair], level: float
) -> Layout:
    """Does the label-free criterion know? Validation AUROC beside test AUROC, EAR and FADeR.

    records : of the run, for the rank correlation and the warnings. level : validation AUROC (mean
    of image and pixel) under which a category gets a warning.
    """
    names = {"ear": "EAR", "fader": "FADeR"}
    cells = [(stage, kind) for stage in names for kind in ("image", "pixel")]
    columns = [
        Column(f"{stage}_{of}_{kind}", f"{stage}-{masker}", metric)
        for stage, kind in cells
        for of, metric in (
            ("validation", f"validation_{kind}_auroc"),
            ("test", f"{kind}_auroc"),
        )
    ]
    groups = [
        Group(f"{names[stage]}, {kind}", (f"{stage}_validation_{kind}", f"{stage}_test_{kind}"))
        for stage, kind in cells
    ]
    return Layout(
        name="validation",
        title="AUROC on the validation split (held-out normals against synthetic defects on them) →"
        " on the test images",
        number=None,
        blocks={"": tuple(columns)},
        groups=tuple(groups),
        notes=(*_correlation(records), *warnings(records, categories, masker, level)),
    )


def _correlation(records: Sequence[Record]) -> list[str]:
    """Spearman's rank correlation of validation and test AUROC over categories and methods."""
    notes = []
    for level in ("image", "pixel"):
        known = f"validation_{level}_auroc"
        cells: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
        for record in records:
            if record["status"] == "ok" and known in record["metrics"]:
                key = (record["dataset"], record["category"], record["method"])
                found = (record["metrics"][known], record["metrics"][f"{level}_auroc"])
                cells.setdefault(key, []).append(found)
        means = pd.DataFrame(
            [tuple(fmean(of) for of in zip(*pairs, strict=True)) for pairs in cells.values()],
            columns=["validation", "test"],
        )
        if len(means) > 2:
            rho = means["validation"].rank().corr(means["test"].rank())
            notes.append(
                f"Rank correlation (Spearman) of validation and test {level} AUROC over the"
                f" {len(means)} cells (category and method) of the run: {rho:.2f}."
            )
    return notes


def warnings(
    records: Iterable[Record], categories: Sequence[Pair], masker: str, level: float
) -> list[str]:
    """A sentence for every category where FADeR's validation AUROC, the mean of image and pixel
    over seeds, is under ``level``."""
    found: dict[Pair, list[float]] = {}
    for record in records:
        if record["method"] == f"fader-{masker}" and record["status"] == "ok":
            measured = record["metrics"]
            values = [measured[f"validation_{of}_auroc"] for of in ("image", "pixel")]
            found.setdefault((record["dataset"], record["category"]), []).append(fmean(values))
    return [
        f"Warning: {'/'.join(pair)}: the validation AUROC is {fmean(found[pair]):.3f}, under"
        f" {level:g}: reconstruction by inpainting may not work on these images; do not rely on the"
        " model before it has been tried on real defects."
        for pair in categories
        if pair in found and fmean(found[pair]) < level
    ]
