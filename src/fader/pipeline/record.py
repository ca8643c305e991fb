"""Snakemake makes, DVC keeps versions: what ties the two together.

A DVC stage stands for one phase of one category. Its command (`fader make`) asks Snakemake for
exactly that phase's files with ``--allowed-rules``, so that what a phase does is written once, in
the rules. ``dvc.yaml`` is generated from `config.PHASES`, the files of `paths.Files` and the
closures of `closure`. Stages are templated over ``categories`` of ``params.yaml`` by DVC itself.

`record` is the guarded way to run Snakemake directly: DVC finds by content what is stale, Snakemake
is forced to remake what it has no true records of, and the result is committed only if all of it
was made.
`restore` is for a fresh checkout, where Snakemake has files but no records of them.
"""

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline.code import closures
from fader.pipeline.paths import (
    Files,
    codebook_path,
    cost_path,
    manifest_path,
    normals_path,
    number_paths,
    summary_path,
    table_paths,
)
from fader.pipeline.phases import AXES, PHASES

OF_RUN = ("codebook", "cost", "report")  # phases without a category
DVC = Path(".dvc")
NAME_MAX = 254  # of a part of a name in Snakemake's records
CLOCK_SLACK = 0.01  # seconds, for copies of a project that round times

RULES: dict[str, tuple[str, ...]] = {
    "dataset": ("dataset",),
    "pack": ("pack",),
    "validation": ("validation",),
    "codebook": ("train_codebook",),
    "masker": ("train_masker",),
    "mask": ("mask", "mask_of_trained"),
    "ear": ("train_ear",),
    "mosaic": ("search_mosaic",),
    "fader": ("train_fader",),
    "cost": ("cost",),
    "evaluate": ("evaluate", "evaluate_variants", "summarise"),
    "report": ("table", "figure", "numbers", "tables"),
}

# Folders of a category that a phase fills, and those it reads.
MADE: dict[str, tuple[str, ...]] = {
    "pack": ("packed",),
    "validation": ("validation",),
    "masker": ("maskers",),
    "mask": ("masks",),
    "ear": ("ear",),
    "mosaic": ("mosaic",),
    "fader": ("fader",),
    "evaluate": ("maps", "metrics"),
}
READ: dict[str, tuple[str, ...]] = {
    "validation": ("packed",),
    "masker": ("packed", "validation"),
    "mask": ("packed", "validation", "maskers"),
    "ear": ("packed", "validation", "masks/${masks.base}"),
    "mosaic": ("packed", "validation", "masks/${masks.base}", "ear"),
    "fader": ("packed", "validation", "masks", "ear", "mosaic"),
    "evaluate": ("packed", "validation", "masks", "ear", "mosaic", "fader"),
}
REFERENCE = ("reference/corrections.csv", *(f"reference/table{n}.csv" for n in range(1, 6)))
IN_GIT = frozenset({"metrics"})


def targets(config: Config, phase: str, stage: str | None) -> list[str]:
    """What Snakemake is asked for: files of one phase and category, or the rule of all tables.

    stage : key of ``categories``, of ``datasets`` for the dataset phase, None for the report.
    """
    if phase not in RULES:
        raise FaderError(f"no phase {phase!r} (there are: {', '.join(RULES)})")
    known = {"dataset": config.datasets} | dict.fromkeys(OF_RUN, (None,))
    if stage not in known.get(phase, config.categories):
        where = "takes no stage" if phase in OF_RUN else f"has no stage {stage!r}"
        raise FaderError(f"phase {phase} {where}; its stages are the keys in params.yaml")
    if phase == "dataset":
        return [manifest_path(stage)]
    if phase == "codebook":
        used = any(config.masks.coded(masker) for masker in config.masks.maskers)
        return [codebook_path(config.run)] if used else []
    if phase == "cost":
        return [cost_path(config.run)]
    if phase == "report":
        return ["tables"]
    place = config.categories[stage]
    files = Files.of(config.run, place.dataset, place.category)
    seeds = config.seeds
    made = {
        "pack": lambda: [files.packed()],
        "validation": lambda: [files.validation()],
        "masker": lambda: [
            files.masker(masker, seed) for masker in config.trained_maskers() for seed in seeds
        ],
        "mask": lambda: [
            files.mask(masker, seed)
            for masker in config.masks.maskers
            for seed in (seeds if config.masks.trained(masker) else (None,))
        ],
        "ear": lambda: [files.ear(seed) for seed in seeds],
        "mosaic": lambda: [files.mosaic(seed) for seed in seeds],
        "fader": lambda: [files.fader(seed, s) for seed in seeds for s in config.systems()],
        "evaluate": lambda: [
            *(
                path
                for seed in seeds
                for method in config.methods()
                for path in (files.metrics(seed, method), files.maps(seed, method))
            ),
            summary_path(config.run, place.dataset, place.category),
        ],
    }
    return made[phase]()


