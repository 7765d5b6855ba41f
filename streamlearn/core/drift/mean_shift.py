"""The arithmetic of `features`: one pass over a step's rows, compiled, in place.

What is computed, and why, is said there; here is how it is summed: rows into blocks, blocks into
the recent window (a ring), and from there into the reference's sums.
"""

import numba
import numpy as np
from numpy.typing import NDArray

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
_BLOCKS, _ALL_N, _ALL_SUM, _ALL_SQUARES, FULL, _M, _M2, _G, _G2, _FIRST_M, _LAST_M, _MM = range(12)


@numba.njit(cache=True, nogil=True)
def mean_shift(
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


@numba.njit(cache=True, nogil=True)
def _absorb(
    block: NDArray[np.float64], reference: NDArray[np.float64], moves: NDArray[np.int64]
) -> None:
    """A block leaves the recent window and joins the reference, until that is full."""
    for j in range(block.shape[1]):
        if block[_ROWS, j] == BLOCK and reference[FULL, j] < REFERENCE:  # full for this column
            gap = 1.0 - block[_N, j] / BLOCK
            reference[FULL, j] += 1
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


@numba.njit(cache=True, nogil=True)
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
        if rows == RECENT * BLOCK and ref[FULL] >= READY:
            gap_now, gap_then = 1.0 - n / rows, ref[_G] / ref[FULL]
            spread = max(gap_now * (1.0 - gap_now), gap_then * (1.0 - gap_then))
            scores[1, j] = _shift(gap_now, gap_then, ref[_G2], 0.0, ref[FULL], spread, 1.0, t_lines)
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


@numba.njit(cache=True, nogil=True)
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
