"""The layouts of the paper's tables and of the controls beside them, a function each, and
``LAYOUTS``, which has those of the supplement too.

To add a table, write a function of the records here or in ``report.supplement``, put it in
``LAYOUTS``, and name it in ``Config.tables``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from fader.config import Config
from fader.pipeline.methods import Method, Stage, of_variant
from fader.report import data, labels, supplement
from fader.report.layout import Column, Group, Layout
from fader.report.records import Records

_ABLATIONS = {
    "vit": "FADeR: ViT, soft, nearest",
    "hard": "FADeR: MLP, hard, nearest",
    "bilinear": "FADeR: MLP, soft, bilinear",
}
_PAPER_ABLATIONS = {"vit": "fader-vitpredictor", "hard": "fader-hard", "bilinear": "fader-bilinear"}
_CONTROLS = {
    "nomask": "no mask",
    "shuffled": "M_S shuffled",
    "constant": "M_S constant",
    "sigmoid": "M_S by sigmoid",
    "quantile": "M_S by quantiles",
    "twopass": "Φ reads Î",
}
_NOTES = {  # by kind of masker
    "aminet": "AMI-Net's saliency, its own anomaly map, masks the image for EAR's U-Net, as for the"
    " other maskers. The paper's column, FADeR_AMI-Net, may instead attach FADeR to AMI-Net's own"
    " inpainting network.",
    "msflow": "MSFlow's map is taken relative to the fitted normals, not scaled by each image's own"
    " maximum, so that maps of different images can be compared.",
}
_NATIVE = {  # by kind of masker
    "dsr": "DSR's, where an anomaly is likelier than not",
    "msflow": "MSFlow's, above 99 % of the fitted normals' positions (our choice: it gives none)",
    "aminet": "AMI-Net's, the patches that it hides from its own network",
}
_CONTROL = "Control: EAR's decoder fine-tuned as FADeR's is, without any mask."
_ORACLE = (
    "Oracle − label-free is a diagnostic: how much higher the image AUROC would be if test labels"
    " had chosen m* (EAR), or learning rate, schedule and epoch (FADeR), among the same trainings."
)


def table1(records: Records) -> Layout:
    """Image AUROC of the baselines, EAR, FADeR and the control, per category and on average."""
    config = records.config
    names, base = labels.detectors(config), config.masks.base
    of_paper = [name for name, each in config.detectors.items() if each.paper]
    others = [name for name in config.detectors if name not in of_paper]
    columns = [_detector(config, name) for name in of_paper]
    groups = [Group(names[name], (name,)) for name in of_paper]
    stage: Stage
    for stage in ("ear", "fader"):
        columns.append(Column(stage, Method(stage, base), "image_auroc", stage))
        groups.append(Group(labels.STAGES[stage], (stage,)))
    if "nomask" in config.variants:
        columns.append(Column("control", of_variant(config, "nomask"), "image_auroc"))
        groups.append(Group("Control", ("control",)))
    columns += [_detector(config, name) for name in others]
    groups += [Group(names[name], (name,)) for name in others]
    for stage in ("ear", "fader"):
        columns.append(Column(f"{stage}_oracle", Method(stage, base), "oracle_gain"))
        groups.append(Group(f"{labels.STAGES[stage]}, oracle − label-free", (f"{stage}_oracle",)))
    return Layout(
        name="table1",
        title="Image AUROC per category, in the form of the paper's Table 1",
        number=1,
        blocks={"": tuple(columns)},
        groups=tuple(groups),
        notes=(
            *labels.stand_in_notes(config, [base]),
            *_baseline_notes(config, names, of_paper, others),
            *_inconsistencies(records, names),
            *([_CONTROL] if "nomask" in config.variants else []),
            _ORACLE,
            *data.warnings(records),
        ),
    )


def _detector(config: Config, name: str) -> Column:
    paper = config.detectors[name].paper
    return Column(name, Method("detector", name), "image_auroc", paper)


def _baseline_notes(
    config: Config, names: Mapping[str, str], of_paper: Sequence[str], others: Sequence[str]
) -> Iterator[str]:
    if others:
        listed = ", ".join(names[name] for name in others)
        yield f"Supplement, not in the paper's Table 1: {listed}."
    shown = {name: names[name] for name in [*of_paper, *others]}
    yield from _alike(shown)
    yield from _rederived(config, shown)


def _alike(names: Mapping[str, str]) -> Iterator[str]:
    """How baselines are trained: all in one way."""
    if names:
        yield (
            f"Trained with the configuration's settings, on the same fitted normals as EAR, to the"
            f" last epoch; nothing is chosen on test images: {', '.join(names.values())}."
        )


def _rederived(config: Config, names: Mapping[str, str]) -> Iterator[str]:
    """What of baselines no source gives."""
    for name, label in names.items():
        if why := config.detectors[name].rederived:
            yield f"{label} is re-derived where no source says: {why}."


def _inconsistencies(records: Records, names: Mapping[str, str]) -> Iterator[str]:
    """How far chance moves the scores of baselines that draw at test."""
    for name in names:
        shares = {
            records.title(place): fmean(values.values())
            for place in records.places
            if (values := records.values(place, Method("detector", name), "inconsistency"))
        }
        if shares:
            listed = ", ".join(f"{title} {100 * share:.0f} %" for title, share in shares.items())
            yield (
                f"{names[name]} draws its masks at test. Over five draws an image's score has a"
                f" standard deviation of this share of that between images: {listed}."
            )


def table2(records: Records) -> Layout:
    """Image and pixel AUROC before (EAR) and after FADeR, per zero-shot masker and category."""
    config = records.config
    return _before_after(
        config, 2, [m for m in config.masks.maskers if not config.masks.trained(m)]
    )


def table3(records: Records) -> Layout:
    """Image AUROC of EAR, of FADeR's ablations and of FADeR as proposed."""
    config, base = records.config, records.config.masks.base
    variants = _variants(config, "ablation")
    columns = [
        Column("ear", Method("ear", base), "image_auroc", "ear"),
        *(
            Column(name, of_variant(config, name), "image_auroc", _PAPER_ABLATIONS.get(name))
            for name in variants
        ),
        Column("fader", Method("fader", base), "image_auroc", "fader"),
    ]
    headers = {"ear": "EAR", "fader": "FADeR: MLP, soft, nearest"} | _ABLATIONS
    return Layout(
        name="table3",
        title="Image AUROC of FADeR's ablations, in the form of the paper's Table 3",
        number=3,
        blocks={"": tuple(columns)},
        groups=tuple(Group(headers.get(c.key, c.key), (c.key,)) for c in columns),
        notes=(*labels.stand_in_notes(config, [base]), *_trained_alike(_ABLATIONS, variants)),
    )


