"""Messages in the words of the four verbs.

What reads images is shared with runs, whose settings are keys of a configuration. Here they are
options, or the user's to mend in the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fader.errors import FaderError

# What a run is told → what is said instead; the longest first.
WORDS = {
    "no training image has so many that white could be measured; state it: datasets.<name>.white": (
        "the images that the model was fitted on have not; save it with 8 bits, or fit again with"
        " --white"
    ),
    "if the defect is what is black, the masks are inverted: datasets.<name>.masks: inverted": (
        "if the defect is what is black, save the masks the other way round"
    ),
    "if whole images are defective, go without: datasets.<name>.masks: absent": (
        "if whole images are defective, go without --masks"
    ),
    "correct the mask or move the image to test/good": (
        "correct the mask, or move the image to the good ones"
    ),
    "restore it from the archive": "restore it, or take it away",
    "datasets.<name>.white": "--white",
    "patchcore: input_size": "patchcore: --size",
}


def worded(text: str) -> str:
    """A message with options instead of keys."""
    for key, words in WORDS.items():
        text = text.replace(key, words)
    return text


@contextmanager
def options_named() -> Iterator[None]:
    """FaderErrors of the block, worded."""
    try:
        yield
    except FaderError as error:
        text = worded(str(error))
        if text == str(error):
            raise
        raise FaderError(text) from error
