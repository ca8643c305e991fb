"""Names of files. Those of a phase are put together in ``fader.pipeline.phases``."""

from fader.config import Config


def manifest(dataset: str) -> str:
    """What a data set is and where its images are."""
    return f"data/made/{dataset}/manifest.json"


def inputs(name: str) -> str:
    """Folder of what the jobs of a run depend on beside each other's files."""
    return f"workflow/inputs/{name}"


def state(name: str, phase: str, place: str | None, system: str | None) -> str:
    """Settings, code and listing that the jobs of a phase, place and system depend on."""
    return f"{inputs(name)}/{_stage(phase, place, system)}.json"


def listing(name: str, phase: str, place: str | None, system: str | None) -> str:
    """Files of the user's own that they read."""
    return f"{inputs(name)}/{_stage(phase, place, system)}.files.json"


def _stage(*parts: str | None) -> str:
    return ".".join(part for part in parts if part)


def run(name: str) -> str:
    """Folder of a run."""
    return f"results/{name}"


def missing(name: str) -> str:
    """Which optional maskers a run goes without, and why: decided when it is planned."""
    return f"results/{name}/missing.json"


def category(name: str, place: str) -> str:
    """Folder of a category of a run, by its key in the configuration."""
    return f"results/{name}/{place}"


def metrics(name: str, place: str) -> str:
    """Folder of a category's metrics; all categories lie together, for the report."""
    return f"results/{name}/metrics/{place}"


def gallery(name: str, place: str) -> str:
    """Folder of a category's pictures; all categories lie together, for the report."""
    return f"results/{name}/gallery/{place}"


def normals(name: str, place: str) -> str:
    """Identities of a category's images and split: they stand for them where all categories are
    read at once."""
    return f"results/{name}/normals/{place}.json"


def log(name: str, job: str) -> str:
    """Log of a job, without its suffix."""
    return f"logs/{name}/{job}"


def table(name: str, number: str) -> list[str]:
    """Files of a table: CSV, Markdown and LaTeX, but for those that are no grid of cells."""
    folder = f"results/{name}/tables"
    if number == "statistics":
        return [f"{folder}/intervals.csv", f"{folder}/counts.csv", f"{folder}/statistics.md"]
    if number in ("cost", "data", "difficulty"):
        return [f"{folder}/{number}.csv", f"{folder}/{number}.md"]
    return [f"{folder}/{number}.{suffix}" for suffix in ("csv", "md", "tex")]


def figure(name: str, number: str) -> list[str]:
    """Files of a figure."""
    return [f"results/{name}/figures/{number}.{suffix}" for suffix in ("png", "pdf")]


def numbers(name: str) -> list[str]:
    """Averages for ``dvc metrics``, and image AUROC per category for ``dvc plots``."""
    return [f"results/{name}/tables/metrics.json", f"results/{name}/tables/auroc.csv"]


def curve(name: str, kind: str, place: str) -> str:
    """Points of a category's curves (``roc``, ``pr`` or ``losses``)."""
    return f"results/{name}/curves/{kind}/{place}.csv"


def site(name: str) -> str:
    """The page that shows all of a run, for a browser."""
    return f"results/{name}/report/index.html"


# What the report reads beside artefacts: the paper's tables, expected AUROCs, captions of figures,
# and its own templates.
REFERENCE = tuple(
    f"reference/{name}.csv"
    for name in ("corrections", *(f"table{number}" for number in range(1, 6)), "expected")
)
CAPTIONS = "workflow/report"
TEMPLATES = "src/fader/report/site/templates"
CURVES = ("roc", "pr", "losses")
FIGURES = (
    *("fig1", "fig2", "fig3", "fig4", "fig5", "fig6"),
    *("gains", "tradeoff", "scales", "roc", "pr", "calibration", "losses"),
)


def report(config: Config) -> list[str]:
    """All files of the report."""
    return [
        *(path for name in config.tables() for path in table(config.run, name)),
        *(path for name in FIGURES for path in figure(config.run, name)),
        *numbers(config.run),
        site(config.run),
        *(curve(config.run, kind, place) for kind in CURVES for place in config.categories),
    ]
