"""Taking a partition over: what others wrote, whether it fits the log, and a new epoch.

In order: 1 the group's offset; 2 the state topic from where the store knows it to its end; 3 the
offset must be covered by a marker, and still be in the events topic; 4 the partition is claimed
by a marker of a new epoch, again if somebody else wrote meanwhile: what they wrote before the
claim counts, what they write after it is void. Nothing is learned before 4. (1 comes first, since
a marker is always older than the offset that it covers.)

A partition that was kept over a rebalance goes the same way, but if nobody else had claimed it,
its epoch goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from streamlearn.errors import StateError
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition
from streamlearn.runtime.publisher import Publisher
from streamlearn.runtime.state_log import StateLog
from streamlearn.topics import Topics
from streamlearn.wire import state_codec
from streamlearn.wire.state_codec import PartitionMarker


@dataclass(frozen=True, slots=True)
class Restored:
    """What a take-over found."""

    records: int  # of the state topic
    newer: frozenset[str]  # streams whose state was replaced by a newer one from the topic
    claimed: bool  # whether a new epoch began


class Restore:
    """Takes over partitions of one group. For the learning thread; `clock` is wall time.

    `effect` is called with the name of each effect when it is done, for crash tests.
    """

    def __init__(
        self,
        topics: Topics,
        *,
        log: Log,
        publisher: Publisher,
        clock: Callable[[], float],
        effect: Callable[[str], None],
    ) -> None:
        self._events = topics["events"].full_name
        self._state = topics["state"].full_name
        self._log = log
        self._publisher = publisher
        self._clock = clock
        self._effect = effect

    def take_over(self, partition: Partition, generation: int) -> Restored:
        """Catch up, claim, check. StateError, with the remedy, if state and log don't fit."""
        partition.events_topic = self._log.topic_id(self._events)
        committed = self._log.committed(self._events, partition.number)  # 1
        self._check_state_topic(partition)
        own = partition.marker()
        reading = StateLog(partition, self._log, self._state)
        reading.read()  # 2
        self._effect("state topic read")
        claim = partition.epoch == 0 or partition.epoch != partition.fence
        stored = [] if own is None else [own]
        partition.old_epochs |= {marker.epoch for marker in stored} - {partition.epoch}
        self._cover(partition, [*stored, *reading.markers])
        partition.next_offset = self._next_offset(partition, committed)  # 3
        while claim and not self._claim(partition, generation):  # 4
            reading.read()
            self._cover(partition, [*stored, *reading.markers])
        partition.dirty |= {name for name in reading.void if partition.blob(name) is not None}
        partition.has_read(None)
        return Restored(reading.records, frozenset(reading.newer), claim)

    def _cover(self, partition: Partition, markers: list[PartitionMarker]) -> None:
        """What the markers cover, of the events topic that is there now."""
        fitting = [m.covered_offset for m in markers if m.source_topic_id == partition.events_topic]
        if markers and not fitting:
            raise StateError(
                f"{self._events} was deleted and made anew since partition {partition.number} was "
                "learned: its offsets mean other events now; to start over, delete the group's "
                f"offsets, the topic {self._state} and the state folders, or use a new prefix"
            )
        if not fitting and self._log.committed(self._events, partition.number) is None:
            low, _ = self._log.watermarks(self._events, partition.number)
            fitting = [low - 1]  # nobody was here before: begin with what is there
        partition.covered = max(fitting, default=-1)

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

    def _next_offset(self, partition: Partition, committed: int | None) -> int:
        """Where the consumer will go on; StateError if events between were never learned."""
        number = partition.number
        low, high = self._log.watermarks(self._events, number)
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

    def _claim(self, partition: Partition, generation: int) -> bool:
        """Write a new epoch's claim; False if others wrote since the topic was read."""
        if partition.epoch:
            partition.old_epochs.add(partition.epoch)
        partition.epoch = max(generation, partition.fence + 1, partition.epoch + 1)
        partition.announced.clear()
        marker = PartitionMarker(
            epoch=partition.epoch,
            covered_offset=partition.covered,
            source_partition=partition.number,
            source_topic_id=partition.events_topic,
            written_s=self._clock(),
        )
        claim = state_codec.seal_marker(marker, claim=True)
        self._publisher.send(self._state, partition.number, claim)
        taken = self._publisher.flush()[self._state, partition.number]
        self._effect("epoch claimed")
        if not taken.continues(partition.state_next):
            return False
        partition.state_next = taken.last + 1
        partition.fence = partition.epoch
        partition.has_read(marker)
        return True
