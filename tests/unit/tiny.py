"""One tiny configuration for the tests of EAR and FADeR, its images, and its detectors."""

import copy
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from fader.config import Config, MaskPath, parse
from fader.detectors import Context, Images
from fader.detectors.ear import Ear
from fader.detectors.fader import PROPOSED, Fader, Point
from fader.detectors.fader.search import Outcome, search
from fader.detectors.reconstruction import ReconstructionDetector
from fader.runtime import Machine
from fader.training.checkpoint import Checkpoint
from fader.training.loop import Run
from fader.vision.mosaic import obfuscate

PRESET = yaml.safe_load((Path(__file__).parents[2] / "presets/ci.yaml").read_text(encoding="utf-8"))
CPU = Machine(torch.device("cpu"), "fp32")
SIZE, PATCH, COUNT = 32, 8, 12
GRID = SIZE // PATCH


def tiny(**changes: dict) -> Config:
    """The ci preset at 32 × 32 pixels without baselines, with ``changes`` of sections."""
    values = copy.deepcopy(PRESET) | {"detectors": {}}
    values["image"]["size"] = SIZE
    values["unet"]["widths"] = [4, 8, 8]
    values["ear"] |= {"steps": None, "epochs": 2, "batch": 4, "scales": [4, 8]}
    values["fader"] |= {"steps": None, "epochs": 2, "batch": 4, "hidden": 16, "lrs": [0.01, 0.001]}
    for section, keys in changes.items():
        values[section] |= keys
    return parse(values, "tiny")


def place(config: Config, machine: Machine = CPU) -> Context:
    return Context(machine, config.image.size, config.unet, config.loss, config.score)


def pixels() -> Tensor:
    """Coarse patterns with a little noise, (12, 3, 32, 32) uint8."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(COUNT, 3, 8, 8, generator=random)
    fine = torch.rand(COUNT, 3, SIZE, SIZE, generator=random)
    images = 0.8 * coarse.repeat_interleave(4, -1).repeat_interleave(4, -2) + 0.2 * fine
    return (images * 255).to(torch.uint8)


def masks() -> Tensor:
    return torch.rand(COUNT, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.4


def normals() -> Images:
    return Images(pixels(), masks())


def seen() -> Tensor:
    """I′ of the normals."""
    return obfuscate(CPU.images(pixels()), masks(), PATCH)


def patchwork(levels: Tensor) -> Tensor:
    """Images (B, 3, 32, 32) of evenly grey patches from levels (B, 16)."""
    grid = levels.view(-1, 1, GRID, GRID).expand(-1, 3, -1, -1)
    return grid.repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)


class Reconstructing(ReconstructionDetector):
    """A detector whose reconstruction is a function of images and masks."""

    def __init__(self, function, context: Context) -> None:
        super().__init__(context)
        self.function = function

    def reconstruct(self, images, masks=None):
        return self.function(images, masks)


@cache
def _state() -> dict[str, Tensor]:
    config = tiny()
    torch.manual_seed(7)
    detector = Ear(place(config), config.ear, PATCH)
    for _ in range(5):
        detector.network(CPU.images(pixels()))
    return detector.state()


def pretrained(machine: Machine = CPU) -> Ear:
    """An EAR whose batch normalisation has seen images: running statistics are not the initial
    ones."""
    config = tiny()
    detector = Ear(place(config, machine), config.ear, PATCH)
    detector.load(_state())
    return detector


def variant(**changes: str) -> MaskPath:
    """FADeR's mask path as proposed, but for ``changes``."""
    return MaskPath(**PROPOSED.model_dump() | changes)


VARIANTS = {
    "soft": PROPOSED,
    "hard": variant(mask="hard"),
    "shuffled": variant(mask="shuffled"),
    "constant": variant(mask="constant"),
    "none": variant(mask="none"),
    "sigmoid": variant(normalise="sigmoid"),
    "quantile": variant(normalise="quantile"),
    "twopass": variant(input="reconstruction"),
    "bilinear": variant(scaling="bilinear"),
    "vit": variant(predictor="vit"),
}


# One of every path through the code, where all of them would take long.
some_variants = pytest.mark.parametrize("name", ["soft", "none", "quantile", "twopass", "vit"])


def untrained(name: str, config: Config | None = None, machine: Machine = CPU) -> Fader:
    """FADeR or a variant on the pre-trained EAR, with Φ as drawn."""
    ear = pretrained(machine)
    torch.manual_seed(3)
    return Fader(ear, (config or tiny()).fader, VARIANTS[name]).eval()


def trained(state: dict[str, Tensor], name: str, config: Config | None = None) -> Fader:
    """FADeR or a variant on the pre-trained EAR, read back."""
    detector = untrained(name, config)
    detector.load(state)
    return detector


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def run_in(folder: Path) -> Run:
    """A training of seed 1 that saves itself in ``folder``."""
    return Run(1, "fader tiny", lambda stage: Checkpoint(folder / f"{stage}.ckpt", "run"))


def search_in(folder: Path, *points: Point, name: str = "soft", **changes) -> list[Outcome]:
    """``search`` over ``points``; each call has checkpoints of its own unless it is given a
    ``run``."""
    config = changes.pop("config", None) or tiny()
    arguments = {
        "ear": pretrained(),
        "normal": normals(),
        "run": run_in(Path(tempfile.mkdtemp(dir=folder))),
        "validate": lambda detector: {"value": 0.5},
        "watch": lambda detector: [0.0],
    }
    return search(
        settings=config.fader,
        path=VARIANTS[name],
        points=points or [Point(0.01, "fixed")],
        **arguments | changes,
    )
