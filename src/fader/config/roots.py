"""Where images of the user's own may lie: not where the project writes, empties and replaces."""

import os
from pathlib import Path

RESULTS = "results"
# What the project makes in its own folder, and what it is made of.
OUTPUTS = (
    *(RESULTS, "data/made", "data/archives", "logs", "work", "workflow", "src"),
    *(".snakemake", ".dvc", ".git", ".venv"),
)


def clash(folder: str) -> str | None:
    """Why images cannot lie in a folder; None where they can. Links are followed.

    A relative folder starts at the repository's root, which is the working directory.
    """
    places = _places(folder)
    for name in OUTPUTS:
        if any(place.is_relative_to(own) for place in places for own in _places(name)):
            return f"is inside {name}/, the project's own; keep images elsewhere (data/raw/mine)"
    if any(own.is_relative_to(place) for place in places for own in _places(RESULTS)):
        return f"holds {RESULTS}/, the project's own; put the categories into a folder of their own"
    return None


def _places(folder: str) -> set[Path]:
    """A folder as named, and behind its links."""
    return {Path(os.path.normpath(Path.cwd() / folder)), Path(os.path.realpath(folder))}
