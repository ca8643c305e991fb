"""What inference costs on this machine: one fact file a run."""

from fader import runtime
from fader.evaluation import cost
from fader.pipeline import artifacts
from fader.pipeline.context import Context


def measure_cost(context: Context) -> None:
    """Count parameters and multiply–accumulates, and time every component and system of the run."""
    machine = runtime.start(context.config.runtime)
    rows = cost.components(context.config, machine)
    timings = {row["name"]: row.pop("timings") for row in rows}
    header = context.header({"rows": rows})
    artifacts.write_json(context.output("cost"), header, {"timings": timings})
