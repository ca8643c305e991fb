"""What the jobs do, one short module a phase: read, call the library, write.

A step takes a ``Context`` (``fader.pipeline.context``), which reads and verifies its inputs, and
writes the files that the table of phases names. Nothing here knows Snakemake or DVC.
"""

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from fader.pipeline import phases
from fader.pipeline.context import Context


def run(context: Context) -> None:
    """Do what the job's row in the table of phases says."""
    module, _, function = phases.entry(context.job.phase).step.partition(":")
    with _imported([module, *phases.modules(context.config, context.job)]):
        getattr(importlib.import_module(module), function)(context)


@contextmanager
def _imported(modules: list[str]) -> Iterator[None]:
    """Import modules, and keep the garbage collector off them and off what they import.

    They stay, yet it would go through them again and again: a fifth of the time that torch takes.
    """
    gc.disable()
    try:
        for module in modules:
            importlib.import_module(module)
        gc.freeze()
    finally:
        gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
