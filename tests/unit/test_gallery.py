"""Which test images the gallery shows, and what is kept of them."""

import numpy as np
import pytest
import torch
from chain import CONFIG, EVALUATE, FADER, PACK, PLACE, file, record

from fader.pipeline.artifacts import read_header, read_tensors
from fader.pipeline.jobs import Job
from fader.steps.gallery import shown

GALLERY = Job("gallery", PLACE)


def chosen(scores, labels, most, errors=2, defects=None, limit=0.5) -> list[int]:
    defects = defects or ["scratch" if label else "good" for label in labels]
    return shown(np.array(scores), labels, defects, limit, most, errors).tolist()


@pytest.mark.parametrize(
    ("scores", "labels", "most", "expected"),
    [
        ([0.1, 0.9], [0, 1], 9, [0, 1]),  # as many as there are
        ([0.9, 0.8, 0.7, 0.1], [0, 0, 0, 0], 2, [0, 1]),  # the worst false positives
        ([0.4, 0.1, 0.3, 0.9], [1, 1, 1, 1], 2, [1, 2]),  # the worst false negatives
        ([0.9, 0.1, 0.2, 0.8], [0, 1, 0, 1], 3, [0, 1, 2]),  # one more, of the first type
        ([0.5], [1], 1, [0]),  # at the threshold is not above it
        ([0.1, 0.2, 0.45], [0, 0, 0], 1, [2]),  # without errors the nearest to one
        ([0.1, 0.2], [0, 0], 0, []),
    ],
)
def test_worst_errors_come_first_and_others_in_turn(scores, labels, most, expected):
    assert chosen(scores, labels, most) == expected


def test_every_type_of_defect_has_its_turn():
    defects = ["good"] * 6 + ["hole", "scratch"]
    labels = [0] * 6 + [1, 1]
    scores = [0.4] * 6 + [0.9, 0.8]
    assert chosen(scores, labels, 3, defects=defects) == [0, 6, 7]


def test_pictures_are_those_of_the_model_that_was_measured(whole, monkeypatch):
    monkeypatch.chdir(whole)
    kept, facts = (read(file(CONFIG, GALLERY, "pictures")) for read in (read_tensors, read_header))
    measured = record(CONFIG, "fader-dinov2")
    rows = kept["index"]
    assert rows.tolist() == list(range(len(read_tensors(file(CONFIG, PACK, "packed"))["label"])))
    scores = torch.tensor(measured["scores"])[rows]
    assert torch.allclose(kept["map"].float().flatten(1).amax(1), scores, atol=1e-3)
    maps = read_tensors(file(CONFIG, EVALUATE, "maps fader-dinov2"))
    assert kept["reconstruction"][maps["index"]].equal(maps["reconstruction"])
    limit = facts.facts["threshold"]
    validation = CONFIG.validation
    assert (limit["normal"], limit["defective"]) == (
        validation.checked,
        validation.checked * validation.per_image,
    )
    assert file(CONFIG, FADER, "weights") in facts.inputs
