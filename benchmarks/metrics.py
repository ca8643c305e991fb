"""Pixel AUROC and average precision, ours and scikit-learn's: seconds, difference; AUPIMO: seconds.

Run alone: ``python benchmarks/metrics.py [--pixels 100000000] [--repeats 3]``. All read the same
float32 scores, a softmax-like distribution over many octaves with 3 % defective pixels. Seconds of
ours are the minimum over the repeats, of scikit-learn of one run (a minute and 7 GB at 10^8). For
AUPIMO the first 10^7 of them, or all where they are fewer, are cut into images of 256 x 256, every
fourth of which is good.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from fader.evaluation.pimo import aupimo
from fader.evaluation.pixels import PixelHistogram

CHUNK = 2**22
SIDE = 256


def softmax_like(pixels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logistic of N(-6, 2^2), shifted by 1.5 where defective; chunk by chunk to save memory."""
    rng = np.random.default_rng(seed)
    scores, labels = np.empty(pixels, np.float32), np.empty(pixels, bool)
    for start in range(0, pixels, CHUNK):
        label = labels[start : start + CHUNK]
        label[:] = rng.random(label.size, dtype=np.float32) < 0.03
        logit = 2 * rng.standard_normal(label.size, dtype=np.float32) - 6
        logit[label] += 1.5
        scores[start : start + CHUNK] = 1 / (1 + np.exp(-logit))
    return scores, labels


def fill(scores: np.ndarray, labels: np.ndarray) -> PixelHistogram:
    histogram = PixelHistogram()
    histogram.update(scores, labels)
    return histogram


def images(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps and masks (N, 256, 256) of the first pixels, and labels (N,): every fourth is good."""
    whole = scores.size // SIDE**2
    maps, masks = (a[: whole * SIDE**2].reshape(whole, SIDE, SIDE) for a in (scores, labels))
    defective = np.arange(whole) % 4 > 0
    return maps, masks & defective[:, None, None], defective


def timed(function: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Minimum seconds over the repeats, and the value."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=10**8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    scores, labels = softmax_like(args.pixels)
    print(f"{args.pixels} pixels, {labels.mean():.2%} defective")
    rows = [
        ("AUROC", PixelHistogram.auroc, roc_auc_score),
        ("AP", PixelHistogram.average_precision, average_precision_score),
    ]
    ours = [
        timed(lambda metric=metric: metric(fill(scores, labels)), args.repeats)
        for _, metric, _ in rows
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory before scikit-learn runs: {peak:.1f} GiB, data included")
    print("metric   ours [s]  sklearn [s]   ratio  difference")
    for (name, _, oracle), (seconds, value) in zip(rows, ours, strict=True):
        oracle_seconds, expected = timed(lambda oracle=oracle: oracle(labels, scores), 1)
        ratio = oracle_seconds / seconds
        difference = value - expected
        print(f"{name:6}{seconds:11.2f}{oracle_seconds:13.1f}{ratio:8.1f}{difference:12.1e}")
    maps, masks, defective = images(scores[: 10**7], labels[: 10**7])
    seconds, value = timed(lambda: aupimo(maps, masks, defective), args.repeats)
    print(f"AUPIMO{seconds:11.2f}  at {maps.size} pixels of {len(maps)} images; {value:.4f}")


if __name__ == "__main__":
    main()
