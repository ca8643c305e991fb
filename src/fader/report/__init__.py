"""The printed page: tables and figures made from the metrics files of a run."""

from pathlib import Path

from fader import artifacts
from fader.artifacts import curve_path, figure_paths, number_paths, table_paths
from fader.config import Config
from fader.errors import FaderError
from fader.phases.category import Category
from fader.phases.records import records
from fader.report import figures, numbers, tables

REFERENCE = Path("reference")


def make_table(config: Config, name: str) -> list[Path]:
    """Write table ``name`` of the run as CSV, Markdown and LaTeX; returns the files."""
    if name not in ("table1", "table2"):
        raise FaderError(f"no table {name!r} (there are: table1, table2)")
    found, pairs = records(config), config.pairs()
    policy, base = config.mosaic.policy, config.masks.base
    if name == "table1":
        controls = [method for method in config.methods() if method == f"control-{base}-nomask"]
        table = tables.table1(
            found,
            pairs,
            masker=base,
            control=controls[0] if controls else None,
            policy=policy,
            reference=REFERENCE,
        )
    else:
        maskers = list(config.masks.maskers)
        table = tables.table2(found, pairs, maskers=maskers, policy=policy, reference=REFERENCE)
    return tables.write(table, Path(table_paths(config.run, name)[0]).parent)


def make_figure(config: Config, name: str) -> list[Path]:
    """Draw figure ``name`` of the run as PNG and PDF; returns the files."""
    if name != "fig1":
        raise FaderError(f"no figure {name!r} (there are: fig1)")
    paths = [Path(path) for path in figure_paths(config.run, name)]
    figures.figure1(_examples(config, f"fader-{config.masks.base}"), paths)
    return paths


def make_numbers(config: Config) -> list[Path]:
    """Write averages and the points of every category's curves for machines; returns the files."""
    found = records(config)
    means = numbers.averages(found)
    metrics, auroc = number_paths(config.run)
    texts = {metrics: numbers.metrics_json(means), auroc: numbers.auroc_csv(means)}
    for place in config.pairs():
        here = [record for record in found if (record["dataset"], record["category"]) == place]
        curves = {
            "roc": numbers.roc_csv(here),
            "pr": numbers.pr_csv(here),
            "losses": numbers.losses_csv(_histories(config, Category(config, *place))),
        }
        texts |= {curve_path(config.run, name, *place): text for name, text in curves.items()}
    for path, text in texts.items():
        artifacts.write_text(path, text)
    return [Path(path) for path in texts]


def _histories(config: Config, category: Category) -> dict[str, Path]:
    """Losses of everything trained on a category, by a name for the legend."""
    files = category.files
    found = {}
    for seed in config.seeds:
        found[f"ear seed {seed}"] = Path(files.losses(files.ear(seed)))
        for system in config.systems():
            trained = files.fader(seed, system)
            found[f"fader-{system} seed {seed}"] = Path(files.losses(trained))
    return found


def _examples(config: Config, method: str) -> list[figures.Example]:
    """Pictures of every category for ``method`` and the first seed, for the figures."""
    found = []
    for name, category_name in config.pairs():
        category = Category(config, name, category_name)
        packed, about = category.packed()
        path = category.files.maps(config.seeds[0], method)
        chosen = category.system_settings("evaluate", method.partition("-")[2])
        artifacts.check(path, "evaluate", chosen)
        pictures = artifacts.read_tensors(path)
        for row, index in enumerate(pictures["index"].tolist()):
            found.append(
                figures.Example(
                    title=f"{category_name}\n{about.facts['defects'][index]}",
                    image=packed["test"][index].permute(1, 2, 0).numpy(),
                    binary_mask=pictures["mask"][row].bool().numpy(),
                    soft_mask=pictures["soft_mask"][row].float().numpy(),
                    reconstruction=pictures["reconstruction"][row].permute(1, 2, 0).numpy(),
                    map=pictures["map"][row].float().numpy(),
                    truth=packed["mask"][index].bool().numpy(),
                )
            )
    return found
