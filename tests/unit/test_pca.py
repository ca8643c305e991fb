"""PCA: the subspace that numpy's SVD finds, and the page that shows how a detector is added."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors_at_hand import changed, normals, place, run_in

from fader import config, detectors
from fader.detectors.base import Images
from fader.detectors.pca import Pca

ROOT = Path(__file__).parents[2]


def fitted(folder: Path, pixels: torch.Tensor, components: int) -> Pca:
    detector = detectors.create(changed("pca", components=components), place())
    assert detector.fit(Images(pixels), run_in(folder)) == {}
    return detector


@pytest.mark.parametrize("components", [1, 3, 8])
def test_it_reconstructs_as_numpys_svd_does(components, tmp_path):
    detector = fitted(tmp_path, normals(12), components)
    train = normals(12).flatten(1).numpy() / 255
    mean = train.mean(0)
    *_, directions = np.linalg.svd(train - mean, full_matrices=False)
    basis = directions[:components]
    other = normals(5, seed=9)
    values = other.flatten(1).numpy() / 255
    expected = (mean + (values - mean) @ basis.T @ basis).clip(0, 1)
    found = detector.reconstruct(detector.machine.images(other)).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(detector.mean.numpy(), mean, atol=1e-6)
    gram = detector.components @ detector.components.T
    np.testing.assert_allclose(gram.numpy(), np.eye(components), atol=1e-4)


def test_beyond_what_the_images_span_components_are_zero_and_the_images_come_back(tmp_path):
    pixels = normals(6)
    detector = fitted(tmp_path, pixels, 9)
    assert detector.components.shape == (9, 3 * 32 * 32)
    assert detector.components[:5].norm(dim=1).numpy() == pytest.approx(np.ones(5), abs=1e-4)
    assert detector.components[5:].count_nonzero() == 0
    images = detector.machine.images(pixels)
    assert detector.reconstruct(images).allclose(images, atol=1e-3)
    # A second fit on fewer images leaves nothing of the first.
    detector.fit(Images(normals(3)), run_in(tmp_path))
    assert detector.components[2:].count_nonzero() == 0


def test_reconstructions_stay_in_range(tmp_path):
    detector = fitted(tmp_path, normals(6), 3)
    extreme = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    found = detector.reconstruct(extreme)
    assert 0 <= found.min() <= found.max() <= 1


# docs/adding-a-detector.md


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs/adding-a-detector.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_page_shows_the_code_as_it_is():
    settings, module = blocks("python")
    assert module == (ROOT / "src/fader/detectors/pca.py").read_text(encoding="utf-8")
    assert settings == inspect.getsource(config.Pca)


def test_the_page_shows_the_block_of_the_demo():
    (block,) = blocks("yaml")
    demo = (ROOT / "presets/demo.yaml").read_text(encoding="utf-8")
    section, line = block.splitlines()
    assert section == "detectors:"
    assert f"\n{line}\n" in demo
