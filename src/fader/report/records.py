"""What was measured in a run, read back for the printed page and checked once.

A ``Record`` is what one method's metrics file says. ``Records`` holds those of a whole run: every
method, category and seed of the configuration, once.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import phases
from fader.pipeline.artifacts import Header
from fader.pipeline.context import verified
from fader.pipeline.jobs import Job, dataset_of, of_method
from fader.pipeline.methods import Method, methods
from fader.report.labels import DATASETS
from fader.report.sources import Source

AUROCS = ("image_auroc", "pixel_auroc")  # every method that ran has both, or the reason
DATA = ("synthetic", "paper_dataset", "size")
_AGAIN = "run the evaluation again"


@dataclass(frozen=True)
class Record:
    """What was measured of one method on one category with one seed.

    Parameters
    ----------
    place : key of ``categories``.
    data : ``synthetic``, ``paper_dataset`` ("mvtec_ad", "visa" or None) and ``size`` in pixels.
    metrics : name → number; None or absent where a metric does not apply.
    unmeasured : name → why the test images do not let one measure a metric.
    scores, labels : of the test images, (N,); label 1 is a defective image.
    missing : why there is nothing but this; None where the method ran.
    diverged : whether that is because its training diverged.
    machine : ``device`` and ``precision`` that it was measured on.
    weights : what a masker loaded, in words.
    length : stage of the method's own training → its ``steps`` and ``epochs``; empty without one.
    """

    place: str
    method: Method
    seed: int
    data: Mapping[str, Any]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    scores: Sequence[float] = ()
    labels: Sequence[int] = ()
    missing: str | None = None
    diverged: bool = False
    machine: Mapping[str, Any] | None = None
    weights: str | None = None
    length: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For errors."""
        return f"metrics of {self.place}/{self.method}/seed{self.seed}"


