"""Drift of the error: ADWIN over the 0/1 errors of a stream, alarmed by a rise only.

In: a step's errors. Out: a score, 1 at the line, and, where it is crossed, the event after which
the error rose. Unlike the feature detector beside it, it needs labels, and no learning is needed
to read it: the model got worse.

Bifet, Gavalda 2007, Learning from time-changing data with adaptive windowing, SDM: the window is
an exponential histogram, so memory grows with the logarithm of its length; wherever two parts of
it differ by more than their bound, the older part is dropped. Differences from the paper: a bucket
starts as 32 errors, so a cut lies at a multiple of 32; all up to the most significant cut is
dropped at once; a fall of the error (the model learns) drops the older part without an alarm.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # labelled events a bucket at least, as often as MOA and River test by default
BUCKETS = 5  # a level, as in the paper
LEVELS = 40  # 32 * 2^40 events: never full
DELTA = 0.002  # the paper's confidence, default of MOA and River
READY = 4 * BLOCK  # labelled events before the error is judged


@dataclass(frozen=True, slots=True)
class Alarm:
    """A line that was crossed: after which event it began, and that event's time."""

    event: int
    time_s: float  # since the epoch


class ErrorDetector:
    """ADWIN in fixed memory; what it says follows from the errors alone, not from the steps.

    >>> detector = ErrorDetector()
    >>> right, wrong = np.zeros(1024, np.int8), np.ones(1024, np.int8)
    >>> detector.update(right, 0, np.arange(1024.0))
    >>> detector.update(wrong, 1024, np.arange(1024.0, 2048.0))
    Alarm(event=1024, time_s=1023.0)
    """

    __slots__ = ("_end_event", "_end_time", "_filling", "_sums", "_used", "n_labelled", "score")

    def __init__(self) -> None:
        self.score = 0.0  # largest (recent - older error) / bound; of the last block of errors
        self.n_labelled = 0
        self._filling: NDArray[np.int64] = np.zeros(2, np.int64)  # errors in the open block: n, sum
        self._used: NDArray[np.int64] = np.zeros(LEVELS, np.int64)
        self._sums: NDArray[np.int64] = np.zeros((LEVELS, BUCKETS + 1), np.int64)
        self._end_event: NDArray[np.int64] = np.zeros((LEVELS, BUCKETS + 1), np.int64)
        self._end_time: NDArray[np.float64] = np.zeros((LEVELS, BUCKETS + 1))

    @property
    def ready(self) -> bool:
        return self.n_labelled >= READY

    @property
    def window(self) -> int:
        """Labelled events that the error has been stable for."""
        return int((self._used << np.arange(LEVELS)).sum()) * BLOCK

    def update(
        self, wrong: NDArray[np.int8], start: int, event_time_s: NDArray[np.float64]
    ) -> Alarm | None:
        """One step: wrong (n,) 1, 0, or -1 where unlabelled; `start` events came before it."""
        self.n_labelled += int((wrong >= 0).sum())
        told = np.array([self.score, -1.0, 0.0])
        _adwin(
            np.ascontiguousarray(wrong, np.int8),
            start,
            np.ascontiguousarray(event_time_s, np.float64),
            self._filling,
            self._used,
            self._sums,
            self._end_event,
            self._end_time,
            told,
        )
        self.score = float(told[0])
        return Alarm(int(told[1]), float(told[2])) if told[1] >= 0 else None

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on; what is not in use is left out, or zero."""
        top = int(np.flatnonzero(self._used).max(initial=-1)) + 1
        in_use = np.arange(self._sums.shape[1]) < self._used[:top, None]
        return {"score": self.score, "n_labelled": self.n_labelled}, {
            "filling": self._filling.copy(),
            "used": self._used[:top].copy(),
            "sums": np.where(in_use, self._sums[:top], 0),
            "end_event": np.where(in_use, self._end_event[:top], 0),
            "end_time": np.where(in_use, self._end_time[:top], 0.0),
        }

    def resume(self, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Go on, to the bit, from `state`. KeyError or ValueError where it doesn't fit."""
        self.score, self.n_labelled = float(meta["score"]), int(meta["n_labelled"])
        self._filling[:] = arrays["filling"]
        top = len(arrays["used"])
        self._used[:top] = arrays["used"]
        self._sums[:top] = arrays["sums"]
        self._end_event[:top] = arrays["end_event"]
        self._end_time[:top] = arrays["end_time"]


