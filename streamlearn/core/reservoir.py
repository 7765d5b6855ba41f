"""Stage 6, reservoir: keeps a class-balanced sample of a stream's events.

In: a step's raw number rows, class codes, event counts and times. Out, at any time: `kept()`, at
most `capacity` events a class, each an equal chance of every event of its class so far. Unlike
drift, which keeps sums, this stage keeps events, so its capacity sets the learner's memory.

A budget a class, filled by Algorithm R a class, is the class-balancing of CBRS (Chrysakis, Moens
2020, Online continual learning from imbalanced data, ICML) where the number of slots a class is
fixed: no class can crowd another out, however skewed the stream. Algorithm R: Vitter 1985, Random
sampling with a reservoir, ACM TOMS 11.

`Representatives` is what any such sample answers, so that others (micro-clusters that carry
counts) can stand beside the uniform one: the readers of `Kept` need not know which one they read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from streamlearn.core.grown import grown, inserted
from streamlearn.errors import ConfigError, StateError


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Kept events, class by class, in slot order; arrays are copies."""

    rows: NDArray[np.float64]  # (m, d) raw numbers, NaN where missing
    codes: NDArray[np.int32]  # (m,) class codes
    weights: NDArray[np.float64]  # (m,) how many events each one stands for
    event: NDArray[np.int64]  # (m,) the stream's event count when it came
    event_time_s: NDArray[np.float64]  # (m,) seconds since the epoch
    slots: NDArray[np.int64]  # (m,) where each lies: class * capacity + position

    def rows_at(self, chosen: NDArray[np.bool_]) -> "Kept":
        """Those of `chosen` (m,) alone."""
        return Kept(
            rows=self.rows[chosen],
            codes=self.codes[chosen],
            weights=self.weights[chosen],
            event=self.event[chosen],
            event_time_s=self.event_time_s[chosen],
            slots=self.slots[chosen],
        )


class Representatives(Protocol):
    """A stream's sample of events: uniform here, clustered elsewhere."""

    def offer(
        self,
        rows: NDArray[np.float64],
        codes: NDArray[np.int32],
        event: NDArray[np.int64],
        event_time_s: NDArray[np.float64],
    ) -> NDArray[np.int64]: ...

    def kept(self) -> Kept: ...

    def members(self) -> Kept: ...

    def note_replayed(self, slots: NDArray[np.int64]) -> None: ...

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]: ...


