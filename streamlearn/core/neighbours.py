"""Experts, neighbours: the classes of the most similar recent events.

In: standardised inputs z. Out: probabilities (n, C). Other heads need many events to bend to a
small cloud of a class; this one knows it from a few, and forgets it when its window has passed.

The last events lie in a ring, each input as a whole number of steps. Sums of products of such
numbers stay below 2^24, so float32 has them exactly, in any order and on any machine. An event q
is nearest to the row r with the largest 2 q r - r^2, which is one product for all rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

STEPS = 25.0  # a standard deviation; z is clipped to 5, so it fits a byte
NEAREST = 5  # events; 10: watch_imu -.001, RBF -.004
SHARPNESS = 3.0  # an event weighs exp(-3 d^2 / d^2 of the fifth); 1: watch_imu -.004, rbf -.004
DOUBT = 0.5  # of an event, spread over all classes
FEWEST = 32  # rows of the first ring; it doubles
MOST_BYTES = 1 << 16  # of a ring: many inputs, fewer events
MOST_INPUTS = 256  # are compared, first come: 3 * 256 * 125^2 is below 2^24
_FAR = np.float32(-1e30)  # of an empty place


@dataclass(slots=True, eq=False)
class Neighbours:
    """The ring; a reader's own, or the learner's, which changes in place."""

    rows: NDArray[np.int8]  # (m, d) z in steps
    codes: NDArray[np.int32]  # (m,) -1: empty
    live: NDArray[np.float32]  # (m, d + 1) r and -r^2 of `rows`, for products

    @classmethod
    def of(cls, rows: NDArray[np.int8], codes: NDArray[np.int32]) -> "Neighbours":
        live = np.empty((len(rows), rows.shape[1] + 1), np.float32)
        live[:, :-1] = rows
        live[:, -1] = np.where(codes < 0, _FAR, -np.square(live[:, :-1]).sum(axis=1))
        return cls(rows, codes, live)

    def predict(
        self, features: NDArray[np.float32], start: int, n_classes: int
    ) -> NDArray[np.float64]:
        """(n, C) probabilities by z, which is features[:, start : start + d]."""
        out = np.full((len(features), n_classes), DOUBT / n_classes)
        asked = np.ones((len(features), self.live.shape[1]), np.float32)
        _steps(features, start, np.float32(2.0), asked)
        _predict(asked, asked @ self.live.T, self.codes, out)
        return out

    def learn(
        self, features: NDArray[np.float32], start: int, codes: NDArray[np.int32], event: int
    ) -> None:
        """The labelled events from `event` on take their places."""
        steps = np.empty((len(features), self.live.shape[1]), np.float32)
        _steps(features, start, np.float32(1.0), steps)
        _learn(steps, codes, event, self.rows, self.codes, self.live)

    def resized(self, n_events: int, size: int, n_inputs: int) -> "Neighbours":
        """A ring of `size` for more inputs, which were 0; the newest of n_events stay."""
        rows = np.zeros((size, n_inputs), np.int8)
        codes = np.full(size, -1, np.int32)
        kept = min(n_events, size, len(self.codes))
        events = np.arange(n_events - kept, n_events)
        if kept:
            rows[events % size, : self.rows.shape[1]] = self.rows[events % len(self.codes)]
            codes[events % size] = self.codes[events % len(self.codes)]
        return Neighbours.of(rows, codes)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Copies, for a model."""
        return {"neighbours/rows": self.rows.copy(), "neighbours/codes": self.codes.copy()}

    @classmethod
    def restore(
        cls, tensors: Mapping[str, NDArray[Any]], n_inputs: int, n_classes: int
    ) -> "Neighbours":
        """From what `tensors` gave. KeyError, ValueError where a reader would leave it."""
        codes = tensors["neighbours/codes"]
        rows = tensors.get("neighbours/rows", np.zeros((len(codes), 0), np.int8))
        if rows.dtype != np.int8 or codes.dtype != np.int32 or codes.ndim != 1:
            raise ValueError(f"neighbours are {rows.dtype} and {codes.dtype}")
        if rows.shape != (len(codes), n_inputs) or codes.max(initial=-1) >= n_classes:
            raise ValueError(f"neighbours are {rows.shape}, of class {codes.max(initial=-1)}")
        return cls.of(rows.copy(), codes.copy())


def ring_size(most: int, n_events: int, n_inputs: int) -> int:
    """Rows of the ring after n_events: a power of two, at most `most`, within MOST_BYTES."""
    size = FEWEST
    while size < n_events and n_inputs:  # without inputs all events are as near
        size *= 2
    return max(1, min(size, most, MOST_BYTES // max(n_inputs, 1)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _steps(
    features: NDArray[np.float32], start: int, times: np.float32, out: NDArray[np.float32]
) -> None:
    """All columns of `out` but the last become z in whole steps, `times` over."""
    for i in range(len(out)):
        for j in range(out.shape[1] - 1):
            out[i, j] = times * np.rint(features[i, start + j] * np.float32(STEPS))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _learn(
    steps: NDArray[np.float32],
    codes: NDArray[np.int32],
    n: int,
    rows: NDArray[np.int8],
    kept: NDArray[np.int32],
    live: NDArray[np.float32],
) -> None:
    d, size = rows.shape[1], len(kept)
    for i in range(max(len(codes) - size, 0), len(codes)):
        place = (n + i) % size
        square = np.float32(0.0)
        for j in range(d):
            rows[place, j] = np.int8(steps[i, j])
            live[place, j] = steps[i, j]
            square += steps[i, j] * steps[i, j]
        live[place, d] = -square
        kept[place] = codes[i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _predict(
    asked: NDArray[np.float32],
    near: NDArray[np.float32],
    codes: NDArray[np.int32],
    out: NDArray[np.float64],
) -> None:
    """`asked` (n, d + 1) are 2 q and 1, `near` (n, m) 2 q r - r^2."""
    nearest = np.empty(NEAREST, np.float32)
    for i in range(len(out)):
        nearest[:] = _FAR
        bar = _FAR
        for j in range(near.shape[1]):
            value = near[i, j]
            if value > bar:
                k = NEAREST - 1
                while k > 0 and nearest[k - 1] < value:
                    nearest[k] = nearest[k - 1]
                    k -= 1
                nearest[k] = value
                bar = nearest[NEAREST - 1]
        last = _FAR
        for k in range(NEAREST):
            last = nearest[k] if nearest[k] > _FAR else last
        if last == _FAR:
            out[i] = 1.0 / out.shape[1]
            continue
        square = 0.0
        for j in range(asked.shape[1] - 1):
            square += asked[i, j] * asked[i, j] * np.float32(0.25)
        scale = SHARPNESS / max(float(square - last), 1.0)
        total = DOUBT
        for j in range(near.shape[1]):
            if near[i, j] >= last:
                weight = np.exp(-scale * (square - near[i, j]))
                out[i, np.uint64(codes[j])] += weight
                total += weight
        for c in range(out.shape[1]):
            out[i, c] /= total
