"""Experts, ridge heads: both views' statistics, the rows that wait for them, and who is solved.

In: a step's rows on both views, and their classes. Out: weights (F, C) of each head, "ridge/a/100"
to "ridge/b/inf". A few rows wait, since products of many rows are cheap, and at most one solve a
window every so many events is worth its cost (core/ridge.py); heads at rest aren't solved at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.grown import grown
from streamlearn.core.ridge import EAGER_EVENTS, FLUSH_ROWS, RidgeView, roots_of, window_name
from streamlearn.core.roster import Roster

VIEWS = "ab"
Pending = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


def ridge_heads(windows: Sequence[float]) -> tuple[str, ...]:
    """Names of the heads, in the order of their scores."""
    names = [window_name(window) for window in windows]
    return tuple(f"ridge/{view}/{name}" for view in VIEWS for name in names)


def resting_heads(windows: Sequence[float]) -> tuple[str, ...]:
    """Those that needn't be solved where they bring nothing: view b's, but for the longest.

    `keep` is a mixture of view a's.
    """
    shorter = [window_name(window) for window in windows if window < max(windows)]
    return tuple(f"ridge/b/{name}" for name in shorter)


class RidgeHeads:
    """Two views, learning."""

    def __init__(self, windows: tuple[float, ...], n_features: Sequence[int]) -> None:
        self.views = tuple(RidgeView(windows, n) for n in n_features)
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) in the statistics
        self._names = [window_name(window) for window in windows]
        self._waiting: list[Pending] = []
        self._resting: list[set[int]] = [set(), set()]  # windows of each view

    def grow(
        self,
        positions: Sequence[NDArray[np.intp]],
        n_features: Sequence[int],
        n_classes: int,
    ) -> None:
        """More features of each view, and classes; `positions`: where the old ones lie now."""
        self._flush()
        for view, where, n in zip(self.views, positions, n_features, strict=True):
            view.grow(where, n, n_classes)
        self.counts = grown(self.counts, n_classes - len(self.counts))

    def take(self, roster: Roster) -> None:
        """Who rests from now on."""
        self._resting = [
            {k for k, name in enumerate(self._names) if roster.is_resting(f"ridge/{view}/{name}")}
            for view in VIEWS
        ]

    def learn(
        self,
        a: NDArray[np.float32],
        b: NDArray[np.float32],
        codes: NDArray[np.int32],
        n_events: int,
        *,
        new_class: bool,
    ) -> bool:
        """Learn rows (m, F) on each view, the last of n_events. True if any weights changed."""
        self._waiting.append((a, b, codes))
        waiting = sum(len(rows[2]) for rows in self._waiting)
        if not (waiting >= FLUSH_ROWS or n_events <= EAGER_EVENTS or new_class):
            return False
        self._flush()
        each = zip(self.views, self._resting, strict=True)
        solved = [view.solve_due(resting, every_window=new_class) for view, resting in each]
        return any(solved)

    def _flush(self) -> None:
        if self._waiting:
            a, b, codes = (
                parts[0] if len(parts) == 1 else np.concatenate(parts)
                for parts in zip(*self._waiting, strict=True)
            )
            roots = roots_of(self.counts)
            chosen = None if roots is None else roots[codes]
            for view, rows in zip(self.views, (a, b), strict=True):
                view.learn(rows, codes, chosen)
            self.counts += np.bincount(codes, minlength=len(self.counts))
            self._waiting = []

    def weights(self) -> list[NDArray[np.float32]]:
        """(F, C) of each head; of those that were not solved since, the same objects."""
        return [weights for view in self.views for weights in view.weights]

    def state(self) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
        """Everything needed to go on: JSON-able, and arrays."""
        arrays: dict[str, NDArray[Any]] = {}
        for at, name in enumerate(VIEWS):
            none = np.zeros((0, len(self.views[at].cross[0])), np.float32)
            arrays[f"pending/{name}"] = np.concatenate([none, *(r[at] for r in self._waiting)])
        codes = [np.zeros(0, np.int32), *(rows[2] for rows in self._waiting)]
        arrays["pending/codes"] = np.concatenate(codes)
        arrays["counts"] = self.counts.copy()
        meta = []
        for name, view in zip(VIEWS, self.views, strict=True):
            view_meta, view_arrays = view.state()
            meta.append(view_meta)
            arrays |= {f"ridge/{name}/{key}": array for key, array in view_arrays.items()}
        return meta, arrays

    def resume(self, meta: Sequence[Mapping[str, Any]], arrays: Mapping[str, Any]) -> None:
        """Go on from `state`, with its shapes. KeyError, ValueError if not."""
        if arrays["counts"].shape != self.counts.shape:
            raise ValueError(f"counts {arrays['counts'].shape} of {len(self.counts)} classes")
        self.counts[:] = arrays["counts"]
        for name, view, view_meta in zip(VIEWS, self.views, meta, strict=True):
            start = f"ridge/{name}/"
            own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            view.resume(view_meta, own)
        a, b = (np.array(arrays[f"pending/{name}"], np.float32) for name in VIEWS)
        codes = np.array(arrays["pending/codes"], np.int32)
        self._waiting = [(a, b, codes)] if len(codes) else []
