"""The state topic's partition, read in its order: whose records count, and which are left over.

An epoch begins with its claim. What older epochs write after it is void: they were frozen, or cut
off, and woke up late. So the log itself says who owns the partition; everybody who reads it
agrees, however late anything comes.

Reading puts the newest valid state of each stream into the partition's store. States that were
replaced, or are void, become garbage, which the owner's next checkpoint removes from the topic.
"""

from streamlearn.errors import StateError
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition, Written
from streamlearn.runtime.progress import SILENT, Progress
from streamlearn.wire import state_codec
from streamlearn.wire.cloud_events import Headers
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.state_codec import Forgotten, StateBlob, StateReader

ACCEPT_GAP = "`streamlearn worker --accept-gap`"  # remedies; what they cost: amends
FROM_EARLIEST = "`streamlearn worker --from-earliest`"
BATCH_BYTES = 16 << 20  # of states, written to the store at a time


class StateLog:
    """Reads what is new in one partition of the state topic, again and again."""

    def __init__(
        self, partition: Partition, log: Log, topic: str, progress: Progress = SILENT
    ) -> None:
        self._partition = partition
        self._progress = progress
        self._log = log
        self._topic = topic
        self._reader = StateReader()
        self._newest: dict[str, Written] = {}
        self._alive: dict[str, set[Written]] = {}  # read here and not forgotten
        self._batch: dict[str, bytes] = {}
        self._batch_bytes = 0
        self.records = 0
        self.markers: list[PartitionMarker] = []  # valid ones
        self.newer: set[str] = set()  # streams whose state in the store was replaced
        self.void: set[str] = set()  # streams that somebody wrote of who had no right to
        self._corrupt: list[tuple[int, StateError]] = []  # records that may count, with their epoch

    def read(self, *, whatever: bool = False) -> None:
        """Everything from where the store knows the topic to its end.

        StateError for a corrupt record, unless the partition was started over since, or
        `whatever`.
        """
        partition = self._partition
        _, end = self._log.watermarks(self._topic, partition.number)
        records = self._log.read(self._topic, partition.number, partition.state_next, end)
        what = f"partition {partition.number}"
        for record in self._progress.of(records, what, partition.state_next, end):
            try:
                self._take(record.key, record.value, record.headers)
            except StateError as error:
                self._corrupt.append((_epoch_of(record.key), error))
            self.records += 1
        for epoch, why in self._corrupt:
            if epoch >= partition.floor and not whatever:
                raise StateError(f"{why}; {FROM_EARLIEST} steps over it") from why
        partition.state_next = end  # the last offsets may be gone, by compaction
        self._write()
        for name, alive in self._alive.items():
            replaced = alive - {self._newest_of(name)}
            if replaced:
                partition.garbage.setdefault(name, set()).update(replaced)

    def _take(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        found = self._reader.add(value, key, headers)
        if isinstance(found, PartitionMarker):
            self._take_marker(found)
        elif isinstance(found, StateBlob):
            self._take_state(found)
        elif isinstance(found, Forgotten):
            name, _ = state_codec.stream_and_epoch(found.key)
            alive = self._alive.get(name, set())
            alive -= {state for state in alive if found.key in state.keys(name)}

    def _take_marker(self, marker: PartitionMarker) -> None:
        partition = self._partition
        if marker.epoch != partition.epoch:
            partition.old_epochs.add(marker.epoch)
        if marker.epoch < partition.fence:
            return
        partition.fence = marker.epoch
        self.markers.append(marker)
        if marker.floor > partition.floor:
            self._write()
            partition.obey(marker)
            self._newest.clear()
            self.newer.clear()
        partition.obey(marker)

    def _take_state(self, found: StateBlob) -> None:
        state = Written.of(found.blob)
        self._alive.setdefault(found.stream, set()).add(state)
        if found.epoch < self._partition.fence:
            self.void.add(found.stream)
            return
        before = self._newest_of(found.stream)
        if before is not None and state <= before:
            return
        self._newest[found.stream] = state
        self.newer.add(found.stream)
        self._batch_bytes += len(found.blob) - len(self._batch.get(found.stream, b""))
        self._batch[found.stream] = found.blob
        if self._batch_bytes > BATCH_BYTES:
            self._write()

    def _newest_of(self, name: str) -> Written | None:
        if name not in self._newest:
            stored = self._partition.blob(name)
            if stored is None:
                return None
            self._newest[name] = Written.of(stored)
        return self._newest[name]

    def _write(self) -> None:
        self._partition.take(self._batch)
        self._batch, self._batch_bytes = {}, 0


def _epoch_of(key: bytes | None) -> int:
    """Of a record that is corrupt; 0 where its key is, too."""
    try:
        return state_codec.stream_and_epoch(key or b"")[1]
    except StateError:
        return 0
