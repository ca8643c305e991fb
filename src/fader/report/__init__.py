"""The printed page: tables and figures made from the metrics files of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fader.config import Config
from fader.errors import FaderError
from fader.files import write_text
from fader.pipeline import artifacts
from fader.pipeline.paths import (
    cost_path,
    curve_path,
    figure_paths,
    losses_path,
    number_paths,
    table_paths,
)
from fader.pipeline.phases import settings
from fader.report import cost, errata, figures, numbers, statistics, table, tables
from fader.steps.category import Category
from fader.steps.records import records

REFERENCE = Path("reference")
FIGURES = ("fig1", "fig2", "fig6")
ROWS = 8  # of Figure 6, at most


def make_tables(config: Config, names: Sequence[str]) -> list[Path]:
    """Write tables of the run; returns the files (see ``paths.table_paths``)."""
    if unknown := [name for name in names if name not in config.tables()]:
        raise FaderError(
            f"no table {unknown[0]!r} of this run (there are: {', '.join(config.tables())})"
        )
    found = records(config)
    return [path for name in names for path in _make_table(config, name, found)]


def _make_table(config: Config, name: str, found: list[dict[str, Any]]) -> list[Path]:
    paths = [Path(path) for path in table_paths(config.run, name)]
    others = {
        "statistics": lambda: _statistics(config, found),
        "errata": lambda: (errata.text(REFERENCE),),
        "cost": lambda: cost.table(_cost(config)).values(),
    }
    if name in others:
        texts = others[name]()
        for path, text in zip(paths, texts, strict=True):
            write_text(path, text)
        return paths
    filled = table.build(
        _layout(config, name, found),
        found,
        config.pairs(),
        policy=config.mosaic.policy,
        reference=REFERENCE,
    )
    return table.write(filled, paths[0].parent)


def _layout(config: Config, name: str, found: list[dict[str, Any]]) -> table.Layout:
    base, learn = config.masks.base, config.trained_maskers()
    control = f"control-{base}-nomask"
    tuning = config.fader.tuning
    grids = {"ablation": {}, "control": {}}
    for label, variant in config.variants.items():
        grids[variant.role][label] = variant.grid
    layouts = {
        "table1": lambda: tables.table1(base, control if control in config.methods() else None),
        "table2": lambda: tables.table2(
            [m for m in config.masks.maskers if m not in learn], base, tuning
        ),
        "table3": lambda: tables.table3(base, grids["ablation"]),
        "table4": lambda: tables.table4(learn, base, tuning),
        "masks": lambda: tables.masks(list(config.masks.maskers)),
        "controls": lambda: tables.controls(base, grids["control"]),
        "validation": lambda: tables.validation(
            base, found, config.pairs(), config.report.warn_below
        ),
    }
    return layouts[name]()


def _statistics(config: Config, found: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the run's and the paper's differences are worth: two CSVs and a page."""
    result = statistics.table(
        found, config.pairs(), maskers=list(config.masks.maskers), reference=REFERENCE
    )
    return result.intervals_csv(), result.counts_csv(), result.markdown


def _cost(config: Config) -> list[dict[str, Any]]:
    """Rows of the cost table with their timings."""
    path = cost_path(config.run)
    rows = artifacts.check(path, "cost", settings(config, "cost")).facts["rows"]
    timings = artifacts.volatile(path)["timings"]
    return [row | {"timings": timings[row["name"]]} for row in rows]


def make_figure(config: Config, name: str) -> list[Path]:
    """Draw figure ``name`` of the run as PNG and PDF; returns the files."""
    if name not in FIGURES:
        raise FaderError(f"no figure {name!r} (there are: {', '.join(FIGURES)})")
    draw = {
        "fig1": lambda: figures.figure1(_examples(config, f"fader-{config.masks.base}")),
        "fig2": lambda: figures.figure2(_masking(config)),
        "fig6": lambda: figures.figure6(_suspects(config)),
    }
    paths = [Path(path) for path in figure_paths(config.run, name)]
    figures.save(draw[name](), paths)
    return paths


