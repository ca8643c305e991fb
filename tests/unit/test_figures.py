"""Figures: the masks of Figure 2, what is drawn, and which tensors of a run it is drawn from."""

from itertools import pairwise

import factory
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from factory import BOLT, MASKERS, NUT, SHOWN, make_run, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline.jobs import Job
from fader.pipeline.methods import Method
from fader.report import labels, pictures
from fader.report.figures.masking import (
    complementary_sets,
    enlarge,
    progressive_masks,
    random_sets,
)
from fader.report.figures.paper import (
    CELLS,
    Example,
    Masking,
    Suspects,
    Suspicion,
    figure1,
    figure2,
    figure6,
)
from fader.report.figures.style import TINT, emptied, save, tinted
from fader.vision.mosaic import mosaic

SIDE = 32

few = settings(max_examples=25, deadline=None)


# Masks


@few
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_random_sets_deal_every_cell_once_and_evenly(cells, count, seed):
    sets = random_sets(cells, count, np.random.default_rng(seed))
    assert sets.shape == (count, cells, cells)
    np.testing.assert_array_equal(sets.sum(0), 1)
    sizes = sets.sum((1, 2))
    assert sizes.max() - sizes.min() <= 1


def test_random_sets_follow_their_generator():
    first, again, other = (random_sets(8, 3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@few
@given(st.integers(1, 12), st.integers(1, 5))
def test_complementary_sets_mask_every_cell_once(cells, count):
    np.testing.assert_array_equal(complementary_sets(cells, count).sum(0), 1)


def test_complementary_sets_of_two_are_a_chessboard():
    black, white = complementary_sets(3, 2)
    np.testing.assert_array_equal(black, [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(white, ~black)


@few
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4), st.integers(0, 99))
def test_progressive_masks_close_in_on_the_worst_pixels(height, width, count, seed):
    # Few values, hence ties: the sizes are exact all the same.
    error = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(float)
    masks = progressive_masks(error, count)
    assert masks.shape == (count, height, width)
    for step, mask in enumerate(masks, start=1):
        assert mask.sum() == height * width // 2**step
        if mask.any():
            assert error[mask].min() >= error[~mask].max()
    for outer, inner in pairwise(masks):
        assert not (inner & ~outer).any()


def test_progressive_masks_by_hand():
    masks = progressive_masks(np.array([[0.1, 0.9], [0.4, 0.2]]), 2)
    np.testing.assert_array_equal(masks, [[[0, 1], [1, 0]], [[0, 1], [0, 0]]])


def test_enlarged_cells_are_blocks_of_pixels():
    masks = random_sets(4, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(enlarge(masks, 12), np.kron(masks, np.ones((3, 3), bool)))


def test_emptied_and_tinted_change_the_masked_pixels_only():
    image = np.random.default_rng(0).integers(1, 256, (4, 4, 3), dtype=np.uint8)
    mask = np.eye(4, dtype=bool)
    assert not emptied(image, mask)[mask].any()
    np.testing.assert_array_equal(emptied(image, mask)[~mask], image[~mask])
    np.testing.assert_array_equal(tinted(image, mask)[~mask], image[~mask])
    np.testing.assert_allclose(tinted(image, mask)[mask], image[mask] / 4 + 0.75 * TINT, atol=0.5)


# Drawing


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def square() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:20, 8:20] = True
    return mask


def masking(**changes) -> Masking:
    values = {
        "title": "bolt\nscratch",
        "image": picture(),
        "truth": square(),
        "binary_mask": square(),
        "error": np.random.default_rng(1).random((SIDE, SIDE)),
        "mosaic": picture(2),
        "scale": 8,
    }
    return Masking(**values | changes)


def suspects(**maskers) -> Suspects:
    return Suspects("bolt\nscratch", picture(), square(), maskers)


def suspicion(grid: int = 4) -> Suspicion:
    return Suspicion(np.random.default_rng(grid).random((grid, grid)), square())


@pytest.fixture(autouse=True)
def closed():
    """Figures that were not saved are open still."""
    yield
    plt.close("all")


def boxes(figure) -> list:
    """Places of all text and all axes, in pixels, those of text first."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.texts if text.get_text()]
    texts += [axis.yaxis.label for axis in figure.axes if axis.get_ylabel()]
    return [item.get_window_extent(renderer) for item in [*texts, *figure.axes]]


def assert_clean(figure) -> None:
    """Nothing overlaps, nothing leaves the page."""
    found, page = boxes(figure), figure.bbox
    for number, box in enumerate(found):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, box
        for other in found[number + 1 :]:
            assert not box.overlaps(other), (box, other)


@pytest.mark.parametrize(
    ("draw", "subject"),
    [
        (
            figure1,
            [Example("bolt", picture(), square(), np.eye(4), picture(1), np.eye(SIDE), square())],
        ),
        (figure2, masking()),
        (
            figure2,
            masking(truth=np.zeros((SIDE, SIDE), bool), binary_mask=np.zeros((SIDE, SIDE), bool)),
        ),
        (
            figure1,
            [Example("bolt", picture(), square(), np.eye(4), picture(1), np.eye(SIDE), None)],
        ),
        (figure2, masking(truth=None)),
        (figure6, [suspects(DINO=suspicion(), WinCLIP=None), suspects(DINO=None, WinCLIP=None)]),
        (figure6, [Suspects("bolt\nbad", picture(), None, {"DSR": None})]),
        (
            figure6,
            [Suspects("bolt\nscratch", picture(), np.ones((SIDE, SIDE), bool), {"DSR": None})],
        ),
    ],
)
def test_the_same_figure_is_the_same_bytes(draw, subject, tmp_path):
    written = []
    for name in ("a", "b"):
        paths = [tmp_path / f"{name}.{suffix}" for suffix in ("png", "pdf")]
        save(draw(subject), paths)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG") and written[0][1].startswith(b"%PDF")
    assert b"CreationDate" not in written[0][1]


def test_figure2_shows_the_masks_the_hints_and_the_input():
    subject = masking()
    figure = figure2(subject)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    sets = enlarge(random_sets(CELLS, 3, np.random.default_rng(0)), SIDE)
    lattice = enlarge(complementary_sets(CELLS, 3), SIDE)
    masks = [*sets, *lattice, *progressive_masks(subject.error, 3), subject.binary_mask]
    expected = [tinted(subject.image, mask) for mask in masks]
    expected += [emptied(subject.image, subject.binary_mask), subject.mosaic, subject.image]
    assert len(shown) == len(expected)
    for one, other in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "mosaic, $m$ = 8" in [text.get_text() for text in figure.texts]
    assert_clean(figure)


def test_figure6_shows_saliency_and_mask_of_every_masker():
    coarse, fine = suspicion(4), suspicion(16)
    figure = figure6([suspects(DINO=coarse, WinCLIP=fine)])
    shown = [axis.images[0].get_array() for axis in figure.axes]
    hidden = tinted(picture(), square())
    expected = [picture(), coarse.saliency, hidden, fine.saliency, hidden]
    for one, other in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_figure6_says_where_a_masker_is_not_available():
    rows = [suspects(DINO=suspicion(), ViT=None), suspects(DINO=suspicion(), ViT=suspicion())]
    figure = figure6(rows)
    said = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert said == ["not available"]
    assert [text.get_text() for text in figure.texts].count("ViT") == 1


@pytest.mark.parametrize(
    ("draw", "known", "unknown"),
    [
        (
            lambda truth: figure1(
                [Example("a", picture(), square(), np.eye(4), picture(1), np.eye(SIDE), truth)]
            ),
            [],
            ["no mask"],
        ),
        (lambda truth: figure2(masking(truth=truth)), ["outlined: ground truth"], ["no mask"]),
        (lambda truth: figure6([Suspects("a", picture(), truth, {"DSR": None})]), [], ["no mask"]),
    ],
)
def test_an_image_without_mask_says_so_where_the_others_show_it(draw, known, unknown):
    words = {"no mask", "outlined: ground truth", "ground truth: no defect"}
    for truth, expected in ((square(), known), (None, unknown)):
        figure = draw(truth)
        texts = [*figure.texts, *(text for axis in figure.axes for text in axis.texts)]
        assert [t.get_text() for t in texts if t.get_text() in words] == expected


def test_a_good_image_has_nothing_to_outline():
    figure = figure2(masking(truth=np.zeros((SIDE, SIDE), bool)))
    assert "ground truth: no defect" in [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("rows", [1, 3])
def test_nothing_overlaps_in_figure6(rows):
    names = labels.maskers(tiny(maskers=MASKERS)).values()
    maskers = {name: suspicion() for name in names}
    row = Suspects("metal_nut\nmanipulated_front", picture(), square(), maskers)
    figure = figure6([row] * rows)
    assert_clean(figure)


# From a run


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """A run of three maskers on disk, WinCLIP's weights missing; the working folder."""
    monkeypatch.chdir(tmp_path)
    maskers = ("dinov2", "vit", "winclip")
    made = tiny((BOLT, NUT), maskers, masks__optional=["winclip"])
    make_run(made)
    return made


def test_figure1_is_drawn_from_faders_pictures_of_every_category(config):
    rows = list(pictures.examples(config))
    assert [row.title for row in rows] == [
        f"{name}\n{defect}" for _, name in (BOLT, NUT) for defect in ("scratch", "hole")
    ]
    tensors, found = factory.images(config), factory.pictures(config, config.image.size)
    for number, row in enumerate(rows[:2]):
        np.testing.assert_array_equal(row.image, tensors["test"][SHOWN[number]].permute(1, 2, 0))
        np.testing.assert_array_equal(row.truth, tensors["mask"][SHOWN[number]])
        np.testing.assert_array_equal(row.soft_mask, found["soft_mask"][number].float())
        np.testing.assert_array_equal(row.map, found["map"][number].float())
        reconstruction = found["reconstruction"][number].permute(1, 2, 0)
        np.testing.assert_array_equal(row.reconstruction, reconstruction)


def test_figure2_is_drawn_from_the_first_image_of_the_run(config):
    side = config.image.size
    tensors, found = factory.images(config), factory.pictures(config, side)
    example = pictures.masking(config)
    image, mask = tensors["test"][1].permute(1, 2, 0).numpy(), found["mask"][0].bool().numpy()
    assert (example.title, example.scale) == ("bolt\nscratch", 4)
    np.testing.assert_array_equal(example.image, image)
    np.testing.assert_array_equal(example.binary_mask, mask)
    np.testing.assert_array_equal(example.error, found["map"][0].float())
    np.testing.assert_array_equal(example.mosaic[~mask], image[~mask])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    means = mosaic(pixels, 4)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(example.mosaic[mask], means[mask], atol=0.51)


def test_figure6_is_drawn_from_the_images_shown_of_every_category(config):
    rows = pictures.suspects(config)
    expected = [f"{name}\n{d}" for _, name in (BOLT, NUT) for d in ("scratch", "hole")]
    assert [row.title for row in rows] == expected
    names = labels.maskers(config)
    for number, row in enumerate(rows):
        assert list(row.maskers) == list(names.values())
        assert row.maskers[names["winclip"]] is None
        for masker in ("dinov2", "vit"):
            grid = factory.grid_of(config, Method("mask", masker))
            saliency = factory.pictures(config, grid)["map"][number % 2].float()
            np.testing.assert_array_equal(row.maskers[names[masker]].saliency, saliency)


def test_maskers_that_show_different_images_are_refused(config):
    job = Job("evaluate", "synthetic-bolt", seed=0)
    factory.make_evaluation(config, job, {"mask-vit": (0, 3)})
    with pytest.raises(FaderError, match=r"mask-vit: shows test images \[0, 3\], .*\[1, 3\]"):
        pictures.suspects(config)


def test_figures_of_a_set_without_masks_have_no_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(factory.PACK, "masks", "absent")
    made = tiny((BOLT,), ("dinov2",))
    make_run(made)
    subjects = [*pictures.examples(made), pictures.masking(made), *pictures.suspects(made)]
    assert len(subjects) == 2 * len(SHOWN) + 1
    assert all(subject.truth is None for subject in subjects)


def test_a_stale_picture_is_refused(config):
    other = tiny((BOLT, NUT), tuple(config.masks.maskers), score__batch=3)
    with pytest.raises(FaderError, match="stale"):
        pictures.masking(other)
