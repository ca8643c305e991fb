"""The command line: one command a rule, plus the few that people type. Parse, call, print; no
logic.

Modules that import torch are imported inside the commands, so that ``fader --help`` answers at
once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fader.errors import FaderError

app = typer.Typer(
    name="fader",
    help="Reproducible benchmark of FADeR. `snakemake --cores all tables` runs everything;"
    " these are its steps and the tools around it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[
    Path, typer.Option("--config", envvar="FADER_PARAMS", help="Configuration file.")
]
DatasetName = Annotated[str, typer.Option("--dataset", help="Data set, a key of `datasets`.")]
CategoryName = Annotated[str, typer.Option("--category", help="Category of the data set.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed, one of `seeds`.")]

PARAMS = Path("params.yaml")


def _category(config: Path, dataset: str, category: str):
    from fader.config import load
    from fader.pipeline import Category

    return Category(load(config), dataset, category)


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help="demo, ci, bottle, real, paper or gpu.")],
    target: Annotated[Path, typer.Option("--to", help="File to write.")] = PARAMS,
) -> None:
    """Make presets/NAME.yaml the active configuration."""
    from fader.config import use_preset

    source = use_preset(name, target)
    typer.echo(f"{target} is now {source}")


@app.command()
def validate(config: ConfigFile = PARAMS) -> None:
    """Check a configuration; one line names the first wrong key."""
    from fader.config import load

    loaded = load(config)
    typer.echo(
        f"{config}: run {loaded.run!r}, {len(loaded.categories)} categories,"
        f" {len(loaded.methods())} methods, seeds {loaded.seeds}"
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    from fader.config import schema as text

    typer.echo(text(), nl=False)


@app.command()
def dataset(
    name: Annotated[str, typer.Argument(help="A key of `datasets`.")], config: ConfigFile = PARAMS
) -> None:
    """Generate, download, or point to a data set; writes data/raw/NAME/manifest.json."""
    from fader.config import load
    from fader.pipeline import dataset as make

    typer.echo(make(load(config), name))


@app.command()
def pack(dataset: DatasetName, category: CategoryName, config: ConfigFile = PARAMS) -> None:
    """Read a category's images and masks into one memory-mapped file."""
    from fader.pipeline import make_pack

    make_pack(_category(config, dataset, category))


@app.command()
def validation(dataset: DatasetName, category: CategoryName, config: ConfigFile = PARAMS) -> None:
    """Hold out training normals and paint synthetic defects on them."""
    from fader.pipeline import make_validation

    make_validation(_category(config, dataset, category))


@app.command()
def mask(
    dataset: DatasetName,
    category: CategoryName,
    masker: Annotated[str, typer.Option("--masker", help="A key of `masks.maskers`.")],
    config: ConfigFile = PARAMS,
) -> None:
    """Saliency and binary masks of every image by one masker."""
    from fader.pipeline import make_mask

    make_mask(_category(config, dataset, category), masker)


@app.command()
def train_ear(
    dataset: DatasetName, category: CategoryName, seed: Seed, config: ConfigFile = PARAMS
) -> None:
    """Pre-train EAR's U-Net on the fitted normals."""
    from fader.pipeline import train_ear as train

    train(_category(config, dataset, category), seed)


@app.command()
def search_mosaic(
    dataset: DatasetName, category: CategoryName, seed: Seed, config: ConfigFile = PARAMS
) -> None:
    """Choose the mosaic scale m* of a trained EAR."""
    from fader.pipeline import search_mosaic as search

    search(_category(config, dataset, category), seed)


@app.command()
def train_fader(
    dataset: DatasetName,
    category: CategoryName,
    seed: Seed,
    system: Annotated[str, typer.Option("--system", help="MASKER or MASKER-VARIANT.")],
    config: ConfigFile = PARAMS,
) -> None:
    """Train FADeR, or a variant of it, over its learning-rate grid."""
    from fader.pipeline import train_fader as train

    train(_category(config, dataset, category), seed, system)


@app.command()
def evaluate(
    dataset: DatasetName,
    category: CategoryName,
    seed: Seed,
    method: Annotated[str, typer.Option("--method", help="Such as ear-dino or fader-dino.")],
    config: ConfigFile = PARAMS,
) -> None:
    """Metrics and anomaly maps of one method on the test images."""
    from fader.pipeline import evaluate as run

    run(_category(config, dataset, category), seed, method)


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="table1 or table2.")], config: ConfigFile = PARAMS
) -> None:
    """Write one table of the paper as CSV, Markdown and LaTeX."""
    from fader.config import load
    from fader.report import make_table

    for path in make_table(load(config), name):
        typer.echo(path)


@app.command()
def figure(name: Annotated[str, typer.Argument(help="fig1.")], config: ConfigFile = PARAMS) -> None:
    """Draw one figure of the paper as PNG and PDF."""
    from fader.config import load
    from fader.report import make_figure

    for path in make_figure(load(config), name):
        typer.echo(path)


@app.command()
def check(
    update: Annotated[
        bool, typer.Option("--update", help="Make this run (three seeds or more) the expectation.")
    ] = False,
    config: ConfigFile = PARAMS,
) -> None:
    """Compare the run's AUROCs with reference/expected.csv; exit status 1 where one is off."""
    from fader import pipeline
    from fader.config import load
    from fader.report import gate

    loaded = load(config)
    records = pipeline.records(loaded)
    if update:
        rows = gate.update(records, gate.EXPECTED, loaded.run)
        typer.echo(f"{gate.EXPECTED}: {len(rows)} rows of run {loaded.run!r}")
        return
    cells = gate.compare(records, gate.read(gate.EXPECTED), loaded.run)
    typer.echo(gate.render(cells, colour=sys.stdout.isatty()))
    if not gate.passed(cells):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: a FaderError ends in one line on standard error and exit status 1."""
    try:
        app()
    except FaderError as error:
        print(f"fader: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