@numba.njit(cache=True, nogil=True)
def _adwin(
    wrong: NDArray[np.int8],
    start: int,
    event_time_s: NDArray[np.float64],
    filling: NDArray[np.int64],
    used: NDArray[np.int64],
    sums: NDArray[np.int64],
    end_event: NDArray[np.int64],
    end_time: NDArray[np.float64],
    told: NDArray[np.float64],  # score, event and time of the rise (-1: none)
) -> None:
    peak = -1.0
    for i in range(len(wrong)):
        if wrong[i] < 0:
            continue
        filling[0] += 1
        filling[1] += wrong[i]
        if filling[0] < BLOCK:
            continue
        _insert(filling[1], start + i + 1, event_time_s[i], used, sums, end_event, end_time)
        filling[:] = 0
        score, rise_event, rise_time = _shrink(used, sums, end_event, end_time)
        peak = max(peak, score)
        if rise_event >= 0:
            told[1], told[2] = rise_event, rise_time
    if peak >= 0:  # a block was closed
        told[0] = peak


@numba.njit(cache=True, nogil=True)
def _insert(
    total: int,
    event: int,
    time_s: float,
    used: NDArray[np.int64],
    sums: NDArray[np.int64],
    end_event: NDArray[np.int64],
    end_time: NDArray[np.float64],
) -> None:
    """A new bucket; where a level has one too many, its two oldest become one of the next."""
    for level in range(LEVELS):
        slot = used[level]
        sums[level, slot], end_event[level, slot], end_time[level, slot] = total, event, time_s
        used[level] += 1
        if used[level] <= BUCKETS:
            return
        total = sums[level, 0] + sums[level, 1]
        event, time_s = end_event[level, 1], end_time[level, 1]
        _forget(level, 2, used, sums, end_event, end_time)


@numba.njit(cache=True, nogil=True)
def _forget(
    level: int,
    oldest: int,
    used: NDArray[np.int64],
    sums: NDArray[np.int64],
    end_event: NDArray[np.int64],
    end_time: NDArray[np.float64],
) -> None:
    """Drop the oldest buckets of a level."""
    used[level] -= oldest
    for slot in range(used[level]):
        sums[level, slot] = sums[level, slot + oldest]
        end_event[level, slot] = end_event[level, slot + oldest]
        end_time[level, slot] = end_time[level, slot + oldest]


@numba.njit(cache=True, nogil=True)
def _shrink(
    used: NDArray[np.int64],
    sums: NDArray[np.int64],
    end_event: NDArray[np.int64],
    end_time: NDArray[np.float64],
) -> tuple[float, int, float]:
    """Drop what differs from the rest. Returns the peak score, and event and time of a rise."""
    peak, rise_event, rise_time = 0.0, -1, 0.0
    while True:
        n, total = 0, 0
        for level in range(LEVELS):
            for slot in range(used[level]):
                n += BLOCK << level
                total += sums[level, slot]
        if n <= BLOCK:
            return peak, rise_event, rise_time
        error = total / n
        log_term = np.log(2.0 * np.log(n) / DELTA)  # ln(2 / delta'), delta' = delta / ln n
        best, cut_level, cut_slot = 0.0, -1, -1
        n0, total0 = 0, 0
        for level in range(LEVELS - 1, -1, -1):
            for slot in range(used[level]):
                n0 += BLOCK << level
                total0 += sums[level, slot]
                n1 = n - n0
                if n1 == 0:
                    break
                over_m = 1.0 / n0 + 1.0 / n1  # 1 / m, m the harmonic mean's half
                # the paper's bound with the window's variance, section 3.1
                bound = np.sqrt(2.0 * over_m * error * (1.0 - error) * log_term)
                bound += 2.0 / 3.0 * over_m * log_term
                score = ((total - total0) / n1 - total0 / n0) / bound
                peak = max(peak, score)
                if abs(score) > abs(best):
                    best, cut_level, cut_slot = score, level, slot
        if abs(best) <= 1.0:
            return peak, rise_event, rise_time
        if best > 0:
            rise_event, rise_time = end_event[cut_level, cut_slot], end_time[cut_level, cut_slot]
        used[cut_level + 1 :] = 0
        _forget(cut_level, cut_slot + 1, used, sums, end_event, end_time)
