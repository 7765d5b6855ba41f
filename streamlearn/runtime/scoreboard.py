"""Keeps the demo's accounts: what was sent, what became of it, how fast and how well.

Pure. The feeder tells what it sent; a subscriber in another process tells which versions it
swapped to and how its own predictions compare with the worker's. From the two follows what was
lost or learned twice, so the worker's own word is not needed for it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import numpy as np

from streamlearn.core.prequential import Prequential
from streamlearn.core.records import Frame, Label


class Verdict(StrEnum):
    """How a subscriber's prediction of a frame compares with the worker's, bit by bit."""

    SAME = "same"
    DIFFERENT = "different"
    UNSEEN = "unseen"  # that model version was never published by itself, so nothing to compare


_WEIGHT = {Verdict.UNSEEN: 0, Verdict.SAME: 1, Verdict.DIFFERENT: 2}  # of two, what counts


@dataclass(frozen=True, slots=True)
class Check:
    """One frame that the worker predicted, predicted again by a subscriber."""

    stream: str
    base_version: int  # of the model that predicted
    event_ids: tuple[str, ...]
    predicted: tuple[Label | None, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One stream, for people."""

    stream: str
    sent: int  # events
    tested: int
    accuracy: float
    no_change: float
    majority: float
    version: int
    age_s: float | None  # since the newest version came; None: never one
    same: int  # frames
    different: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's result; `asdict` of it is what --json prints."""

    events: int
    accuracy: float
    no_change: float
    majority: float
    updates: int
    events_per_s: float
    p50_ms: float | None  # from sending a frame to the subscriber's swap
    p99_ms: float | None
    subscriber_matches: bool
    frames_checked: int
    frames_unseen: int  # learned together with the frame before, so no version of their own
    lost: int  # events
    duplicated: int  # events
    worker_restarts: int

    @property
    def passed(self) -> bool:
        """Nothing lost, nothing twice, every comparison equal."""
        return self.subscriber_matches and self.lost == 0 and self.duplicated == 0

    def as_json(self) -> dict[str, object]:
        """Plain values, rates rounded to four digits."""
        plain = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in plain.items()}


@dataclass(slots=True)
class _Stream:
    base: int  # version before the first frame of this run
    version: int
    sent_s: list[float] = field(default_factory=list)  # of frame 0, 1, ...
    frame_events: list[int] = field(default_factory=list)
    swapped_s: float | None = None
    scores: Prequential = field(default_factory=Prequential)
    codes: dict[Label, int] = field(default_factory=dict)
    labels: dict[str, Label | None] = field(default_factory=dict)  # event id to label
    tested_at: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    verdicts: dict[int, Verdict] = field(default_factory=dict)  # by base version

    @property
    def expected(self) -> int:
        return self.base + len(self.sent_s)


