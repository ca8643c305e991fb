"""Paths of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Files:
    """Paths of one category of one run; a string with wildcards works as well as a real folder."""

    folder: str

    @classmethod
    def of(cls, run: str, dataset: str, category: str) -> "Files":
        return cls(f"results/{run}/{dataset}/{category}")

    def packed(self) -> str:
        return f"{self.folder}/packed/data.safetensors"

    def validation(self) -> str:
        return f"{self.folder}/validation/data.safetensors"

    def masker(self, masker: str, seed: int | str) -> str:
        """A masker that learns."""
        return f"{self.folder}/maskers/{masker}/seed{seed}.safetensors"

    def mask(self, masker: str, seed: int | str | None = None) -> str:
        """Masks of a masker: of a seed where it learns, otherwise shared by all seeds."""
        name = "shared" if seed is None else f"seed{seed}"
        return f"{self.folder}/masks/{masker}/{name}.safetensors"

    def ear(self, seed: int | str) -> str:
        return f"{self.folder}/ear/seed{seed}.safetensors"

    def mosaic(self, seed: int | str) -> str:
        return f"{self.folder}/mosaic/seed{seed}.json"

    def fader(self, seed: int | str, system: str) -> str:
        return f"{self.folder}/fader/seed{seed}/{system}.safetensors"

    def metrics(self, seed: int | str, method: str) -> str:
        return f"{self.folder}/metrics/seed{seed}/{method}.json"

    def maps(self, seed: int | str, method: str) -> str:
        return f"{self.folder}/maps/seed{seed}/{method}.safetensors"


def losses_path(trained: str) -> str:
    """Losses per epoch of a trained artefact, beside it."""
    return trained.removesuffix(".safetensors") + ".losses.csv"


def summary_path(run: str, dataset: str, category: str) -> str:
    """What was measured on one category, all seeds and methods in one file."""
    return f"results/{run}/summary/{dataset}/{category}.json"


def codebook_path(run: str) -> str:
    """Quantised autoencoder that all categories of a run share."""
    return f"results/{run}/codebook/weights.safetensors"


def cost_path(run: str) -> str:
    """What inference costs, counted and timed."""
    return f"results/{run}/cost/cost.json"


def normals_path(run: str, dataset: str, category: str) -> str:
    """Identities of a category's images and split: in DVC they stand for them where all categories
    are read at once."""
    return f"results/{run}/normals/{dataset}/{category}.json"


def curve_path(run: str, curve: str, dataset: str, category: str) -> str:
    """Points of a category's curves (``roc``, ``pr`` or ``losses``)."""
    return f"results/{run}/curves/{curve}/{dataset}/{category}.csv"


def number_paths(run: str) -> list[str]:
    """Averages for `dvc metrics`, and image AUROC per category for `dvc plots`."""
    return [f"results/{run}/tables/metrics.json", f"results/{run}/tables/auroc.csv"]


def manifest_path(dataset: str) -> str:
    return f"data/raw/{dataset}/manifest.json"


def table_paths(run: str, name: str) -> list[str]:
    """Files of a table: CSV, Markdown and LaTeX, but for those that are no grid of cells."""
    folder = f"results/{run}/tables"
    if name == "statistics":
        return [f"{folder}/intervals.csv", f"{folder}/counts.csv", f"{folder}/statistics.md"]
    if name == "errata":
        return [f"{folder}/errata.md"]
    if name == "cost":
        return [f"{folder}/cost.csv", f"{folder}/cost.md"]
    return [f"{folder}/{name}.{suffix}" for suffix in ("csv", "md", "tex")]


def figure_paths(run: str, name: str) -> list[str]:
    return [f"results/{run}/figures/{name}.{suffix}" for suffix in ("png", "pdf")]
