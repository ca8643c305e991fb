"""What the jobs do, one short module a phase: read, call the library, write.

A step takes a ``Context`` (``fader.pipeline.context``), which reads and verifies its inputs, and
writes the files that the table of phases names. Nothing here knows Snakemake or DVC.
"""

import importlib

from fader.pipeline import phases
from fader.pipeline.context import Context


def run(context: Context) -> None:
    """Do what the job's row in the table of phases says."""
    module, _, function = phases.entry(context.job.phase).step.partition(":")
    getattr(importlib.import_module(module), function)(context)
