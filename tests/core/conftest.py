"""Small synthetic streams, and the shared real ones where they are at hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlearn.core.records import Frame

MakeStream = Callable[..., list[Frame]]


@pytest.fixture(scope="session")
def make_stream() -> MakeStream:
    """Frames of a stream whose classes are separable, if not perfectly."""

    def make(
        n: int,
        *,
        d: int = 5,
        n_classes: int = 3,
        a_frame: int = 64,
        seed: int = 0,
        missing: float = 0.0,
        unlabelled: float = 0.0,
        permute_labels: bool = False,
    ) -> list[Frame]:
        rng = np.random.default_rng(seed)
        numbers = rng.normal(size=(n, d)) * np.logspace(-2, 3, d) + 7.0
        scores = ((numbers - 7.0) / np.logspace(-2, 3, d)) @ rng.normal(size=(d, n_classes))
        codes = (scores + 0.5 * rng.gumbel(size=scores.shape)).argmax(axis=1).astype(np.int32)
        if permute_labels:
            codes = rng.permutation(codes)
        numbers[rng.random(numbers.shape) < missing] = np.nan
        codes[rng.random(n) < unlabelled] = -1
        return cut(numbers, codes, a_frame)

    return make


def cut(numbers: NDArray[np.float64], codes: NDArray[np.int32], a_frame: int) -> list[Frame]:
    columns = tuple(f"x{j}" for j in range(numbers.shape[1]))
    values = tuple(f"class {c}" for c in range(int(codes.max(initial=0)) + 1))
    times = np.arange(float(len(codes)))
    whole = Frame("s", columns, numbers, codes, values, times)
    return [whole.rows(i, min(i + a_frame, len(codes))) for i in range(0, len(codes), a_frame)]


@pytest.fixture(scope="session")
def shared_stream(shared_data: Callable[[str], Path]) -> MakeStream:
    """Frames of a real stream of the shared data, by its name."""

    def load(name: str, *, a_frame: int, limit: int | None = None) -> list[Frame]:
        with np.load(shared_data(f"{name}/data.npz"), allow_pickle=False) as data:
            numbers, codes = data["X"].astype(np.float64), data["y"].astype(np.int32)
            order = data["order"] if "order" in data.files else np.arange(len(codes))
        return cut(numbers[order][:limit], codes[order][:limit], a_frame)

    return load
