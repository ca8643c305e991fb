"""The one exception a user is meant to see.

``FaderError`` says in one line what is wrong, where, and what to do. The command line prints that
line on standard error and exits with status 1; every other exception is a defect of ours and keeps
its traceback.
"""


class FaderError(ValueError):
    """Bad input: a configuration, a file or an argument that the user can mend."""


class MissingWeights(FaderError):
    """Pretrained weights that cannot be had here; a run may list who needs them as optional."""
