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
from dataclasses import dataclass, replace
from enum import Enum

from streamlearn.errors import StateError
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition
from streamlearn.runtime.progress import SILENT, Progress
from streamlearn.runtime.published import newest_epoch
from streamlearn.runtime.publisher import Publisher
from streamlearn.runtime.state_log import ACCEPT_GAP, FROM_EARLIEST, StateLog
from streamlearn.topics import Topics
from streamlearn.wire import state_codec
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.signing import Verifier


class Amend(Enum):
    """What a claim says of the states of epochs before it."""

    NOTHING = "they count"
    FORGET = "they are void"
    MOVE = "they count, but the log whose offsets they know is gone"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a take-over found."""

    records: int  # of the state topic
    newer: frozenset[str]  # streams whose state was replaced by a newer one from the topic
    amended: bool  # whether somebody had the partition start over, or go on in another log
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
        verifier: Verifier | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._topics = topics
        self._verifier = verifier
        self._progress = progress
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
        own, before = partition.marker(), (partition.floor, partition.moved_epoch)
        reading = StateLog(partition, self._log, self._state, self._progress)
        reading.read()  # 2
        self._effect("state topic read")
        claim = partition.epoch == 0 or partition.epoch != partition.fence
        stored = [] if own is None else [own]
        partition.old_epochs |= {marker.epoch for marker in stored} - {partition.epoch}
        self._cover(partition, [*stored, *reading.markers])
        if claim and not stored and not reading.markers:
            self.begin_above_published(partition)
        partition.next_offset = self._next_offset(partition, committed)  # 3
        while claim and not self.claim(partition, generation):  # 4
            reading.read()
            self._cover(partition, [*stored, *reading.markers])
        partition.dirty |= {name for name in reading.void if partition.blob(name) is not None}
        partition.has_read(None)
        amended = before != (partition.floor, partition.moved_epoch)
        return Restored(reading.records, frozenset(reading.newer), amended, claim)

    def _cover(self, partition: Partition, markers: list[PartitionMarker]) -> None:
        """What the markers cover; StateError if they are about an events topic that is gone."""
        marker = deciding(markers)
        if marker is not None and marker.source_topic_id != partition.events_topic:
            raise StateError(
                f"{self._events} was deleted and made anew since partition {partition.number} was "
                f"learned: its offsets mean other events now; {ACCEPT_GAP} goes on with the models "
                f"as they are and learns the new topic from its beginning; {FROM_EARLIEST} forgets "
                "them first"
            )
        if marker is not None:
            partition.covered = marker.covered_offset
        elif self._log.committed(self._events, partition.number) is None:
            low, _ = self._log.watermarks(self._events, partition.number)
            partition.covered = low - 1  # nobody was here before: begin with what is there
        else:
            partition.covered = -1

    def _check_state_topic(self, partition: Partition) -> None:
        state_id = self._log.topic_id(self._state)
        _, high = self._log.watermarks(self._state, partition.number)
        if not partition.knows(state_id, high):
            raise StateError(
                f"the topic {self._state} was made anew since this worker's store was written: "
                "the states in it are gone; put the old topic back, or remove this worker's state "
                f"folder if others have gone on since; {ACCEPT_GAP} goes on with this store's "
                f"states, {FROM_EARLIEST} without any"
            )
        partition.state_topic = state_id

    def _next_offset(self, partition: Partition, committed: int | None) -> int:
        """Where the consumer will go on; StateError if events between were never learned."""
        number = partition.number
        low, high = self._log.watermarks(self._events, number)
        needed = partition.covered + 1
        if committed is not None and committed > needed:
            costs = "nothing is left out" if needed >= low else f"{low - needed} events are gone"
            raise StateError(
                f"{self._events} partition {number}: the group went on from {committed}, but the "
                f"states cover only the events before {needed}, so some would never be learned; "
                f"put the state topic back, or go back to {max(needed, low)} with {ACCEPT_GAP}: "
                f"{costs}"
            )
        if needed < low:
            raise StateError(
                f"{self._events} partition {number}: events from {needed} to {low} were deleted "
                "before they were learned; keep events longer (retention.ms); "
                f"{ACCEPT_GAP} goes on without them"
            )
        if needed > high:
            raise StateError(
                f"{self._events} partition {number}: it ends at {high}, but events up to {needed} "
                "were learned: the topic lost data or was made anew; put its data back, or "
                f"{ACCEPT_GAP} goes on with the models as they are, {FROM_EARLIEST} without them"
            )
        return low if committed is None else max(committed, low)

    def begin_above_published(self, partition: Partition) -> None:
        """Subscribers hear newer epochs only, also where no marker is left to tell of old ones."""
        number = partition.number
        newest = newest_epoch(self._log, self._topics, number, self._verifier)
        partition.epoch = max(partition.epoch, newest)

    def claim(self, partition: Partition, generation: int, amend: Amend = Amend.NOTHING) -> bool:
        """Write a new epoch's claim; False if others wrote since the topic was read."""
        if partition.epoch:
            partition.old_epochs.add(partition.epoch)
        own = partition.marker()
        known = max(partition.fence, partition.epoch, 0 if own is None else own.epoch)
        partition.epoch = max(generation, known + 1)
        partition.announced.clear()
        marker = partition.new_marker(partition.covered, self._clock())
        if amend is Amend.FORGET:
            marker = replace(marker, floor=partition.epoch)
        elif amend is Amend.MOVE:
            moved = partition.covered
            marker = replace(marker, moved_epoch=partition.epoch, moved_offset=moved)
        claim = state_codec.seal_marker(marker, claim=True)
        self._publisher.send(self._state, partition.number, claim)
        taken = self._publisher.flush()[self._state, partition.number]
        self._effect("epoch claimed")
        if not taken.continues(partition.state_next):
            return False
        partition.state_next = taken.last + 1
        partition.fence = partition.epoch
        partition.obey(marker)
        partition.has_read(marker)
        return True


def deciding(markers: list[PartitionMarker]) -> PartitionMarker | None:
    """Of those since a person last decided, the one that covers most.

    Not the newest: a claim that came too late, and is made again, covers less than it could know.
    """
    return max(markers, key=lambda m: (max(m.floor, m.moved_epoch), m.covered_offset), default=None)
