"""Damage is found: whatever happens to a file's bytes, it is read as it was written or refused in
one line that names it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import CONFIG, EAR, EVALUATE, FADER, MOSAIC, PACK, PLACE, copied, file, run
from factory import tiny as configured

from fader import digests
from fader.errors import FaderError
from fader.files import write_text
from fader.pipeline import artifacts, paths, phases, weights
from fader.pipeline.artifacts import HEADER, Header, read_header, read_tensors, verify
from fader.pipeline.context import Context, checked, verified
from fader.pipeline.jobs import Job
from fader.report.records import Records

OTHERS = "damaged: its contents are not those it was written with; delete it and run again"


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(FaderError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Any bit.


def written(path: Path) -> bytes:
    """An artefact with what may be misread: accents, no element, one element."""
    header = Header("ear", {"lr": 0.001}, {"in": "0"}, {"seed": 0, "names": ["à.png"]})
    values = {
        "bf16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }
    if path.suffix == ".json":
        artifacts.write_json(path, header, {"milliseconds": 1.5})
    else:
        artifacts.write_tensors(path, values, header)
    return path.read_bytes()


def content(path: Path) -> tuple[Any, ...]:
    """All that a file gives, as plain values."""
    if path.suffix == ".json":
        return read_header(path), artifacts.volatile(path)
    found = read_tensors(path).items()
    return read_header(path), {name: (t.dtype, t.shape, t.tolist()) for name, t in found}


@pytest.mark.parametrize("name", ["a.json", "a.safetensors"])
def test_no_bit_turns_unseen(tmp_path, name):
    path = tmp_path / name
    whole, harmless = written(path), 0
    before = content(path)
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert content(path) == before
            harmless += 1  # the case of a digit in an escape
        except FaderError as error:
            assert str(error).startswith(f"{path}: damaged")
    assert harmless < 8


@pytest.mark.parametrize("name", ["a.json", "a.safetensors"])
def test_no_byte_is_lost_unseen(tmp_path, name):
    path = tmp_path / name
    whole = written(path)
    for end in range(len(whole) - 1):  # the last byte of a fact file ends its line
        path.write_bytes(whole[:end])
        assert refusal(lambda: content(path)).startswith(f"{path}: damaged")


# Every kind of file of a run, and every kind of damage.

RUN = configured(
    [("synthetic", "bolt"), ("synthetic", "nut")],
    maskers=("dinov2", "dsr"),
    detectors=("pca",),
    variants=("nomask",),
    seeds=(0, 1),
)
NUT = Job("evaluate", "synthetic-nut", seed=1)
PLAN = paths.missing(RUN.run)


def with_headers(job: Job) -> dict[str, str]:
    """Files of a job that have a header, by name."""
    names = phases.outputs(RUN, job).items()
    return {name: path for name, path in names if name not in ("losses", "normals")}


def make_all() -> None:
    """Every file of ``RUN`` that has a header, saying what the steps say in it."""
    random = torch.Generator().manual_seed(0)
    for job in phases.jobs(RUN):
        for name, path in with_headers(job).items() if job.phase != "report" else ():
            facts = {"place": job.place, "seed": job.seed, "metrics": {"image_auroc": 0.9}}
            if job.phase == "evaluate":
                facts["method"] = name.partition(" ")[2]
            header = Context(RUN, job).header(facts)
            if path.endswith(".json"):
                artifacts.write_json(path, header, {"milliseconds": 1.5})
            else:
                values = {key: torch.rand(2000, generator=random) for key in ("first", "other")}
                artifacts.write_tensors(path, values, header)
    weights.plan(RUN)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with every file of ``RUN``; no test changes it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_all()
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> None:
    """In a copy of that folder."""
    copied(made, tmp_path / "run", monkeypatch)


def one_of_each() -> list[tuple[Job, str]]:
    """(job, name of its file), of every kind; the last of its phase."""
    last = {job.phase: job for job in phases.jobs(RUN) if job.phase != "report"}
    kinds = {
        (job.phase, name.partition(" ")[0]): (job, name)
        for job in last.values()
        for name in with_headers(job)
    }
    return list(kinds.values())


KINDS = one_of_each()
ids = [f"{job.phase}-{name.partition(' ')[0]}" for job, name in KINDS]
TENSORS = [kind for kind in KINDS if with_headers(kind[0])[kind[1]].endswith(".safetensors")]
FACTS = [kind for kind in KINDS if kind not in TENSORS]


def zeroed(data: bytes) -> bytes:
    start = len(data) - 5000 if len(data) > 9000 else len(data) // 2
    return data[:start] + bytes(min(4096, len(data) - start)) + data[start + 4096 :]


def flipped_at(share: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        place = int(share * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return flip


def in_header(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        assert len(old) == len(new) and data.count(old) == 1
        return data.replace(old, new)

    return edit


def swapped(data: bytes) -> bytes:
    return (
        data.replace(b'"first"', b'"x"').replace(b'"other"', b'"first"').replace(b'"x"', b'"other"')
    )


DAMAGES = {
    "zeroed block": zeroed,
    "bit at the end": flipped_at(0.99),
    "bit in the header": flipped_at(100 / 20_000),
    "truncated": lambda data: data[:-1000] if len(data) > 9000 else data[:-9],
    "appended": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}
OF_TENSORS = {
    "tensors swapped": swapped,
    "fact edited": in_header(rb"image_auroc\": 0.9", rb"image_auroc\": 1.0"),
    "identity lost": in_header(rb"\"identity\":", rb"\"identitz\":"),
    "digest lost": in_header(rb"\"contents\":", rb"\"kontents\":"),
}
OF_FACTS = {
    "AUROC edited": in_header(b'"image_auroc": 0.9', b'"image_auroc": 1.0'),
    "timing edited": in_header(b'"milliseconds": 1.5', b'"milliseconds": 0.5'),
    "timing renamed": in_header(b'"milliseconds"', b'"milliSeconds"'),
    "timings lost": in_header(b'"volatile":', b'"wolatile":'),
    "digest lost": in_header(b'"volatile_digest":', b'"wolatile_digest":'),
}


@pytest.mark.usefixtures("here")
def test_what_is_whole_passes():
    weights.planned(RUN)
    verified(RUN, phases.jobs(RUN, "evaluate"))
    for job in phases.jobs(RUN):
        for name in with_headers(job) if job.phase != "report" else ():
            header, path = checked(RUN, job, name)
            assert verify(path) == header


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("job", "name"), KINDS, ids=ids)
def test_every_damage_to_every_kind_is_found_by_whoever_reads_it(job, name):
    path = Path(with_headers(job)[name])
    verify(path)
    whole, status = path.read_bytes(), path.stat()
    special = OF_TENSORS if (job, name) in TENSORS else OF_FACTS
    for damage in (DAMAGES | special).values():
        path.write_bytes(damage(whole))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` keeps them
        line = refusal(lambda: verify(path))
        assert line.startswith(f"{path}: damaged")
        assert line.endswith(f"; delete it and run again (`snakemake --cores all {path}` makes it)")
        if path.suffix == ".json":
            assert refusal(lambda: read_header(path)) == line
            assert refusal(lambda: artifacts.volatile(path)) == line
        else:
            assert refusal(lambda: read_tensors(path, {"other"})) == line
            assert refusal(lambda: artifacts.read_arrays(path, {"other"})) == line
    path.write_bytes(whole)
    assert verify(path) == checked(RUN, job, name)[0]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("job", "name"), TENSORS, ids=lambda value: str(value).partition(" ")[0])
def test_the_walk_over_headers_finds_what_is_changed_in_them(job, name):
    path = Path(with_headers(job)[name])
    path.write_bytes(OF_TENSORS["fact edited"](path.read_bytes()))
    assert refusal(lambda: checked(RUN, job, name)).startswith(f"{path}: {OTHERS}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_plan_is_found_by_the_jobs_and_made_again_by_the_next_plan(damage):
    whole = Path(PLAN).read_bytes()
    Path(PLAN).write_bytes(damage(whole))
    assert refusal(lambda: weights.planned(RUN)).startswith(f"{PLAN}: damaged")
    weights.plan(RUN)
    assert Path(PLAN).read_bytes() == whole
    weights.planned(RUN)


# Whole files in another's place.


def path_of(phase: str, name: str, place: str = "synthetic-bolt", system=None, seed=None) -> str:
    return phases.outputs(RUN, Job(phase, place, system, seed))[name]


METHOD = "metrics ear-dinov2"
SHARED = path_of("mask", "saliency", system="dinov2")
MISPLACED = {
    "seed of EAR": (path_of("ear", "weights", seed=1), path_of("ear", "weights", seed=0)),
    "seed of m*": (path_of("mosaic", "scale", seed=1), path_of("mosaic", "scale", seed=0)),
    "seed of a masker that learns": (
        path_of("mask", "saliency", system="dsr", seed=1),
        path_of("mask", "saliency", system="dsr", seed=0),
    ),
    "seed of FADeR": (path_of("fader", "weights", seed=1), path_of("fader", "weights", seed=0)),
    "seed of a baseline": (
        path_of("detector", "weights", system="pca", seed=1),
        path_of("detector", "weights", system="pca", seed=0),
    ),
    "seed of metrics": (path_of("evaluate", METHOD, seed=1), path_of("evaluate", METHOD, seed=0)),
    "category of images": (
        path_of("pack", "packed", "synthetic-nut"),
        path_of("pack", "packed"),
    ),
    "category of masks": (
        path_of("mask", "saliency", "synthetic-nut", "dinov2"),
        SHARED,
    ),
    "category of EAR": (
        path_of("ear", "weights", "synthetic-nut", seed=0),
        path_of("ear", "weights", seed=0),
    ),
    "category of metrics": (
        path_of("evaluate", METHOD, "synthetic-nut", seed=0),
        path_of("evaluate", METHOD, seed=0),
    ),
    "masker": (path_of("mask", "saliency", system="dsr", seed=0), SHARED),
    "plug-in and FADeR": (
        path_of("plugin", "weights", system="dsr", seed=0),
        path_of("fader", "weights", seed=0),
    ),
    "method of metrics": (
        path_of("evaluate", "metrics fader-dinov2", seed=0),
        path_of("evaluate", METHOD, seed=0),
    ),
    "method of maps": (
        path_of("evaluate", "maps fader-dinov2", seed=0),
        path_of("evaluate", "maps ear-dinov2", seed=0),
    ),
    "weights and images": (path_of("ear", "weights", seed=0), path_of("pack", "packed")),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("source", "target"), MISPLACED.values(), ids=MISPLACED)
def test_a_file_in_anothers_place_is_found(source, target):
    shutil.copy2(source, target)
    line = refusal(lambda: verified(RUN, phases.jobs(RUN, "evaluate")))
    assert line.startswith(f"{target}: ")


@pytest.mark.usefixtures("here")
def test_the_plan_of_another_run_is_found():
    other = configured(run="other")
    weights.plan(other)
    shutil.copy2(paths.missing("other"), PLAN)
    assert f"{PLAN}: stale, made with another run" in refusal(lambda: weights.planned(RUN))


# The readers themselves, on a run that was made by the steps.


def turned(path: str, share: float = 0.999) -> None:
    """Turn one bit of a file, its times kept."""
    status, whole = Path(path).stat(), Path(path).read_bytes()
    Path(path).write_bytes(flipped_at(share)(whole))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DSR, PCA = Job("mask", PLACE, "dsr", 0), Job("detector", PLACE, "pca", 0)
READERS = {
    "manifest": (Job("dataset", "synthetic_small"), "manifest", PACK),
    "images": (PACK, "packed", EAR),
    "split": (PACK, "split", EAR),
    "masks": (Job("mask", PLACE, "dinov2"), "saliency", EAR),
    "masks of a seed": (DSR, "saliency", EVALUATE),
    "codebook": (Job("codebook"), "weights", DSR),
    "EAR": (EAR, "weights", MOSAIC),
    "m*": (MOSAIC, "scale", FADER),
    "FADeR": (FADER, "weights", EVALUATE),
    "variant": (Job("variant", PLACE, "hard", 0), "weights", EVALUATE),
    "baseline": (PCA, "weights", EVALUATE),
}


@pytest.mark.parametrize(("job", "name", "reader"), READERS.values(), ids=READERS)
def test_whoever_reads_it_finds_it(whole, tmp_path, monkeypatch, job, name, reader):
    copied(whole, tmp_path / "run", monkeypatch)
    path = file(CONFIG, job, name)
    turned(path)
    assert refusal(lambda: run(CONFIG, reader)).startswith(f"{path}: damaged")


def test_a_choice_that_is_taken_over_is_compared_as_well(whole, tmp_path, monkeypatch):
    """A variant reads from FADeR's header alone at which grid point to train."""
    copied(whole, tmp_path / "run", monkeypatch)
    path = Path(file(CONFIG, FADER, "weights"))
    data = path.read_bytes()
    old, new = (rb"\"picked\": {\"lr\": " + lr for lr in (b"0.01", b"0.02"))
    old, new = (old, new) if old in data else (old + b"x", new)
    changed = data.replace(rb"\"picked\": {\"lr\": 0.0", rb"\"picked\": {\"lr\": 0.9")
    assert changed != data
    path.write_bytes(changed)
    line = refusal(lambda: run(CONFIG, Job("variant", PLACE, "nomask", 0)))
    assert line.startswith(f"{path}: {OTHERS}")


