"""Stage 6, micro-clusters: keeps a few centres a class, each with a count and its nearest event.

In: a step's raw number rows, class codes, event counts and times. Out: `kept()`, at most
`capacity` centres a class that weigh what they stand for. Unlike the uniform reservoir, which
keeps events as they fall, this keeps the means of groups of events, so a handful of slots covers a
class: accuracy from what is kept, over uniform, mnist +.16..+.26 at 5 a class, +.04..+.13 at 20,
watch_imu +.11..+.19 and +.03..+.14 (benchmarks/representatives.py). Where a stream's classes move,
old centres mislead and uniform wins: recall on events that neither was offered says which.

A class's slots hold an online k-means with counts. A new event takes a free slot; with none free
it either moves its nearest centre, or, if that costs more than merging the two cheapest centres,
they merge and it takes the slot set free. Cost is Ward's (1963): the squared error that a merge
adds, n m / (n + m) |a - b|^2, in units of each column's spread. Counts must be carried: choosing
anew among centres and new events decays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.grown import grown, inserted
from streamlearn.core.reservoir import Kept
from streamlearn.core.ward import CLOSER, FAR, FREE, all_costs, offer
from streamlearn.errors import ConfigError, StateError

RESCALE = 1.25  # a column's spread is taken anew when it is this many times what it was


class Why(IntEnum):
    """Why an event was kept as its cluster's member."""

    FREE = FREE  # a slot of its class was free
    FAR = FAR  # further from all centres than the two that merged for it from each other
    NEARER = CLOSER  # nearer to its centre than the member before
    CHANCE = 3  # of a uniform sample, where there is nothing to form clusters by


@dataclass(frozen=True, slots=True, eq=False)
class Representative:
    """One micro-cluster, for people."""

    code: int  # class
    slot: int
    centre: NDArray[np.float64]  # (d,) raw units, NaN where never seen
    count: int  # events that it stands for
    member: NDArray[np.float64]  # (d,) the event nearest to the centre, as it came
    event: int  # the stream's event count when the member came
    event_time_s: float
    why: Why
    replayed: int  # times, since it became a member


