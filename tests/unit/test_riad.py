"""RIAD: disjoint sets of cells, inpainting from n passes, and one map from all cell sizes."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from detectors_at_hand import changed, defective, normals, place, run_in
from hypothesis import given, settings
from hypothesis import strategies as st

from fader import detectors
from fader.config import load
from fader.detectors.base import Images
from fader.detectors.reconstruction import anomaly_map
from fader.detectors.riad import Riad, disjoint_sets
from fader.runtime import generator

PRESETS = Path(__file__).parents[2] / "presets"
few = settings(max_examples=40, deadline=None)


@few
@given(
    count=st.integers(1, 4),
    cell=st.sampled_from([1, 2, 4, 8, 16]),
    subsets=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
def test_sets_are_disjoint_cover_the_image_and_consist_of_whole_cells(count, cell, subsets, seed):
    sets = disjoint_sets(count, 32, cell, subsets, generator(seed))
    assert (sets.shape, sets.dtype) == ((count, subsets, 32, 32), torch.bool)
    # Every pixel is in exactly one set of its grid.
    assert (sets.sum(1) == 1).all()
    cells = sets.unfold(2, cell, cell).unfold(3, cell, cell).flatten(4)
    assert torch.equal(cells.all(-1), cells.any(-1))
    # As equal as whole cells allow.
    sizes = sets.sum((2, 3)) // cell**2
    assert (sizes.amax(1) - sizes.amin(1) <= 1).all()
    assert sizes.sum(1).tolist() == [(32 // cell) ** 2] * count


def test_sets_are_random_and_of_each_image_its_own():
    sets = disjoint_sets(50, 32, 4, 3, generator(0))
    assert len({grid.numpy().tobytes() for grid in sets}) == 50
    # A cell falls into each set a third of the time.
    assert sets.float().mean(0).sub(1 / 3).abs().max() < 0.3
    assert torch.equal(sets, disjoint_sets(50, 32, 4, 3, generator(0)))


def riad(**values) -> Riad:
    torch.manual_seed(0)
    return detectors.create(changed("riad", **values), place())


def test_inpainting_is_composed_of_what_each_pass_made_of_its_gaps():
    detector = riad()
    images = detector.machine.images(normals(2))
    sets = disjoint_sets(2, 32, 4, 3, generator(3))
    with torch.no_grad():
        found = detector.inpaint(images, sets)
        expected = torch.full_like(images, torch.nan)
        for number in range(3):
            gaps = sets[:, number].unsqueeze(1).expand_as(images)
            seen = images.clone()
            seen[gaps] = 0
            expected[gaps] = detector.network(seen)[gaps]
    assert found.allclose(expected, atol=1e-6)


def test_no_pixel_is_inpainted_from_itself():
    detector = riad()
    images = detector.machine.images(normals(1))
    sets = disjoint_sets(1, 32, 4, 3, generator(3))
    with torch.no_grad():
        before = detector.inpaint(images, sets)
        for gaps in sets.unsqueeze(2).unbind(1):
            # Other pixels in the gaps change what other passes see, not the one that fills these.
            after = detector.inpaint(torch.where(gaps, 1 - images, images), sets)
            inside = gaps.expand_as(before)
            assert torch.equal(after[inside], before[inside])
            assert not torch.equal(after, before)


def test_the_map_is_the_mean_of_the_cell_sizes_smoothed_maps_at_fixed_sets():
    detector = riad(cells=[2, 8])
    images = detector.machine.images(defective(2)[0])
    with torch.no_grad():
        two, eight = (
            anomaly_map(images, made, detector.context.score)
            for made in detector.inpaintings(images)
        )
        assert detector.anomaly_map(images).allclose((two + eight) / 2)
        # Drawn once for all: another call, another image, the same sets.
        again = [detector.anomaly_map(images[i : i + 1])[0] for i in (1, 0)]
    assert torch.stack(again[::-1]).allclose((two + eight) / 2, atol=1e-6)
    assert not two.allclose(eight, atol=1e-3)
    assert detector.reconstruct(images).allclose(
        torch.stack(list(detector.inpaintings(images))).mean(0)
    )


def test_twelve_passes_a_batch_at_test_and_three_a_step_in_training(tmp_path):
    detector, passes = riad(cells=[2, 4, 8, 16], epochs=1, batch=4), []
    # The network is made anew by fit, so passes are counted at the first layer of all networks.
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: passes.append(1) if type(module).__name__ == "UNet" else None
    )
    try:
        detector.fit(Images(normals(8)), run_in(tmp_path))
        assert len(passes) == 2 * 3
        passes.clear()
        detector.scores(Images(normals(4)))
        assert len(passes) == 4 * 3
    finally:
        hook.remove()


def test_scores_of_five_draws_begin_with_the_one_that_counts(tmp_path):
    detector = riad(epochs=2)
    detector.fit(Images(normals()), run_in(tmp_path))
    seen = Images(normals(6))
    drawn = detector.redrawn(seen)
    assert drawn.shape == (5, 6)
    assert torch.equal(drawn[0], detector.scores(seen).images)
    assert (drawn.std(0) > 0).all()
    assert torch.equal(drawn, detector.redrawn(seen))


def test_every_cell_size_is_trained_on(tmp_path):
    # With one cell size the training is another than with several, and another than with the next.
    trained = []
    for cells in ([2], [8], [2, 8]):
        detector = riad(cells=cells, epochs=2)
        detector.fit(Images(normals()), run_in(tmp_path / str(cells)))
        trained.append(torch.cat([p.detach().flatten() for p in detector.parameters()]))
    assert all(not torch.equal(a, b) for a, b in pairwise([*trained, trained[0]]))


@pytest.mark.parametrize("preset", ["paper", "gpu"])
def test_the_published_settings(preset):
    found = load(PRESETS / f"{preset}.yaml")
    riad = found.detectors["riad"]
    assert (riad.cells, riad.subsets) == ([2, 4, 8, 16], 3)
    assert (riad.epochs, riad.batch, riad.lr, riad.weight_decay) == (300, 4, 1e-4, 1e-5)
    assert (found.image.size, found.score.smooth, found.score.scales) == (256, 21, 4)
