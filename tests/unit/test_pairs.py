"""Which mask is which image's."""

from pathlib import PurePath

import pytest

from fader.data.pairs import Named, beside, pairs
from fader.errors import FaderError


def named(*places: str) -> list[Named]:
    return [Named(PurePath(place), f"long {place}", place) for place in places]


@pytest.mark.parametrize("mask", ["0.png", "0.bmp", "0_mask.png", "0_GT.tif", "0_seg.png"])
@pytest.mark.parametrize("folder", ["", "deep/"])
def test_a_mask_is_called_as_its_image_and_lies_at_its_place_or_on_top(mask, folder):
    assert pairs(named("1.jpg", "deep/0.png"), named(f"{folder}{mask}")) == {1: 0}


def test_a_mask_elsewhere_or_called_otherwise_is_none():
    assert pairs(named("deep/0.png"), named("other/0.png", "00.png", "0_masks.png")) == {}


def test_composed_and_decomposed_letters_are_one_name():
    assert pairs(named("Ü/ä.png"), named("U\u0308/a\u0308_mask.png")) == {0: 0}


def test_the_mask_at_an_images_place_goes_before_one_on_top():
    images, masks = named("a/0.png", "0.png"), named("0.png", "a/0.png")
    assert pairs(images, masks) == {0: 1, 1: 0}


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (["0.png"], ["0.png", "0_mask.png"], "long 0.png: two masks, 0.png and 0_mask.png; remove"),
        (["a/0.png", "b/0.png"], ["0.png"], "long 0.png: one mask for two images, a/0.png and b/0"),
    ],
)
def test_what_leaves_a_doubt_is_refused(images, masks, message):
    with pytest.raises(FaderError) as error:
        pairs(named(*images), named(*masks))
    assert str(error.value).startswith(message)


def test_an_image_called_as_the_mask_of_one_beside_it():
    places = [PurePath(name) for name in ("0.png", "0_mask.png", "1_mask.png", "a/1.png")]
    assert [*beside(places)] == [(places[1], places[0])]
