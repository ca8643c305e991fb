"""A model: fitted on images of the user's own, it scores others; saved, it is a directory."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from fader import __version__, runtime
from fader.data.decode import White, each
from fader.errors import FaderError
from fader.files import shown
from fader.model import images as sources
from fader.model import store
from fader.model.fitting import Fitted, fitted, removed, said, started
from fader.model.images import Found, Item, Sizes, Source
from fader.model.predictions import Prediction, Predictions, Unread
from fader.model.settings import plan
from fader.model.system import System
from fader.model.trainings import check_minutes, told
from fader.model.wording import options_named, worded


class NotFittedError(FaderError, AttributeError):
    """A model is asked for what it can say only after ``fit``."""


class Model:
    """A detector for images of one's own.

    Parameters
    ----------
    detector : a key of the preset's ``detectors`` (``patchcore``, ``pca``, ``riad`` …), ``ear`` or
        ``fader``; None takes that of the preset's section ``fit``, or else PatchCore.
    preset : name of a built-in preset, or path of a configuration, such as a model's own
        ``config.yaml``.
    size : side of what the detector sees, pixels; None takes the preset's.
    steps, epochs : length of the training, one of the two; FADeR's follows EAR's in proportion.
    minutes : that ``fit`` may take; a training is cut down to the steps that fit. A detector that
        is not trained step by step takes what it takes.
    seed : of everything that is drawn, 0 or more; None takes the preset's.
    false_alarms : share in (0, 1) of normal images that may be above the threshold; None takes the
        preset's section ``fit``, or else 0.01.
    white : pixel value of white in images of more than 8 bits; None measures it.
    progress : say on standard error what is done, with a progress bar on a terminal.

    Attributes
    ----------
    facts : what is known of the fitted model, as in ``model.json``: images, validation, threshold,
        suspects, cost, versions.

    Raises
    ------
    FaderError : no such preset or detector, or values that do not go together.

    Examples
    --------
    >>> model = Model("pca").fit("good/")            # doctest: +SKIP
    >>> model.predict("new/").defective              # doctest: +SKIP
    """

    def __init__(
        self,
        detector: str | None = None,
        *,
        preset: str | Path = "real",
        size: int | None = None,
        steps: int | None = None,
        epochs: int | None = None,
        minutes: float | None = None,
        seed: int | None = None,
        false_alarms: float | None = None,
        white: float | None = None,
        progress: bool = True,
    ) -> None:
        check_minutes(minutes)
        self.plan = plan(
            preset,
            detector=detector,
            size=size,
            steps=steps,
            epochs=epochs,
            seed=seed,
            false_alarms=false_alarms,
            white=white,
        )
        self.minutes, self.progress = minutes, progress
        self._system: System | None = None
        self._facts: dict[str, Any] = {}

    def fit(self, images: Source, out: str | Path | None = None) -> Self:
        """Learn from normal images.

        Parameters
        ----------
        images : a folder, files, or arrays (N, H, W, 3) uint8 RGB, N ≥ 6.
        out : directory to save the model in when it is fitted. Meanwhile checkpoints lie in
            ``OUT.work`` beside it, from which a fit that was killed goes on. None saves nothing.

        Raises
        ------
        FaderError : too few images, one that cannot be read, or ``out`` is taken.
        """
        if out is not None:
            store.check_free(Path(out))
        say = self._say
        found = sources.find(images)
        say(str(found))
        with options_named():
            pictures = sources.read(found, self.plan.sides, self.plan.white)
        for line in pictures.remarks():
            say(line)
        with _work(out) as work, told(silent=not self.progress), options_named():
            result = fitted(started(pictures, self.plan, work, say, self.minutes), say)
            self.plan, self._system = result.system.plan, result.system
            self._facts = _facts(result, pictures)
            for line in said(result):
                say(line)
            if out is not None:
                self.save(out)
                removed(work)
        return self

    def _say(self, line: str) -> None:
        if self.progress:
            print(line, file=sys.stderr, flush=True)

    # What a fitted model says.

    @property
    def system(self) -> System:
        """Masker and detector.

        Raises
        ------
        NotFittedError : before ``fit``.
        """
        if self._system is None:
            raise NotFittedError(
                "this model is not fitted yet; call fit(images) first, or load a saved one"
            )
        return self._system

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the fitted model; NotFittedError before ``fit``."""
        assert self.system
        return self._facts

    @property
    def threshold(self) -> float:
        """Above which an image's score counts as defective; NotFittedError before ``fit``."""
        return float(self.facts["threshold"]["value"])

    def predict(self, images: Source, batch: int = 16) -> Predictions:
        """Scores, verdicts and maps of images; they are all in memory, see ``stream``.

        Parameters
        ----------
        images : a folder, files, or arrays (N, H, W, 3) uint8 RGB.
        batch : images at a time.

        Raises
        ------
        NotFittedError : before ``fit``.
        FaderError : no image, or one that cannot be read.
        """
        assert self.system
        found = []
        for one in self.stream(sources.find(images), batch):
            if isinstance(one, Unread):
                raise FaderError(one.reason)
            found.append(one)
        return Predictions(
            names=[one.name for one in found],
            scores=np.array([one.score for one in found], np.float32),
            defective=np.array([one.defective for one in found]),
            maps=np.stack([one.map for one in found]),
            sizes=[one.size for one in found],
            threshold=self.threshold,
        )

    def stream(self, found: Found, batch: int = 16) -> Iterator[Prediction | Unread]:
        """What the model says of images, in order, a batch of them in memory at a time.

        Raises
        ------
        NotFittedError : before ``fit``.
        """
        system, white = self.system, self.facts["images"]["white"]
        level = White(white) if white else None
        sides = self.plan.sides

        def decoded(index: int) -> tuple[Sizes, sources.Sides] | str:
            try:
                return sources.decoded(found.items[index], sides, level)
            except FaderError as error:
                return worded(str(error))

        names = found.names
        every = range(len(found))
        for rows in (every[start : start + batch] for start in every[::batch]):
            began = time.perf_counter()
            read = dict(zip(rows, each(decoded, rows), strict=True))
            good = {row: one for row, one in read.items() if not isinstance(one, str)}
            if good:
                pixels = {
                    side: torch.from_numpy(np.stack([one[1][side] for one in good.values()]))
                    for side in sides
                }
                scores = system.scores(pixels)
            seconds = (time.perf_counter() - began) / len(rows)
            at = {row: number for number, row in enumerate(good)}
            for row in rows:
                one = read[row]
                if isinstance(one, str):
                    yield Unread(names[row], one)
                    continue
                score = float(scores.images[at[row]])
                yield Prediction(
                    name=names[row],
                    place=found.places[row],
                    item=found.items[row],
                    size=one[0],
                    score=score,
                    defective=score > self.threshold,
                    map=scores.maps[at[row]].numpy(),
                    seconds=seconds,
                )

    def opened(self, item: Item) -> Image.Image:
        """An image as the model's images are read: upright, RGB of 8 bits."""
        white = self.facts["images"]["white"]
        with options_named():
            return sources.opened(item, White(white) if white else None)

    # What is kept.

    def save(self, folder: str | Path) -> Path:
        """Write the model as a new directory, whole or not at all; returns it.

        Raises
        ------
        NotFittedError : before ``fit``.
        FaderError : the directory is there and not empty, or cannot be written.
        """
        store.write(Path(folder), self.system.state(), self.facts, self.plan)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """A saved model.

        Raises
        ------
        FaderError : no model, a damaged one, or one whose pretrained weights are not these here.
        """
        saved = store.read(Path(folder))
        model = cls(preset=saved.config)
        system = System(model.plan, runtime.start(model.plan.config.runtime))
        system.load(saved.state, saved.facts["chosen"])
        if system.weights != saved.facts["weights"]:
            raise FaderError(
                f"{shown(folder)}: was fitted on {', '.join(saved.facts['weights'].values())}, but"
                f" here is {', '.join(system.weights.values())}; put the same weights back"
            )
        model._system, model._facts = system, saved.facts
        return model

    def export(self, path: str | Path, parts: bool = False) -> list[Path]:
        """Write the model as an ONNX graph from RGB images to scores and maps; see
        ``fader.model.onnx``.

        Parameters
        ----------
        path : of the file, ``NAME.onnx``.
        parts : write masker and network apart as well.
        """
        from fader.model import onnx

        system, masks = self.system, self.plan.config.masks
        assert system.detector is not None
        rule, level = masks.threshold(masks.base)
        facts = {
            "threshold": repr(self.threshold),
            "licences": ", ".join(self.facts["licences"].values()),
        }
        return onnx.export(
            system.masker,
            system.detector,
            path,
            size=self.plan.side,
            rule=rule,
            level=level,
            parts=parts,
            facts=facts,
        )


