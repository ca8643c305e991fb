"""The command line: one command a rule, plus the few that people type. Parse, call, print; no
logic.

Modules that import torch are imported inside the commands, so that ``fader --help`` answers at
once.
"""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fader.model import commands

if TYPE_CHECKING:
    from fader.config import Config

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
Phase = Annotated[str, typer.Argument(help="dataset, pack, … evaluate, report.")]
Place = Annotated[
    str | None, typer.Argument(help="A key of `categories` (of `datasets` for dataset).")
]
System = Annotated[str | None, typer.Option("--system", help="A masker, variant or detector.")]

PARAMS = Path("params.yaml")
INTERRUPTED = 130  # exit status after ^C


def _planned(config: Path) -> "Config":
    """The configuration, less the optional maskers that the run goes without."""
    from fader.config import load
    from fader.pipeline.weights import planned

    return planned(load(config))


@app.command()
def preset(
    name: Annotated[
        str, typer.Argument(help="demo, ci, bottle, real, paper or gpu; own: images of your own.")
    ],
    target: Annotated[Path, typer.Option("--to", help="File to write.")] = PARAMS,
    root: Annotated[
        Path | None, typer.Option("--root", help="With own: the folder of the categories.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--layout", help="With own: mvtec or visa, where both are there.")
    ] = None,
) -> None:
    """Make presets/NAME.yaml, or one for images of your own, the active configuration."""
    from fader.config import use_preset
    from fader.data import own
    from fader.errors import FaderError

    if (name == "own") != (root is not None) or (layout and root is None):
        raise FaderError("preset: own and --root DIR, the folder of the categories, go together")
    if root is None:
        source, kept = use_preset(name, target)
        typer.echo(f"{target} is now {source}")
    else:
        images, kept = own.use(root, layout, target)
        typer.echo(f"{target}: {images}")
    if kept:
        typer.echo(f"{kept} is what {target} was before")


@app.command()
def validate(config: ConfigFile = PARAMS) -> None:
    """Check a configuration, and the folders of one's own; one line names the first mistake."""
    from fader.config import load
    from fader.data import own
    from fader.pipeline import listing
    from fader.pipeline.methods import methods

    loaded = load(config)
    own.check(loaded, loaded.categories, str(config))
    for line in listing.descriptions(loaded):
        typer.echo(line)
    typer.echo(
        f"{config}: run {loaded.run!r}, {len(loaded.categories)} categories,"
        f" {len(methods(loaded))} methods, seeds {loaded.seeds}"
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    from fader.config import schema as text

    typer.echo(text(), nl=False)


@app.command()
def run(
    phase: Phase,
    place: Place = None,
    system: System = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One of `seeds`.")] = None,
    config: ConfigFile = PARAMS,
) -> None:
    """Do one job of one phase: what a rule runs."""
    from fader import steps
    from fader.pipeline.context import Context
    from fader.pipeline.jobs import Job
    from fader.pipeline.locks import hold_job

    context = Context(_planned(config), Job(phase, place, system, seed))
    hold_job(context.job)
    steps.run(context)


@app.command()
def check(
    update: Annotated[
        bool, typer.Option("--update", help="Make this run (three seeds or more) the expectation.")
    ] = False,
    pool: Annotated[
        bool, typer.Option("--pool", help="Likewise, with what another processor measured.")
    ] = False,
    config: ConfigFile = PARAMS,
) -> None:
    """Compare the run's AUROCs with reference/expected.csv; exit status 1 where one is off."""
    from fader.report import expected, gate
    from fader.report.records import Records

    records = Records.read(_planned(config))
    if update or pool:
        rows = gate.update(records, expected.EXPECTED, pool=pool)
        typer.echo(f"{expected.EXPECTED}: {len(rows)} rows of run {records.config.run!r}")
        return
    cells = gate.compare(records, expected.read(expected.EXPECTED))
    typer.echo(gate.render(cells, colour=sys.stdout.isatty()))
    if not gate.passed(cells):
        raise typer.Exit(1)


@app.command()
def errata() -> None:
    """Write reference/ERRATA.md: what does not add up in the paper's own numbers."""
    from fader.report import REFERENCE
    from fader.report import errata as page

    typer.echo(page.write(REFERENCE))


@app.command()
def make(
    phase: Phase,
    place: Place = None,
    system: Annotated[str | None, typer.Argument(help="A masker, variant or detector.")] = None,
) -> None:
    """Ask Snakemake for one phase's files at one place: what a DVC stage runs."""
    from fader.pipeline.record import make as ask

    ask(_planned(PARAMS), phase, place, system)


@app.command()
def inputs() -> None:
    """Bring workflow/inputs up to date: digests of code and of the user's own files, for DVC."""
    from fader.config import load
    from fader.pipeline.external import write_states
    from fader.pipeline.record import require_dvc
    from fader.pipeline.weights import plan

    require_dvc()
    typer.echo(f"{write_states(plan(load(PARAMS)))} changed")


@app.command()
def record() -> None:
    """Run Snakemake on all that DVC finds stale, and record the result in dvc.lock."""
    from fader.config import load
    from fader.pipeline.record import record as run
    from fader.pipeline.weights import plan

    typer.echo(run(plan(load(PARAMS))))


@app.command()
def restore() -> None:
    """After `dvc pull`: let Snakemake take the files as made."""
    from fader.config import load
    from fader.pipeline.record import restore as run
    from fader.pipeline.weights import plan

    typer.echo(run(plan(load(PARAMS))))


@app.command()
def dvc_yaml() -> None:
    """Print dvc.yaml."""
    from fader.config import load
    from fader.pipeline.dvc import dvc_yaml as text

    typer.echo(text(load(EXAMPLE)), nl=False)


EXAMPLE = Path("presets/ci.yaml")  # has a system of every phase

for command in commands.COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry point: what the user can mend ends in one line on standard error and exit status 1; an
    interrupt with 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that is no text can be printed
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("interrupted; run the same command again to go on")
        if end.code:
            raise
        _end()
    except BrokenPipeError:  # whoever read has seen enough
        _drop_output()
        sys.exit(1)
    except Exception as error:
        from fader.files import explained

        line = explained(error)
        if line is None:
            raise
        _drop_output()
        _say(line)
        sys.exit(1)


def _end() -> NoReturn:
    """End with status 0, all written, but without freeing every object of torch one by one, which
    takes up to a second of each job."""
    sys.stderr.flush()
    os._exit(0)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # where the log cannot be written either
        print(f"fader: {line}", file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Let nothing be written at exit: what could not be written once cannot be then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
