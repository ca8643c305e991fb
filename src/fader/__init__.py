"""fader-bench: every table and figure of the FADeR paper (arXiv 2407.04597), from images to
print."""

__version__ = "0.1.0"