class UniformReservoir:
    """Algorithm R a class. What is kept follows from (key, events offered), never from batches.

    >>> reservoir = UniformReservoir(capacity=3, key=stream_key(0, "boiler-7"))
    >>> n = 1_000
    >>> codes = (np.arange(n) % 10 == 0).astype(np.int32)  # a class of 900 and one of 100
    >>> slots = reservoir.offer(np.zeros((n, 2)), codes, np.arange(n), np.zeros(n))
    >>> reservoir.kept().codes.tolist(), reservoir.n_seen.tolist()
    ([0, 0, 0, 1, 1, 1], [900, 100])
    """

    KIND = "uniform"
    __slots__ = ("_event", "_replayed", "_rows", "_time_s", "capacity", "key", "n_seen")

    def __init__(self, *, capacity: int, key: int) -> None:
        """`capacity` events a class; `key` is the randomness: see `stream_key`."""
        if capacity < 1:
            raise ConfigError(
                f"a reservoir keeps at least one event a class: capacity={capacity}; "
                "set reservoir_per_class to 1 or more"
            )
        self.capacity = capacity
        self.key = key
        self.n_seen: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) events of the class offered
        self._rows: NDArray[np.float64] = np.zeros((0, 0))  # (C * capacity, d)
        self._event: NDArray[np.int64] = np.zeros(0, np.int64)  # (C * capacity,)
        self._time_s: NDArray[np.float64] = np.zeros(0)  # (C * capacity,)
        self._replayed: NDArray[np.int64] = np.zeros(0, np.int64)  # times since it was kept

    @property
    def n_classes(self) -> int:
        return len(self.n_seen)

    @property
    def n_kept(self) -> NDArray[np.int64]:
        """(C,) events kept of each class."""
        return np.minimum(self.n_seen, self.capacity)

    def offer(
        self,
        rows: NDArray[np.float64],
        codes: NDArray[np.int32],
        event: NDArray[np.int64],
        event_time_s: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Offer a step's events, oldest first: rows (n, d), codes (n,) with -1 for unlabelled.

        `event` (n,) is the stream's running event count, from which the random numbers come.
        Classes and columns may grow. Returns (n,) the slot each event was written to, -1 where it
        was not kept (a later event of the step may have taken the slot again).
        """
        slots = np.full(len(codes), -1, np.int64)
        if len(codes) == 0:
            return slots
        self._grow(1 + int(codes.max()), rows.shape[1])
        _offer(
            np.ascontiguousarray(rows, np.float64),
            np.ascontiguousarray(codes, np.int32),
            np.ascontiguousarray(event, np.int64),
            np.ascontiguousarray(event_time_s, np.float64),
            np.uint64(self.key),
            self.capacity,
            self.n_seen,
            self._rows,
            self._event,
            self._time_s,
            self._replayed,
            slots,
        )
        return slots

    def kept(self) -> Kept:
        """All that is kept, class by class; a class's weights add up to its events so far."""
        n_kept = self.n_kept
        codes = np.repeat(np.arange(self.n_classes, dtype=np.int32), n_kept)
        first = np.cumsum(n_kept) - n_kept
        within = np.arange(len(codes)) - first[codes]
        slots = codes.astype(np.int64) * self.capacity + within
        return Kept(
            rows=self._rows[slots],
            codes=codes,
            weights=(self.n_seen / np.maximum(n_kept, 1))[codes],
            event=self._event[slots],
            event_time_s=self._time_s[slots],
            slots=slots,
        )

    def members(self) -> Kept:
        """The same: what is kept here are events."""
        return self.kept()

    def replayed(self) -> NDArray[np.int64]:
        """(m,) how often each in `kept()` was replayed since it was kept."""
        return self._replayed[self.kept().slots]

    def note_replayed(self, slots: NDArray[np.int64]) -> None:
        """Count a replay of each of `slots`, which may repeat."""
        np.add.at(self._replayed, slots, 1)

    def _grow(self, n_classes: int, n_columns: int) -> None:
        more_slots = max(n_classes - self.n_classes, 0) * self.capacity
        more_columns = max(n_columns - self._rows.shape[1], 0)
        if more_slots or more_columns:
            self._rows = grown(self._rows, more_slots, more_columns, fill=np.nan)
            self._event = grown(self._event, more_slots)
            self._time_s = grown(self._time_s, more_slots)
            self._replayed = grown(self._replayed, more_slots)
            self.n_seen = grown(self.n_seen, more_slots // self.capacity)

    def insert(self, at: int, n: int) -> None:
        """Make room for `n` columns before column `at`, unless that is yet to come."""
        self._rows = inserted(self._rows, at, n)

    def rewrite(self, first: int, values: NDArray[np.float64]) -> None:
        """Other values (m, w) in the columns from `first` on of what is in `kept()`."""
        self._grow(0, first + values.shape[1])
        self._rows[self.kept().slots, first:] = values

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict and arrays. Only taken slots are in it."""
        kept = self.kept()
        meta = {"kind": self.KIND, "capacity": self.capacity, "key": self.key}
        return meta, {
            "n_seen": self.n_seen.copy(),
            "rows": kept.rows,
            "event": kept.event,
            "event_time_s": kept.event_time_s,
            "replayed": self._replayed[kept.slots],
        }

    @classmethod
    def restore(
        cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "UniformReservoir":
        """Go on, to the bit, from what `state` gave. StateError where it doesn't fit."""
        try:
            kind = meta["kind"]
            reservoir = cls(capacity=int(meta["capacity"]), key=int(meta["key"]))
            n_seen = np.array(arrays["n_seen"], np.int64)
            rows = np.asarray(arrays["rows"], np.float64)
            event = np.asarray(arrays["event"], np.int64)
            time_s = np.asarray(arrays["event_time_s"], np.float64)
            replayed = np.asarray(arrays["replayed"], np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"a reservoir's state lacks or garbles {error}; restore what state() gave"
            ) from error
        kept = int(np.minimum(n_seen, reservoir.capacity).sum())
        lengths = {len(rows), len(event), len(time_s), len(replayed)}
        if kind != cls.KIND or rows.ndim != 2 or lengths != {kept}:
            raise StateError(
                f"a {cls.KIND} reservoir of {kept} events cannot be rebuilt from kind={kind!r}, "
                f"rows {rows.shape}, event {event.shape}, event_time_s {time_s.shape}; the state "
                "is corrupt or of another kind"
            )
        reservoir._grow(len(n_seen), rows.shape[1])
        reservoir.n_seen = n_seen
        slots = reservoir.kept().slots
        reservoir._rows[slots] = rows
        reservoir._event[slots] = event
        reservoir._time_s[slots] = time_s
        reservoir._replayed[slots] = replayed
        return reservoir


def stream_key(seed: int, stream: str) -> int:
    """The 64 bits that stand for (seed, stream): the same in every process, on every machine."""
    digest = hashlib.sha256(f"reservoir\0{seed}\0{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


@numba.njit(cache=True, nogil=True)
def uniform(key: np.uint64, counter: np.int64) -> float:
    """One of `draws`."""
    bits = key + np.uint64(counter) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return float((bits >> np.uint64(11)) * 2.0**-53)


def draws(key: int, counter: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) uniform on 0..1, from the key and each counter alone."""
    # splitmix64 (Steele, Lea, Flood 2014): a counter in, 64 mixed bits out; no state
    bits = np.uint64(key) + counter.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


@numba.njit(cache=True, nogil=True)
def _offer(
    rows: NDArray[np.float64],
    codes: NDArray[np.int32],
    event: NDArray[np.int64],
    event_time_s: NDArray[np.float64],
    key: np.uint64,
    capacity: int,
    n_seen: NDArray[np.int64],
    kept_rows: NDArray[np.float64],
    kept_event: NDArray[np.int64],
    kept_time_s: NDArray[np.float64],
    replayed: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> None:
    """One pass over a step, in place."""
    n_columns = rows.shape[1]
    for i in range(len(codes)):
        code = codes[i]
        if code < 0:
            continue
        n_seen[code] += 1
        position = n_seen[code] - 1
        if position >= capacity:  # Algorithm R: kept with P = capacity / n_seen, over a random one
            position = np.int64(uniform(key, event[i]) * n_seen[code])
            if position >= capacity:
                continue
        slot = code * capacity + position
        for j in range(n_columns):
            kept_rows[slot, j] = rows[i, j]
        for j in range(n_columns, kept_rows.shape[1]):
            kept_rows[slot, j] = np.nan
        kept_event[slot] = event[i]
        kept_time_s[slot] = event_time_s[i]
        replayed[slot] = 0
        slots[i] = slot
