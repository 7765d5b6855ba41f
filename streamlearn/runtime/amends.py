"""What a person may decide when states and log don't fit: `--accept-gap`, `--from-earliest`.

Done by one worker before it joins its group, while no other runs. A partition at a time:
1 the group's offset is set to where learning goes on
2 one record, the claim of a new epoch, says what the states of older epochs are worth from now on
A crash before 1, or between 1 and 2, leaves what there was, and the worker stops as before.

Accept gap: states stay, and count as of its beginning where they know a log that is gone. Learning
goes on from the first event that they don't cover and that is still there. It costs the events
between, if any: they are never learned.

From earliest: states are void, on all disks. Learning goes on from the first event that is there.
It costs all that was learned from events that are gone; versions begin at 1 again.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

from streamlearn.errors import StateError
from streamlearn.runtime.group_offsets import GroupOffsets
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition
from streamlearn.runtime.restore import Amend, Restore, deciding
from streamlearn.runtime.state_log import StateLog
from streamlearn.stores.store import Store
from streamlearn.topics import Topics


class Decision(StrEnum):
    """What the person who started the worker decided."""

    ACCEPT_GAP = "--accept-gap"
    FROM_EARLIEST = "--from-earliest"

    @property
    def costs(self) -> str:
        """What it costs."""
        if self is Decision.ACCEPT_GAP:
            return (
                "models stay as they are, and events that they don't cover and that are gone are "
                "never learned; `streamlearn verify` will say so"
            )
        return (
            "all states are forgotten and what is left of the events is learned anew: what was "
            "learned from events that are gone is lost, and versions begin at 1 again"
        )


class Amends:
    """Carries a decision out, in all partitions of the events topic; `say` takes a line each.

    `open_store` opens a partition's rows.
    """

    def __init__(
        self,
        topics: Topics,
        *,
        log: Log,
        offsets: GroupOffsets,
        restore: Restore,
        open_store: Callable[[int], Store],
        say: Callable[[str], None],
    ) -> None:
        self._events = topics["events"].full_name
        self._partitions = topics["events"].partitions
        self._state = topics["state"].full_name
        self._log = log
        self._offsets = offsets
        self._restore = restore
        self._open_store = open_store
        self._say = say

    def carry_out(self, decision: Decision, partitions: Sequence[int] = ()) -> None:
        """BrokerError while other workers of the group run."""
        for number in partitions or range(self._partitions):
            partition = Partition(number, self._open_store(number))
            try:
                partition.load()
                partition.events_topic = self._log.topic_id(self._events)
                if decision is Decision.ACCEPT_GAP:
                    self._accept_gap(partition)
                else:
                    self._from_earliest(partition)
            finally:
                partition.store.close()

    def _from_earliest(self, partition: Partition) -> None:
        low, high = self._log.watermarks(self._events, partition.number)
        self._offsets.move(self._events, {partition.number: low})  # 1
        self._know_state_topic(partition)
        reading = StateLog(partition, self._log, self._state)
        reading.read(whatever=True)
        self._claim(partition, reading, low - 1, Amend.FORGET)
        self._tell(partition, f"starts over with the {high - low:,} messages from offset {low} on")

    def _accept_gap(self, partition: Partition) -> None:
        number = partition.number
        low, high = self._log.watermarks(self._events, number)
        committed = self._log.committed(self._events, number)
        other_topic = self._know_state_topic(partition)
        own = partition.marker()
        reading = StateLog(partition, self._log, self._state)
        reading.read()
        if other_topic and reading.markers:
            raise StateError(
                f"others have gone on in the new topic {self._state} since this worker's store of "
                f"partition {number} was written; remove its state folder"
            )
        marker = deciding([*([own] if own is not None else []), *reading.markers])
        if marker is None and committed is None:
            return  # nobody was here before
        known = marker.covered_offset if marker is not None else -1
        anew = marker is not None and marker.source_topic_id != partition.events_topic
        covered = low - 1 if anew else min(max(known, low - 1), high - 1)
        moved = marker is not None and (anew or known > covered)
        if committed is None or not low <= committed <= covered + 1:
            self._offsets.move(self._events, {number: covered + 1})  # 1
        elif not (moved or other_topic or covered > known):
            return  # it fits
        if moved or other_topic or covered > known:
            self._claim(partition, reading, covered, Amend.MOVE if moved else Amend.NOTHING)
        gone = "" if moved or covered <= known else f"; {covered - known:,} messages are left out"
        self._tell(partition, f"goes on from offset {covered + 1}{gone}")

    def _know_state_topic(self, partition: Partition) -> bool:
        """Whether the state topic is another one than this store was read from."""
        state_id = self._log.topic_id(self._state)
        _, high = self._log.watermarks(self._state, partition.number)
        if partition.knows(state_id, high):
            partition.state_topic = state_id
            return False
        partition.unsend(state_id)  # remembered: another try finds it known
        return True

    def _claim(self, partition: Partition, reading: StateLog, covered: int, amend: Amend) -> None:
        partition.covered = covered
        if not reading.markers:
            self._restore.begin_above_published(partition)
        while not self._restore.claim(partition, 0, amend):  # 2
            reading.read(whatever=amend is Amend.FORGET)

    def _tell(self, partition: Partition, what: str) -> None:
        self._say(f"partition {partition.number} {what}")
