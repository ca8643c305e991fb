"""Which pixels of a mask are the defect.

*Label images.* At most 16 whole values of at most 32 are numbers of defects (VisA's codes, 0 and
1): everything but 0 is a defect. JPEG keeps no such numbers. At most 16 colours that are not all
grey, and each fill an area, are labels as well: everything but black is a defect.

*Two levels.* Of any other mask, the pixels from half of its largest value on, which is what was
drawn where JPEG and resizing left values in between. But refused is a mask

- with more than 0.9 odd pixels for a marked one, or 0.3 off the edges. Odd is from one to three
  quarters of the largest value; on an edge, both are found within 4 pixels. Measured: drawn masks
  have at most 0.08 odd pixels after JPEG of quality 50, and 0.9 or less, none off the edges, after
  resizing by 4 that keeps their areas to a tenth; a Gaussian has 1.6, a ramp 1, photographs 0.5 to
  15, nearly all off the edges;
- with a third level: an area of 3 x 3 pixels of one value below three quarters, beyond what
  compression leaves (1/32), or of any value where the marked pixels all have one;
- with a pixel above a quarter, but none above half within 8 pixels: a spot that would be lost.

*Alpha.* If it is the same everywhere, the colours are the mask; if these are the same everywhere,
alpha is. If both vary, the defect is opaque and not black, and the one must lie within the other.

*Inverted* masks say what is not the defect. Either way, a defect over more than three quarters of
the image is refused, and so is none at all. (True masks of MVTec AD reach one half.)
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from fader.data.decode import Picture, is_deep
from fader.errors import FaderError
from fader.files import shown

CODES, LARGEST_CODE = 16, 32
LOSSY = ("JPEG", "MPO")
ODD, OFF_EDGE = 0.9, 0.3  # odd pixels, as a share of the marked ones
EDGE = 4  # pixels from an edge's middle to both of its levels
AROUND = 8  # pixels that what JPEG leaves behind can be away from an edge: its block
NOISE = 1 / 32  # level of what compression leaves behind in flat areas
COVERED = 0.75  # of the image, by one mask
TYPICAL = 0.5  # of the image, by the median of a category's masks


def defect(mask: Picture, image: Picture, *, inverted: bool) -> np.ndarray:
    """Pixels of the defect of an image, (H, W) bool, by its mask.

    Raises
    ------
    FaderError : the mask is empty, covers most of the image, or is not two-level.
    """
    marked = _drawn(mask, inverted)
    found = ~marked if inverted else marked
    share = found.mean()
    if share == 0:
        raise FaderError(
            f"{shown(mask.path)}: no defect pixel, but {shown(image.path)} is filed as defective;"
            " correct the mask or move the image to test/good"
        )
    if share > COVERED:
        raise FaderError(f"{shown(mask.path)}: marks {share:.0%} of the image; {_remedy(inverted)}")
    return found


def check_typical(shares: Sequence[float], *, inverted: bool, folder: str) -> None:
    """FaderError where the median of the shares of the images that the masks cover is over half."""
    if shares and np.median(shares) > TYPICAL:
        raise FaderError(
            f"{folder}: half of the masks mark {np.median(shares):.0%} of the image or more;"
            f" {_remedy(inverted)}"
        )


def _remedy(inverted: bool) -> str:
    if inverted:
        return "masks are inverted here: remove datasets.<name>.masks: inverted if white is defect"
    return (
        "if the defect is what is black, the masks are inverted: datasets.<name>.masks: inverted;"
        " if whole images are defective, go without: datasets.<name>.masks: absent"
    )


def _drawn(mask: Picture, inverted: bool) -> np.ndarray:
    """White pixels of a mask, by its colours, its alpha channel or both."""
    image = mask.image
    if is_deep(image):
        return _two_levels(np.asarray(image), mask, inverted)
    if not image.has_transparency_data:
        return _two_levels(np.asarray(image.convert("RGB")), mask, inverted)
    pixels = np.asarray(image.convert("RGBA"))
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if (alpha == alpha[0, 0]).all():
        return _two_levels(colours, mask, inverted)
    opaque = _two_levels(alpha, mask, inverted)
    if (colours == colours[0, 0]).all():
        return opaque
    coloured = _two_levels(colours, mask, inverted)
    both = opaque & coloured
    if not (both == opaque).all() and not (both == coloured).all():
        raise FaderError(
            f"{shown(mask.path)}: colours and alpha channel mark different pixels; save the mask in"
            " black and white, without alpha"
        )
    return both


def _two_levels(pixels: np.ndarray, mask: Picture, inverted: bool) -> np.ndarray:
    """White pixels of values (H, W) or colours (H, W, 3), as the module says."""
    values = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any() and _colours_are_labels(pixels):
        return values > 0
    where = shown(mask.path)
    if not np.isfinite(values).all():
        raise FaderError(f"{where}: pixels that are no numbers (NaN); correct the mask")
    levels = np.unique(values)
    if levels[0] < 0:
        raise FaderError(f"{where}: negative pixels, down to {levels[0]:g}; save it from 0 up")
    if mask.format not in LOSSY and _are_codes(levels):
        return values != 0
    if len(levels) == 1:
        return values > 0
    if len(levels) > 2:
        _check_levels(values, mask, inverted)
    return values >= levels[-1] / 2


def _are_codes(levels: np.ndarray) -> bool:
    """Whether the values of a mask, sorted, are few and small whole numbers."""
    small = len(levels) <= CODES and levels[-1] <= LARGEST_CODE
    return bool(small and (levels == levels.round()).all())


def _colours_are_labels(colours: np.ndarray) -> bool:
    """Whether there are few colours, and all but black fill areas."""
    codes = colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    there = np.unique(codes)
    return len(there) <= CODES and set(there) - {0} <= set(codes[_flat(codes)])


def _check_levels(values: np.ndarray, mask: Picture, inverted: bool) -> None:
    """FaderError where values between two levels are more than compression and resizing leave.
    Where nothing is marked, they do not matter."""
    high = float(values.max())
    level = values.astype(np.float32) / high
    if inverted:
        level = 1 - level
    marked, odd = level >= 0.5, (level > 0.25) & (level < 0.75)
    if not marked.any():
        return
    darkest, lightest = (
        found(level, 2 * EDGE + 1) for found in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    off_edge = odd & ~((darkest <= 0.25) & (lightest >= 0.75))
    where = shown(mask.path)
    if odd.sum() > ODD * marked.sum() or off_edge.sum() > OFF_EDGE * marked.sum():
        raise FaderError(
            f"{where}: not a mask of two levels: {odd.mean():.1%} of the pixels are odd, neither"
            f" near its lightest nor its darkest value, and {marked.mean():.1%} are marked; save"
            " the mask in black and white"
        )
    noise = NOISE if len(np.unique(level[marked])) > 1 else 0
    third = _flat(level) & (level > noise + level.min()) & (level < 0.75)
    if third.any():
        raise FaderError(
            f"{where}: a third level, {values[third][0]:g} of {high:g}, fills areas: is it a"
            " defect? save the mask in black and white"
        )
    lost = (level > 0.25) & ~ndimage.maximum_filter(marked, 2 * AROUND + 1)
    if lost.any():
        raise FaderError(
            f"{where}: a spot of {values[lost][0]:g}, fainter than half of the lightest, {high:g}:"
            " is it a defect? save the mask in black and white"
        )


def _flat(values: np.ndarray) -> np.ndarray:
    """Pixels that equal all of their neighbours."""
    return ndimage.minimum_filter(values, 3) == ndimage.maximum_filter(values, 3)
