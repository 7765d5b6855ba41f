"""Making what was learned durable, so that events may be acknowledged.

Order of effects, for all partitions together:
1 (done before) updates acknowledged
2 the changed streams' states and reservoir rows in RocksDB, a write a partition and 16 MiB
3 a these states in the state topic, and the models in the snapshots topic, acknowledged
  b the partition's marker, the snapshots' marker, acknowledged
  c if anybody else wrote meanwhile, make sure that nobody has claimed the partition: LostError
  d tombstones of the states that these replaced, acknowledged
  e RocksDB remembers that the topic has them
4 (agents) events up to the marker are acknowledged

Each gap is safe: after 2 and within 3, streams are marked unsent in RocksDB, and the next
checkpoint of whoever opens it sends them; on another disk the states before are still in the
topic, and the events come again, since nothing was acknowledged. After c it does not matter how
late d comes: whoever claims the partition from then on has read the states that replaced them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streamlearn.errors import StateError
from streamlearn.runtime.hot_streams import HotStream, HotStreams, Said, size_of
from streamlearn.runtime.log import Log
from streamlearn.runtime.partition import Partition, Written, marker_keys, seal
from streamlearn.runtime.publisher import Acknowledged, Publisher
from streamlearn.runtime.state_log import StateLog
from streamlearn.topics import Topics
from streamlearn.wire import state_codec, update_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.signing import Signer
from streamlearn.wire.state_codec import StoredState
from streamlearn.wire.update_codec import Kind, Role, UpdateHeader

PUT_BYTES = 16 << 20  # of states, about, that one write to the store takes


class LostError(Exception):
    """Another worker owns the partition now. Never leaves runtime: it waits for a rebalance."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(
            f"partition {partition.number} was claimed in epoch {partition.fence} while this "
            f"worker wrote in epoch {partition.epoch}"
        )
        self.partition = partition.number


def encode(stream: HotStream, epoch: int) -> bytes:
    """A stream's state as a blob."""
    state = stream.learner.state()
    return state_codec.encode(StoredState(stream.name, epoch, stream.offset, state))


@dataclass(frozen=True, slots=True)
class Sources:
    """What a checkpoint takes its content from."""

    hot: HotStreams
    visit: Callable[[Partition, str], HotStream]  # a stream, loaded if it is not in memory
    said: Callable[[Partition, str], Said]  # for its snapshot
    updates_next: Mapping[int, int]  # partition to the updates topic's offset after our last


