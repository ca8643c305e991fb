"""What reads images says, in the four verbs, what their user can do: no key of a configuration."""

import ast
import inspect

import numpy as np
import pytest
from folders import line_of, save
from own_images import PATCHCORE, folder_of, pixels, preset

import fader
from fader.data import decode, layout, masks, split
from fader.model.wording import WORDS, options_named, worded

READERS = (decode, masks, split, layout.sort_out, layout.files)  # what the four verbs call
ANOTHERS = ("<name>", "image.size", "test/good", "archive", "ground_truth", "validation.")


def strings(source):
    """The texts of a module or function, docstrings aside."""
    tree = ast.parse(inspect.getsource(source))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@pytest.mark.parametrize("source", READERS, ids=lambda source: source.__name__)
def test_no_message_names_what_only_a_run_has(source):
    for text in strings(source):
        if "masks are inverted here" in text:  # those of the four verbs never are
            continue
        assert not [word for word in ANOTHERS if word in worded(text)], text


def test_every_wording_is_of_a_message_that_there_is():
    from fader.detectors import patchcore

    every = [text for source in (*READERS, patchcore) for text in strings(source)]
    for key in WORDS:
        assert any(key in text for text in every), key


DEEP = {
    "floats": (np.linspace(0, 2, 48 * 48, dtype=np.float32).reshape(48, 48), "0.tif"),
    "more than 16 bits": (np.full((48, 48), 1 << 20, np.int32), "0.tif"),
}


@pytest.mark.parametrize("case", DEEP)
@pytest.mark.parametrize("verb", [fader.fit, fader.choose])
def test_white_is_an_option(verb, case, tmp_path):
    array, name = DEEP[case]
    tiny = preset(tmp_path)
    save(folder_of(tmp_path / "good", 6) / name, array)
    options = {"preset": tiny, "progress": False}
    options |= {"detector": "pca"} if verb is fader.fit else {"detectors": ["pca"]}
    line = line_of(verb, tmp_path / "good", **options)
    assert line.startswith(str(tmp_path / "good" / name)) and line.endswith("is white: --white")


def test_a_model_of_8_bits_says_how_to_get_one_of_16(tmp_path):
    options = {"preset": preset(tmp_path), "detector": "pca", "progress": False}
    model = fader.fit(folder_of(tmp_path / "good"), **options)
    deep = save(tmp_path / "0.png", (pixels(0).mean(2) * 16).round().astype(np.uint16))
    assert line_of(model.predict, deep).endswith("or fit again with --white")


def test_a_size_that_is_no_multiple_of_the_patch_is_an_option(tmp_path):
    tiny = preset(tmp_path, detectors={"patchcore": PATCHCORE})
    options = {"preset": tiny, "detector": "patchcore", "size": 60, "progress": False}
    assert "patchcore: --size 60" in line_of(fader.fit, folder_of(tmp_path / "good"), **options)


def test_other_errors_pass_as_they_are():
    error = fader.NotFittedError("not yet")
    with pytest.raises(fader.NotFittedError) as raised, options_named():
        raise error
    assert raised.value is error