class MicroClusters:
    """A budget of micro-clusters a class; classes and columns may come at any time.

    What is kept follows from the events offered and the spreads given with them.

    >>> rng = np.random.default_rng(7)
    >>> codes = np.zeros(1_000, np.int32)
    >>> x = rng.normal(size=(1_000, 1)) + 100 * rng.integers(3, size=(1_000, 1))  # three groups
    >>> clusters = MicroClusters(capacity=3)
    >>> slots = clusters.offer(x, codes, np.arange(1_000), np.zeros(1_000))
    >>> kept = clusters.kept()
    >>> sorted(round(float(x), -1) + 0.0 for x in kept.rows[:, 0]), int(kept.weights.sum())
    ([0.0, 100.0, 200.0], 1000)
    """

    KIND = "microclusters"
    _ARRAYS = ("centres", "counts", "errors", "members", "event", "event_time_s", "why", "replayed")

    def __init__(self, *, capacity: int) -> None:
        """`capacity` clusters a class."""
        if capacity < 1:
            raise ConfigError(
                f"micro-clusters keep at least one centre a class: capacity={capacity}; "
                "set reservoir_per_class to 1 or more"
            )
        self.capacity = capacity
        self.n_seen: NDArray[np.int64] = np.zeros(0, np.int64)  # (C,) events of the class offered
        self._centres: NDArray[np.float64] = np.zeros((0, 0))  # (C * capacity, d)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)  # 0 is a free slot
        # squared error of each slot's events around its centre, a column: Ward's costs, raw units
        self._errors: NDArray[np.float64] = np.zeros((0, 0))
        self._members: NDArray[np.float64] = np.zeros((0, 0))  # (C * capacity, d)
        self._event: NDArray[np.int64] = np.zeros(0, np.int64)
        self._event_time_s: NDArray[np.float64] = np.zeros(0)
        self._why: NDArray[np.int8] = np.zeros(0, np.int8)
        self._replayed: NDArray[np.int64] = np.zeros(0, np.int64)
        self._scale: NDArray[np.float64] = np.zeros(0)  # (d,) 1 / spread, as last taken
        self._costs: NDArray[np.float64] = np.zeros((0, capacity))  # of merging, by slot and slot

    @property
    def n_classes(self) -> int:
        return len(self.n_seen)

    @property
    def n_columns(self) -> int:
        columns: int = self._centres.shape[1]
        return columns

    @property
    def n_kept(self) -> NDArray[np.int64]:
        """(C,) clusters of each class."""
        kept: NDArray[np.int64] = (self._counts.reshape(-1, self.capacity) > 0).sum(axis=1)
        return kept

    def offer(
        self,
        rows: NDArray[np.float64],
        codes: NDArray[np.int32],
        event: NDArray[np.int64],
        event_time_s: NDArray[np.float64],
        scale: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """Offer a step's events, oldest first: rows (n, d), codes (n,) with -1 for unlabelled.

        `scale` (d,): 1 / spread of each column (None: all 1), in force once one moved by RESCALE;
        0 leaves a column out. What is not finite counts as missing. Returns (n,) the slot whose
        member each event became, -1 where it did not (a later event of the step may have taken
        the slot again). A member never moves to another slot, so a payload may lie under its slot.
        """
        slots = np.full(len(codes), -1, np.int64)
        if len(codes) == 0:
            return slots
        self._grow(1 + int(codes.max()), rows.shape[1])
        self._rescale(np.ones(rows.shape[1]) if scale is None else scale)
        offer(
            _wide(rows, len(self._scale)),
            np.ascontiguousarray(codes, np.int32),
            np.ascontiguousarray(event, np.int64),
            np.ascontiguousarray(event_time_s, np.float64),
            self._scale,
            self.capacity,
            self._costs,
            self.n_seen,
            self._centres,
            self._counts,
            self._errors,
            self._members,
            self._event,
            self._event_time_s,
            self._why,
            self._replayed,
            slots,
        )
        return slots

    def why(self, slots: NDArray[np.int64]) -> NDArray[np.int8]:
        """(n,) why each slot's member was kept, as `Why`; -1 where the slot is -1."""
        return np.append(self._why, np.int8(-1))[slots]

    def kept(self) -> Kept:
        """The centres, which replay numbers best; weights are counts, a class's add up to all."""
        return self._kept(self._centres)

    def members(self) -> Kept:
        """The events nearest to the centres, for replay of what has no mean: texts, images."""
        return self._kept(self._members)

    def variances(self) -> NDArray[np.float64]:
        """(k, d) of the events of each in `kept()` around their centre, a column, raw units."""
        slots = np.flatnonzero(self._counts)
        return self._errors[slots] / self._counts[slots, None]

    def note_replayed(self, slots: NDArray[np.int64]) -> None:
        """Count a replay of each of `slots`, which may repeat."""
        np.add.at(self._replayed, slots, 1)

    def representatives(self, code: int) -> tuple[Representative, ...]:
        """A class's clusters for people, largest first."""
        if not 0 <= code < self.n_classes:
            return ()
        first = code * self.capacity
        slots = first + np.flatnonzero(self._counts[first : first + self.capacity])
        order = slots[np.argsort(-self._counts[slots], kind="stable")]
        return tuple(
            Representative(
                code=code,
                slot=slot,
                centre=self._centres[slot].copy(),
                count=int(self._counts[slot]),
                member=self._members[slot].copy(),
                event=int(self._event[slot]),
                event_time_s=float(self._event_time_s[slot]),
                why=Why(int(self._why[slot])),
                replayed=int(self._replayed[slot]),
            )
            for slot in order.tolist()
        )

    def _kept(self, rows: NDArray[np.float64]) -> Kept:
        slots = np.flatnonzero(self._counts)
        return Kept(
            rows=rows[slots],
            codes=(slots // self.capacity).astype(np.int32),
            weights=self._counts[slots].astype(np.float64),
            event=self._event[slots],
            event_time_s=self._event_time_s[slots],
            slots=slots,
        )

    def _grow(self, n_classes: int, n_columns: int) -> None:
        more_classes = max(n_classes - self.n_classes, 0)
        more = more_classes * self.capacity
        wider = max(n_columns - self._centres.shape[1], 0)
        if more or wider:
            self._centres = grown(self._centres, more, wider, fill=np.nan)
            self._members = grown(self._members, more, wider, fill=np.nan)
            self._errors = grown(self._errors, more, wider)
            self._counts = grown(self._counts, more)
            self._event = grown(self._event, more)
            self._event_time_s = grown(self._event_time_s, more)
            self._why = grown(self._why, more)
            self._replayed = grown(self._replayed, more)
            self.n_seen = grown(self.n_seen, more_classes)
            self._costs = grown(self._costs, more, fill=np.inf)

    def insert(self, at: int, n: int) -> None:
        """Make room for `n` columns before column `at`, unless that is yet to come."""
        self._centres, self._members = (
            inserted(array, at, n) for array in (self._centres, self._members)
        )
        self._errors = inserted(self._errors, at, n, fill=0)
        self._scale = inserted(self._scale, at, n, fill=0)

    def rewrite(self, first: int, values: NDArray[np.float64]) -> None:
        """Other values (k, w) of the members in `members()`, in the columns from `first` on.

        A centre moves as its member does; where that had none, it lies where its member lies.
        """
        self._grow(0, first + values.shape[1])
        slots = np.flatnonzero(self._counts)
        moved = self._centres[slots, first:] + (values - self._members[slots, first:])
        self._centres[slots, first:] = np.where(np.isnan(moved), values, moved)
        self._members[slots, first:] = values
        if len(self._scale) < self._centres.shape[1]:
            self._scale = grown(self._scale, self._centres.shape[1] - len(self._scale))
        all_costs(self._centres, self._counts, self._scale, self._costs)

    def _rescale(self, scale: NDArray[np.float64]) -> None:
        """Take the spreads anew where one moved far enough; all costs follow."""
        now = self._scale
        scale = _wide(np.asarray(scale, np.float64)[None], self._centres.shape[1], 0.0)[0]
        if len(now) == len(scale):
            moved = (scale > RESCALE * now) | (now > RESCALE * scale)
            if not moved.any():
                return
        self._scale = scale
        all_costs(self._centres, self._counts, self._scale, self._costs)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict and arrays. Only taken slots are in it."""
        slots = np.flatnonzero(self._counts)
        arrays = {name: getattr(self, f"_{name}")[slots] for name in self._ARRAYS}
        arrays |= {"slots": slots, "n_seen": self.n_seen.copy(), "scale": self._scale.copy()}
        return {"kind": self.KIND, "capacity": self.capacity}, arrays

    @classmethod
    def restore(
        cls, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "MicroClusters":
        """Go on, to the bit, from what `state` gave. StateError where it doesn't fit."""
        try:
            if meta["kind"] != cls.KIND:
                raise ValueError(f"kind {meta['kind']!r}")
            clusters = cls(capacity=int(meta["capacity"]))
            clusters._grow(len(arrays["n_seen"]), arrays["centres"].shape[1])
            clusters.n_seen[:] = arrays["n_seen"]
            slots = np.asarray(arrays["slots"], np.int64)
            if len(slots) and not 0 <= slots.min() <= slots.max() < len(clusters._counts):
                raise ValueError(f"slots {slots.min()}..{slots.max()}")
            for name in cls._ARRAYS:
                getattr(clusters, f"_{name}")[slots] = arrays[name]
            clusters._scale = np.array(arrays["scale"], np.float64)
            if len(clusters._scale) != clusters._centres.shape[1]:
                raise ValueError(f"{len(clusters._scale)} spreads")
        except (KeyError, TypeError, ValueError, IndexError, ConfigError) as error:
            raise StateError(
                f"micro-clusters' state lacks or garbles {error}; restore what state() gave"
            ) from error
        all_costs(clusters._centres, clusters._counts, clusters._scale, clusters._costs)
        return clusters


def _wide(rows: NDArray[np.float64], n: int, fill: float = np.nan) -> NDArray[np.float64]:
    """Rows (m, n or more), widened by `fill`; what is not finite is missing."""
    rows = np.ascontiguousarray(rows, np.float64)
    finite = np.isfinite(rows)
    rows = rows if finite.all() else np.where(finite, rows, np.nan)
    more = max(n - rows.shape[1], 0)
    return grown(rows, 0, more, fill=fill) if more else rows
