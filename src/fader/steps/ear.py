"""EAR, pre-trained on the fitted normals with the base masker's masks."""

from fader import runtime
from fader.pipeline.context import Context
from fader.steps import inputs, models, training


def train_ear(context: Context) -> None:
    """Pre-train EAR."""
    machine = runtime.start(context.config.runtime)
    detector = models.untrained_ear(context, machine)
    run = training.run_of(context, machine, context.seed("ear"))
    history = detector.fit(inputs.fitted(context, context.config.masks.base), run)
    training.keep(context, machine, detector.state(), history)