class Scoreboard:
    """Accounts of one run. `versions`: what each stream had before it."""

    def __init__(self, versions: Mapping[str, int] | None = None) -> None:
        self._streams: dict[str, _Stream] = {}
        self._before = dict(versions or {})
        self._latencies: list[float] = []  # seconds, a frame
        self._updates = 0
        self._pace = (0.0, 0)  # when it began, how many events were tested before
        self._last_swap_s = 0.0
        self.worker_restarts = 0

    def sent(self, frame: Frame, sent_s: float) -> None:
        """A frame was handed to Kafka."""
        if len(frame.event_ids) != len(frame):
            raise ValueError("accounts need an id for every event of a frame")
        stream = self._stream(frame.stream)
        stream.sent_s.append(sent_s)
        stream.frame_events.append(len(frame))
        stream.labels |= dict(zip(frame.event_ids, frame.labels(), strict=True))
        if not self._pace[0]:
            self._pace = sent_s, 0

    def begin_pace(self, now_s: float) -> None:
        """Count events a second from now on: all are awake."""
        self._pace = now_s, sum(stream.scores.n for stream in self._streams.values())

    def swapped(self, name: str, version: int, swapped_s: float) -> None:
        """The subscriber has a new version."""
        stream = self._stream(name)
        self._updates += 1
        for frame in range(max(0, stream.version - stream.base), version - stream.base):
            if frame < len(stream.sent_s):
                self._latencies.append(swapped_s - stream.sent_s[frame])
        stream.version = max(stream.version, version)
        stream.swapped_s = swapped_s
        self._last_swap_s = max(self._last_swap_s, swapped_s)

    def checked(self, check: Check) -> None:
        """The subscriber compared a frame; a frame that is learned again may come again."""
        stream = self._stream(check.stream)
        first = [e for e in check.event_ids if e in stream.labels and not stream.tested_at.get(e)]
        for event_id in check.event_ids:
            stream.tested_at[event_id].add(check.base_version)
        if first:
            guess = dict(zip(check.event_ids, check.predicted, strict=True))
            true = [self._code(stream, stream.labels[e]) for e in first]
            predicted = [self._code(stream, guess[e]) for e in first]
            stream.scores.update(np.array(true, np.int32), np.array(predicted, np.int32))
        before = stream.verdicts.get(check.base_version, Verdict.UNSEEN)
        stream.verdicts[check.base_version] = max(before, check.verdict, key=_WEIGHT.__getitem__)

    @staticmethod
    def _code(stream: _Stream, label: Label | None) -> int:
        return -1 if label is None else stream.codes.setdefault(label, len(stream.codes))

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            before = self._before.get(name, 0)
            self._streams[name] = _Stream(base=before, version=before)
        return self._streams[name]

    @property
    def complete(self) -> bool:
        """Whether every sent frame was learned, its version held and its prediction compared."""
        return all(
            stream.version >= stream.expected and stream.labels.keys() <= stream.tested_at.keys()
            for stream in self._streams.values()
        )

    @property
    def progress(self) -> tuple[int, int]:
        """Grows while anything arrives: (updates, comparisons)."""
        return self._updates, sum(len(s.verdicts) for s in self._streams.values())

    def rows(self, now_s: float) -> list[Row]:
        """A row a stream that this run heard of, others' too, in the order of their first sign."""
        return [
            Row(
                stream=name,
                sent=len(stream.labels),
                tested=stream.scores.n,
                accuracy=stream.scores.accuracy,
                no_change=stream.scores.no_change,
                majority=stream.scores.majority,
                version=stream.version,
                age_s=None if stream.swapped_s is None else max(0.0, now_s - stream.swapped_s),
                same=self._count(stream, Verdict.SAME),
                different=self._count(stream, Verdict.DIFFERENT),
            )
            for name, stream in self._streams.items()
            if stream.sent_s or stream.swapped_s is not None
        ]

    @staticmethod
    def _count(stream: _Stream, verdict: Verdict) -> int:
        return sum(1 for found in stream.verdicts.values() if found is verdict)

    def summary(self) -> Summary:
        """The whole run so far."""
        streams = [stream for stream in self._streams.values() if stream.sent_s]
        total = Prequential()
        for stream in streams:
            size = len(stream.scores.n_true)
            total.absorb(stream.scores, np.arange(size))
        verdicts = {v: sum(self._count(s, v) for s in streams) for v in Verdict}
        p50, p99 = self._percentiles()
        began, before = self._pace
        seconds = self._last_swap_s - began
        return Summary(
            events=sum(len(stream.labels) for stream in streams),
            accuracy=total.accuracy,
            no_change=total.no_change,
            majority=total.majority,
            updates=self._updates,
            events_per_s=(total.n - before) / seconds if seconds > 0 else 0.0,
            p50_ms=p50,
            p99_ms=p99,
            subscriber_matches=verdicts[Verdict.SAME] > 0 and verdicts[Verdict.DIFFERENT] == 0,
            frames_checked=verdicts[Verdict.SAME] + verdicts[Verdict.DIFFERENT],
            frames_unseen=verdicts[Verdict.UNSEEN],
            lost=sum(self._lost(stream) for stream in streams),
            duplicated=sum(self._duplicated(stream) for stream in streams),
            worker_restarts=self.worker_restarts,
        )

    def _percentiles(self) -> tuple[float | None, float | None]:
        if not self._latencies:
            return None, None
        p50, p99 = np.percentile(np.array(self._latencies) * 1000, [50, 99]).tolist()
        return p50, p99

    @staticmethod
    def _lost(stream: _Stream) -> int:
        """Events that were never tested, or of frames at the end that no version covers."""
        untested = sum(1 for event_id in stream.labels if not stream.tested_at.get(event_id))
        learned = max(0, stream.version - stream.base)
        return max(untested, sum(stream.frame_events[learned:]))

    @staticmethod
    def _duplicated(stream: _Stream) -> int:
        """Events that were tested by two versions, or versions that no sent frame explains."""
        twice = sum(1 for e in stream.labels if len(stream.tested_at.get(e, ())) > 1)
        unexplained = max(0, stream.version - stream.expected)
        return max(twice, unexplained)