def table4(records: Records) -> Layout:
    """As ``table2``, for the maskers that learn."""
    return _before_after(records.config, 4, records.config.trained_maskers())


def _before_after(config: Config, number: int, maskers: Sequence[str]) -> Layout:
    base, kinds = config.masks.base, [config.masks.settings(name).kind for name in maskers]
    compared = [name for name in maskers if config.masks.settings(name).paper]
    notes = [*labels.stand_in_notes(config, compared)]
    notes += [_NOTES[kind] for kind in dict.fromkeys(kinds) if kind in _NOTES]
    notes += _rules(config, maskers)
    if set(maskers) - {base}:
        tuned = {
            "each": "FADeR's learning rate and schedule are picked for each masker.",
            "base": f"FADeR's learning rate and schedule, picked under {base}, serve all maskers.",
        }
        shared = f"EAR is trained, and m* chosen, under the masks of {base}, once for all maskers."
        notes.append(f"{shared} {tuned[config.fader.tuning]}")
    return Layout(
        name=f"table{number}",
        title="Image and pixel AUROC, EAR → FADeR, per masker, in the form of the paper's Table"
        f" {number}",
        number=number,
        blocks={masker: _before_and_after(config, masker) for masker in maskers},
        block_name="masker",
        block_labels=labels.maskers(config),
        groups=(
            Group("Image AUROC", ("ear_image", "fader_image")),
            Group("Pixel AUROC", ("ear_pixel", "fader_pixel")),
        ),
        notes=tuple(notes),
    )


