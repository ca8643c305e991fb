"""How long what a table shows was trained: a table that is undertrained should say so itself."""

from collections.abc import Iterable, Mapping, Sequence

from fader.pipeline.methods import Method
from fader.report import labels
from fader.report.records import Records


def note(records: Records, methods: Iterable[Method], places: Sequence[str]) -> list[str]:
    """The optimiser steps, and epochs, of the trainings behind some methods, over categories and
    seeds; nothing where none was trained."""
    told: dict[str, dict[str, None]] = {}
    for method in dict.fromkeys(methods):
        lengths = [
            record.length
            for place in places
            for record in records.of(place, method).values()
            if record.length
        ]
        if lengths:
            told.setdefault(_label(records, method), {})[_in_words(lengths)] = None
    listed = "; ".join(f"{name} {' or '.join(texts)}" for name, texts in told.items())
    return [f"Trained for (optimiser steps): {listed}."] if listed else []


def _label(records: Records, method: Method) -> str:
    """EAR is one training for all maskers; so is, as a rule, the length of FADeR's and its
    variants'."""
    if method.stage in ("mask", "detector"):
        return labels.system(records.config, method)
    return "EAR" if method.stage == "ear" else "FADeR"


def _in_words(lengths: Sequence[Mapping[str, Mapping[str, int]]]) -> str:
    """``600 (11 to 14 epochs)``; stages of a training are added with a plus."""
    stages = dict.fromkeys(stage for length in lengths for stage in length)
    steps, epochs = (
        [_range([length[stage][unit] for length in lengths if stage in length]) for stage in stages]
        for unit in ("steps", "epochs")
    )
    return f"{' + '.join(steps)} ({' + '.join(epochs)} epochs)"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