class Records:
    """All records of a run, validated.

    Parameters
    ----------
    config : of the run.
    records : one for each category, method and seed, in any order.
    machines : (device, precision) of what was trained for them.
    sources : key of ``categories`` → what was read of it.

    Raises
    ------
    FaderError : a record is given twice, is lacking or not of the run; a number is not finite, or
        lacks without a reason; the test images of a category, what can be measured on them, or the
        facts of a data set, differ between records.
    """

    def __init__(
        self,
        config: Config,
        records: Iterable[Record],
        machines: Iterable[tuple[str, str]] = (),
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.config = config
        self.sources = dict(sources or {})
        self._index = _indexed(config, records)
        for record in self:
            _check_numbers(record)
        self._unmeasured = self._reasons()
        self._check_labels()
        self._check_data()
        own = (_machine(record.machine) for record in self if record.machine)
        self.machines = sorted({*machines, *own})

    @classmethod
    def read(cls, config: Config) -> "Records":
        """Records of a run from its files; every artefact behind them is checked once.

        Raises
        ------
        FaderError : a file is missing, damaged or stale; and as above.
        """
        headers = verified(config, phases.jobs(config, "evaluate"))
        records = [
            _record(job, method, headers[of_method(config, job, method)[f"metrics {method}"]])
            for job in phases.jobs(config, "evaluate")
            for method in methods(config)
        ]
        facts = (header.facts.get("machine") for header in headers.values())
        packs = {job.place: phases.outputs(config, job) for job in phases.jobs(config, "pack")}
        sources = {place: Source.of(headers[each["packed"]]) for place, each in packs.items()}
        return cls(config, records, map(_machine, filter(None, facts)), sources)

    def __iter__(self) -> Iterator[Record]:
        """In table order: by category, method, seed."""
        return iter(self._index.values())

    def get(self, place: str, method: Method, seed: int) -> Record:
        """One record; KeyError when there is none."""
        return self._index[place, method, seed]

    def of(self, place: str, method: Method) -> dict[int, Record]:
        """Seed → record, of the seeds for which the method ran."""
        records = {seed: self.get(place, method, seed) for seed in self.config.seeds}
        return {seed: record for seed, record in records.items() if record.missing is None}

    def values(self, place: str, method: Method, metric: str) -> dict[int, float]:
        """Seed → value of a metric, of the seeds that have one."""
        records = self.of(place, method).items()
        values = {seed: record.metrics.get(metric) for seed, record in records}
        return {seed: value for seed, value in values.items() if value is not None}

    def lacking(self, place: str, metric: str) -> str | None:
        """Why a category's test images do not let one measure a metric; None where they do."""
        return self._unmeasured.get(place, {}).get(metric)

    @property
    def methods(self) -> list[Method]:
        """Methods of the run, in the order of the tables."""
        return methods(self.config)

    @property
    def places(self) -> list[str]:
        """Keys of ``categories``, in table order."""
        return list(self.config.categories)

    def dataset(self, place: str) -> str:
        """The data set of a category, by the category's key."""
        return dataset_of(self.config, place)

    def by_dataset(self, places: Iterable[str] | None = None) -> dict[str, list[str]]:
        """Data set → its categories, all or those of ``places``, in table order."""
        datasets: dict[str, list[str]] = {}
        for place in self.places if places is None else places:
            datasets.setdefault(self.dataset(place), []).append(place)
        return datasets

    def data(self, place: str) -> Mapping[str, Any]:
        """Facts of a category's data set."""
        return next(record.data for record in self if record.place == place)

    def title(self, place: str) -> str:
        """A category's name; with its data set, where the run has several."""
        category = self.config.categories[place]
        several = len({each.dataset for each in self.config.categories.values()}) > 1
        return f"{category.dataset}/{category.category}" if several else category.category

    def gaps(self, cells: Iterable[tuple[Method, str]], places: Iterable[str]) -> list[str]:
        """Why values of (method, metric) are missing: a note per method and reason, but for what
        no method has (see ``unmeasured``)."""
        places = list(places)
        gaps: dict[tuple[Method, str], dict[str, None]] = {}
        for method, metric in cells:
            for place in places:
                reasons: dict[str, list[int]] = {}
                for seed in self.config.seeds:
                    record = self.get(place, method, seed)
                    if record.missing is not None:
                        reasons.setdefault(record.missing.rstrip("."), []).append(seed)
                    elif record.metrics.get(metric) is None and metric not in record.unmeasured:
                        reasons.setdefault(f"{metric} not measured", []).append(seed)
                for reason, seeds in reasons.items():
                    some = f" (seed {', '.join(map(str, seeds))})"
                    where = self.title(place) + ("" if seeds == self.config.seeds else some)
                    gaps.setdefault((method, reason), {})[where] = None
        return [f"{method}, {', '.join(where)}: {why}." for (method, why), where in gaps.items()]

    def unmeasured(self, metrics: Iterable[str], places: Iterable[str]) -> list[str]:
        """Why there are no values of metrics, whatever the method: a note per reason and
        categories."""
        where: dict[tuple[str, str], dict[str, None]] = {}
        for metric, place in product(metrics, places):
            why = self.lacking(place, metric)
            if why is not None:
                where.setdefault((kind(metric), why), {})[self.title(place)] = None
        kinds: dict[tuple[str, str], list[str]] = {}
        for (name, why), titles in where.items():
            kinds.setdefault((", ".join(titles), why), []).append(name)
        return [
            f"{_none_of(names)} on the test images of {titles}: {why}."
            for (titles, why), names in kinds.items()
        ]

    def provenance(self, places: Iterable[str]) -> str:
        """Sentences on the data, their size, the seeds, and machines where they are several."""
        facts = {self.dataset(place): self.data(place) for place in places}
        kinds = dict.fromkeys(_kind(dataset, data) for dataset, data in facts.items())
        sizes = sorted({data["size"] for data in facts.values()})
        sentences = [
            f"Data: {'; '.join(kinds)}.",
            f"Images of {' and '.join(f'{size} × {size}' for size in sizes)} pixels.",
        ]
        if len(self.machines) > 1:
            listed = "; ".join(f"{device}, {precision}" for device, precision in self.machines)
            sentences.append(f"Computed on more than one kind of machine: {listed}.")
        return " ".join(sentences)

    def _reasons(self) -> dict[str, dict[str, str]]:
        """Category → metric → why it is not measured: the same for all methods and seeds."""
        reasons: dict[str, dict[str, str]] = {}
        for record in self:
            of_place = reasons.setdefault(record.place, {})
            for metric, why in record.unmeasured.items():
                if of_place.setdefault(metric, why) != why:
                    raise FaderError(
                        f"{record.name}: {metric} is not measured, {why}; another record says"
                        f" {of_place[metric]}; {_AGAIN}"
                    )
        for record in self:
            both = sorted(_known(record) & reasons[record.place].keys())
            if both:
                why = reasons[record.place][both[0]]
                raise FaderError(
                    f"{record.name}: has {both[0]}, another record says {why}; {_AGAIN}"
                )
        return reasons

    def _check_labels(self) -> None:
        """All methods are judged on the same test images."""
        first: dict[str, Record] = {}
        for record in (record for record in self if record.missing is None):
            other = first.setdefault(record.place, record)
            if list(record.labels) != list(other.labels):
                raise FaderError(f"{record.name}: its labels are not those of {other.name}")

    def _check_data(self) -> None:
        first: dict[str, Record] = {}
        for record in self:
            other = first.setdefault(self.dataset(record.place), record)
            if any(record.data[key] != other.data[key] for key in DATA):
                raise FaderError(
                    f"{record.name} and {other.name} disagree on their data ({record.data},"
                    f" {other.data}); {_AGAIN}"
                )
            if record.data["synthetic"] and record.data["paper_dataset"]:
                raise FaderError(
                    f"{record.name}: synthetic images cannot be {record.data['paper_dataset']}"
                )


def kind(metric: str) -> str:
    """What a metric is one of, in words."""
    alone = {"oracle_gain": "oracle gains", "aupimo": "AUPIMO"}
    if metric in alone:
        return alone[metric]
    of_images = metric.removeprefix("validation_").startswith("image")
    return "image metrics" if of_images else "pixel metrics"


def _none_of(names: Sequence[str]) -> str:
    """``No a, no b and no c``."""
    *others, last = names
    return f"No {' and no '.join([', no '.join(others), last] if others else [last])}"


def _record(job: Job, method: Method, header: Header) -> Record:
    """The facts of a metrics file, which ``fader.steps.evaluate`` writes."""
    facts = header.facts
    try:
        diverged = facts.get("diverged")
        missing = f"training diverged: {diverged}" if diverged else facts.get("missing")
        ran = missing is None
        return Record(
            place=job.place,
            method=method,
            seed=job.seed,
            data={key: facts["data"][key] for key in DATA},
            metrics=facts["metrics"] if ran else {},
            unmeasured=facts["unmeasured"] if ran else {},
            scores=facts["scores"] if ran else (),
            labels=facts["labels"] if ran else (),
            missing=missing,
            diverged=diverged is not None,
            machine=facts.get("machine"),
            weights=facts.get("weights"),
            length=facts["length"] if ran else {},
        )
    except KeyError as error:
        name = f"metrics of {job.place}/{method}/seed{job.seed}"
        raise FaderError(f"{name}: no fact {error}; {_AGAIN}") from None


def _indexed(config: Config, records: Iterable[Record]) -> dict[tuple[str, Method, int], Record]:
    """By category, method and seed, in table order."""
    index: dict[tuple[str, Method, int], Record] = {}
    for record in records:
        key = (record.place, record.method, record.seed)
        if key in index:
            raise FaderError(f"{record.name}: given twice; give every record once")
        index[key] = record
    order = [
        (place, method, seed)
        for place in config.categories
        for method in methods(config)
        for seed in config.seeds
    ]
    for place, method, seed in index.keys() ^ set(order):
        what = "no record of" if (place, method, seed) in order else "not in the configuration:"
        raise FaderError(f"{what} {place}/{method}/seed{seed}; {_AGAIN}")
    return {key: index[key] for key in order}


def _check_numbers(record: Record) -> None:
    if record.missing is not None:
        return
    told = _known(record) | record.unmeasured.keys()
    lacking = [metric for metric in AUROCS if metric not in told]
    if lacking:
        raise FaderError(f"{record.name}: no {', '.join(lacking)}; {_AGAIN}")
    for metric, value in record.metrics.items():
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise FaderError(f"{record.name}: {metric} is {value!r}, no finite number; {_AGAIN}")
    if len(record.scores) != len(record.labels) or not all(map(math.isfinite, record.scores)):
        raise FaderError(f"{record.name}: not a finite score for every label; {_AGAIN}")


def _known(record: Record) -> set[str]:
    """Metrics that a record has."""
    return {metric for metric, value in record.metrics.items() if value is not None}


def _machine(facts: Mapping[str, Any]) -> tuple[str, str]:
    return facts["device"], facts["precision"]


def _kind(dataset: str, data: Mapping[str, Any]) -> str:
    if data["synthetic"]:
        return (
            "synthetic inspection images generated by this repository; not a reproduction of the"
            " paper's numbers"
        )
    return DATASETS.get(data["paper_dataset"], f"{dataset}, not a data set of the paper")
