"""A baseline, fitted on the fitted normals of a category."""

from fader import runtime
from fader.pipeline.context import Context
from fader.steps import inputs, models, training


def train_detector(context: Context) -> None:
    """Fit a detector of the section ``detectors``, and keep its state."""
    name = context.job.system
    machine = runtime.start(context.config.runtime)
    detector = models.baseline(context, name, machine)
    run = training.run_of(context, machine, context.seed(f"detector/{name}"))
    history = detector.fit(inputs.normals(context), run)
    training.keep(context, machine, detector.state(), history)
