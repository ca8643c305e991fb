"""``fader export``: the file of a saved model, and what is refused before it is made."""

import numpy as np
import onnx
import onnxruntime
import pytest
from own_images import folder_of, pixels, preset
from typer.testing import CliRunner

import fader
from fader.cli import app


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the directory of a model."""
    folder = tmp_path_factory.mktemp("export")
    good = folder_of(folder / "good")
    options = {"detector": "pca", "preset": preset(folder), "progress": False}
    fader.fit(good, folder / "model", **options)
    return folder


def exported(place, out, *options):
    arguments = ["export", "--model", str(place / "model"), "--onnx", str(out), *options]
    return CliRunner().invoke(app, arguments)


def test_a_saved_model_is_a_file_that_says_the_same_and_replaces_what_is_there(place, tmp_path):
    out = tmp_path / "new/part.onnx"
    out.parent.mkdir()
    out.write_bytes(b"an older one")
    result = exported(place, out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(out)
    assert list(out.parent.iterdir()) == [out]
    model = fader.load(place / "model")
    said = {each.key: each.value for each in onnx.load(out).metadata_props}
    assert float(said["threshold"]) == model.threshold
    images = np.stack([pixels(number, "scratch") for number in range(3)])
    found = onnxruntime.InferenceSession(out).run(None, {"images": images.transpose(0, 3, 1, 2)})
    expected = model.predict(images)
    np.testing.assert_allclose(found[0], expected.scores, atol=1e-4)
    np.testing.assert_allclose(found[1], expected.maps, atol=1e-4)


REFUSED = {
    "parts of a model without a masker": ("a.onnx", ["--parts"], "a.onnx: no parts"),
    "a suffix of another kind": ("a.pt", [], "a.pt: no name of an ONNX file; call it NAME.onnx"),
    "no suffix": ("a", [], "a: no name of an ONNX file"),
    "no model": ("a.onnx", ["--model", "nowhere"], "nowhere: no such folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_line_and_no_file(case, place, tmp_path):
    name, options, words = REFUSED[case]
    result = exported(place, tmp_path / name, *options)
    assert result.exit_code != 0
    assert words in str(result.exception) and "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())
