"""A baseline, fitted on the fitted normals of a category."""

import sys

from fader import runtime
from fader.pipeline.context import Context
from fader.pipeline.methods import Method
from fader.steps import inputs, models, training
from fader.training.loop import Diverged


def train_detector(context: Context) -> None:
    """Fit a detector of the section ``detectors``, and keep its state.

    One that diverges keeps no state but the reason, and ends nothing else: the tables show it, and
    ``fader check`` fails.
    """
    name = context.job.system
    machine = runtime.start(context.config.runtime)
    detector = models.baseline(context, name, machine)
    side = models.side(context, Method("detector", name))
    run = training.run_of(context, machine, context.seed(f"detector/{name}"))
    try:
        history = detector.fit(inputs.normals(context, side), run)
    except Diverged as error:
        print(f"warning: {error}; it has no row in the tables", file=sys.stderr)
        history = {"diverged": error.history} if error.history else {}
        training.keep(context, machine, {}, history, {models.DIVERGED: error.why})
        return
    training.keep(context, machine, detector.state(), history)
