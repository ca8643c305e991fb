"""The printed page: tables, figures, curves and numbers, made from what was measured in a run.

Everything is made from ``Records``, read and checked once; nothing here needs torch.
"""

from pathlib import Path

from fader.pipeline.context import Context
from fader.report.warn import warnings

__all__ = ["REFERENCE", "make_report", "warnings"]

REFERENCE = Path("reference")


def make_report(context: Context) -> None:
    """Write all files of ``paths.report``.

    Raises
    ------
    FaderError : an artefact behind them is missing, damaged or stale; records that contradict one
        another; a damaged table of the paper.
    """
    from fader.report import write  # here: Snakemake imports the package for its warnings alone

    write.report(context.config, REFERENCE)
