"""A damaged file ends the run that reads it with one line; what the line says to do, mends it."""

import hashlib
import os
from pathlib import Path

import pytest
from test_snakemake import EAR, METRICS, PLACE, TRAINED

pytestmark = pytest.mark.slow


def zero(path: Path, keep: bool = False) -> None:
    """A block in the middle of a file reads as zeros; with ``keep``, at the time it had."""
    status, data = path.stat(), path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(64) + data[middle + 64 :])
    if keep:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def digests(root: Path) -> dict[str, str]:
    """Sha256 of all that a run made, but for pictures, timings and what is made from these."""
    files = [*(root / TRAINED).rglob("*.*"), *(root / "results/ci/tables").glob("[mtv]*.*")]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_deleted_as_the_line_says_a_damaged_file_is_made_again(finished, tmp_path):
    bench = finished.copy(tmp_path / "bench")
    zero(bench.root / EAR)
    said = bench.run("snakemake", "--cores", "2", "--", "tables", ok=False)
    said += "".join(log.read_text() for log in (bench.root / "logs/ci").glob("*.log"))
    assert f"fader: {EAR}: damaged: its contents are not those it was written with" in said
    (bench.root / EAR).unlink()
    bench.snakemake("tables")
    assert digests(bench.root) == digests(finished.root)
    bench.run("fader", "run", "report")


@pytest.mark.parametrize(
    ("path", "job"),
    [
        (EAR, ("mosaic", PLACE, "--seed", "0")),
        (f"{METRICS}/fader-dinov2.json", ("report",)),
        (f"{TRAINED}/maps/seed0/fader-dinov2.safetensors", ("report",)),
        ("results/ci/cost/cost.json", ("report",)),
    ],
    ids=["EAR", "metrics", "pictures", "cost"],
)
def test_whoever_reads_it_finds_it_though_its_time_was_kept(finished, tmp_path, path, job):
    bench = finished.copy(tmp_path / "bench")
    zero(bench.root / path, keep=True)
    line = bench.run("fader", "run", *job, ok=False).strip()
    assert line.startswith(f"fader: {path}: damaged")
    command = f"snakemake --cores all {path}"
    assert line.endswith(f"; delete it and run again (`{command}` makes it)")
    assert "\n" not in line
    (bench.root / path).unlink()
    bench.run(*command.split())
    bench.run("fader", "run", *job)
    assert digests(bench.root) == digests(finished.root)
