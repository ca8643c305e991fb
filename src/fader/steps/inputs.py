"""What the jobs read, as tensors."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from fader import maskers
from fader.data.split import FOLDS
from fader.detectors.base import Images
from fader.errors import FaderError
from fader.evaluation import selection
from fader.evaluation.selection import Candidate, Evidence, Examples
from fader.evaluation.truth import Truth
from fader.maskers import Masker
from fader.maskers.threshold import binarise, enlarge
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job, mask_job
from fader.runtime import Machine

# What maskers look at: all images of a category, by name.
IMAGES = ("train", "test", *(f"{fold}_defects" for fold in FOLDS))


def packed(context: Context) -> tuple[dict[str, Tensor], Header]:
    """Images of the category: ``train`` and ``test`` (N, 3, S, S) uint8, ``mask`` (N, S, S) and
    ``label`` (N,); and the facts about them."""
    job = Job("pack", context.job.place)
    tensors = _named(context, job, "packed", ("train", "test", "label"))
    return tensors, context.check(job, "packed")


def split(context: Context) -> dict[str, Tensor]:
    """The label-free split (see ``fader.data.split``): indices ``fit``; and of each fold, indices
    under its name, ``<fold>_defects`` (N, 3, S, S) uint8 and ``<fold>_masks`` (N, S, S)."""
    tensors = ("fit", *(f"{fold}{part}" for fold in FOLDS for part in ("", "_defects", "_masks")))
    return _named(context, Job("pack", context.job.place), "split", tensors)


def at_side(context: Context, side: int) -> dict[str, Tensor]:
    """All images at least ``side`` pixels wide, if there are such, uint8: ``train``, ``test``, and
    ``<fold>_defects``."""
    if side > context.config.image.size:
        return _named(context, Job("pack", context.job.place), f"side {side}", IMAGES)
    images = packed(context)[0] | split(context)
    return {name: images[name] for name in IMAGES}


def saliency(context: Context, masker: str) -> dict[str, Tensor]:
    """Saliency (N, h, w) float32 of the images of ``at_side``, by the same names; and, of a masker
    that segments, its own masks under ``native_train`` and so on."""
    job = mask_job(context.config, context.job, masker)
    return _named(context, job, "saliency", IMAGES)


def _named(context: Context, job: Job, name: str, tensors: Sequence[str]) -> dict[str, Tensor]:
    """A file of a job, with these tensors: a job may write several files of one kind."""
    path = context.path(job, name)
    found = artifacts.read_tensors(path)
    lacking = [tensor for tensor in tensors if tensor not in found]
    if lacking:
        raise artifacts.misplaced(path, f"it holds no {', '.join(lacking)}")
    return found


def masks(context: Context, masker: str, name: str) -> Tensor:
    """Binary masks (N, S, S) of the ``train`` or ``test`` images, or of the ``<fold>_defects``, by
    the masker's threshold rule."""
    rule, level = context.config.masks.threshold(masker)
    found, size = saliency(context, masker), context.config.image.size
    if rule == "native":
        return enlarge(found[f"native_{name}"].bool(), size)
    return enlarge(binarise(found[name], rule, level), size)


def normals(context: Context, side: int = 0) -> Images:
    """The fitted normals, as of ``at_side``, without masks."""
    return Images(at_side(context, side)["train"][split(context)["fit"]])


def fitted(context: Context, masker: str) -> Images:
    """The fitted normals, with a masker's masks."""
    return Images(normals(context).pixels, masks(context, masker, "train")[split(context)["fit"]])


def tested(context: Context, masker: str | None = None, side: int = 0) -> Images:
    """The test images, as of ``at_side``, with a masker's masks."""
    hidden = None if masker is None else masks(context, masker, "test")
    return Images(at_side(context, side)["test"], hidden)


def label_free(
    context: Context, masker: str | None = None, fold: str = "held", side: int = 0
) -> Examples:
    """Held-out normals and the synthetic defects on them, as of ``at_side``: those of ``held`` to
    choose on, those of ``checked`` for what is said of the chosen."""
    parts, images = split(context), at_side(context, side)
    pixels, defects = images["train"], images[f"{fold}_defects"]
    normal, truth = parts[fold], parts[f"{fold}_masks"]
    if masker is None:
        return Examples(Images(pixels[normal]), Images(defects), truth)
    return Examples(
        Images(pixels[normal], masks(context, masker, "train")[normal]),
        Images(defects, masks(context, masker, f"{fold}_defects")),
        truth,
    )


def without(context: Context, examples: Examples, kinds: Collection[str], fold: str) -> Examples:
    """The examples of a fold, as of ``label_free``, less the defects of some kinds.

    Raises
    ------
    FaderError : no defect is left.
    """
    painted = context.check(Job("pack", context.job.place), "split").facts["kinds"][fold]
    others = examples.without(kinds, painted)
    if not len(others.defective):
        raise FaderError(
            f"validation.kinds: every defect of the fold {fold} is of a kind that a detector trains"
            f" on ({', '.join(kinds)}); list each kind once, or raise validation.per_image"
        )
    return others


def choose(
    context: Context, candidates: Mapping[Candidate, Evidence]
) -> selection.Choice[Candidate]:
    """The label-free choice among candidates, in the order in which ties are broken."""
    settings, seed = context.config.validation, context.seed("ties")
    return selection.choose(candidates, criterion=settings.criterion, tie=settings.tie, seed=seed)


def truth(context: Context) -> Truth:
    """What is known of the test images: their labels, and masks where the data set has them."""
    tensors, header = packed(context)
    labels = tensors["label"].numpy()
    if header.facts["masks"] == "absent":
        return Truth(labels, None, f"no masks (datasets.{context.dataset}.masks: absent)")
    return Truth(labels, tensors["mask"].numpy())


def labelled(context: Context) -> Examples:
    """The test images with their labels, for the oracle: a diagnostic.

    Raises
    ------
    FaderError : they are all good or all defective, or without masks.
    """
    known = truth(context)
    lacking = known.lacks_images or known.lacks_pixels
    if lacking:
        raise FaderError(
            f"mosaic.policy: oracle chooses by test labels and masks, but"
            f" {context.dataset}/{context.category} has {lacking}; choose search or fixed"
        )
    images, about = tested(context, context.config.masks.base), packed(context)[0]
    defective = about["label"].bool()
    return Examples(images[~defective], images[defective], about["mask"][defective])


def untrained_masker(context: Context, masker: str, machine: Machine) -> Masker:
    """A masker with the run's weights and codebook.

    Raises
    ------
    MissingWeights : its weights cannot be had.
    """
    codebook = None
    if context.config.masks.coded(masker):
        codebook = artifacts.read_tensors(context.path(Job("codebook"), "weights"))
    place = maskers.Context(context.category, machine, context.config.weights_folder, codebook)
    return maskers.create(masker, context.config.masks.settings(masker), place)


def sampled(images: Tensor, most: int) -> Tensor:
    """At most ``most`` of the images (N, …), evenly spaced."""
    rows = torch.linspace(0, len(images) - 1, min(most, len(images))).round().long()
    return images[rows]