def test_an_edited_auroc_is_never_printed(whole, tmp_path, monkeypatch):
    copied(whole, tmp_path / "run", monkeypatch)
    Records.read(CONFIG)
    path = Path(file(CONFIG, EVALUATE, "metrics fader-dinov2"))
    about = json.loads(path.read_text(encoding="utf-8"))
    about["facts"]["metrics"]["image_auroc"] = 0.999
    write_text(path, json.dumps(about, indent=2) + "\n")
    assert refusal(lambda: Records.read(CONFIG)).startswith(f"{path}: {OTHERS}")


def test_the_steps_say_whose_a_file_is(whole, monkeypatch):
    """What tells the files of two seeds, or methods, apart."""
    monkeypatch.chdir(whole)
    for job in phases.jobs(CONFIG):
        if job.seed is None or job.phase in ("cost", "report"):
            continue
        for name, path in phases.outputs(CONFIG, job).items():
            if name == "losses":
                continue
            facts = read_header(path).facts
            assert facts["seed"] == job.seed, path
            if job.phase == "evaluate":
                assert facts["method"] == name.partition(" ")[2]


def test_files_of_one_kind_do_not_stand_for_each_other(whole, tmp_path, monkeypatch):
    copied(whole, tmp_path / "run", monkeypatch)
    packed, split = file(CONFIG, PACK, "packed"), file(CONFIG, PACK, "split")
    shutil.copy2(split, packed)
    line = refusal(lambda: run(CONFIG, Job("ear", PLACE, seed=0)))
    assert line.startswith(f"{packed}: another file's copy (it holds no train, test, label)")
    shutil.copy2(split, file(CONFIG, PACK, "side 56"))
    line = refusal(lambda: run(CONFIG, Job("mask", PLACE, "dinov2")))
    assert "side56.safetensors: another file's copy (it holds no train, test" in line