class Checkpoint:
    """Writes checkpoints. For the learning thread; `clock` is wall time.

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
        signer: Signer | None = None,
    ) -> None:
        self._state = topics["state"].full_name
        self._snapshots = topics["snapshots"].full_name
        self._log = log
        self._publisher = publisher
        self._clock = clock
        self._effect = effect
        self._signer = signer  # of what subscribers read
        self.bytes = 0  # sent to state and snapshots so far

    def write(self, partitions: Iterable[Partition], sources: Sources) -> dict[int, int]:
        """Steps 2 and 3; partition to the offset that its marker covers."""
        chosen = [p for p in partitions if p.dirty or p.next_offset - 1 > p.covered]
        if not chosen:
            return {}
        for partition in chosen:  # 2
            self._store(partition, sources)
        self._effect("rows written")
        for partition in chosen:  # 3 a
            self._send(partition, sources)
        states = self._publisher.flush()
        self._effect("states acknowledged")
        for partition in chosen:  # 3 b
            self._send_markers(partition, sources)
        ends = self._publisher.flush()
        self._effect("markers acknowledged")
        late = {}
        for partition in chosen:  # 3 c
            place = self._state, partition.number
            late[partition.number] = self._verify(partition, [states.get(place), ends.get(place)])
        self._effect("ownership verified")
        for partition in chosen:  # 3 d
            self._send_tombstones(partition)
        removed = self._publisher.flush()
        self._effect("tombstones acknowledged")
        for partition in chosen:  # 3 e
            taken = removed.get((self._state, partition.number))
            if taken is not None and taken.continues(partition.state_next):
                partition.state_next = taken.last + 1
            self._settle(partition, late[partition.number])
        self._effect("rows settled")
        return {p.number: p.covered for p in chosen}

    def _store(self, partition: Partition, sources: Sources) -> None:
        blobs: dict[str, bytes] = {}
        size = 0
        for name in sorted(partition.dirty):
            stream = sources.hot.get(partition.number, name)
            if stream is not None:
                state = stream.learner.state()
                stored = StoredState(name, partition.epoch, stream.offset, state)
                blobs[name] = state_codec.encode(stored)
                stream.stored = partition.epoch, stream.offset
                sources.hot.resize(stream, size_of(state))
            elif not self._in_epoch(partition, name):  # sent as of an older epoch it were void
                blobs[name] = encode(sources.visit(partition, name), partition.epoch)
            size += len(blobs.get(name, b""))
            if size > PUT_BYTES:
                partition.put_states(blobs)
                blobs, size = {}, 0
        partition.put_states(blobs)

    def _in_epoch(self, partition: Partition, name: str) -> bool:
        """Whether the stored state, from when the stream left memory, is of this epoch."""
        blob = partition.blob(name)
        return blob is not None and Written.of(blob).epoch == partition.epoch

    def _send(self, partition: Partition, sources: Sources) -> None:
        for name in sorted(partition.dirty):
            blob = partition.blob(name)
            if blob is None:
                raise StateError(f"partition {partition.number}: no state of {name!r} to send")
            self._send_all(self._state, partition, seal(name, blob))
            said = sources.said(partition, name)
            snapshot = update_codec.encode_model(
                said.model,
                slot=said.slot,
                epoch=partition.epoch,
                source_partition=partition.number,
                source_offset=said.offset,
                newest_event_s=said.newest_event_s,
                sent_s=self._clock(),
                signer=self._signer,
            )
            self._send_all(self._snapshots, partition, snapshot)

    def _send_markers(self, partition: Partition, sources: Sources) -> None:
        marker = self._marker(partition)
        self._send_all(self._state, partition, [state_codec.seal_marker(marker)])
        header = UpdateHeader(
            kind=Kind.MARKER,
            epoch=partition.epoch,
            source_partition=partition.number,
            source_offset=marker.covered_offset,
            updates_offset=sources.updates_next.get(partition.number, -1),
            sent_s=self._clock(),
        )
        snapshots_marker = update_codec.encode_control(
            header, role=Role.SNAPSHOTS, signer=self._signer
        )
        self._send_all(self._snapshots, partition, [snapshots_marker])

    def _verify(self, partition: Partition, taken: list[Acknowledged | None]) -> set[str]:
        """LostError if another epoch began before our marker; else the streams to write again."""
        for acknowledged in taken:
            if acknowledged is not None and not acknowledged.continues(partition.state_next):
                return self._read_others(partition)
            if acknowledged is not None:
                partition.state_next = acknowledged.last + 1
        return set()

    def _read_others(self, partition: Partition) -> set[str]:
        """Somebody else wrote: by right, or as a frozen old owner.

        An old owner's states are void, but its snapshots may have replaced ours.
        """
        reading = StateLog(partition, self._log, self._state)
        reading.read()
        if partition.fence > partition.epoch:
            raise LostError(partition)
        return {name for name in reading.void if partition.blob(name) is not None}

    def _send_tombstones(self, partition: Partition) -> None:
        forgotten = [
            key
            for name, replaced in partition.garbage.items()
            for state in sorted(replaced)
            for key in state.keys(name)
        ]
        forgotten += [key for epoch in sorted(partition.old_epochs) for key in marker_keys(epoch)]
        self._send_all(self._state, partition, state_codec.seal_tombstones(forgotten))

    def _settle(self, partition: Partition, late: set[str]) -> None:
        marker = self._marker(partition)
        partition.garbage.clear()
        partition.old_epochs.clear()
        partition.sent(partition.dirty, marker)
        partition.dirty = late
        partition.covered = marker.covered_offset

    def _marker(self, partition: Partition) -> PartitionMarker:
        covered = max(partition.covered, partition.next_offset - 1)
        return partition.new_marker(covered, self._clock())

    def _send_all(self, topic: str, partition: Partition, messages: Iterable[Message]) -> None:
        for message in messages:
            self._publisher.send(topic, partition.number, message)
            self.bytes += len(message.value or b"")
