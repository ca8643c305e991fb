"""Artefacts: atomic files, headers that survive, identities that see everything, checks that
refuse."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fader.errors import FaderError
from fader.files import replacing
from fader.pipeline import artifacts
from fader.pipeline.artifacts import Header, check, inputs, read_arrays, read_header, read_tensors

few = examples(max_examples=25, deadline=None)

SETTINGS = {"ear": {"epochs": 2, "scales": [4, 8]}, "masks.base": "dinov2", "weights_dir": None}
FACTS = {"seed": 0, "machine": {"device": "σ-cpu", "threads": 1}}


def header(**changes) -> Header:
    return Header(**{"kind": "ear", "settings": SETTINGS, "inputs": {}, "facts": FACTS, **changes})


def tensors() -> dict[str, torch.Tensor]:
    return {
        "weight": torch.arange(6, dtype=torch.float32).view(2, 3),
        "bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }


def refusal(call) -> str:
    with pytest.raises(FaderError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Writing


def test_replacing_writes_whole_files(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with replacing(target) as temporary:
        assert temporary.parent.parent == target.parent
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    written = artifacts.write_tensors(path, tensors(), header())
    assert read_header(path) == written
    assert (written.kind, written.settings, written.facts) == ("ear", SETTINGS, FACTS)
    back = read_tensors(path)
    assert back.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert back[name].equal(tensor)
    assert read_tensors(path, {"bias", "unknown"}).keys() == {"bias"}


def test_memory_layout_and_gradients_do_not_matter(tmp_path):
    image = torch.rand(2, 3, 4, 4)
    first = artifacts.write_tensors(tmp_path / "a.safetensors", {"x": image}, header())
    view = image.contiguous(memory_format=torch.channels_last).requires_grad_()
    second = artifacts.write_tensors(tmp_path / "b.safetensors", {"x": view}, header())
    assert first == second
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


NUMBERS = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")


@few
@given(
    st.dictionaries(
        st.text("abc/_", min_size=1, max_size=4),
        st.sampled_from(NUMBERS).flatmap(
            lambda dtype: arrays(
                dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
            )
        ),
        max_size=4,
    )
)
def test_arrays_are_written_as_the_tensors_of_their_values(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("arrays")
    paths = [folder / "arrays.safetensors", folder / "tensors.safetensors"]
    tensors = {name: torch.tensor(array) for name, array in values.items()}
    first = artifacts.write_arrays(paths[0], values, header())
    assert first == artifacts.write_tensors(paths[1], tensors, header())
    assert paths[0].read_bytes() == paths[1].read_bytes()
    for name, array in read_arrays(paths[1]).items():
        assert array.dtype == values[name].dtype
        np.testing.assert_array_equal(array, values[name])


def test_arrays_of_any_layout_and_some_of_them(tmp_path):
    image = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "a.safetensors"
    first = artifacts.write_arrays(path, {"x": image, "y": image[0]}, header())
    turned = np.asfortranarray(image)
    assert first == artifacts.write_arrays(path, {"x": turned, "y": turned[0]}, header())
    assert read_arrays(path, {"y"}).keys() == {"y"}


def test_artefacts_start_without_torch():
    names = ("pipeline.artifacts", "pipeline.context", "steps.pack", "steps.dataset")
    program = "\n".join(
        [
            *(f"import fader.{name}" for name in names),
            "import sys; sys.exit('torch' in sys.modules)",
        ]
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_json_round_trip(tmp_path):
    path = tmp_path / "a.json"
    written = artifacts.write_json(path, header())
    assert read_header(path) == written
    assert "σ-cpu" in path.read_text(encoding="utf-8")
    assert "volatile" not in json.loads(path.read_text(encoding="utf-8"))


# Identity

plain = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3)


@few
@given(plain, plain, st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4))
def test_same_content_same_bytes(tmp_path_factory, settings, facts, values):
    folder = tmp_path_factory.mktemp("same")
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    content = {"x": torch.tensor(values), "y": torch.zeros(1)}
    # Neither the order of the tensors nor that of the keys is part of what was made.
    orders = [content, dict(reversed(content.items()))]
    headers = [
        header(settings=settings, facts=facts),
        header(settings=dict(reversed(settings.items())), facts=dict(reversed(facts.items()))),
    ]
    written = [
        artifacts.write_tensors(*arguments)
        for arguments in zip(paths, orders, headers, strict=True)
    ]
    assert written[0].identity == written[1].identity
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_anything_that_matters_changes_the_identity(tmp_path):
    def identity(content=None, **changes):
        path = tmp_path / "a.safetensors"
        return artifacts.write_tensors(path, content or tensors(), header(**changes)).identity

    weight = tensors()["weight"]
    identities = [
        identity(),
        identity(kind="fader"),
        identity(settings=SETTINGS | {"masks.base": "dino"}),
        identity(inputs={"packed": "0123456789abcdef"}),
        identity(inputs={"packed": "0123456789abcdee"}),
        identity(facts=FACTS | {"seed": 1}),
        identity(tensors() | {"weight": weight + torch.eye(2, 3) * 1e-6}),
        identity(tensors() | {"weight": weight.view(3, 2)}),
        identity(tensors() | {"weight": weight.view(torch.int32)}),
        identity({("heavy" if k == "weight" else k): v for k, v in tensors().items()}),
        artifacts.write_json(tmp_path / "a.json", header()).identity,
    ]
    assert len(set(identities)) == len(identities)


def test_volatile_facts_are_written_and_are_not_in_the_identity(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    first, second = (
        artifacts.write_json(path, header(), {"milliseconds": time})
        for path, time in zip(paths, (1.0, 2.0), strict=True)
    )
    assert first == second == read_header(paths[0]) == read_header(paths[1])
    assert json.loads(paths[1].read_text())["volatile"] == {"milliseconds": 2.0}


# Reading again


def test_a_header_is_read_again_only_when_its_file_is_another(tmp_path):
    path = tmp_path / "a.json"
    first = artifacts.write_json(path, header())
    assert read_header(path) is read_header(str(path))
    second = artifacts.write_json(path, header(facts=FACTS | {"seed": 1}))
    assert read_header(path) == second != first
    path.unlink()
    assert "no such file" in refusal(lambda: read_header(path))


# Checking


@pytest.fixture
def chain(tmp_path):
    """An input and an artefact made from it, and a check of the latter."""
    source, target = tmp_path / "source.json", tmp_path / "target.safetensors"
    artifacts.write_json(source, header(kind="mask", settings={"masks.level": 0.6}))
    artifacts.write_tensors(target, tensors(), header(inputs=inputs(source)))
    return source, target, lambda: check(target, "ear", SETTINGS)


def test_what_is_current_passes(chain):
    _, target, checked = chain
    assert checked() == read_header(target)


def test_check_refuses_another_kind(chain):
    _, target, _ = chain
    line = refusal(lambda: check(target, "fader", SETTINGS))
    assert str(target) in line
    assert "'fader'" in line
    assert "'ear'" in line


@pytest.mark.parametrize(
    ("now", "key"),
    [
        (SETTINGS | {"masks.base": "dino"}, "masks.base"),
        (SETTINGS | {"ear": {"epochs": 2, "scales": [4]}}, "ear"),
        (SETTINGS | {"added": 1}, "added"),
        (SETTINGS | {"added": None}, "added"),
        ({k: v for k, v in SETTINGS.items() if k != "weights_dir"}, "weights_dir"),
    ],
)
def test_check_refuses_other_settings_and_names_the_key(chain, now, key):
    _, target, _ = chain
    line = refusal(lambda: check(target, "ear", now))
    assert f"{target}: stale, made with another {key};" in line
    assert "make record" in line


def test_check_refuses_a_changed_input_and_names_it(chain):
    source, target, checked = chain
    artifacts.write_json(source, header(kind="mask", settings={"masks.level": 0.7}))
    line = refusal(checked)
    assert f"{target}: stale, made from another {source};" in line


def test_a_rewritten_equal_input_is_still_current(chain):
    source, _, checked = chain
    artifacts.write_json(source, header(kind="mask", settings={"masks.level": 0.6}), {"ms": 3})
    checked()


@pytest.mark.parametrize("which", [0, 1])
def test_check_names_a_missing_file_and_the_command_that_makes_it(chain, which):
    missing = chain[which]
    missing.unlink()
    assert f"{missing}: no such file; `snakemake --cores all {missing}`" in refusal(chain[2])


@pytest.mark.parametrize("keep", [0, 4, 9, 100, -1])
def test_truncated_tensors_are_refused_everywhere(chain, keep):
    _, target, checked = chain
    target.write_bytes(target.read_bytes()[:keep])
    for call in (checked, lambda: inputs(target), lambda: read_tensors(target)):
        line = refusal(call)
        assert line.startswith(f"{target}: damaged")
        assert "delete it" in line


def test_missing_tensors(tmp_path):
    assert "snakemake" in refusal(lambda: read_tensors(tmp_path / "absent.safetensors"))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b"null",
        b'{"kind": "ear"}',
        b'{"kind": "ear", "settings": {}, "inputs": {}, "facts"',
        b"\xff\x00" * 50_000,
    ],
    ids=repr,
)
def test_json_garbage_is_refused_in_one_short_line(chain, garbage):
    source, _, checked = chain
    source.write_bytes(garbage)
    line = refusal(checked)
    assert line.startswith(f"{source}: damaged, or not an artefact of this pipeline")
    assert len(line) < 1000


def test_safetensors_of_somebody_else_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "timm.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    assert "not an artefact of this pipeline" in refusal(lambda: read_header(path))
