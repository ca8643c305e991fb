"""What inference costs on this machine: one fact file a run."""

from fader import artifacts, efficiency, runtime
from fader.artifacts import Header, cost_path
from fader.config import Config, settings


def measure_cost(config: Config) -> None:
    """Count parameters and multiply–accumulates, and time every component and system of the run."""
    machine = runtime.start(config.runtime)
    rows = efficiency.components(config, machine)
    timings = {row["name"]: row.pop("timings") for row in rows}
    header = Header("cost", settings(config, "cost"), {}, {"rows": rows})
    artifacts.write_json(cost_path(config.run), header, {"timings": timings})
