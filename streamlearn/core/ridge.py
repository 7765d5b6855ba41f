"""Experts, ridge: closed-form heads on one view at several time scales.

In: feature rows and class codes. Out: weights (F, C) a window, the solution of

    (G + rho I) W = C,   G = sum g^age p p',   C = sum g^age p onehot(y)',   g = 1 - 1 / window

which is least squares to one-hot targets with exponential forgetting. Unlike the softmax heads
they need no rate, and no event's order within a window matters much. Least squares hardly names a
class that is rare, however far it lies from the others, so its events count more: see `roots_of`.

G is symmetric and lies in LAPACK's rectangular full packed format (Gustavson, Wasniewski,
Dongarra, Langou 2010, ACM TOMS 37): half the memory at the speed of full storage, float32.
"""

from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

FLUSH_ROWS = 16  # pending rows before the statistics move
EAGER_EVENTS = 64  # a stream's first events move them at once
SOLVE_EVENTS = 16  # at least so many events from one solve to the next
SOLVE_SHARE = 32  # and at least this part of the events a window holds
LARGE, LARGE_SHARE = 1024, 16  # above so many features, at least this part of them, too: a solve
# of 2000 (four image columns) takes 90 ms
BLOCK_ROWS = 64  # rows that share one product, and their mean weight in every window
BLOCK_SHARE = 2 / 3  # at most so much of the shortest window
TINY = 1e-30  # below it statistics become 0, since float32 is slow where it is subnormal
CLEAN_EVERY = 256  # flushes
RARE = 0.1  # of an even share of all events: what is rarer counts as if it had so much,
MOST_WEIGHT = 50.0  # but never as more events than this,
KNOWN_EVENTS = 10  # and a class is not rare for want of this many


def window_name(window: float) -> str:
    """100.0 -> "100", infinity -> "inf"."""
    return f"{window:g}"