def _rules(config: Config, maskers: Sequence[str]) -> Iterator[str]:
    """What native masks are, where some are."""
    masks = config.masks
    kinds = [masks.settings(m).kind for m in maskers if masks.threshold(m)[0] == "native"]
    known = [_NATIVE[kind] for kind in dict.fromkeys(kinds) if kind in _NATIVE]
    if kinds:
        listed = f" {'; '.join(known)}." if known else ""
        yield f"Native: the binary masks that the method makes itself.{listed}"


def _before_and_after(config: Config, masker: str) -> tuple[Column, ...]:
    other = labels.paper_masker(config.masks.settings(masker))
    stages: tuple[Stage, ...] = ("ear", "fader")
    return tuple(
        Column(
            f"{stage}_{level}",
            Method(stage, masker),
            f"{level}_auroc",
            other and str(Method(stage, other)),
        )
        for level in ("image", "pixel")
        for stage in stages
    )


def table5(records: Records) -> Layout:
    """Image AUROC on VisA, and on sets in its layout: the paper's baselines, FADeR, and EAR, which
    the paper leaves out."""
    config, base = records.config, records.config.masks.base
    names = {
        name: label
        for name, label in labels.detectors(config).items()
        if config.detectors[name].visa
    }
    columns = [
        *(
            Column(name, Method("detector", name), "image_auroc", config.detectors[name].visa)
            for name in names
        ),
        Column("fader", Method("fader", base), "image_auroc", "fader"),
        Column("ear", Method("ear", base), "image_auroc"),
    ]
    headers = names | {"fader": "FADeR_EAR", "ear": "EAR"}
    return Layout(
        name="table5",
        title="Image AUROC on VisA and sets in its layout, in the form of the paper's Table 5",
        number=5,
        blocks={"": tuple(columns)},
        groups=tuple(Group(headers[column.key], (column.key,)) for column in columns),
        places=tuple(config.like_visa()),
        notes=(
            *labels.stand_in_notes(config, [base]),
            *_alike(names),
            *_rederived(config, names),
            "The paper's Table 5 has no column of EAR.",
        ),
    )


def controls(records: Records) -> Layout:
    """Image and pixel AUROC of EAR, FADeR and its controls: what is due to the mask. The paper has
    none."""
    config, base = records.config, records.config.masks.base
    variants = _variants(config, "control")
    methods = {"EAR": Method("ear", base), "FADeR": Method("fader", base)}
    methods |= {_CONTROLS.get(name, name): of_variant(config, name) for name in variants}
    return Layout(
        name="controls",
        title="EAR, FADeR and its controls, a supplement to Table 3",
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


def _variants(config: Config, role: str) -> dict[str, str]:
    """Variants of a role → their grid."""
    return {name: v.grid for name, v in config.variants.items() if v.role == role}


def _trained_alike(names: Mapping[str, str], variants: Mapping[str, str]) -> tuple[str, ...]:
    """What variants share with FADeR, and which of them share its point of the grid too."""
    named: dict[str, list[str]] = {grid: [] for grid in ("inherit", "own")}
    for name, grid in variants.items():
        named[grid].append(names.get(name, name))
    texts = {
        "inherit": "at the learning rate and schedule that FADeR picked",
        "own": "with a label-free pick of learning rate and schedule of their own",
    }
    return tuple(
        f"Trained for FADeR's epochs, on the same images in the same order, {texts[grid]}:"
        f" {'; '.join(members)}."
        for grid, members in named.items()
        if members
    )


LAYOUTS: dict[str, Callable[[Records], Layout]] = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "masks": supplement.masks,
    "controls": controls,
    "validation": supplement.validation,
    "metrics": supplement.metrics,
}