def make_numbers(config: Config) -> list[Path]:
    """Write averages and the points of every category's curves for machines; returns the files."""
    found = [record for record in records(config) if record["status"] == "ok"]
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
        write_text(path, text)
    return [Path(path) for path in texts]


def _histories(config: Config, category: Category) -> dict[str, Path]:
    """Losses of everything trained on a category, by a name for the legend."""
    files = category.files
    found = {}
    for seed in config.seeds:
        found[f"ear seed {seed}"] = Path(losses_path(files.ear(seed)))
        for system in config.systems():
            trained = files.fader(seed, system)
            found[f"fader-{system} seed {seed}"] = Path(losses_path(trained))
    return found


def _examples(config: Config, method: str) -> list[figures.Example]:
    """Pictures of every category for ``method`` and the first seed, for the figures."""
    found = []
    for name, category_name in config.pairs():
        category = Category(config, name, category_name)
        packed, about = category.packed()
        _, pictures = _pictures(category, method)
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


def _pictures(category: Category, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and tensors of a method's pictures for the first seed."""
    path = category.files.maps(category.config.seeds[0], method)
    chosen = category.system_settings("evaluate", method.partition("-")[2])
    header = artifacts.check(path, "evaluate", chosen)
    return dict(header.facts), artifacts.read_tensors(path)


def _masking(config: Config) -> figures.Masking:
    """The first image shown of the first category, with EAR's mask, m* and anomaly map."""
    import torch  # here, since tables are made without it

    from fader.vision.mosaic import obfuscate

    category = Category(config, *config.pairs()[0])
    packed, about = category.packed()
    facts, pictures = _pictures(category, f"ear-{config.masks.base}")
    index, scale = int(pictures["index"][0]), facts["selected"]["mosaic"]
    image, mask = packed["test"][index], pictures["mask"][0].bool()
    hint = obfuscate(image[None] / 255, mask[None], scale)[0]
    return figures.Masking(
        title=f"{category.name}\n{about.facts['defects'][index]}",
        image=image.permute(1, 2, 0).numpy(),
        truth=packed["mask"][index].bool().numpy(),
        binary_mask=mask.numpy(),
        error=pictures["map"][0].float().numpy(),
        mosaic=(hint * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(),
        scale=scale,
    )


def _suspects(config: Config) -> list[figures.Suspects]:
    """Images of the first categories, equally many of each, as every masker sees them."""
    chosen = config.pairs()[:ROWS]
    each = ROWS // len(chosen)
    return [row for pair in chosen for row in _suspected(Category(config, *pair))[:each]]


def _suspected(category: Category) -> list[figures.Suspects]:
    """The shown images of a category as every masker sees them.

    Raises FaderError where two maskers show different images.
    """
    packed, about = category.packed()
    base = f"mask-{category.config.masks.base}"
    shown = _pictures(category, base)[1]["index"].tolist()
    maskers: dict[str, list[figures.Suspicion] | None] = {}
    for masker in category.config.masks.maskers:
        label = table.MASKER_LABEL.get(masker, masker)
        facts, pictures = _pictures(category, f"mask-{masker}")
        if facts["status"] == "missing":
            maskers[label] = None
            continue
        if pictures["index"].tolist() != shown:
            path = category.files.maps(category.config.seeds[0], f"mask-{masker}")
            raise FaderError(
                f"{path}: shows test images {pictures['index'].tolist()}, {base} {shown};"
                " delete it and run again"
            )
        pairs = zip(pictures["map"].float().numpy(), pictures["mask"].bool().numpy(), strict=True)
        maskers[label] = [figures.Suspicion(saliency, mask) for saliency, mask in pairs]
    return [
        figures.Suspects(
            title=f"{category.name}\n{about.facts['defects'][index]}",
            image=packed["test"][index].permute(1, 2, 0).numpy(),
            truth=packed["mask"][index].bool().numpy(),
            maskers={label: found and found[row] for label, found in maskers.items()},
        )
        for row, index in enumerate(shown)
    ]
