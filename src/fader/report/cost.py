"""What inference costs, as a table: the facts of ``fader.evaluation.cost.components`` in print."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from fader.config import Config
from fader.pipeline.methods import Method
from fader.report import labels, numbers
from fader.report.render import ABSENT, bullets

Row = Mapping[str, Any]

DEVICE_LABEL = {"cpu": "CPU", "cuda": "GPU"}
_COMPONENT = {
    "network": "U-Net, one pass",
    "phi-mlp": "Φ, MLP",
    "phi-vit": "Φ, ViT",
    "map": "Anomaly map",
}


def table(config: Config, rows: Sequence[Row]) -> tuple[str, str]:
    """The table as CSV, every number as measured, and as Markdown, to three digits.

    Parameters
    ----------
    rows : as ``evaluation.cost.components`` gives them, components before systems.
    """
    return _csv(rows), _markdown(config, rows)


def label(config: Config, row: Row) -> str:
    """What a row is called in print, with m of Φ."""
    name = row["name"]
    if name in _COMPONENT:
        return _COMPONENT[name] + ("" if row["patch"] is None else f" (m = {row['patch']})")
    return labels.method(config, Method.parse(name))


def _columns(facts: Sequence[Row]) -> list[tuple[str, int]]:
    """(device, batch) of the timings, in order."""
    return list(dict.fromkeys((t["device"], t["batch"]) for row in facts for t in row["timings"]))


def _csv(facts: Sequence[Row]) -> str:
    columns = _columns(facts)
    plain = ("name", "kind", "input", "patch", "parameters", "trained", "macs", "bytes")
    rows = []
    for row in facts:
        times = {(t["device"], t["batch"]): t["milliseconds"] for t in row["timings"]}
        parts = " + ".join(f"{n} × {name}" for name, n in row["parts"].items())
        rows.append([*(row[key] for key in plain), parts, *(times[key] for key in columns)])
    header = (*plain, "parts", *(f"{device}_ms_batch{batch}" for device, batch in columns))
    return numbers.table(header, rows)


def _markdown(config: Config, facts: Sequence[Row]) -> str:
    columns = _columns(facts)
    headers = ["", "System", "Input", "Parameters, M", "trained, M", "GMAC", "Size, MB"]
    headers += [f"{DEVICE_LABEL[device]}, batch {batch}, ms" for device, batch in columns]
    lines, previous = [], None
    for row in facts:
        times = {(t["device"], t["batch"]): t["milliseconds"] for t in row["timings"]}
        lines.append(
            [
                row["kind"].capitalize() if row["kind"] != previous else "",
                label(config, row),
                f"{row['input']}²",
                figure(row["parameters"] / 1e6),
                figure(row["trained"] / 1e6),
                figure(row["macs"] / 1e9),
                figure(row["bytes"] / 1e6),
                *(figure(times[key]) for key in columns),
            ]
        )
        previous = row["kind"]
    body = tabulate(
        lines,
        headers=headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left", "left"] + ["right"] * (len(headers) - 2),
    )
    return f"{_caption(facts)}\n\n{body}\n" + bullets(_notes(config, facts))


def figure(value: float | None) -> str:
    """A number to three digits, without exponent; a dash for None."""
    if value is None:
        return ABSENT
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _caption(facts: Sequence[Row]) -> str:
    size = next(row["input"] for row in facts if row["kind"] == "system")
    where = dict.fromkeys(
        f"{t['name']} ({t['precision']}, {_threads(t)})" for row in facts for t in row["timings"]
    )
    return (
        f"Cost of inference per image of {size} × {size} pixels. A system is the sum of its"
        " components: EAR has masker, U-Net and anomaly map, FADeR Φ besides (its MLP); a baseline"
        " is measured whole."
        " Parameters: all that inference needs; trained: those learnt from a category's normals."
        " GMAC: 10⁹ multiply–accumulates of convolutions, linear layers, products of matrices and"
        " attention. Size: weights in fp32. Milliseconds per image: median after a warm-up, with"
        f" random weights of the same architecture, on {' and '.join(where)}."
    )


def _threads(timing: Mapping[str, Any]) -> str:
    if timing["device"] != "cpu":
        return "deterministic algorithms"
    return f"{timing['threads']} thread{'s' if timing['threads'] > 1 else ''}"


def _notes(config: Config, facts: Sequence[Row]) -> list[str]:
    """What the figures do not tell, of what was measured itself: a component, or a system that is
    its own only part."""
    measured = [row for row in facts if row["name"] in row["parts"]]
    notes = [f"{label(config, row)}: {row['note']}." for row in measured if row["note"]]
    return notes + [
        f"{label(config, row)}, {DEVICE_LABEL[t['device']]}: batch {t['batch']} not timed,"
        f" {t['note']}."
        for row in measured
        for t in row["timings"]
        if t["note"]
    ]
