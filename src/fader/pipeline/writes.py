"""What each phase writes: (configuration, job) → path of each file, by name."""

from __future__ import annotations

from fader.config import Config
from fader.pipeline import paths
from fader.pipeline.jobs import Job, of_method
from fader.pipeline.methods import methods


def manifest(config: Config, job: Job) -> dict[str, str]:
    """What the data set is and where it lies."""
    return {"manifest": paths.manifest(job.place)}


def packed(config: Config, job: Job) -> dict[str, str]:
    """Images and split of a category, the images at larger sides, and their identities."""
    folder = f"{paths.category(config.run, job.place)}/packed"
    return {
        "packed": f"{folder}/data.safetensors",
        "split": f"{folder}/split.safetensors",
        **{f"side {side}": f"{folder}/side{side}.safetensors" for side in config.sides[1:]},
        "normals": paths.normals(config.run, job.place),
    }


def codebook(config: Config, job: Job) -> dict[str, str]:
    """Weights and losses."""
    return _with_losses(f"{paths.run(config.run)}/codebook/weights")


def masks(config: Config, job: Job) -> dict[str, str]:
    """Saliency; weights and losses as well where the masker learns."""
    folder = f"{paths.category(config.run, job.place)}/masks/{job.system}"
    if job.seed is None:
        return {"saliency": f"{folder}/shared.safetensors"}
    stem = f"{folder}/seed{job.seed}"
    return {"saliency": f"{stem}.safetensors"} | _with_losses(f"{stem}.weights")


def ear(config: Config, job: Job) -> dict[str, str]:
    """Weights and losses."""
    return _with_losses(f"{paths.category(config.run, job.place)}/ear/seed{job.seed}")


def mosaic(config: Config, job: Job) -> dict[str, str]:
    """m*, with the criterion of every candidate."""
    return {"scale": f"{paths.category(config.run, job.place)}/mosaic/seed{job.seed}.json"}


def model(config: Config, job: Job) -> dict[str, str]:
    """Weights and losses."""
    name = "-".join(part for part in (job.phase, job.system) if part)
    return _with_losses(f"{paths.category(config.run, job.place)}/models/{name}/seed{job.seed}")


def _with_losses(stem: str) -> dict[str, str]:
    return {"weights": f"{stem}.safetensors", "losses": f"{stem}.losses.csv"}


def measured(config: Config, job: Job) -> dict[str, str]:
    """Metrics and maps of every method."""
    files: dict[str, str] = {}
    for method in methods(config):
        files |= of_method(config, job, method)
    return files


def gallery(config: Config, job: Job) -> dict[str, str]:
    """Pictures of some test images, with the threshold; and two images' way through FADeR."""
    folder = paths.gallery(config.run, job.place)
    return {name: f"{folder}/{name}.safetensors" for name in ("pictures", "trace")}


def costs(config: Config, job: Job) -> dict[str, str]:
    """Counts and timings."""
    return {"cost": f"{paths.run(config.run)}/cost/cost.json"}


def report(config: Config, job: Job) -> dict[str, str]:
    """Tables, figures, curves, numbers, and the page that shows them all."""
    return {path: path for path in paths.report(config)}
