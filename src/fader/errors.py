"""The one exception a user is meant to see.

``FaderError`` says in one line what is wrong, where, and what to do. The command line prints that
line on standard error and exits with status 1; every other exception is a defect of ours and keeps
its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class FaderError(ValueError):
    """Bad input: a configuration, a file or an argument that the user can mend."""


class MissingWeights(FaderError):
    """Pretrained weights that cannot be had here; a run may list who needs them as optional."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that one is probably a misspelling of; None where none is near."""
    folded = {each.casefold(): each for each in known}
    matches = get_close_matches(name.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None


def near(name: object, known: Iterable[str]) -> str:
    """``; did you mean `epochs`?`` where a known name is near, otherwise nothing."""
    match = nearest(str(name), known)
    return f"; did you mean `{match}`?" if match else ""
