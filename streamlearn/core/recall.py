"""Stage 6, recall: which of two samples of a stream's past remembers it better.

In: what each sample keeps, and events that neither was offered. Out: a share of right answers, and
a choice. Micro-clusters beat a uniform reservoir at small budgets and lose where classes move; no
rule in advance says which a stream is, so a slice held out says it. Pure functions, cheap: k
kept times h held out times d.
"""

from collections.abc import Mapping

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.reservoir import Kept, draws, uniform

HELD_OUT = 1 / 16  # of the labelled events
MARGIN = 0.01  # of recall that another sample must have more, before it is trusted instead


def held_out(event: NDArray[np.int64], *, key: int) -> NDArray[np.bool_]:
    """(n,) whether each event, by the stream's event count, is kept for asking: HELD_OUT of them.

    >>> float(held_out(np.arange(16_000), key=7).mean().round(2))
    0.06
    """
    held: NDArray[np.bool_] = draws(key, event) < HELD_OUT
    return held


@numba.njit(cache=True, nogil=True)
def hold_out(
    codes: NDArray[np.int32],
    event: NDArray[np.int64],
    key: np.uint64,
    first: int,
    n_seen: NDArray[np.int64],
    held: NDArray[np.bool_],
) -> None:
    """`held_out` for a step's labelled events, but for the first ones of a class; counts them."""
    for i in range(len(codes)):
        if codes[i] >= 0:
            n_seen[codes[i]] += 1
            held[i] = n_seen[codes[i]] > first and uniform(key, event[i]) < HELD_OUT


def recall(kept: Kept, held: Kept, scale: NDArray[np.float64] | None = None) -> float:
    """Share of `held` whose nearest kept row has its class, each class counting the same.

    `scale` (d,) is 1 / spread of each column (None: all 1); a missing number counts as the mean
    of what is held. NaN while nothing is held or kept.
    """
    if len(held.codes) == 0 or len(kept.codes) == 0:
        return float("nan")
    scale = np.ones(held.rows.shape[1]) if scale is None else scale
    width = min(kept.rows.shape[1], held.rows.shape[1], len(scale))
    known = ~np.isnan(held.rows[:, :width])
    total = np.where(known, held.rows[:, :width], 0.0).sum(axis=0)
    mean = total / np.maximum(known.sum(axis=0), 1)
    asked = (np.where(known, held.rows[:, :width], mean) - mean) * scale[:width]
    rows = kept.rows[:, :width]
    told = (np.where(np.isnan(rows), mean, rows) - mean) * scale[:width]
    squares = (told**2).sum(axis=1) - 2 * asked @ told.T  # and what is the same for all told
    right = kept.codes[squares.argmin(axis=1)] == held.codes
    n = np.bincount(held.codes)
    share = np.bincount(held.codes, right)[n > 0] / n[n > 0]
    return float(share.mean())


def choose(recalls: Mapping[str, float], *, trusted: str) -> str:
    """The name of the sample to trust: `trusted`, unless another's recall is MARGIN better.

    >>> choose({"a": 0.90, "b": 0.905}, trusted="a"), choose({"a": 0.90, "b": 0.95}, trusted="a")
    ('a', 'b')
    """
    known = {name: recall for name, recall in recalls.items() if recall == recall}
    if not known:
        return trusted
    best = max(known, key=lambda name: known[name])
    return best if trusted not in known or known[best] >= known[trusted] + MARGIN else trusted
