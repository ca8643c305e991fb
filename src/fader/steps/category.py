"""A category of a run as the phases see it: its settings, its seeds, its artefacts read and
checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fader.config import Config
from fader.errors import FaderError
from fader.pipeline import artifacts, paths
from fader.pipeline.artifacts import Header
from fader.pipeline.paths import Files
from fader.pipeline.phases import settings
from fader.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor  # the report reads metrics without it

# The fact that stands in an artefact for its contents where an optional masker's weights, hence all
# that follows from them, cannot be had; its value is the reason.
MISSING = "missing"


@dataclass(frozen=True)
class Category:
    """One category of a run: its configuration and its files."""

    config: Config
    dataset: str
    name: str

    def __post_init__(self) -> None:
        if (self.dataset, self.name) not in self.config.pairs():
            raise FaderError(
                f"{self.dataset}/{self.name} is not under categories in the configuration"
                f" ({', '.join('/'.join(pair) for pair in self.config.pairs())})"
            )

    @property
    def files(self) -> Files:
        return Files.of(self.config.run, self.dataset, self.name)

    def settings(self, phase: str, **wildcards: str) -> dict[str, Any]:
        return settings(self.config, phase, dataset=self.dataset, **wildcards)

    def system_settings(self, phase: str, system: str) -> dict[str, Any]:
        """Settings of a phase for one FADeR system: the phase's keys and the system's variant."""
        if system not in self.config.systems():
            raise FaderError(
                f"system {system!r} is not one of this run's ({', '.join(self.config.systems())})"
            )
        return self.settings(phase) | {"variant": self.config.variant(system).model_dump()}

    def checked(self, path: str, phase: str, **wildcards: str) -> Header:
        return artifacts.check(path, phase, self.settings(phase, **wildcards))

    def label(self, stage: str, seed: int) -> str:
        return f"{stage} {self.dataset}/{self.name} seed {seed}"

    def seed(self, seed: int, stage: str) -> int:
        return derive_seed(seed, self.dataset, self.name, stage)

    # Artefacts, read and checked.

    def packed(self) -> tuple[dict[str, Tensor], Header]:
        path = self.files.packed()
        header = self.checked(path, "pack")
        return artifacts.read_tensors(path), header

    def validation(self) -> dict[str, Tensor]:
        """The fields of ``validation.Split`` but its kinds."""
        path = self.files.validation()
        self.checked(path, "validation")
        return artifacts.read_tensors(path)

    def mask_path(self, masker: str, seed: int) -> str:
        """Masks of a masker for a seed: a file of each seed only where the masker learns."""
        return self.files.mask(masker, seed if self.config.masks.trained(masker) else None)

    def missing(self, masker: str, seed: int) -> str | None:
        """Why an optional masker has no masks here; None when it has."""
        return self.checked(self.mask_path(masker, seed), "mask", masker=masker).facts.get(MISSING)

    def masks(self, masker: str, seed: int, size: int) -> dict[str, Tensor]:
        """Binary masks (N, size, size) of the train, test and validation images."""
        path = self.mask_path(masker, seed)
        self.checked(path, "mask", masker=masker)
        tensors = artifacts.read_tensors(path, lambda name: name.startswith("mask/"))
        return {name.removeprefix("mask/"): enlarge(mask, size) for name, mask in tensors.items()}

    def mosaic(self, seed: int) -> int:
        path = self.files.mosaic(seed)
        return self.checked(path, "mosaic").facts["mosaic"]

    def verified(self, seed: int, method: str) -> Header:
        """Header of a method's metrics; every artefact behind it is checked as well."""
        files, system = self.files, method.partition("-")[2]
        masker = system.partition("-")[0]
        self.checked(paths.manifest_path(self.dataset), "dataset")
        self.checked(files.packed(), "pack")
        self.checked(files.validation(), "validation")
        stage = method.partition("-")[0]
        for name in {masker} if stage == "mask" else {masker, self.config.masks.base}:
            if self.config.masks.trained(name):
                self.checked(files.masker(name, seed), "masker", masker=name)
            self.checked(self.mask_path(name, seed), "mask", masker=name)
        if stage != "mask":
            self.checked(files.ear(seed), "ear")
            self.checked(files.mosaic(seed), "mosaic")
        if stage not in ("mask", "ear"):
            for name in {system, *self.config.inherited(system)}:
                settings = self.system_settings("fader", name)
                artifacts.check(files.fader(seed, name), "fader", settings)
        settings = self.system_settings("evaluate", system)
        return artifacts.check(files.metrics(seed, method), "evaluate", settings)


def enlarge(mask: Tensor, size: int) -> Tensor:
    """Masks (N, g, g) scaled by nearest neighbour to (N, size, size) bool."""
    from torch.nn import functional as F

    return (
        F.interpolate(mask.unsqueeze(1).float(), size=(size, size), mode="nearest").squeeze(1) > 0.5
    )