# What was written before a digest was kept.


def test_an_older_file_is_compared_as_a_whole(tmp_path):
    path = tmp_path / "old.safetensors"
    header = artifacts.write_tensors(
        path, {"x": torch.arange(100.0)}, Header("ear", {}, {}, {"seed": 0})
    )
    from safetensors.torch import save_file

    plain = {name: value for name, value in header.plain().items() if name != "contents"}
    save_file({"x": torch.arange(100.0)}, path, {HEADER: json.dumps(plain, sort_keys=True)})
    assert read_header(path) == header
    assert verify(path) == header
    turned(str(path))
    assert refusal(lambda: read_header(path)).startswith(f"{path}: {OTHERS}")


def test_timings_without_a_digest_are_given_as_they_are(tmp_path):
    path = tmp_path / "old.json"
    header = artifacts.write_json(path, Header("cost", {}, {}, {"rows": []}))
    write_text(path, json.dumps(header.plain() | {"volatile": {"ms": 1}}))
    assert (read_header(path), artifacts.volatile(path)) == (header, {"ms": 1})


@pytest.mark.parametrize("keys", [(1, 2, 10), (True, 3), ("b", "a")])
def test_facts_are_compared_as_they_are_read_back(tmp_path, keys):
    facts = {"by": dict.fromkeys(keys, 0.5)}
    path = tmp_path / "a.json"
    written = artifacts.write_json(path, Header("mosaic", {}, {}, facts), facts)
    assert read_header(path).identity == written.identity
    artifacts.write_tensors(tmp_path / "a.safetensors", {}, Header("ear", {}, {}, facts))
    verify(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", sorted(digests.TYPES.values()))
def test_tensors_of_every_type_are_read_back(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    values = torch.arange(6).view(2, 3).to(getattr(torch, dtype))
    given = {"x": values, "one": values[0, 0].clone()}
    assert artifacts.write_tensors(path, given, Header("ear", {}, {}, {})) == verify(path)
    turned(str(path))
    assert refusal(lambda: verify(path)).startswith(f"{path}: {OTHERS}")


def test_a_file_is_compared_once_while_it_stays_the_same(tmp_path, monkeypatch):
    path, hashed = tmp_path / "a.safetensors", []
    artifacts.write_tensors(path, {"x": torch.ones(3)}, Header("ear", {}, {}, {}))
    of_file = digests.of_file
    monkeypatch.setattr(digests, "of_file", lambda path: hashed.append(path) or of_file(path))
    for _ in range(3):
        read_tensors(path)
        artifacts.read_arrays(str(path), {"x"})
        verify(path)
    assert len(hashed) == 1
    path.touch()
    read_tensors(path)
    assert len(hashed) == 2
