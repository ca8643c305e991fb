"""What inference costs, as a table: the facts of ``fader.evaluation.cost.components`` in print."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from fader.report import numbers
from fader.report.table import ABSENT, MASKER_LABEL

Row = Mapping[str, Any]

DEVICE_LABEL = {"cpu": "CPU", "cuda": "GPU"}
_LABEL = {
    "network": "U-Net, one pass",
    "phi-mlp": "Φ, MLP",
    "phi-vit": "Φ, ViT",
    "map": "Anomaly map",
    "riad": "RIAD",
    "unet": "Plain U-Net",
}
_OF_MASKER = {"mask": "Masker", "ear": "EAR", "fader": "FADeR"}


def table(facts: Sequence[Row]) -> dict[str, str]:
    """Texts of the table by suffix: ``csv``, every number as measured, and ``md``, three digits.

    facts : rows as ``efficiency.components`` gives them, components before systems.
    """
    return {"csv": _csv(facts), "md": _markdown(facts)}


def label(row: Row) -> str:
    """What a row is called in print, with m of Φ and the passes of RIAD."""
    name = row["name"]
    stage, _, masker = name.partition("-")
    if stage in _OF_MASKER:
        return f"{_OF_MASKER[stage]}, {MASKER_LABEL.get(masker, masker)}"
    if row["patch"] is not None:
        return f"{_LABEL[name]} (m = {row['patch']})"
    if name == "riad":
        return f"{_LABEL[name]} ({row['parts']['network']} passes)"
    return _LABEL[name]


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


def _markdown(facts: Sequence[Row]) -> str:
    columns = _columns(facts)
    headers = ["", "System", "Input", "Parameters, M", "trained, M", "GMAC", "Size, MB"]
    headers += [f"{DEVICE_LABEL[device]}, batch {batch}, ms" for device, batch in columns]
    lines, previous = [], None
    for row in facts:
        times = {(t["device"], t["batch"]): t["milliseconds"] for t in row["timings"]}
        lines.append(
            [
                row["kind"].capitalize() if row["kind"] != previous else "",
                label(row),
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
    notes = "".join(f"- {note}\n" for note in _notes(facts))
    return f"{_caption(facts)}\n\n{body}\n" + (f"\n{notes}" if notes else "")


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
        " components: EAR has masker, U-Net and anomaly map, FADeR Φ besides (its MLP)."
        " Parameters: all that inference needs; trained: those learnt from a category's normals."
        " GMAC: 10⁹ multiply–accumulates of convolutions, linear layers, products of matrices and"
        " attention. Size: weights in fp32. Milliseconds per image: median after a warm-up, with"
        f" random weights of the same architecture, on {' and '.join(where)}."
    )


def _threads(timing: Mapping[str, Any]) -> str:
    if timing["device"] != "cpu":
        return "deterministic algorithms"
    return f"{timing['threads']} thread{'s' if timing['threads'] > 1 else ''}"


def _notes(facts: Sequence[Row]) -> list[str]:
    components = [row for row in facts if row["kind"] == "component"]
    notes = [f"{label(row)}: {row['note']}." for row in components if row["note"]]
    return notes + [
        f"{label(row)}, {DEVICE_LABEL[t['device']]}: batch {t['batch']} not timed, {t['note']}."
        for row in components
        for t in row["timings"]
        if t["note"]
    ]
