"""Learns a stream again from the events log alone: any past model, for audits and rollbacks.

In: the records of one partition of the events topic, in order. Out: after each of them that
counted, a `Step`; the learner itself is `Replay.learner`. Decodes, refuses, rolls back and learns
late labels exactly as a worker does, so that the same settings give the same bits, but it
publishes and stores nothing, and joins no group.

A log whose beginning was removed by retention gives another model: `Replayed.cut` tells whether
it may be so. Whether it is so, published hashes tell (`published`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from streamlearn.core.learner import StreamLearner
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import FrameError, InputError, StateError
from streamlearn.runtime.log import Log, Record
from streamlearn.runtime.rollback import Rollbacks
from streamlearn.wire import event_codec, label_codec, rollback_codec


@dataclass(frozen=True, slots=True)
class Until:
    """Where a replay ends: after the whole log, an offset, a time, or at a version."""

    offset: int | None = None  # the last one that counts
    time_s: float | None = None  # Kafka's, seconds since the epoch; the first later one ends it
    version: int | None = None

    @classmethod
    def parse(cls, text: str | None) -> "Until":
        """From OFFSET, TIME (ISO 8601; UTC unless it says otherwise) or vVERSION.

        >>> Until.parse("v12").version, Until.parse("340").offset
        (12, 340)
        >>> Until.parse("1970-01-01T00:01:00").time_s
        60.0
        """
        if text is None:
            return cls()
        if text.isascii() and text.isdigit():
            return cls(offset=int(text))
        if text[:1] == "v" and text[1:].isascii() and text[1:].isdigit():
            return cls(version=int(text[1:]))
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise InputError(
                f"{text!r} is no offset (340), time (2026-03-01T12:00:00) or version (v12)"
            ) from None
        return cls(time_s=(time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())

    def ends_before(self, record: Record) -> bool:
        """Whether this record no longer counts."""
        late = self.time_s is not None and record.timestamp_s > self.time_s
        return late or (self.offset is not None and record.offset > self.offset)


@dataclass(frozen=True, slots=True)
class Step:
    """One version: what made it, and how its events were predicted before they were learned."""

    version: int
    offset: int
    timestamp_s: float  # Kafka's, seconds since the epoch
    rollback: bool
    n_labelled: int
    n_correct: int


class Replay:
    """One stream, record by record. `learner` is at the newest version, `offset` made it."""

    def __init__(
        self, stream: str, settings: LearnerSettings, *, partition: int, rollbacks: Rollbacks
    ) -> None:
        self.learner = StreamLearner(stream, settings)
        self.offset = -1
        self.refused = 0  # messages under this stream's key that a worker leaves out, too
        self._key = stream.encode()
        self._partition = partition
        self._rollbacks = rollbacks

    def take(self, record: Record) -> Step | None:
        """The version that this record makes; None: it is another stream's, a part, or refused."""
        if record.key != self._key:
            return None
        try:
            return self._take(record)
        except FrameError:
            self.refused += 1
            return None

    def _take(self, record: Record) -> Step | None:
        rollback = rollback_codec.is_rollback(record.headers)
        n_labelled = n_correct = 0
        if rollback:
            learner = self._rollbacks.meet(self._partition, record, self.learner)
            if learner is None:
                return None
            self.learner = learner
        elif label_codec.is_labels(record.headers):
            late, _ = label_codec.decode(record.value, record.key, record.headers)
            told = self.learner.learn_labels(late.event_ids, late.labels).outcome
            if told is None:
                return None
            n_labelled, n_correct = told.n_labelled, told.n_correct
        else:
            frame, _ = event_codec.decode(
                record.value, record.key, record.headers, record.timestamp_s
            )
            outcome = self.learner.learn(frame)
            n_labelled, n_correct = outcome.n_labelled, outcome.n_correct
        self.offset = record.offset
        version = self.learner.version
        return Step(version, record.offset, record.timestamp_s, rollback, n_labelled, n_correct)


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """A replay that has ended."""

    learner: StreamLearner
    partition: int
    offset: int  # that made the newest version; -1: none
    low: int  # the first offset that the partition still has
    end: int  # the offset after its last one
    refused: int

    @property
    def cut(self) -> bool:
        """Whether events may be missing at the beginning."""
        return self.low > 0


def replay(
    log: Log, events: str, replaying: Replay, partition: int, until: Until
) -> Iterator[Step | Replayed]:
    """The steps of one stream, then how it ended.

    InputError where `until` names what the log does not have, or lies before the stream's first
    message; StateError for a stream without a single event there.
    """
    low, end = log.watermarks(events, partition)
    if until.offset is not None and not low <= until.offset < end:
        raise InputError(
            f"{events} partition {partition} has offsets {low} to {end - 1}, not {until.offset}"
        )
    stop = end if until.offset is None else until.offset + 1
    learner = replaying.learner
    for record in log.read(events, partition, low, stop):
        if until.ends_before(record):
            break
        if (step := replaying.take(record)) is not None:
            yield step
            if step.version == until.version:
                break
    learner = replaying.learner
    if learner.version == 0:
        _refuse_before_first(log, events, learner.stream, partition, until)
        raise StateError(
            f"{events} partition {partition} has no event of {learner.stream!r} from offset {low} "
            "on; check the stream's name, or where the log was cut by retention (retention.ms)"
        )
    if until.version is not None and learner.version != until.version:
        raise InputError(
            f"the log has versions 1 to {learner.version} of {learner.stream!r}, "
            f"not {until.version}"
        )
    yield Replayed(learner, partition, replaying.offset, low, end, replaying.refused)


def _refuse_before_first(log: Log, events: str, stream: str, partition: int, until: Until) -> None:
    """InputError where the stream begins after `until`."""
    low, end = log.watermarks(events, partition)
    own = (r for r in log.read(events, partition, low, end) if r.key == stream.encode())
    first = next(own, None)
    if first is not None and until.ends_before(first):
        time = datetime.fromtimestamp(first.timestamp_s, UTC).isoformat(timespec="milliseconds")
        raise InputError(
            f"the first message of {stream!r} in {events} partition {partition} has offset "
            f"{first.offset} and time {time}: give that or a later one"
        )
