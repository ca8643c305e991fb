"""What inference costs on this machine: one fact file a run."""

from fader import runtime
from fader.config import Config
from fader.evaluation import cost as efficiency
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import cost_path
from fader.pipeline.phases import settings


def measure_cost(config: Config) -> None:
    """Count parameters and multiply–accumulates, and time every component and system of the run."""
    machine = runtime.start(config.runtime)
    rows = efficiency.components(config, machine)
    timings = {row["name"]: row.pop("timings") for row in rows}
    header = Header("cost", settings(config, "cost"), {}, {"rows": rows})
    artifacts.write_json(cost_path(config.run), header, {"timings": timings})
