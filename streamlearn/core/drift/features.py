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

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from streamlearn.core.drift.error import Alarm

BLOCK = 32  # rows; block means are close to normal
RECENT = 4  # blocks
REFERENCE = 32  # blocks at most
READY = 8  # blocks of reference before a column is judged
EFFECT = 0.5  # standard deviations
DELTA = 1e-5  # a test and all columns; a test every 32 events: 3 % in 100k independent events
MAX_SCORE = 10.0  # where the reference had no spread at all
STEADY = 6  # moves of the block mean, all one way, that make a counter

# Rows of a block's sums, (4, d)
_ROWS, _N, _SUM, _SQUARES = range(4)
# Rows of the reference's sums, (12, d): m: a block's mean, g: its share of gaps
_BLOCKS, _ALL_N, _ALL_SUM, _ALL_SQUARES, _FULL, _M, _M2, _G, _G2, _FIRST_M, _LAST_M, _MM = range(12)


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
        return bool(self._tally[1] == RECENT and (self._reference[_FULL] >= READY).any())

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
            _mean_shift(
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
            self._anchor = np.pad(self._anchor, (0, new), constant_values=np.nan)
            self._open = np.pad(self._open, ((0, 0), (0, new)))
            self._ring = np.pad(self._ring, ((0, 0), (0, 0), (0, new)))
            self._reference = np.pad(self._reference, ((0, 0), (0, new)))
            self._moves = np.pad(self._moves, ((0, 0), (0, new)))
            self._scores = np.pad(self._scores, ((0, 0), (0, new)))

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


@numba.njit(cache=True)
def _mean_shift(
    numbers: NDArray[np.float64],
    start: int,
    event_time_s: NDArray[np.float64],
    t_lines: NDArray[np.float64],
    tally: NDArray[np.int64],
    ring_event: NDArray[np.int64],
    ring_time: NDArray[np.float64],
    anchor: NDArray[np.float64],
    block: NDArray[np.float64],
    ring: NDArray[np.float64],
    reference: NDArray[np.float64],
    moves: NDArray[np.int64],
    scores: NDArray[np.float64],
    told: NDArray[np.int64],
    told_time: NDArray[np.float64],
) -> None:
    """One pass over a step's rows, in place."""
    seen = numbers.shape[1]
    for i in range(len(numbers)):
        if tally[0] == 0:
            ring_event[RECENT], ring_time[RECENT] = start + i, event_time_s[i]
        tally[0] += 1
        for j in range(len(anchor)):
            block[_ROWS, j] += 1
            value = numbers[i, j] if j < seen else np.nan
            if np.isfinite(value):
                if np.isnan(anchor[j]):
                    anchor[j] = value
                value -= anchor[j]
                block[_N, j] += 1
                block[_SUM, j] += value
                block[_SQUARES, j] += value * value
        if tally[0] < BLOCK:
            continue
        tally[0] = 0
        if tally[1] == RECENT:
            _absorb(ring[0], reference, moves)
            tally[1] -= 1
            for k in range(RECENT - 1):
                ring[k] = ring[k + 1]
                ring_event[k], ring_time[k] = ring_event[k + 1], ring_time[k + 1]
        ring[tally[1]] = block
        ring_event[tally[1]], ring_time[tally[1]] = ring_event[RECENT], ring_time[RECENT]
        tally[1] += 1
        block[:] = 0
        if tally[1] == RECENT:
            column, gaps = _judge(t_lines, anchor, ring, reference, moves, scores)
            if column >= 0:
                told[0], told[1], told[2] = ring_event[0], column, gaps
                told_time[0] = ring_time[0]
                reference[:] = 0
                moves[:] = 0


@numba.njit(cache=True)
def _absorb(
    block: NDArray[np.float64], reference: NDArray[np.float64], moves: NDArray[np.int64]
) -> None:
    """A block leaves the recent window and joins the reference, until that is full."""
    for j in range(block.shape[1]):
        if block[_ROWS, j] == BLOCK and reference[_FULL, j] < REFERENCE:  # full for this column
            gap = 1.0 - block[_N, j] / BLOCK
            reference[_FULL, j] += 1
            reference[_G, j] += gap
            reference[_G2, j] += gap * gap
            if block[_N, j] > 0:
                mean = block[_SUM, j] / block[_N, j]
                if reference[_BLOCKS, j] > 0:
                    moves[0, j] += mean > reference[_LAST_M, j]
                    moves[1, j] += mean < reference[_LAST_M, j]
                    reference[_MM, j] += mean * reference[_LAST_M, j]
                else:
                    reference[_FIRST_M, j] = mean
                reference[_LAST_M, j] = mean
                reference[_BLOCKS, j] += 1
                reference[_M, j] += mean
                reference[_M2, j] += mean * mean
                reference[_ALL_N, j] += block[_N, j]
                reference[_ALL_SUM, j] += block[_SUM, j]
                reference[_ALL_SQUARES, j] += block[_SQUARES, j]


@numba.njit(cache=True)
def _judge(
    t_lines: NDArray[np.float64],
    anchor: NDArray[np.float64],
    ring: NDArray[np.float64],
    reference: NDArray[np.float64],
    moves: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> tuple[int, int]:
    """Score every column. Returns the worst one above the line (-1: none), and 1 if by its gaps."""
    worst, column, gaps = 1.0, -1, 0
    for j in range(len(anchor)):
        scores[0, j], scores[1, j] = 0.0, 0.0
        rows, n, total, squares = 0.0, 0.0, 0.0, 0.0
        for k in range(RECENT):
            rows += ring[k, _ROWS, j]
            n += ring[k, _N, j]
            total += ring[k, _SUM, j]
            squares += ring[k, _SQUARES, j]
        ref = reference[:, j]
        if rows == RECENT * BLOCK and ref[_FULL] >= READY:
            gap_now, gap_then = 1.0 - n / rows, ref[_G] / ref[_FULL]
            spread = max(gap_now * (1.0 - gap_now), gap_then * (1.0 - gap_then))
            scores[1, j] = _shift(
                gap_now, gap_then, ref[_G2], 0.0, ref[_FULL], spread, 1.0, t_lines
            )
        counter = min(moves[0, j], moves[1, j]) == 0 and max(moves[0, j], moves[1, j]) >= STEADY
        if n >= BLOCK and ref[_BLOCKS] >= READY and not counter:
            now, then = total / n, ref[_M] / ref[_BLOCKS]
            all_mean = ref[_ALL_SUM] / ref[_ALL_N]
            spread = max(
                squares / n - now * now, ref[_ALL_SQUARES] / ref[_ALL_N] - all_mean * all_mean
            )
            size = abs(anchor[j]) + abs(now) + abs(then)
            # sum of (m - then) (m' - then) over neighbouring blocks
            along = ref[_MM] - then * (2.0 * ref[_M] - ref[_FIRST_M] - ref[_LAST_M])
            along += (ref[_BLOCKS] - 1.0) * then * then
            scores[0, j] = _shift(now, then, ref[_M2], along, ref[_BLOCKS], spread, size, t_lines)
        for kind in range(2):
            if scores[kind, j] > worst:
                worst, column, gaps = scores[kind, j], j, kind
    return column, gaps


@numba.njit(cache=True)
def _shift(
    now: float,
    then: float,
    squares: float,
    along: float,
    blocks: float,
    spread: float,
    size: float,
    t_lines: NDArray[np.float64],
) -> float:
    """|now - then| over the larger of its two lines; `spread` is the variance of single values."""
    shift = abs(now - then)
    if not shift > 1e-9 * size:  # rounding, or not a number
        return 0.0
    around = squares - blocks * then * then
    between = max(around / (blocks - 1.0), spread / BLOCK, 0.0)
    # waves longer than a block: block means as a first-order process, correlation r, at most .9
    r = along / around if around > 0.0 else 0.0
    r = min(max(r, 0.0), 0.9)
    noise = np.sqrt(between * (1.0 / RECENT + 1.0 / blocks) * (1.0 + r) / (1.0 - r))
    line = max(t_lines[int(blocks)] * noise, EFFECT * np.sqrt(max(spread, 0.0)))
    return min(shift / line, MAX_SCORE) if line > 0.0 else MAX_SCORE
