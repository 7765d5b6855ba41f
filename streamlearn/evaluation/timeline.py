"""Timeline: accuracy as the events came, beside its baselines; new classes and drifts in it.

In: frames and what was predicted. Out: per labelled event, right or wrong, for each predictor.
Unlike the learner's own counts, which are sums, this keeps every event, in a dozen bytes: for a
plot. Events of several streams lie in the order of their times: a frame holds those of one stream,
and one frame after the other would show streams taking turns, which nobody lived through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.learner import Outcome
from streamlearn.core.records import Frame, Label
from streamlearn.evaluation.events import FRAME_EVENTS

NO_CHANGE, MAJORITY = "no-change", "majority"
WINDOW_SHARE = 40  # of all events in the sliding mean


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened after `event` labelled events."""

    event: int
    what: str


@dataclass(slots=True)
class _Past:
    """What a stream's baselines know."""

    last: Label | None = None
    counts: dict[Label, int] = field(default_factory=dict)
    leader: Label | None = None
    drifts: int = 0


class Timeline:
    """Of all streams."""

    def __init__(self, readout: str) -> None:
        self.readout = readout
        self.n = 0  # labelled events
        self._right: dict[str, list[NDArray[np.bool_]]] = {}
        self._time_s: list[NDArray[np.float64]] = []
        self._past: dict[str, _Past] = {}
        self._firsts: list[tuple[int, str]] = []  # arrival of a stream's first event of a class
        self._drifts: list[tuple[int, str]] = []  # arrival of the last event before it was seen

    def add(self, frame: Frame, outcome: Outcome, predicted: NDArray[np.int32]) -> None:
        """A frame, and the class code that was predicted for each event."""
        past = self._past.setdefault(frame.stream, _Past())
        names = (*outcome.classes, None)
        right: dict[str, list[bool]] = {self.readout: [], NO_CHANGE: [], MAJORITY: []}
        for label, code in zip(frame.labels(), predicted.tolist(), strict=True):
            if label is None:
                continue
            if label not in past.counts:
                self._firsts.append((self.n, str(label)))
            right[self.readout].append(names[code] == label)
            right[NO_CHANGE].append(past.last == label)
            right[MAJORITY].append(past.leader == label)
            count = past.counts[label] = past.counts.get(label, 0) + 1
            if past.leader is None or count > past.counts[past.leader]:
                past.leader = label
            past.last = label
            self.n += 1
        self._time_s.append(frame.event_time_s[frame.label_codes >= 0])
        for name, events in right.items():
            self._right.setdefault(name, []).append(np.array(events, np.bool_))
        if outcome.drift_report.n_drifts > past.drifts:
            past.drifts = outcome.drift_report.n_drifts
            self._drifts.append((max(self.n - 1, 0), outcome.drift_column or "error"))

    @property
    def n_streams(self) -> int:
        return len(self._past)

    @property
    def new_classes(self) -> list[Mark]:
        """Where each class came first."""
        firsts: dict[str, int] = {}
        for mark in self._placed(self._firsts):
            firsts.setdefault(mark.what, mark.event)
        return [Mark(event, what) for what, event in firsts.items()]

    @property
    def drifts(self) -> list[Mark]:
        """Where drift was seen, in any stream."""
        return [Mark(mark.event + 1, mark.what) for mark in self._placed(self._drifts)]

    def add_peer(self, name: str, right: Sequence[bool]) -> None:
        """The same frame's labelled events, as a peer named them."""
        self._right.setdefault(name, []).append(np.array(right, np.bool_))

    def curves(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Name to (events, share of right ones among the last of them)."""
        window = max(self.n // WINDOW_SHARE, min(FRAME_EVENTS // 8, max(self.n, 1)))
        order = self._order()
        return {
            name: _sliding(np.concatenate(parts)[order], window)
            for name, parts in self._right.items()
        }

    def _order(self) -> NDArray[np.intp]:
        """(n,) the arrivals, as they are drawn."""
        if self.n_streams < 2:
            return np.arange(self.n)
        return np.argsort(np.concatenate(self._time_s), kind="stable")

    def _placed(self, marks: Sequence[tuple[int, str]]) -> list[Mark]:
        """Marks of arrivals where these are drawn, the first ones first."""
        place = np.empty(self.n, np.intp)
        place[self._order()] = np.arange(self.n)
        found = [Mark(int(place[arrival]), what) for arrival, what in marks if arrival < self.n]
        return sorted(found, key=lambda mark: mark.event)


def _sliding(
    right: NDArray[np.bool_], window: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    sums = np.array([0, *accumulate(right.tolist())], np.int64)
    ends = np.unique(
        np.linspace(min(window // 4 + 1, len(right)), len(right), 400).astype(np.int64)
    )
    starts = np.maximum(ends - window, 0)
    return ends, (sums[ends] - sums[starts]) / np.maximum(ends - starts, 1)