def fit(images: Source, out: str | Path | None = None, **options: Any) -> Model:
    """A model fitted on normal images: ``Model(**options).fit(images, out)``."""
    return Model(**options).fit(images, out)


def load(folder: str | Path) -> Model:
    """A saved model: ``Model.load``."""
    return Model.load(folder)


@contextmanager
def _work(out: str | Path | None) -> Iterator[Path]:
    """The folder of checkpoints: beside the model where it is saved."""
    if out is not None:
        target = Path(out)
        yield target.with_name(f"{target.name}.work")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _facts(result: Fitted, pictures: sources.Pictures) -> dict[str, Any]:
    """What ``model.json`` says."""
    system, data = result.system, result.data
    counted = {name: len(fold.rows) for name, fold in data.folds.items()}
    sizes = sorted({f"{width} x {height}" for height, width in pictures.sizes})
    return {
        "fader": __version__,
        "detector": system.plan.detector,
        "label": system.plan.label,
        "images": {
            "given": len(pictures),
            "fitted": len(data.fit),
            **counted,
            "sizes": sizes,
            "ignored": dict(pictures.ignored),
            "white": pictures.white and pictures.white.value,
            "digest": pictures.digest,
        },
        "seed": system.plan.seed,
        **result.facts(),
        "weights": system.weights,
        "licences": store.licences(system.backbones),
        "parameters": system.parameters,
        "machine": system.machine.facts(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "cost": {
            "fit_seconds": round(result.seconds, 2),
            "milliseconds_per_image": round(result.milliseconds, 2),
        },
    }