def params(phase: str) -> list[str]:
    """Keys of params.yaml that a DVC stage of ``phase`` depends on, as DVC's templates."""
    keys = [
        key.replace(
            "{dataset}", "${key}" if phase == "dataset" else "${item.dataset}"
        ).removesuffix(".{masker}")  # a stage makes the masks of every masker
        for key in (*PHASES[phase], *AXES.get(phase, ()))
    ]
    return list(dict.fromkeys(keys))


def dvc_yaml() -> str:
    """``dvc.yaml`` as committed."""
    folder = "results/${run}/${item.dataset}/${item.category}"
    place = ("${run}", "${item.dataset}", "${item.category}")
    codebook, cost = str(Path(codebook_path("${run}")).parent), cost_path("${run}")
    stages: dict[str, Any] = {}
    for phase, code in closures().items():
        if phase == "report":
            stages[phase] = {
                "cmd": "fader make report",
                "deps": ["results/${run}/summary", cost, *REFERENCE, *code],
                "params": params(phase),
                "outs": [
                    "results/${run}/figures",  # they show images that may not go into git
                    *(_in_git(f"results/${{run}}/{name}") for name in ("tables", "curves")),
                ],
            }
            continue
        if phase in ("codebook", "cost"):
            stages[phase] = {
                "cmd": f"fader make {phase}",
                "deps": [*(["results/${run}/normals"] if phase == "codebook" else []), *code],
                "params": params(phase),
                "outs": [{"codebook": codebook, "cost": _in_git(cost)}[phase]],
            }
            continue
        if phase == "dataset":
            deps, outs = [], ["data/raw/${key}"]
        else:
            deps = [f"{folder}/{name}" for name in READ.get(phase, ())]
            outs = [_out(folder, name) for name in MADE[phase]]
        if phase == "pack":
            deps = [manifest_path("${item.dataset}")]
        if phase == "validation":
            outs.append(normals_path(*place))
        if phase in ("masker", "mask"):
            deps.append(codebook)
        if phase == "evaluate":
            outs.append(_in_git(summary_path(*place)))
        stages[phase] = {
            "foreach": "${datasets}" if phase == "dataset" else "${categories}",
            "do": {
                "cmd": f"fader make {phase} ${{key}}",
                "deps": [*deps, *code],
                "params": params(phase),
                "outs": outs,
            },
        }
    metrics, auroc = number_paths("${run}")
    curves = "results/${run}/curves"
    pipeline = {
        "stages": stages,
        "metrics": [metrics],
        "plots": [
            {
                auroc: {
                    "template": "bar_horizontal",
                    "x": "image_auroc",
                    "y": "row",
                    "title": "Image AUROC",
                }
            },
            {f"{curves}/roc": {"template": "curves", "x": "fpr", "y": "tpr"}},
            {f"{curves}/pr": {"template": "curves", "x": "recall", "y": "precision"}},
            {f"{curves}/losses": {"template": "losses", "x": "epoch", "y": "loss"}},
        ],
    }
    text = yaml.safe_dump(pipeline, sort_keys=False, width=100)
    return f"# Generated by `fader dvc-yaml > dvc.yaml`; a test fails when it is stale.\n{text}"


def _in_git(path: str) -> dict[str, Any]:
    return {path: {"cache": False}}


def _out(folder: str, name: str) -> str | dict[str, Any]:
    path = f"{folder}/{name}"
    return _in_git(path) if name in IN_GIT else path


def warnings(run: str) -> list[str]:
    """Warnings of a run's table of validation: categories where the model may not work."""
    page = Path(table_paths(run, "validation")[1])
    if not page.is_file():
        return []
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("- ") for line in lines if line.startswith("- Warning")]


def snakemake(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def make(config: Config, phase: str, stage: str | None) -> None:
    """Have Snakemake make one phase of one category; its output goes to a log.

    A phase that this run has no use for leaves an empty folder, since a DVC stage needs an output.
    FaderError when a job failed, after the end of the log on standard error.
    """
    wanted = targets(config, phase, stage)
    if not wanted:
        _folder(config, phase, stage).mkdir(parents=True, exist_ok=True)
        return
    log = Path(f"logs/{config.run}/dvc/{'.'.join(filter(None, (phase, stage)))}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = snakemake("--cores", "all", "--allowed-rules", *RULES[phase], "--", *wanted)
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-30:]), file=sys.stderr)
        raise FaderError(f"{phase} {stage or ''}: Snakemake failed; the whole story is in {log}")


def _folder(config: Config, phase: str, stage: str | None) -> Path:
    """Where a phase that may have nothing to make puts its files."""
    if phase == "codebook":
        return Path(codebook_path(config.run)).parent
    place = config.categories[stage]
    return Path(Files.of(config.run, place.dataset, place.category).folder, *MADE[phase])


