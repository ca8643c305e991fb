"""The layouts of tables that the paper has nothing of the kind of: what masks cover, whether
validation knows, and the metrics beside AUROC."""

from collections.abc import Iterable
from statistics import fmean

import pandas as pd

from fader.config import Config
from fader.pipeline.methods import Method
from fader.report import labels
from fader.report.layout import Column, Group, Layout
from fader.report.records import Records
from fader.report.warn import levels, sentences

POOR = 0.7  # a test AUROC that one should have been warned of

_METRICS = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    "image_f1max": "Image F1-max",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "pixel_f1max": "Pixel F1-max",
    "aupro": "AUPRO",
    "aupimo": "AUPIMO",
}


def masks(records: Records) -> Layout:
    """What each masker's masks cover: the incomplete mask in numbers."""
    columns = {
        "area": "mask_area",
        "recall": "mask_recall",
        "complete": "mask_complete",
        "saliency": "pixel_auroc",
    }
    names = labels.maskers(records.config)
    loaded = {
        masker: dict.fromkeys(
            record.weights
            for record in records
            if record.method == Method("mask", masker) and record.weights
        )
        for masker in names
    }
    return Layout(
        name="masks",
        title="What the binary masks of each masker cover",
        blocks={
            masker: tuple(
                Column(key, Method("mask", masker), metric) for key, metric in columns.items()
            )
            for masker in names
        },
        block_name="masker",
        block_labels=names,
        groups=(
            Group("Masked area", ("area",)),
            Group("Recall of defects", ("recall",)),
            Group("Wholly masked", ("complete",)),
            Group("Saliency's pixel AUROC", ("saliency",)),
        ),
        notes=(
            "Masked area: share of all pixels of the test images. Recall: share of the defective"
            " pixels. Wholly masked: to the last defective pixel, share of the defective images.",
            *(f"Loaded for {m}: {'; '.join(each)}." for m, each in loaded.items() if each),
        ),
    )


def validation(records: Records) -> Layout:
    """Does the label-free criterion know? Validation AUROC beside test AUROC, of EAR, FADeR and
    every baseline."""
    config, base = records.config, records.config.masks.base
    systems = [Method("ear", base), Method("fader", base)]
    systems += [Method("detector", name) for name in config.detectors]
    return Layout(
        name="validation",
        title="AUROC on held-out normals against synthetic defects on them, on which nothing was"
        " chosen → on the test images",
        blocks={
            str(system): tuple(
                Column(f"{of}_{level}", system, metric)
                for level in ("image", "pixel")
                for of, metric in (
                    ("validation", f"validation_{level}_auroc"),
                    ("test", f"{level}_auroc"),
                )
            )
            for system in systems
        },
        block_name="system",
        block_labels={str(system): labels.method(config, system) for system in systems},
        groups=(
            Group("Image AUROC", ("validation_image", "test_image")),
            Group("Pixel AUROC", ("validation_pixel", "test_pixel")),
        ),
        notes=(
            *_judged_elsewhere(config),
            *_correlation(records),
            *_calibration(records),
            *_warnings(records),
        ),
    )


def _judged_elsewhere(config: Config) -> Iterable[str]:
    """Baselines that train on kinds of synthetic defect, and the kinds that they are judged on."""
    names = labels.detectors(config)
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, detector in config.detectors.items():
        if set(detector.trained_on) & set(config.validation.kinds):
            alike.setdefault(detector.trained_on, []).append(names[name])
    for kinds, listed in alike.items():
        others = [kind for kind in dict.fromkeys(config.validation.kinds) if kind not in kinds]
        yield (
            f"Trained on synthetic defects of the kind {', '.join(kinds)} themselves, so judged on"
            f" {', '.join(others)} alone: {', '.join(listed)}."
        )


def _warnings(records: Records) -> list[str]:
    """Where FADeR's validation AUROC, the mean over seeds of what ``report.warn_by`` says, is
    low."""
    config, method = records.config, Method("fader", records.config.masks.base)
    values = {}
    for place, category in config.categories.items():
        known = [
            records.values(place, method, f"validation_{level}_auroc").values()
            for level in levels(config)
        ]
        if all(known):
            values[f"{category.dataset}/{category.category}"] = fmean(map(fmean, known))
    return sentences(values, config)


def _cells(records: Records, level: str) -> pd.DataFrame:
    """``validation`` and ``test`` AUROC of every category and method, means over seeds."""
    cells = []
    for place in records.places:
        for method in records.methods:
            known = records.values(place, method, f"validation_{level}_auroc")
            test = records.values(place, method, f"{level}_auroc")
            if known and test:
                cells.append((fmean(known.values()), fmean(test.values())))
    return pd.DataFrame(cells, columns=["validation", "test"])


def _calibration(records: Records) -> Iterable[str]:
    """How often a warning would be right, over all cells: whether to rely on its level."""
    bound = records.config.report.warn_below
    for level in ("image", "pixel"):
        cells = _cells(records, level)
        if len(cells):
            poor, warned = cells["test"] < POOR, cells["validation"] < bound
            yield (
                f"A validation {level} AUROC under {bound:g} warns of {(poor & warned).sum()} of"
                f" the {poor.sum()} cells (category and method) whose test {level} AUROC is under"
                f" {POOR:g}, and in vain of {(~poor & warned).sum()} of the other {(~poor).sum()}."
            )


def _correlation(records: Records) -> Iterable[str]:
    """Spearman's rank correlation of validation and test AUROC over categories and methods."""
    for level in ("image", "pixel"):
        means = _cells(records, level)
        if len(means) <= 2:
            found = "not defined for so few"
        elif (means.nunique() == 1).any():
            found = "not defined, since one of them is the same in all"
        else:
            found = f"{means['validation'].rank().corr(means['test'].rank()):.2f}"
        yield (
            f"Rank correlation (Spearman) of validation and test {level} AUROC over the"
            f" {len(means)} cells (category and method) of the run: {found}."
        )


def metrics(records: Records) -> Layout:
    """Image and pixel AUROC, AP and F1-max, AUPRO and AUPIMO of every method: AUROC saturates where
    the others still tell methods apart."""
    return Layout(
        name="metrics",
        title="AUROC, AP and F1-max of images and of pixels, AUPRO and AUPIMO of every method",
        blocks={
            str(method): tuple(Column(metric, method, metric) for metric in _METRICS)
            for method in records.methods
        },
        block_name="method",
        block_labels={str(each): labels.method(records.config, each) for each in records.methods},
        groups=tuple(Group(header, (metric,)) for metric, header in _METRICS.items()),
        notes=(
            "AP: average precision. F1-max: the largest F1 over all thresholds, which is chosen on"
            " the test images.",
            "AUPRO: the recall of each region of a defect, averaged over all regions and over false"
            " positive rates of all normal pixels from 0 to 0.3.",
            "AUPIMO (arXiv 2401.01984): the recall of each image's defective pixels, averaged over"
            " all images with a defect and, in logarithmic scale, over false positive rates of the"
            " pixels of good test images from 1e-5 to 1e-4; at a rate of less than one of these"
            " pixels the threshold lies above them all.",
        ),
    )
