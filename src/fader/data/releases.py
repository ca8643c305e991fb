"""What is known by name: layouts of a data set, and the public data sets.

``LAYOUTS`` maps a layout's name to the function that indexes a category of it, ``RELEASES`` the
name of a public data set to its archive and counts.
"""

from fader.data import mvtec, visa

LAYOUTS = {"mvtec": mvtec.index, "visa": visa.index}
RELEASES = {"mvtec_ad": mvtec.RELEASE, "visa": visa.RELEASE}
