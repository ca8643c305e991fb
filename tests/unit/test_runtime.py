"""Device, precision and determinism of a job."""

import json

import pytest
import torch

from fader.config import Runtime
from fader.errors import FaderError
from fader.runtime import Machine, cpu_name, generator, has_bf16, interactive, start, weights_hash

CPU = torch.device("cpu")


@pytest.fixture
def _settings_restored():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def settings(device: str = "cpu", precision: str = "auto", threads: int = 1) -> Runtime:
    return Runtime(device=device, precision=precision, threads=threads)


def processor(monkeypatch, **capabilities) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("capabilities", "expected", "shown"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True, "x (amx_bf16)"),
        ({"avx512_bf16": True}, True, "x (avx512_bf16)"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, False, "x (no bf16)"),
        ({}, False, "x (no bf16)"),
    ],
)
@pytest.mark.usefixtures("_settings_restored")
def test_precision_follows_the_processor(monkeypatch, capabilities, expected, shown):
    processor(monkeypatch, cpu_name="x", **capabilities)
    assert has_bf16(CPU) is expected
    assert cpu_name() == shown
    assert start(settings()).precision == ("bf16" if expected else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("_settings_restored")
def test_a_precision_asked_for_is_not_overruled(monkeypatch, precision):
    for capabilities in ({}, {"avx512_bf16": True}):
        processor(monkeypatch, **capabilities)
        assert start(settings(precision=precision)).precision == precision


@pytest.mark.parametrize(("major", "expected"), [(7, False), (8, True), (9, True)])
def test_gpus_have_bf16_from_compute_capability_8(monkeypatch, major, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, 5))
    assert has_bf16(torch.device("cuda")) is expected


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_applies_the_precision_to_products(precision, expected):
    with Machine(CPU, precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


@pytest.mark.usefixtures("_settings_restored")
def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FaderError, match=r"^runtime\.device: cuda was asked for.*auto or cpu$"):
        start(settings(device="cuda"))
    assert start(settings(device="auto")).device == CPU


@pytest.mark.usefixtures("_settings_restored")
def test_start_sets_threads_and_deterministic_algorithms():
    machine = start(settings(threads=2))
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    facts = machine.facts()
    assert facts["threads"] == 2
    assert facts["precision"] == machine.precision
    assert json.loads(json.dumps(facts)) == facts  # an artefact's header takes them as they are


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_are_float32_in_the_unit_interval_channels_last(precision):
    pixels = torch.arange(256, dtype=torch.uint8).repeat(6).view(2, 3, 16, 16)
    images = Machine(CPU, precision).images(pixels)
    assert images.dtype == torch.float32
    assert images.shape == (2, 3, 16, 16)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, pixels.float() / 255)
    assert (images.min(), images.max()) == (0, 1)


def test_equal_seeds_give_equal_streams_untouched_by_the_global_one():
    torch.manual_seed(1)
    one = torch.rand(4, generator=generator(5))
    torch.manual_seed(2)
    assert torch.equal(one, torch.rand(4, generator=generator(5)))
    assert not torch.equal(one, torch.rand(4, generator=generator(6)))


def test_weights_hash_depends_on_names_and_values_and_on_nothing_else():
    a, b = torch.rand(2, 3, 4, 4), torch.tensor(3)
    reference = weights_hash({"a": a, "b": b})
    last = a.contiguous(memory_format=torch.channels_last)
    assert weights_hash({"b": b, "a": last.requires_grad_()}) == reference
    assert weights_hash({"a": a, "c": b}) != reference
    assert weights_hash({"a": a + 1e-3, "b": b}) != reference
    assert len(reference) == 16


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_is_welcome_on_a_terminal_only(monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    assert interactive() is terminal
