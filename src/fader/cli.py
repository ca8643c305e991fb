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
    from fader.steps.category import Category

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
    from fader.steps.dataset import dataset as make

    typer.echo(make(load(config), name))


@app.command()
def pack(dataset: DatasetName, category: CategoryName, config: ConfigFile = PARAMS) -> None:
    """Read a category's images and masks into one memory-mapped file."""
    from fader.steps.pack import make_pack

    make_pack(_category(config, dataset, category))


@app.command()
def validation(dataset: DatasetName, category: CategoryName, config: ConfigFile = PARAMS) -> None:
    """Hold out training normals and paint synthetic defects on them."""
    from fader.steps.validation import make_validation

    make_validation(_category(config, dataset, category))


MaskerOption = Annotated[str, typer.Option("--masker", help="A key of `masks.maskers`.")]


@app.command()
def train_codebook(config: ConfigFile = PARAMS) -> None:
    """Train, or read from its file, the codebook that all categories share."""
    from fader.config import load
    from fader.steps.codebook import make_codebook

    make_codebook(load(config))


@app.command()
def train_masker(
    dataset: DatasetName,
    category: CategoryName,
    seed: Seed,
    masker: MaskerOption,
    config: ConfigFile = PARAMS,
) -> None:
    """Fit a masker that learns on the fitted normals."""
    from fader.steps.masker import train_masker as train

    train(_category(config, dataset, category), seed, masker)


@app.command()
def mask(
    dataset: DatasetName,
    category: CategoryName,
    masker: MaskerOption,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of a masker that learns.")
    ] = None,
    config: ConfigFile = PARAMS,
) -> None:
    """Saliency and binary masks of every image by one masker."""
    from fader.steps.mask import make_mask

    make_mask(_category(config, dataset, category), masker, seed)


@app.command()
def train_ear(
    dataset: DatasetName, category: CategoryName, seed: Seed, config: ConfigFile = PARAMS
) -> None:
    """Pre-train EAR's U-Net on the fitted normals."""
    from fader.steps.ear import train_ear as train

    train(_category(config, dataset, category), seed)


@app.command()
def search_mosaic(
    dataset: DatasetName, category: CategoryName, seed: Seed, config: ConfigFile = PARAMS
) -> None:
    """Choose the mosaic scale m* of a trained EAR."""
    from fader.steps.mosaic import search_mosaic as search

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
    from fader.steps.fader import train_fader as train

    train(_category(config, dataset, category), seed, system)


@app.command()
def evaluate(
    dataset: DatasetName,
    category: CategoryName,
    seed: Seed,
    method: Annotated[
        list[str], typer.Option("--method", help="Such as ear-dino or fader-dino; repeatable.")
    ],
    config: ConfigFile = PARAMS,
) -> None:
    """Metrics and anomaly maps of one or more methods on the test images."""
    from fader.steps.evaluate import evaluate as run

    for name in method:
        run(_category(config, dataset, category), seed, name)


@app.command()
def summarise(dataset: DatasetName, category: CategoryName, config: ConfigFile = PARAMS) -> None:
    """Gather what was measured on a category in one small file."""
    from fader.steps.records import summarise as write

    write(_category(config, dataset, category))


@app.command()
def cost(config: ConfigFile = PARAMS) -> None:
    """Count and time what inference costs on this machine."""
    from fader.config import load
    from fader.steps.cost import measure_cost

    measure_cost(load(config))


@app.command()
def table(
    names: Annotated[
        list[str],
        typer.Argument(help="table1 … table4, masks, controls, validation, cost, …"),
    ],
    config: ConfigFile = PARAMS,
) -> None:
    """Write tables of the paper, and those beside them, as CSV, Markdown and LaTeX."""
    from fader.config import load
    from fader.pipeline.record import warnings
    from fader.report import make_tables

    loaded = load(config)
    for path in make_tables(loaded, names):
        typer.echo(path)
    if "validation" in names:
        for line in warnings(loaded.run):
            typer.echo(line, err=True)


@app.command()
def figure(
    names: Annotated[list[str], typer.Argument(help="fig1, fig2 or fig6.")],
    config: ConfigFile = PARAMS,
) -> None:
    """Draw figures of the paper as PNG and PDF."""
    from fader.config import load
    from fader.report import make_figure

    loaded = load(config)
    for name in names:
        for path in make_figure(loaded, name):
            typer.echo(path)


@app.command()
def check(
    update: Annotated[
        bool, typer.Option("--update", help="Make this run (three seeds or more) the expectation.")
    ] = False,
    config: ConfigFile = PARAMS,
) -> None:
    """Compare the run's AUROCs with reference/expected.csv; exit status 1 where one is off."""
    from fader.config import load
    from fader.report import gate
    from fader.steps.records import records

    loaded = load(config)
    found = records(loaded)
    if update:
        rows = gate.update(found, gate.EXPECTED, loaded.run)
        typer.echo(f"{gate.EXPECTED}: {len(rows)} rows of run {loaded.run!r}")
        return
    cells = gate.compare(found, gate.read(gate.EXPECTED), loaded.run)
    typer.echo(gate.render(cells, colour=sys.stdout.isatty()))
    if not gate.passed(cells):
        raise typer.Exit(1)


@app.command()
def numbers(config: ConfigFile = PARAMS) -> None:
    """Write averages and points of curves for `dvc metrics` and `dvc plots`."""
    from fader.config import load
    from fader.report import make_numbers

    for path in make_numbers(load(config)):
        typer.echo(path)


@app.command()
def make(
    phase: Annotated[str, typer.Argument(help="dataset, pack, … evaluate, report.")],
    stage: Annotated[
        str | None, typer.Argument(help="A key of `categories` (of `datasets` for dataset).")
    ] = None,
) -> None:
    """Ask Snakemake for one phase's files of one category: what a DVC stage runs."""
    from fader.config import load
    from fader.pipeline.record import make as ask

    ask(load(PARAMS), phase, stage)


@app.command()
def record() -> None:
    """Run Snakemake on all that DVC finds stale, and record the result in dvc.lock."""
    from fader.config import load
    from fader.pipeline.record import record as run

    typer.echo(run(load(PARAMS)))


@app.command()
def restore() -> None:
    """After `dvc pull`: let Snakemake take the files as made."""
    from fader.pipeline.record import restore as run

    typer.echo(run())


@app.command()
def closure() -> None:
    """Print workflow/closure.json: the source files that each phase runs."""
    from fader.pipeline.code import text

    typer.echo(text(), nl=False)


@app.command()
def dvc_yaml() -> None:
    """Print dvc.yaml."""
    from fader.pipeline.record import dvc_yaml as text

    typer.echo(text(), nl=False)


def main() -> None:
    """Entry point: a FaderError ends in one line on standard error and exit status 1."""
    try:
        app()
    except FaderError as error:
        print(f"fader: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