def stale_stages() -> dict[str, Any]:
    """Stages that are not as dvc.lock records them, and why (`dvc status`)."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise FaderError(f"`dvc status` failed: {' '.join(done.stderr.split())}")
    return json.loads(done.stdout)


def vouched(path: str) -> bool:
    """Whether a file is the one that Snakemake's records describe: made, or touched, by it and not
    replaced since (by a checkout). Then Snakemake itself knows whether it is stale.

    A record holds the file's own time of modification. Images have none; they lie beside their
    manifest, which is written after them.
    """
    key = base64.urlsafe_b64encode(path.encode()).decode()
    parts = [key[i : i + NAME_MAX] for i in range(0, len(key), NAME_MAX)]
    name = Path(*(f"@{part}" for part in parts[:-1]), parts[-1])
    try:
        record = json.loads((Path(".snakemake/metadata") / name).read_text(encoding="utf-8"))
        end = record["endtime"]
        if abs(Path(path).stat().st_mtime - end) > CLOCK_SLACK:
            return False
        beside = Path(path).parent.rglob("*") if path.endswith("/manifest.json") else []
        return all(file.stat().st_mtime <= end + CLOCK_SLACK for file in beside)
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # no record, or not as we know it
        return False


def forced(config: Config, stages: Mapping[str, Any]) -> list[str]:
    """What Snakemake must remake whatever it believes: files, and rules of the report."""
    found: list[str] = []
    for name in stages:
        phase, _, stage = name.partition("@")
        if phase == "report":
            found += [rule for rule in RULES["report"] if rule != "tables"]
        elif phase in RULES:
            found += [path for path in targets(config, phase, stage or None) if not vouched(path)]
    return found


def record(config: Config) -> str:
    """Run Snakemake on all that is stale, then `dvc commit`; says what was done.

    FaderError, and nothing recorded, when a job failed or the configuration or the code changed
    meanwhile.
    """
    before = _fingerprint()
    stages = stale_stages()
    force = forced(config, stages)
    _run(snakemake("--cores", "all", *(["--forcerun", *force] if force else []), "--", "tables"))
    if _fingerprint() != before:
        raise FaderError(
            "params.yaml or the code changed during the run: nothing recorded;"
            " run `make record` again"
        )
    left = stale_stages()
    if not left:
        return "dvc.lock is up to date"
    _run([sys.executable, "-m", "dvc", "commit", "--force", "--quiet"])
    return f"recorded {len(left)} stages in dvc.lock"


def restore() -> str:
    """Let Snakemake take the files of a checkout as made: FaderError unless `dvc status` is
    clean."""
    stages = stale_stages()
    if stages:
        some = ", ".join(list(stages)[:3])
        raise FaderError(
            f"{len(stages)} stages are not as dvc.lock records them ({some}…): `dvc checkout` (or"
            " `dvc pull`) brings the recorded files, `make record` makes new ones"
        )
    _run(snakemake("--cores", "1", "--touch", "--forceall", "--", "tables"), quiet=True)
    return "Snakemake takes all files as made"


def _run(command: Sequence[str], quiet: bool = False) -> None:
    done = subprocess.run(command, capture_output=quiet, text=True)
    if done.returncode:
        if quiet:
            print(done.stdout + done.stderr, file=sys.stderr)
        raise FaderError(f"{' '.join(command[2:4])} … failed: nothing recorded")


def _fingerprint() -> dict[str, str]:
    """Digests of the configuration and of all code that a phase runs."""
    files = {"params.yaml"}.union(*closures().values())
    return {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in sorted(files)}


def refuse_beside_dvc() -> None:
    """FaderError while a DVC command is at work here, unless it is the one that runs us."""
    if "DVC_STAGE" in os.environ:
        return
    try:
        locks = json.loads((DVC / "tmp" / "rwlock").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never used, or just being written
        return
    holders = [
        *locks.get("write", {}).values(),
        *(holder for holders in locks.get("read", {}).values() for holder in holders),
    ]
    for holder in holders:
        if _alive(holder["pid"]):
            raise FaderError(
                f"DVC (process {holder['pid']}) is at work here: one engine at a time; run again"
                " when it has finished"
            )


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def hold_dvc() -> None:
    """Keep DVC out until this process ends, by its own repository lock: DVC empties the folders of
    a stage before it runs it, under the feet of a direct Snakemake run.

    FaderError when DVC is at work.
    """
    if "DVC_STAGE" in os.environ or not DVC.is_dir():
        return
    (DVC / "tmp").mkdir(exist_ok=True)
    handle = os.open(DVC / "tmp" / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise FaderError(
            "another DVC or Snakemake command is at work here: one engine at a time; run again"
            " when it has finished"
        ) from None
    refuse_beside_dvc()
