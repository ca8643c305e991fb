"""The chain through the real Snakemake: made once, idle the second time, rerun where it must be.

That it makes the same bytes in another folder, through DVC: test_dvc.py.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fader.pipeline.artifacts import read_header, write_tensors

pytestmark = pytest.mark.slow

PLACE = "synthetic_small-bolt"
TRAINED = f"results/ci/{PLACE}"
METRICS = f"results/ci/metrics/{PLACE}/seed0"
FADER = "models/fader/seed0.safetensors"


def test_one_command_makes_every_table_and_figure(finished):
    results = finished.root / "results" / "ci"
    for name in ("table1", "table2"):
        for suffix in ("csv", "md", "tex"):
            assert (results / "tables" / f"{name}.{suffix}").stat().st_size > 0
    assert (results / "figures" / "fig1.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "figures" / "fig1.pdf").read_bytes().startswith(b"%PDF")
    page = (results / "report/index.html").read_text()
    assert "Does FADeR help?" in page and f"results/ci/gallery/{PLACE}" in page
    record = json.loads((finished.root / METRICS / "fader-dinov2.json").read_text())
    assert "missing" not in record["facts"]
    assert 0 <= record["facts"]["metrics"]["image_auroc"] <= 1
    assert record["volatile"]["milliseconds_per_image"] > 0


def test_synthetic_numbers_are_never_set_beside_the_papers(finished):
    text = (finished.root / "results/ci/tables/table1.md").read_text()
    assert "not a reproduction of the paper's numbers" in text
    assert "paper_" not in (finished.root / "results/ci/tables/table1.csv").read_text()


def test_a_masker_that_learns_has_masks_of_its_own_and_a_row(finished):
    mask = read_header(finished.root / TRAINED / "masks/dsr/seed0.safetensors")
    assert "results/ci/codebook/weights.safetensors" in mask.inputs
    assert (finished.root / TRAINED / "masks/dsr/seed0.weights.losses.csv").is_file()
    record = json.loads((finished.root / METRICS / "mask-dsr.json").read_text())
    assert 0 < record["facts"]["metrics"]["mask_area"] < 1
    table = (finished.root / "results/ci/tables/table4.csv").read_text()
    assert "dsr,synthetic_small,bolt," in table


def test_an_optional_masker_without_weights_says_why_and_another_ends_the_run(finished, tmp_path):
    reason = "vit_base_patch16_224.augreg_in21k_ft_in1k.safetensors"
    record = json.loads((finished.root / METRICS / "fader-vit.json").read_text())
    assert reason in record["facts"]["missing"]
    for name in ("table2", "masks"):
        assert reason in (finished.root / f"results/ci/tables/{name}.md").read_text()
    bench = finished.copy(tmp_path / "bench")
    bench.set("masks.optional", [])
    line = bench.run("fader", "run", "mask", PLACE, "--system", "vit", ok=False).strip()
    assert line.startswith("fader: backbone 'vit'") and reason in line and "\n" not in line


def test_snakemakes_own_report_carries_captions(finished, tmp_path):
    finished.snakemake("--report", str(tmp_path / "report.html"), "--", "tables")
    page = (tmp_path / "report.html").read_text()
    for name in ("table1", "fig1", "site"):
        caption = (finished.root / f"workflow/report/{name}.rst").read_text()
        assert caption.partition(":")[0].partition("'")[0].strip() in page


def test_a_second_run_does_nothing(finished):
    assert "Nothing to be done" in finished.snakemake("tables")


@pytest.mark.parametrize(
    ("change", "rerun", "kept"),
    [
        (
            ("fader.margin", 2.0),
            {"fader", "plugin", "variant", "evaluate", "gallery", "report"},
            {"pack", "mask", "mask_of_seed", "ear", "mosaic", "detector", "cost"},
        ),
        (("ear.lr", 0.002), {"ear", "mosaic", "fader"}, {"pack", "mask", "detector"}),
        (("masks.level", 0.5), {"ear", "mosaic", "fader"}, {"pack", "mask", "detector"}),
        (("masks.maskers.dsr.lr", 0.002), {"mask_of_seed", "plugin"}, {"mask", "ear", "fader"}),
        (("report.images", 2), {"evaluate", "gallery", "report"}, {"fader", "ear", "detector"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_changed_key_reruns_its_phase_and_what_follows(finished, tmp_path, change, rerun, kept):
    bench = finished.copy(tmp_path / "bench")
    bench.set(*change)
    jobs = bench.jobs()
    assert rerun <= jobs.keys()
    assert not kept & jobs.keys()


def test_the_cost_is_timed_with_nothing_beside_it(workspace):
    listing = workspace.snakemake("-n", "--", "results/ci/cost/cost.json")
    assert "threads: 2" in listing.partition("rule cost:")[2]


def test_another_category_leaves_the_first_alone(finished, tmp_path):
    bench = finished.copy(tmp_path / "bench")
    weave = {"dataset": "synthetic_small", "category": "weave"}
    bench.set("categories", bench.params()["categories"] | {"b": weave})
    jobs = bench.jobs()
    assert jobs["ear"] == 1
    assert "dataset" not in jobs


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("ear.epochs", "many"), "ear.epochs"),
        (("ear.epochs", 0), "ear.epochs"),
        (("ear.epoch", 3), "ear.epoch: unknown key"),
    ],
)
def test_a_wrong_configuration_ends_both_tools_with_one_line(workspace, tmp_path, change, named):
    bench = workspace.copy(tmp_path / "bench")
    bench.set(*change)
    for command in (("snakemake", "-n", "tables"), ("fader", "validate")):
        text = bench.run(*command, ok=False)
        lines = [line for line in text.splitlines() if not line.startswith("Using ")]
        assert len(lines) == 1, text
        assert f"params.yaml: {named}" in lines[0]


def test_a_stale_artefact_is_refused_with_its_name(finished, tmp_path):
    bench = finished.copy(tmp_path / "bench")
    bench.set("ear.lr", 0.002)
    text = bench.run("fader", "run", "report", ok=False)
    assert f"{TRAINED}/ear/seed0.safetensors: stale, made with another ear" in text
    assert len(text.splitlines()) == 1


def test_permuting_the_test_labels_changes_nothing_but_the_metrics(finished, tmp_path):
    """Training, m* and the grid pick are made again from a packed file with other test labels."""
    bench = finished.copy(tmp_path / "bench")
    packed = bench.root / TRAINED / "packed/data.safetensors"
    before = {
        name: read_header(bench.root / TRAINED / name).facts
        for name in ("mosaic/seed0.json", FADER)
    }
    weights = load_file(bench.root / TRAINED / FADER)
    tensors, header = load_file(packed), read_header(packed)
    order = torch.arange(len(tensors["label"])).flip(0)
    tensors["label"], tensors["mask"] = tensors["label"][order], tensors["mask"][order]
    write_tensors(packed, tensors, header)
    bench.snakemake("--touch", "tables")
    trained = ("mask", "mask_of_seed", "ear", "mosaic", "fader", "plugin", "variant", "detector")
    everything = ("codebook", *trained, "evaluate")
    bench.snakemake("--forcerun", *everything, "--until", "evaluate", "--", "tables")
    for name, facts in before.items():
        assert read_header(bench.root / TRAINED / name).facts == facts
    again = load_file(bench.root / TRAINED / FADER)
    assert all(torch.equal(weights[key], again[key]) for key in weights)

    def scores(root: Path) -> dict:
        path = root / METRICS / "fader-dinov2.json"
        return json.loads(path.read_text())["facts"]

    old, new = scores(finished.root), scores(bench.root)
    assert old["scores"] == new["scores"]
    assert old["metrics"] != new["metrics"]


EAR = f"{TRAINED}/ear/seed0.safetensors"


def kill_in_training(bench) -> None:
    """SIGKILL EAR's training after twenty epochs of sixty, each of which saved a checkpoint."""
    arguments = ["run", "ear", PLACE, "--seed", "0"]
    program = (
        "import sys, fader.training.loop, fader.cli; fader.training.loop.CHECKPOINT_SECONDS = 0;"
        f" sys.argv[1:] = {arguments}; fader.cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        cwd=bench.root,
        env={**os.environ, "PYTHONPATH": str(bench.root / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    epochs = 0
    for line in process.stdout:
        epochs += '"epoch"' in line
        if epochs == 20:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert epochs == 20
    assert list((bench.root / "work").rglob("*.ckpt"))


def first_epoch(bench) -> int:
    """The first epoch that the last training of EAR did."""
    log = (bench.root / f"logs/ci/ear.{PLACE}.seed0.log").read_text()
    return json.loads(next(line for line in log.splitlines() if '"epoch"' in line))["epoch"]


def test_killed_in_training_and_run_again_it_continues_to_the_same_bytes(finished, tmp_path):
    once = finished.copy(tmp_path / "once")
    twice = finished.copy(tmp_path / "twice")
    for bench in (once, twice):
        bench.set("ear.epochs", 60)
    once.snakemake("--", EAR)
    kill_in_training(twice)
    twice.snakemake("--", EAR)
    assert 1 < first_epoch(twice) <= 21
    assert (once.root / EAR).read_bytes() == (twice.root / EAR).read_bytes()
    assert not list((twice.root / "work").rglob("*.ckpt"))


def test_a_checkpoint_of_another_loss_is_not_resumed(finished, tmp_path):
    bench = finished.copy(tmp_path / "bench")
    bench.set("ear.epochs", 60)
    kill_in_training(bench)
    losses = bench.root / "src/fader/vision/losses.py"
    text = losses.read_text()
    assert "return 1 - total / scales" in text
    losses.write_text(text.replace("return 1 - total / scales", "return 2 - 2 * total / scales"))
    bench.snakemake("--", EAR)
    assert first_epoch(bench) == 1


# A damaged file ends the run that reads it with one line; what the line says to do, mends it.


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
    zero(bench.root / TRAINED / FADER)
    said = bench.run("snakemake", "--cores", "2", "--", "tables", ok=False)
    said += "".join(log.read_text() for log in (bench.root / "logs/ci").glob("*.log"))
    assert (
        f"fader: {TRAINED}/{FADER}: damaged: its contents are not those it was written with" in said
    )
    (bench.root / TRAINED / FADER).unlink()
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
