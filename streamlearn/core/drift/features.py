"""Drift of the features: each column's recent mean, and its share of gaps, against a reference.

In: a step's raw numbers. Out: the column that moved most and its score, 1 at the line. Needs no
label, so it speaks before the error does, and of columns the model doesn't use: it says what
changed, the error detector beside it whether that hurts.

Rows are summed in blocks of 32. The last 4 blocks are the recent window; a block that leaves it
joins the reference until that holds 32 blocks (1024 rows). Shift = |recent mean - reference mean|,
and it must pass two lines, the larger counts:
- noise: Student's t with the spread of the reference's *block* means (batch means: Law, Carson
  1979, A sequential procedure for determining the length of a steady-state simulation, Operations
  Research 27), so that a daily rhythm or slow waves within the reference raise no alarm,
- size: half a standard deviation (a "medium" effect: Cohen 1988), since a change may be certain
  and yet too small to matter.
A column that only ever grows (a counter, a date) is left out: it is always new. A gap counts as a
column of zeros and ones, judged in the same way. After an alarm the reference starts afresh.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from streamlearn.core.drift.error import Alarm
from streamlearn.core.drift.mean_shift import DELTA, FULL, READY, RECENT, REFERENCE, mean_shift
from streamlearn.core.grown import grown


@dataclass(frozen=True, slots=True)
class Shift(Alarm):
    """An alarm with the column that moved most."""

    column: int
    gaps: bool  # its share of missing values moved, not its mean


class FeatureDetector:
    """Mean shift a column, in fixed memory (about 36 numbers a column)."""

    __slots__ = (
        "_anchor",
        "_moves",
        "_open",
        "_reference",
        "_ring",
        "_ring_event",
        "_ring_time",
        "_scores",
        "_tally",
    )

    def __init__(self) -> None:
        self._tally: NDArray[np.int64] = np.zeros(
            2, np.int64
        )  # rows of the open block; ring blocks
        self._ring_event: NDArray[np.int64] = np.zeros(RECENT + 1, np.int64)  # start; last: open
        self._ring_time: NDArray[np.float64] = np.zeros(RECENT + 1)
        self._anchor: NDArray[np.float64] = np.zeros(0)  # (d,) first value seen: keeps sums small
        self._open: NDArray[np.float64] = np.zeros((4, 0))
        self._ring: NDArray[np.float64] = np.zeros((RECENT, 4, 0))
        self._reference: NDArray[np.float64] = np.zeros((12, 0))
        self._moves: NDArray[np.int64] = np.zeros((2, 0), np.int64)  # block means up, down
        self._scores: NDArray[np.float64] = np.zeros((2, 0))

    @property
    def n_columns(self) -> int:
        return len(self._anchor)

    @property
    def ready(self) -> bool:
        """Whether any column has a recent window and a reference to hold it against."""
        return bool(self._tally[1] == RECENT and (self._reference[FULL] >= READY).any())

    @property
    def score(self) -> float:
        return float(self._scores.max(initial=0.0))

    @property
    def column_scores(self) -> NDArray[np.float64]:
        """(d,) shift / line of each column, of its mean or its gaps, whichever is larger."""
        larger: NDArray[np.float64] = np.maximum(self._scores[0], self._scores[1])
        return larger

    def closest(self) -> tuple[str, int]:
        """What is nearest to its line: "mean" or "missing" (values), and of which column."""
        if self.score <= 0.0:
            return "", -1
        gaps, column = divmod(int(self._scores.argmax()), self.n_columns)
        return ("missing" if gaps else "mean"), column

    def update(
        self, numbers: NDArray[np.float64], start: int, event_time_s: NDArray[np.float64]
    ) -> Shift | None:
        """One step: numbers (n, d), NaN where missing, d may grow; `start` events came before."""
        self._grow(numbers.shape[1])
        told = np.array([-1, 0, 0], np.int64)
        told_time = np.zeros(1)
        if self.n_columns and len(numbers):
            mean_shift(
                np.ascontiguousarray(numbers, np.float64),
                start,
                np.ascontiguousarray(event_time_s, np.float64),
                _t_lines(self.n_columns),
                self._tally,
                self._ring_event,
                self._ring_time,
                self._anchor,
                self._open,
                self._ring,
                self._reference,
                self._moves,
                self._scores,
                told,
                told_time,
            )
        event, column, gaps = told.tolist()
        return Shift(event, float(told_time[0]), column, bool(gaps)) if event >= 0 else None

    def _grow(self, n_columns: int) -> None:
        new = n_columns - self.n_columns
        if new > 0:
            self._anchor = grown(self._anchor, new, fill=np.nan)
            self._open = grown(self._open, 0, new)
            self._ring = grown(self._ring, 0, 0, new)
            self._reference = grown(self._reference, 0, new)
            self._moves = grown(self._moves, 0, new)
            self._scores = grown(self._scores, 0, new)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything needed to go on."""
        return {part.removeprefix("_"): getattr(self, part).copy() for part in self.__slots__}

    def resume(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Go on, to the bit, from `state`. KeyError or ValueError where it doesn't fit."""
        self._grow(arrays["anchor"].shape[0])
        for part in self.__slots__:
            getattr(self, part)[...] = arrays[part.removeprefix("_")]


@lru_cache(maxsize=64)
def _t_lines(n_columns: int) -> NDArray[np.float64]:
    """(REFERENCE + 1,) the t line by the number of reference blocks; 2 d two-sided tests."""
    blocks = np.arange(REFERENCE + 1)
    lines = -stdtrit(np.maximum(blocks - 1, 1), DELTA / (4 * n_columns))
    return np.asarray(lines, np.float64)
