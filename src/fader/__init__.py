"""fader-bench: every table and figure of the FADeR paper (arXiv 2407.04597), from images to
print; and its detectors for images of one's own: ``fit``, ``choose``, ``load``, ``Model``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fader.model.choosing import choose
    from fader.model.model import Model, NotFittedError, fit, load

__version__ = "0.1.0"
__all__ = ["Model", "NotFittedError", "__version__", "choose", "fit", "load"]

_OF_MODELS = {name: "fader.model.model" for name in ("Model", "NotFittedError", "fit", "load")}
_OF_MODELS["choose"] = "fader.model.choosing"


def __getattr__(name: str) -> Any:
    """What imports torch, when it is asked for."""
    if name not in _OF_MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_OF_MODELS[name]), name)
