"""What a user waits for before anything runs: ``fader --help`` and a dry run of the paper's tables.

Run alone: ``python benchmarks/startup.py``. Wall-clock seconds of whole processes, minimum and
median, after one that is not counted (it compiles bytecode and fills the disk cache). The dry run,
``snakemake -n --configfile presets/paper.yaml -- tables``, plans 27 categories × 3 seeds from
nothing in a temporary copy of the workflow, so that neither results nor locks of this tree take
part.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from fader.runtime import cpu_name

ROOT = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "presets", "reference", "src")
HELP_GOAL, DRY_RUN_GOAL = 0.5, 10.0


def program(name: str) -> str:
    """The program of the environment that runs this script."""
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        sys.exit(f"{path}: not found; run this script with the project's environment (`make env`)")
    return str(path)


def timed(command: list[str], folder: Path, runs: int) -> tuple[list[float], str]:
    """Seconds of each run after an uncounted one, and what the last printed."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / ".cache")}
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds[1:], done.stdout + done.stderr


def copy_workflow(folder: Path) -> None:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy(ROOT / name, folder / name)


def report(name: str, seconds: list[float], goal: float) -> None:
    median = statistics.median(seconds)
    verdict = "met" if median <= goal else "MISSED"
    print(f"{name:24}{len(seconds):5}{min(seconds):9.2f}{median:11.2f}", end="")
    print(f"   RATIO {median / goal:.2f} of the goal ≤ {goal:g} s ({verdict})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7, help="of `fader --help`")
    parser.add_argument("--dry-runs", type=int, default=3, help="of `snakemake -n tables`")
    args = parser.parse_args()

    print(
        f"device: {cpu_name()}; cores: {os.cpu_count()}; python: {sys.version.split()[0]};", end=""
    )
    print(f" torch: {torch.__version__}; threads, precision: play no part\n")
    print(f"{'':24}{'runs':>5}{'min [s]':>9}{'median [s]':>11}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_workflow(folder)
        seconds, _ = timed([program("fader"), "--help"], folder, args.runs)
        report("fader --help", seconds, HELP_GOAL)
        command = [program("snakemake"), "-n", "--configfile", "presets/paper.yaml", "--", "tables"]
        seconds, output = timed(command, folder, args.dry_runs)
        report("snakemake -n tables", seconds, DRY_RUN_GOAL)
    jobs = re.search(r"^total\s+(\d+)", output, re.MULTILINE)
    print(f"the dry run plans {jobs[1] if jobs else 'an unknown number of'} jobs")


if __name__ == "__main__":
    main()
