"""What was measured, read back for the printed page: every metrics file of a run, checked."""

import json
from typing import Any

from fader.config import Config
from fader.files import write_text
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import summary_path
from fader.steps.category import Category


def measured(category: Category) -> list[Header]:
    """Headers of a category's metrics files, by seed, then method; what is behind each is
    checked."""
    return [
        category.verified(seed, method)
        for seed in category.config.seeds
        for method in category.config.methods()
    ]


def records(config: Config) -> list[dict[str, Any]]:
    """Facts of every metrics file of the run, in table order."""
    return [
        {"kind": "metrics"} | dict(header.facts)
        for dataset, name in config.pairs()
        for header in measured(Category(config, dataset, name))
    ]


def summarise(category: Category) -> None:
    """Write what was measured on a category as one small file.

    It changes whenever one of the metrics files does, timings included: in DVC, where the report
    cannot list the categories, it stands for them.
    """
    summary: dict[str, Any] = {}
    for header in measured(category):
        facts = header.facts
        path = category.files.metrics(facts["seed"], facts["method"])
        summary.setdefault(f"seed{facts['seed']}", {})[facts["method"]] = {
            **(facts["metrics"] if facts["status"] == "ok" else {"missing": facts["reason"]}),
            **artifacts.volatile(path),
            "identity": header.identity,
        }
    path = summary_path(category.config.run, category.dataset, category.name)
    write_text(path, json.dumps(summary, indent=2) + "\n")
