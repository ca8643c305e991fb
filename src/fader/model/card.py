"""The model card: what a fitted model is, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fader.data.layout import listed


def text(facts: Mapping[str, Any]) -> str:
    """The card, Markdown, from the facts of a model (see ``fader.model.store``)."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    images, threshold, validation = facts["images"], facts["threshold"], facts["validation"]
    yield f"# {facts['label']} on {images['given']} images"
    yield ""
    if validation["warning"]:
        yield f"**Warning:** {validation['warning']}."
        yield ""
    yield (
        f"Images: {images['fitted']} fitted, {images['held']} held out to choose on,"
        f" {images['checked']} on which nothing was chosen; {_sizes(images['sizes'])} pixels."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in _rows(facts):
        yield f"| {name} | {value} |"
    yield ""
    yield (
        f"**Threshold.** An image with a score above {threshold['value']:.6g} is called defective."
        f" {threshold['asked']:.2%} of normal images may be; of {threshold['normal']} held-out"
        f" normals {threshold['false_positives']:.2%} are, and of {threshold['defective']}"
        f" synthetic defects {threshold['recall']:.1%}. No defective image took part in it."
    )
    if threshold["extrapolated"]:
        yield (
            f"{threshold['normal']} normal images cannot attest a rate below 1 in"
            f" {threshold['normal']}: the threshold follows from their spread as if scores were"
            " normally distributed. Count false alarms on further good images before relying on it."
        )
    yield ""
    if facts["suspects"]:
        names = [f"{s['name']} ({s['deviations']:.1f} σ)" for s in facts["suspects"]]
        yield f"**Least like the rest**, look at them: {listed(names)}."
    else:
        yield "No given image stands out from the rest."
    yield ""
    yield (
        "`fader predict IMAGES --model THIS --out DIR` scores images; `fader fit --images GOOD"
        " --preset THIS/config.yaml --out NEW` fits the same again."
    )


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    validation, cost, machine = facts["validation"], facts["cost"], facts["machine"]
    yield (
        "validation AUROC, held-out normals against synthetic defects",
        f"image {validation['image_auroc']:.3f}, pixel {validation['pixel_auroc']:.3f}",
    )
    chosen = ", ".join(f"{name} {value}" for name, value in facts["chosen"].items())
    yield "chosen label-free", chosen or "nothing"
    steps = ", ".join(f"{name} {count}" for name, count in facts["steps"].items())
    yield "optimiser steps", steps or "none"
    yield "parameters", f"{facts['parameters']:,}"
    yield "fitted in", f"{cost['fit_seconds']:.1f} s"
    yield "an image", f"{cost['milliseconds_per_image']:.1f} ms"
    weights = ", ".join(facts["weights"].values())
    yield "pretrained weights", weights or "none"
    yield "their licence", ", ".join(facts["licences"].values()) or "–"
    yield "seed", str(facts["seed"])
    yield "machine", f"{machine['device']}, {machine['precision']}, {machine['threads']} thread(s)"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    yield "versions", f"fader-bench {facts['fader']}, {versions}"


def _sizes(sizes: list[str]) -> str:
    return sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes, {listed(sizes)}"