def roots_of(counts: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """(C,) square root of the weight of an event of each class, which had `counts` events so far.

    None, which means all 1, unless a class is rare. Of a class of 1 in 1000 events, 10 standard
    deviations from the other one, `keep` finds all with these weights, without them none.
    """
    least = RARE * int(counts.sum()) / max(len(counts), 1)
    if not len(counts) or int(counts.min()) + KNOWN_EVENTS >= least:
        return None
    weights = np.clip(least / (counts + KNOWN_EVENTS), 1.0, MOST_WEIGHT)
    return np.sqrt(weights).astype(np.float32)


class RidgeView:
    """Heads of one view. A solve replaces weights[k] (F, C), and never changes it in place."""

    __slots__ = (
        "_block",
        "_product",
        "cross",
        "flushes",
        "grams",
        "n",
        "since",
        "weights",
        "windows",
    )

    def __init__(self, windows: tuple[float, ...], n_features: int) -> None:
        self.windows = windows
        size = n_features * (n_features + 1) // 2
        self.grams = [np.zeros(size, np.float32) for _ in windows]
        self.cross = [np.zeros((n_features, 0), np.float32) for _ in windows]  # (F, C)
        self.weights = [np.zeros((n_features, 0), np.float32) for _ in windows]  # (F, C)
        self.since = [0 for _ in windows]  # events learned since the last solve
        self.n = 0  # events learned
        self.flushes = 0
        self._block = max(1, min(BLOCK_ROWS, int(min(windows) * BLOCK_SHARE)))

    def grow(self, positions: NDArray[np.intp], n_features: int, n_classes: int) -> None:
        """More features and classes; `positions` (old F,) say where the old features lie now."""
        old = len(positions)
        if n_features != old:
            self.grams = [self._grow_gram(gram, positions, n_features) for gram in self.grams]
        shape = (n_features, n_classes)
        self.cross = [_grow_rows(cross, positions, shape) for cross in self.cross]
        self.weights = [_grow_rows(weight, positions, shape) for weight in self.weights]

    def _grow_gram(
        self, gram: NDArray[np.float32], positions: NDArray[np.intp], n_features: int
    ) -> NDArray[np.float32]:
        if self.n == 0:  # a young stream's, or one about to `resume`
            return np.zeros(n_features * (n_features + 1) // 2, np.float32)
        return _grow_packed(gram, positions, n_features)

    def learn(
        self,
        rows: NDArray[np.float32],
        codes: NDArray[np.int32],
        roots: NDArray[np.float32] | None = None,
    ) -> None:
        """Move the statistics by rows (m, F), oldest first, of classes `codes`; no solve.

        `roots` (m,) of their weights; None: all 1.
        """
        targets = np.zeros((len(rows), self.cross[0].shape[1]), np.float32)
        targets[np.arange(len(rows)), codes] = 1.0 if roots is None else roots
        rows = rows if roots is None else rows * roots[:, None]
        product = np.empty_like(self.grams[0])
        for start in range(0, len(rows), self._block):
            stop = start + self._block
            self._learn_block(rows[start:stop], targets[start:stop], product)
        self.n += len(rows)
        self.flushes += 1
        if self.flushes % CLEAN_EVERY == 0:
            for statistic in (*self.grams, *self.cross):
                statistic[np.abs(statistic) < TINY] = 0.0

    def _learn_block(
        self, rows: NDArray[np.float32], targets: NDArray[np.float32], product: NDArray[np.float32]
    ) -> None:
        """One product for all windows: within a block, all rows get their mean weight."""
        m, n_features = rows.shape
        gram = lapack.ssfrk(n_features, m, 1.0, rows.T, 0.0, product, overwrite_c=1)
        cross = (rows.T @ targets).reshape(-1)
        for k, window in enumerate(self.windows):
            left = (1.0 - 1.0 / window) ** m
            # mean of g^age over the block: sum (1 - g^m) / (1 - g), over m
            weight = (1.0 - left) * window / m if left < 1.0 else 1.0
            _fade(self.grams[k], left, gram, weight)
            _fade(self.cross[k].reshape(-1), left, cross, weight)
            self.since[k] += m

    def solve_due(self, resting: Container[int] = (), *, every_window: bool = False) -> bool:
        """Solve the windows whose turn it is, by counts alone. True if any weights changed.

        Not those of the numbers `resting`: their statistics move on, their weights don't.
        """
        solved = False
        n_features = len(self.cross[0])
        is_large = n_features > LARGE
        least = max(SOLVE_EVENTS, n_features // LARGE_SHARE) if is_large else SOLVE_EVENTS
        eager = self.n <= (SOLVE_EVENTS if is_large else EAGER_EVENTS)
        for k, window in enumerate(self.windows):
            if k in resting:
                continue
            wait = max(least, min(self.n, window) / SOLVE_SHARE)
            if every_window or eager or self.since[k] >= wait:
                rho = 2.0 if window <= 100 else 1.0
                self.weights[k] = _solve(self.grams[k], self.cross[k], rho)
                self.since[k] = 0
                solved = True
        return solved

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
        """Everything needed to go on."""
        meta = {"n": self.n, "flushes": self.flushes, "since": list(self.since)}
        arrays: dict[str, NDArray[np.float32]] = {}
        for k, window in enumerate(self.windows):
            name = window_name(window)
            arrays[f"gram/{name}"] = self.grams[k].copy()
            arrays[f"cross/{name}"] = self.cross[k].copy()
            arrays[f"weights/{name}"] = self.weights[k]
        return meta, arrays

    def resume(self, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `state`, into a view that has its shapes. KeyError, ValueError if not."""
        self.n, self.flushes = int(meta["n"]), int(meta["flushes"])
        self.since = [int(since) for since in meta["since"]]
        for k, window in enumerate(self.windows):
            name = window_name(window)
            self.grams[k][...] = arrays[f"gram/{name}"]
            self.cross[k][...] = arrays[f"cross/{name}"]
            weights = np.array(arrays[f"weights/{name}"], np.float32, order="C")
            if weights.shape != self.weights[k].shape:
                raise ValueError(f"weights/{name} {weights.shape}, not {self.weights[k].shape}")
            weights.flags.writeable = False
            self.weights[k] = weights


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _fade(into: NDArray[np.float32], left: float, more: NDArray[np.float32], weight: float) -> None:
    """Into becomes left * into + weight * more, in one pass: memory is what a block waits for."""
    keep, add = np.float32(left), np.float32(weight)
    for j in range(len(into)):
        into[j] = keep * into[j] + add * more[j]


def _solve(
    gram: NDArray[np.float32], cross: NDArray[np.float32], rho: float
) -> NDArray[np.float32]:
    n_features = len(cross)
    diagonal = _packed_diagonal(n_features)
    # float32 resolves no more of G than this part of its diagonal: needed after ~10^6 events
    rho = max(rho, 1e-6 * float(gram[diagonal].mean()))
    while True:
        packed = gram.copy()
        packed[diagonal] += np.float32(rho)
        factor, failed = lapack.spftrf(n_features, packed, overwrite_a=1)
        if not failed:
            break
        rho *= 10.0  # collinear beyond float32: more weight to the prior, till it can be solved
    solution, _ = lapack.spftrs(n_features, factor, np.asfortranarray(cross))
    weights = np.ascontiguousarray(solution, np.float32)
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=64)
def _packed_diagonal(n_features: int) -> NDArray[np.intp]:
    """(F,) where the diagonal lies in the packed format."""
    marks = np.asfortranarray(np.diag(np.arange(1.0, n_features + 1)))
    packed, _ = lapack.dtrttf(marks)
    places = np.empty(n_features, np.intp)
    found = np.flatnonzero(packed)
    places[packed[found].astype(np.intp) - 1] = found
    return places


def _grow_packed(
    gram: NDArray[np.float32], positions: NDArray[np.intp], n_features: int
) -> NDArray[np.float32]:
    upper, _ = lapack.stfttr(len(positions), gram)
    upper = np.triu(upper)
    full = np.zeros((n_features, n_features), np.float32, order="F")
    full[np.ix_(positions, positions)] = upper + np.triu(upper, 1).T
    packed, _ = lapack.strttf(full)
    return np.ascontiguousarray(packed)


def _grow_rows(
    matrix: NDArray[np.float32], positions: NDArray[np.intp], shape: tuple[int, int]
) -> NDArray[np.float32]:
    grown = np.zeros(shape, np.float32)
    grown[positions, : matrix.shape[1]] = matrix
    return grown
