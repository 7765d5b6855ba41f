"""Taking a partition over: what others wrote, whether it fits the log, and a new epoch.

In order: 1 the state topic from where the store knows it to its end, a stream's highest offset
wins; 2 the group's offset must be covered by a marker, and still be in the events topic; 3 the
partition is claimed by a marker of a new epoch. Nothing is learned before 3.

A partition that was kept over a rebalance goes the same way: somebody may have owned it meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass

from streamlearn.errors import StateError
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition, Written
from streamlearn.runtime.publisher import Publisher
from streamlearn.topics import Topics
from streamlearn.wire import state_codec
from streamlearn.wire.cloud_events import Headers
from streamlearn.wire.state_codec import Forgotten, PartitionMarker, StateBlob, StateReader

BATCH_BYTES = 16 << 20  # of states, written to the store at a time


@dataclass(slots=True)
class Restored:
    """What a take-over found."""

    records: int = 0
    streams: int = 0  # that are newer in the topic than in the store
    newer: frozenset[str] = frozenset()  # their names
    foreign: bool = False  # somebody else wrote states or markers


class Restore:
    """Takes over partitions of one group. For the learning thread; `clock` is wall time."""

    def __init__(
        self, topics: Topics, *, log: Log, publisher: Publisher, clock: Callable[[], float]
    ) -> None:
        self._events = topics["events"].full_name
        self._state = topics["state"].full_name
        self._log = log
        self._publisher = publisher
        self._clock = clock

    def take_over(
        self, partition: Partition, generation: int, in_memory: Callable[[str], int | None]
    ) -> Restored:
        """Catch up, check, claim. `in_memory`: a stream's offset if it is newer than the store.

        StateError when the state and the log don't fit together, with the remedy.
        """
        events_id = self._log.topic_id(self._events)
        reading = _Reading(partition, in_memory)
        self._check_state_topic(partition)
        for record in self._log.read(self._state, partition.number, partition.state_next, 1 << 62):
            reading.add(record.key, record.value, record.headers, record.offset)
        reading.finish()
        markers = [m for m in reading.markers if m.source_topic_id == events_id]
        if reading.markers and not markers:
            raise StateError(self._recreated(partition.number))
        partition.covered = max((m.covered_offset for m in markers), default=-1)
        partition.next_offset = self._next_offset(partition)
        self._claim(partition, generation, events_id, reading)
        return Restored(
            records=reading.records,
            streams=len(reading.newer),
            newer=frozenset(reading.newer),
            foreign=reading.foreign,
        )

    def _check_state_topic(self, partition: Partition) -> None:
        state_id = self._log.topic_id(self._state)
        _, high = self._log.watermarks(self._state, partition.number)
        if partition.state_topic not in ("", state_id) or partition.state_next > high:
            raise StateError(
                f"the topic {self._state} was made anew since this worker's store was written: "
                "the states in it are gone; put the old topic back, or, to learn again from the "
                "events that are left, delete the group's offsets and this worker's state folder"
            )
        partition.state_topic = state_id

    def _next_offset(self, partition: Partition) -> int:
        """Where the consumer will go on; StateError if events between were never learned."""
        number = partition.number
        low, high = self._log.watermarks(self._events, number)
        committed = self._log.committed(self._events, number)
        if committed is None and partition.covered < 0:  # nobody was here before
            partition.covered = low - 1
        needed = partition.covered + 1
        if committed is not None and committed > needed:
            raise StateError(
                f"{self._events} partition {number}: the group went on from {committed}, but the "
                f"states cover only the events before {needed}, so some would never be learned; "
                f"set the group's offset to {max(needed, low)} with kafka-consumer-groups, "
                "or put the state topic back"
            )
        if needed < low:
            raise StateError(
                f"{self._events} partition {number}: events from {needed} to {low} were deleted "
                "before they were learned; keep events longer (retention.ms); to go on without "
                "them, delete the group's offsets, the state topic and the state folders"
            )
        if needed > high:
            raise StateError(
                f"{self._events} partition {number}: it ends at {high}, but events up to {needed} "
                "were learned: the topic lost data or was made anew; put its data back, or delete "
                "the group's offsets, the state topic and the state folders to start over"
            )
        return low if committed is None else max(committed, low)

    def _claim(
        self, partition: Partition, generation: int, events_id: str, reading: "_Reading"
    ) -> None:
        highest = max(reading.epochs, default=0)
        if partition.epoch > 0 and not reading.foreign:
            partition.has_read(None)
            return  # kept, and nobody else had it: the same ownership goes on
        partition.epoch = max(generation, highest + 1, 1)
        partition.announced.clear()
        partition.old_markers = {e for e in reading.marker_epochs if e < partition.epoch}
        marker = PartitionMarker(
            epoch=partition.epoch,
            covered_offset=partition.covered,
            source_partition=partition.number,
            source_topic_id=events_id,
            written_s=self._clock(),
        )
        self._publisher.send(self._state, partition.number, state_codec.seal_marker(marker))
        taken = self._publisher.flush()[self._state, partition.number]
        if taken.continues(partition.state_next):
            partition.state_next = taken.last + 1
        partition.has_read(marker)

    def _recreated(self, number: int) -> str:
        return (
            f"{self._events} was deleted and made anew since partition {number} was learned: its "
            "offsets mean other events now; to start over, delete the group's offsets, the topic "
            f"{self._state} and this worker's state folder, or use a new prefix"
        )


class _Reading:
    """Records of a state topic's partition, sorted into the store."""

    def __init__(self, partition: Partition, in_memory: Callable[[str], int | None]) -> None:
        self._partition = partition
        self._in_memory = in_memory
        self._reader = StateReader()
        self._newest: dict[str, Written] = {}
        self._batch: dict[str, bytes] = {}
        self._batch_bytes = 0
        self._alive: dict[str, set[Written]] = {}  # read here and not forgotten
        self.records = 0
        self.newer: set[str] = set()
        self.foreign = False
        own = partition.marker()
        self.markers = [] if own is None else [own]
        self.marker_epochs: set[int] = {m.epoch for m in self.markers} | partition.old_markers
        self.epochs: set[int] = self.marker_epochs | {partition.epoch}

    def add(self, key: bytes | None, value: bytes | None, headers: Headers, offset: int) -> None:
        """One record, in the topic's order."""
        self.records += 1
        found = self._reader.add(value, key, headers)
        self._partition.state_next = offset + 1
        if isinstance(found, PartitionMarker):
            self.markers.append(found)
            self.marker_epochs.add(found.epoch)
            self._seen(found.epoch)
        elif isinstance(found, StateBlob):
            self._seen(found.epoch)
            self._take(found)
        elif isinstance(found, Forgotten):
            self._forget(found.key)

    def finish(self) -> None:
        """All was read: write the rest, remember what is left over in the topic."""
        self._write()
        for name, alive in self._alive.items():
            replaced = alive - {self._newest[name]}
            if replaced:
                self._partition.garbage.setdefault(name, set()).update(replaced)

    def _seen(self, epoch: int) -> None:
        self.epochs.add(epoch)
        self.foreign |= epoch != self._partition.epoch

    def _take(self, found: StateBlob) -> None:
        state = Written.of(found.blob)
        self._alive.setdefault(found.stream, set()).add(state)
        if found.stream not in self._newest:
            stored = self._partition.blob(found.stream)
            if stored is not None:
                self._newest[found.stream] = Written.of(stored)
        before = self._newest.get(found.stream)
        if before is not None and state <= before:
            return
        self._newest[found.stream] = state
        in_memory = self._in_memory(found.stream)
        if in_memory is not None and in_memory >= state.offset:
            return  # what is in memory is as new, and dirty: its next checkpoint says so
        self.newer.add(found.stream)
        self._batch_bytes += len(found.blob) - len(self._batch.get(found.stream, b""))
        self._batch[found.stream] = found.blob
        if self._batch_bytes > BATCH_BYTES:
            self._write()

    def _forget(self, key: bytes) -> None:
        name, _ = state_codec.stream_and_epoch(key)
        for state in list(self._alive.get(name, ())):
            if key in state.keys(name):
                self._alive[name].discard(state)

    def _write(self) -> None:
        self._partition.take(self._batch)
        self._batch, self._batch_bytes = {}, 0
