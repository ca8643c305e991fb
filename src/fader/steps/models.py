"""Trained detectors, read back for what builds on them."""

from __future__ import annotations

from fader import detectors
from fader.config import MaskPath
from fader.detectors import Detector
from fader.detectors.ear import Ear
from fader.detectors.fader import PROPOSED, Fader
from fader.pipeline import artifacts
from fader.pipeline.context import Context
from fader.pipeline.jobs import Job, trained_job
from fader.pipeline.methods import Method
from fader.runtime import Machine

# Image scores of the test images (points, epochs, images), kept beside FADeR's weights: no label,
# no part in any choice; evaluation tells from them what choosing by test labels would have given.
SCORES = "test_scores"
DIVERGED = "diverged"  # the fact of weights that are none: why


def place(context: Context, machine: Machine) -> detectors.Context:
    """Where the detectors of a run work."""
    return detectors.Context.of(context.config, machine)


def untrained_ear(context: Context, machine: Machine) -> Ear:
    """EAR with fresh weights, at the first of its scales."""
    settings = context.config.ear
    return Ear(place(context, machine), settings, settings.scales[0])


def ear(context: Context, machine: Machine, scale: int | None = None) -> Ear:
    """The trained EAR of a seed, at mosaic ``scale``; by default its m*."""
    job = context.job.of("ear")
    model = untrained_ear(context, machine)
    model.load(artifacts.read_tensors(context.path(job, "weights")))
    model.scale = mosaic(context) if scale is None else scale
    return model


def mosaic(context: Context) -> int:
    """m* of a seed."""
    return context.check(context.job.of("mosaic"), "scale").facts["mosaic"]


def path_of(context: Context, method: Method) -> MaskPath:
    """The mask path of a FADeR: as proposed, or its variant's."""
    return context.config.variants[method.variant].path if method.variant else PROPOSED


def baseline(context: Context, name: str, machine: Machine) -> Detector:
    """A detector of the section ``detectors``, not yet fitted."""
    return detectors.create(context.config.detectors[name], place(context, machine))


def side(context: Context, method: Method) -> int:
    """Side of the images that the detector of a method sees."""
    size = context.config.image.size
    if method.stage != "detector":
        return size
    return context.config.detectors[method.system].side(size)


def trained(context: Context, method: Method, machine: Machine) -> Detector:
    """The detector of a method, as trained."""
    if method.stage == "ear":
        return ear(context, machine)
    job: Job = trained_job(context.config, context.job, method)
    if method.stage == "detector":
        model = baseline(context, method.system, machine)
    else:
        settings = context.config.fader
        model = Fader(ear(context, machine), settings, path_of(context, method))
    state = artifacts.read_tensors(context.path(job, "weights"))
    state.pop(SCORES, None)
    model.load(state)
    return model
