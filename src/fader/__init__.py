"""fader-bench: every table and figure of the FADeR paper (arXiv 2407.04597), from images to
print; and its detectors for images of one's own: ``fit``, ``choose``, ``load``, ``Model``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fader.model.choosing import choose
    from fader.model.model import Model, NotFittedError, fit, load

__version__ = "0.1.0"
__all__ = ["Model", "NotFittedError", "__version__", "choose", "fit", "load"]

_LATER = {
    "Model": "fader.model.model",
    "NotFittedError": "fader.model.model",
    "choose": "fader.model.choosing",
    "fit": "fader.model.model",
    "load": "fader.model.model",
}


def __getattr__(name: str) -> Any:
    """What imports torch, when it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATER[name]), name)
