"""The commands for images of one's own: fit, choose, predict, export."""

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[Path, typer.Option("--images", help="Folder of good images.")]
ModelFolder = Annotated[Path, typer.Option("--model", help="Directory of a fitted model.")]
Detector = Annotated[
    str | None,
    typer.Option("--detector", help="patchcore (the default), pca, riad, …, ear or fader."),
]
Preset = Annotated[
    str, typer.Option("--preset", help="A built-in preset, or a file: MODEL/config.yaml.")
]
Size = Annotated[
    int | None, typer.Option("--size", min=1, help="Side of what the detector sees, pixels.")
]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Time that it may take.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of everything that is drawn.")]
White = Annotated[
    float | None, typer.Option("--white", help="Value of white in images of more than 8 bits.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fit(
    images: Images,
    out: Annotated[Path, typer.Option("--out", help="Directory of the model, a new one.")],
    detector: Detector = None,
    preset: Preset = "real",
    size: Size = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the images, instead.")
    ] = None,
    minutes: Minutes = None,
    seed: Seed = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            "--false-alarms", help="Share of good images that may be called defective; 0.01."
        ),
    ] = None,
    white: White = None,
) -> None:
    """Fit a detector on a folder of good images; the model is a directory."""
    from fader.model.model import Model

    model = Model(
        detector,
        preset=preset,
        size=size,
        steps=steps,
        epochs=epochs,
        minutes=minutes,
        seed=seed,
        false_alarms=false_alarms,
        white=white,
    )
    model.fit(images, out)
    typer.echo(str(out))


def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    model: ModelFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder of heat maps, maps and the table.")],
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON an image.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images at a time.")] = 16,
) -> None:
    """Score images by a model; exit status 1 where one cannot be read."""
    from fader.model.model import Model
    from fader.model.predicting import predict as run

    def complain(line: str) -> None:
        typer.echo(f"fader: {line}", err=True)

    emit = typer.echo if json else None
    summary = run(Model.load(model), images, out, batch=batch, emit=emit, complain=complain)
    typer.echo(str(summary), err=json)
    if summary.unread:
        raise typer.Exit(1)


def choose(
    images: Images,
    minutes: Minutes = None,
    defects: Annotated[
        Path | None, typer.Option("--defects", help="Folder of a few bad images, to rank by.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Folder of their masks, NAME_mask.png of NAME.png."),
    ] = None,
    detector: Annotated[
        list[str] | None, typer.Option("--detector", help="One to try; repeat it; all otherwise.")
    ] = None,
    preset: Preset = "real",
    size: Size = None,
    seed: Seed = None,
    white: White = None,
    json: Json = False,
) -> None:
    """Fit every detector that fits the time, and rank them without a label."""
    from fader.model.choosing import choose as run

    ranking = run(
        images,
        minutes=minutes,
        defects=defects,
        masks=masks,
        detectors=detector or None,
        preset=preset,
        size=size,
        seed=seed,
        white=white,
    )
    if json:
        from json import dumps

        typer.echo(dumps(ranking.plain(), ensure_ascii=False))
        return
    for line in ranking.lines():
        typer.echo(line)


def export(
    model: ModelFolder,
    onnx: Annotated[Path, typer.Option("--onnx", help="File to write, NAME.onnx.")],
    parts: Annotated[
        bool, typer.Option("--parts", help="Masker and network as files of their own as well.")
    ] = False,
) -> None:
    """Write a model as an ONNX graph, from RGB images to scores and maps."""
    from fader.model.model import Model

    for path in Model.load(model).export(onnx, parts):
        typer.echo(str(path))


COMMANDS = (fit, choose, predict, export)
