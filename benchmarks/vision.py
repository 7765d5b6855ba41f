"""Streams of images: what the frozen encoder gains over the pixels as numbers, and what it costs.

    python benchmarks/vision.py DATA [--seeds 3] [--only PART_OF_A_NAME]

DATA is a folder with mnist_5k/data.npz and omniglot_small/data.npz (X (n, 28, 28) uint8, y). First
mnist two classes at a time in one pass, every tenth event held out: what `serve` names right as it
comes, what `keep` knows of all classes at the end, what it forgot. Then streams in random order,
2000 events at most, prequentially; digits are scikit-learn's, 8 x 8, scaled up; textures are
gratings in noise. All at steps of 32, a line with the pixels as 784 columns beside it. Then
events a CPU-second of one thread, test and learn.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import rotate, zoom
from sklearn.datasets import load_digits

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings
from streamlearn.evaluation import evaluate

Set = tuple[NDArray[np.uint8], NDArray[np.int32]]
STEP, MOST = 32, 2000


def frames(pixels: NDArray[np.uint8], codes: NDArray[np.int32], *, numbers: bool) -> list[Frame]:
    """The images as a stream, as images or as numbers."""
    n = len(codes)
    columns = tuple(f"p{j}" for j in range(784)) if numbers else ()
    rows = pixels.reshape(n, -1).astype(float) if numbers else np.zeros((n, 0))
    names = tuple(f"c{code}" for code in range(int(codes.max()) + 1))
    images = {} if numbers else {"image": ImageColumn.of(pixels)}
    whole = Frame("s", columns, rows, codes, names, np.arange(float(n)), images=images)
    return [whole.rows(start, min(start + 256, n)) for start in range(0, n, 256)]


def textures() -> Set:
    """Gratings of 5 directions and 2 widths, at any place, in noise."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 10, MOST).astype(np.int32)
    y, x = np.mgrid[0:28, 0:28]
    found = np.empty((MOST, 28, 28))
    for at, code in enumerate(codes.tolist()):
        turn = np.pi * (code % 5) / 5 + 0.1 * rng.normal()
        rate = (0.8, 1.5)[code // 5] * np.exp(0.1 * rng.normal())
        wave = np.sin(rate * (y * np.sin(turn) + x * np.cos(turn)) + rng.uniform(0, 2 * np.pi))
        found[at] = 128 + 60 * (wave * rng.uniform(0.3, 1) + 0.4 * rng.normal(size=(28, 28)))
    return found.clip(0, 255).astype(np.uint8), codes


def random_streams(folder: Path) -> Iterator[tuple[str, Set]]:
    """Name, and images in random order."""
    rng = np.random.default_rng(0)
    with np.load(folder / "mnist_5k/data.npz", allow_pickle=False) as data:
        order = rng.permutation(len(data["y"]))[:MOST]
        pixels, codes = data["X"][order], data["y"][order].astype(np.int32)
    yield "mnist", (pixels, codes)
    half = MOST // 2
    yield "mnist, dark on light from the middle on", (
        np.concatenate([pixels[:half], 255 - pixels[half:]]), codes)  # fmt: skip
    turns = rng.uniform(-45, 45, MOST)
    turned = [rotate(p, a, reshape=False, order=1) for p, a in zip(pixels, turns, strict=True)]
    yield "mnist, turned by up to 45 degrees", (np.array(turned, np.uint8), codes)
    digits = load_digits()
    scaled = zoom(digits.images * 15.9, (1, 3.5, 3.5), order=1).astype(np.uint8)
    order = rng.permutation(len(scaled))
    yield "digits, 8 x 8 scaled up", (scaled[order], digits.target[order].astype(np.int32))
    yield "textures", textures()
    with np.load(folder / "omniglot_small/data.npz", allow_pickle=False) as data:
        for alphabet in np.unique(data["alphabet"]).tolist():
            own = rng.permutation(np.flatnonzero(data["alphabet"] == alphabet))
            codes = np.unique(data["y"][own], return_inverse=True)[1].astype(np.int32)
            name = str(data["alphabet_names"][alphabet])
            yield f"{name}, {codes.max() + 1} letters", (data["X"][own], codes)


def incremental(folder: Path, seed: int, *, numbers: bool) -> str:
    """mnist, two classes at a time."""
    with np.load(folder / "mnist_5k/data.npz", allow_pickle=False) as data:
        pixels, codes = data["X"], data["y"].astype(np.int32)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(codes // 2 == k)) for k in range(5)])
    given = frames(pixels[order], codes[order], numbers=numbers)
    settings = LearnerSettings(seed=seed, step_events=STEP)
    found = evaluate(given, settings, classes_over_time=True)
    if found.classes_over_time is None or found.classes_over_time.keep.forgetting is None:
        return "no classes over time"
    keep = found.classes_over_time.keep
    said = f"serve {found.accuracy:.3f}  keep {keep.final:.3f}  forgetting {keep.forgetting:.3f}"
    return f"{said}  backward transfer {keep.backward_transfer or 0.0:+.3f}"


def events_a_second(folder: Path, step: int) -> float:
    """Test and learn, CPU seconds, after a warm-up."""
    with np.load(folder / "mnist_5k/data.npz", allow_pickle=False) as data:
        order = np.random.default_rng(0).permutation(len(data["y"]))
        pixels, codes = data["X"][order], data["y"][order].astype(np.int32)
    given = frames(pixels, codes, numbers=False)
    learner = StreamLearner("s", LearnerSettings(step_events=step))
    for frame in given[:4]:
        learner.learn(frame)
    start, timed = time.process_time(), given[4 : 14 if step > 1 else 6]
    for frame in timed:
        learner.learn(frame)
    return sum(map(len, timed)) / (time.process_time() - start)


def main() -> None:
    """All of it, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="PART_OF_A_NAME")
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        for name, numbers in (("images", False), ("pixels as numbers", True)):
            what = f"two classes at a time, {name}, seed {seed}"
            if asked.only in what and not (numbers and seed):
                print(f"{what:55}{incremental(asked.data, seed, numbers=numbers)}", flush=True)
    for name, (pixels, codes) in random_streams(asked.data):
        if asked.only in name:
            both = [
                evaluate(
                    frames(pixels, codes, numbers=numbers), LearnerSettings(step_events=STEP)
                ).accuracy
                for numbers in (False, True)
            ]
            said = f"images {both[0]:.3f}  pixels as numbers {both[1]:.3f}"
            print(f"{name:55}{said}  ({len(codes)} events)", flush=True)
    for step in (256, 32, 1):
        if asked.only in "events a CPU-second":
            speed = events_a_second(asked.data, step)
            print(f"{f'events a CPU-second, steps of {step}':55}{speed:,.0f}", flush=True)


if __name__ == "__main__":
    main()
