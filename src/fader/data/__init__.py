"""Data sets: fetching, indexing and decoding them, and painting synthetic defects.

``LAYOUTS`` maps a layout's name to the function that indexes a category of it, ``RELEASES`` to the
public data set that comes in it. A new layout is one module and one line in each.
"""

from fader.data import mvtec, visa

LAYOUTS = {"mvtec": mvtec.index, "visa": visa.index}
RELEASES = {"mvtec": mvtec.RELEASE, "visa": visa.RELEASE}
