"""Fit a detector on a folder of good images, score others, and export it.

    python examples/own_images.py [GOOD [NEW]] [--detector patchcore] [--preset real]

Without folders, bolts are drawn: good ones to fit on, and scratched ones among others to score.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

import fader
from fader.data.synthetic import render


def draw(folder: Path) -> tuple[Path, Path]:
    """Folders of good bolts and of others, every second of which is scratched."""
    good, new = folder / "good", folder / "new"
    good.mkdir()
    new.mkdir()
    for number in range(24):
        image, _ = render("bolt", "train", number, seed=0, size=128)
        Image.fromarray(image).save(good / f"{number:03}.png")
    for number in range(6):
        defect = "scratch" if number % 2 else None
        image, _ = render("bolt", "test", number, seed=0, size=128, defect=defect)
        Image.fromarray(image).save(new / f"{number:03}-{defect or 'good'}.png")
    return good, new


def main() -> None:
    """Fit, save, load, predict."""
    parser = argparse.ArgumentParser(description="Good images in, verdicts out.")
    parser.add_argument("good", nargs="?", type=Path)
    parser.add_argument("new", nargs="?", type=Path)
    parser.add_argument("--detector", default="patchcore")
    parser.add_argument("--preset", default="real")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good, new = arguments.good, arguments.new
        if good is None:
            good, new = draw(Path(folder))
        options = {"detector": arguments.detector, "preset": arguments.preset}
        fader.fit(good, Path(folder) / "model", **options)

        model = fader.load(Path(folder) / "model")
        found = model.predict(new or good)
        for name, score, defective in zip(found.names, found.scores, found.defective, strict=True):
            print(f"{name:24} {score:10.4f} {'DEFECTIVE' if defective else 'good'}")
        hottest = max(found.restored(), key=lambda values: values.max())
        print(f"threshold {found.threshold:.4f}; the hottest map has {hottest.shape} pixels")


if __name__ == "__main__":
    main()
