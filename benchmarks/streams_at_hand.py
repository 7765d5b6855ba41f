"""Streams to measure on: what packages bring, what River makes, and the shared ones where they are.

Each is a function of (step, events) that gives frames of one stream; a name says what it is, in
which order, and where it comes from. Streams of the shared folder are skipped where it is absent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.records import Frame
from streamlearn.evaluation import frame_events
from streamlearn.sources import open_source

MADE = 10_000  # events of a generator
SHUFFLE = 0  # seed of the order of data that has none


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that may be at hand."""

    says: str
    steps: tuple[int, ...]  # the first is the one at which everybody is compared
    frames: Callable[[int, int | None, Path | None], Iterator[Frame]]  # step, events, shared folder
    file: str = ""  # in the shared folder
    package: str = ""  # that brings it
    hard: bool = False  # the slow ones are compared here by default, too

    def missing(self, data: Path | None) -> str | None:
        """Why it can't be run here."""
        if self.file and (data is None or not (data / self.file).exists()):
            return f"shared data {self.file} is not here: --data DIR"
        if self.package and find_spec(self.package) is None:
            return f"needs {self.package}: make peers"
        return None


def _file(
    name: str, *, most: int | None = None, **asked: Any
) -> Callable[[int, int | None, Path | None], Iterator[Frame]]:
    def frames(step: int, events: int | None, data: Path | None) -> Iterator[Frame]:
        left = min(most or 10**9, events or 10**9)
        path = (data or Path()) / name
        with open_source(path, frame_events=frame_events(step), **asked) as source:
            for frame in source.frames():
                yield frame.rows(0, min(left, len(frame)))
                left -= min(left, len(frame))
                if not left:
                    return

    return frames


def _arrays(
    make: Callable[[], tuple[Any, Any]],
) -> Callable[[int, int | None, Path | None], Iterator[Frame]]:
    def frames(step: int, events: int | None, _: Path | None) -> Iterator[Frame]:
        x, y = make()
        whole = frame_of(np.asarray(x, np.float64), np.asarray(y))
        n = min(len(whole), events or len(whole))
        size = frame_events(step)
        return (whole.rows(at, min(at + size, n)) for at in range(0, n, size))

    return frames


def frame_of(x: NDArray[np.float64], y: NDArray[Any]) -> Frame:
    """All of it as one frame."""
    names, codes = np.unique(y, return_inverse=True)
    labels = tuple(str(name) for name in names.tolist())
    columns = tuple(f"x{at}" for at in range(x.shape[1]))
    return Frame("stream", columns, x, codes.astype(np.int32), labels, np.arange(float(len(y))))


def _sklearn(name: str) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        order = np.random.default_rng(SHUFFLE).permutation(len(y))
        return x[order], y[order]

    return make


def _river(make: Callable[[], Any], events: int = MADE) -> Callable[[], tuple[Any, Any]]:
    def arrays() -> tuple[Any, Any]:
        pairs = list(islice(make(), events))
        return [[float(value) for value in x.values()] for x, _ in pairs], [y for _, y in pairs]

    return arrays


def _dataset(name: str) -> Callable[[], tuple[Any, Any]]:
    def make() -> Any:
        from river import datasets

        return iter(getattr(datasets, name)())

    return _river(make, 10**6)


def _sea() -> Any:
    from river.datasets import synth

    before, after = synth.SEA(variant=0, seed=1, noise=0.1), synth.SEA(variant=2, seed=1, noise=0.1)
    return synth.ConceptDriftStream(before, after, position=MADE // 2, width=50, seed=1)


def _rbf() -> Any:
    from river.datasets import synth

    return synth.RandomRBFDrift(
        seed_model=1, seed_sample=1, n_classes=4, n_features=8, n_centroids=20,
        change_speed=0.001, n_drift_centroids=10,
    )  # fmt: skip


def _led() -> Any:
    from river.datasets import synth

    return synth.LEDDrift(
        seed=1, noise_percentage=0.1, irrelevant_features=True, n_drift_features=5
    )


def _hyperplane() -> Any:
    from river.datasets import synth

    return synth.Hyperplane(seed=1, n_features=10, n_drift_features=5, mag_change=0.001)


NEWS = {"label": "label", "ignore": ("t",)}
SHARED = {
    "elec2": Stream(
        "electricity price up or down, half-hourly, 6 columns (no date, no day)", (32, 1, 256),
        _file("elec2/data.npz", ignore=("date", "day")), file="elec2/data.npz", hard=True,
    ),
    "noaa_weather": Stream(
        "rain or not, daily, 50 years", (32, 1, 256),
        _file("noaa_weather/data.npz"), file="noaa_weather/data.npz", hard=True,
    ),
    "watch_imu": Stream(
        "7 exercises of 10 people, in `order`", (8, 1, 32),
        _file("watch_imu/data.npz"), file="watch_imu/data.npz", hard=True,
    ),
    "nyc_flights": Stream(
        "flights that come late, the first 60,000 of 2013", (32, 256),
        _file("nyc_flights/data.npz", most=60_000), file="nyc_flights/data.npz",
    ),
    "huffpost_10k": Stream(
        "news, 29 categories, title and text", (32, 1, 8, 256),
        _file("huffpost_10k/data.csv.gz", **NEWS), file="huffpost_10k/data.csv.gz",
    ),
}  # fmt: skip
SHIPPED = {
    "digits": Stream("8 x 8 images, shuffled", (32,), _arrays(_sklearn("digits"))),
    "breast_cancer": Stream("shuffled", (32,), _arrays(_sklearn("breast_cancer"))),
    "ImageSegments": Stream(
        "7 classes", (32,), _arrays(_dataset("ImageSegments")), package="river"
    ),
    "Phishing": Stream("2 classes", (32,), _arrays(_dataset("Phishing")), package="river"),
    "SEA": Stream("drift at 5,000, 10 % noise", (32,), _arrays(_river(_sea)), package="river"),
    "RandomRBF": Stream(
        "4 classes, centres that move", (32,), _arrays(_river(_rbf)), package="river", hard=True
    ),
    "LED": Stream("10 classes, 10 % noise", (32,), _arrays(_river(_led)), package="river"),
    "Hyperplane": Stream("turns slowly", (32,), _arrays(_river(_hyperplane)), package="river"),
}
STREAMS = SHARED | SHIPPED
