"""One owned partition: its store, how far it is learned, and what its next checkpoint must write.

Rows of a partition's store:

| key | row |
|---|---|
| `stream\\0NAME` | the newest state of a stream, as state_codec encodes it |
| `unsent\\0NAME` | the topic may not have that state yet; value: states there that it replaces |
| `kept\\0NAME\\0SLOT` | the member of a micro-cluster as it came, as kept_codec encodes it |
| `format` | of the kept rows, where it is not 0 |
| `marker` | the newest marker that is known to be in the topic |
| `read` | how far the state topic was read: its id, next offset, newest epoch claimed before it |

A state in the topic has keys of its own, that no other state ever gets (its slot is its offset):
nobody, however late, can overwrite or delete a state that he has not seen.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from streamlearn.stores.store import Store
from streamlearn.wire import kept_codec, marker_codec, state_codec
from streamlearn.wire.cloud_events import Headers, Message
from streamlearn.wire.envelope import PART_BYTES, part_key
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.state_codec import StoredState

_MARKER, _READ, _FORMAT = b"marker", b"read", b"format"
_STREAM, _UNSENT, _KEPT = b"stream\0", b"unsent\0", b"kept\0"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of the events topic, as it came."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_s: float  # seconds since the epoch, of its producer


class Written(NamedTuple):
    """One state of a stream, as it is known in the state topic; the greater one is newer."""

    epoch: int
    offset: int  # source offset that it covers
    parts: int

    @classmethod
    def of(cls, blob: bytes) -> "Written":
        """What a blob says about itself."""
        epoch, offset = state_codec.covers(blob)
        return cls(epoch, offset, max(1, -(-len(blob) // PART_BYTES)))

    def keys(self, name: str) -> list[bytes]:
        """Its keys in the state topic."""
        parts = range(self.parts)
        return [part_key(name, self.epoch, slot=self.offset, part=part) for part in parts]


def marker_keys(epoch: int) -> list[bytes]:
    """The keys of an epoch's claim and marker in the state topic."""
    return [part_key("", "claim", epoch), part_key("", "marker", epoch)]


def seal(name: str, blob: bytes) -> list[Message]:
    """A state as messages for the state topic, under keys that are this state's alone."""
    return state_codec.seal_state(blob, stream=name, slot=Written.of(blob).offset)


@dataclass(slots=True)
class Partition:
    """What is known of one owned partition. For the learning thread."""

    number: int
    store: Store
    epoch: int = 0  # ours; 0 until claimed
    events_topic: str = ""  # id of the events topic, whose offsets these are
    next_offset: int = 0  # of the events topic, that the consumer will bring
    covered: int = -1  # newest offset that a marker in the topic covers
    state_topic: str = ""  # id of the state topic that was read
    state_next: int = 0  # there: everything before it is in the store
    fence: int = 0  # there: the newest epoch that was claimed; older ones write in vain
    floor: int = 0  # states of epochs before it are void: somebody had it start over
    moved_epoch: int = 0  # states of epochs before it know offsets of an events log that is gone;
    moved_offset: int = -1  # of this one they cover what is up to here
    dirty: set[str] = field(default_factory=set)  # streams whose newest state is not in the topic
    announced: set[str] = field(default_factory=set)  # had their full update in this epoch
    garbage: dict[str, set[Written]] = field(default_factory=dict)  # replaced, still in the topic
    old_epochs: set[int] = field(default_factory=set)  # whose markers are still in the topic
    _kept: dict[bytes, bytes] = field(default_factory=dict)  # reservoir rows for the next write

    def load(self) -> None:
        """Read what the store says about itself."""
        self._refresh()
        read = self.store.get(_READ)
        if read is not None:
            said = json.loads(read)
            self.state_topic, self.state_next = said["topic"], said["next"]
            self.fence = said["fence"]
            self.old_epochs = set(said["epochs"])
        if (marker := self.marker()) is not None:
            self.obey(marker)
        for key, row in self.store.scan(_UNSENT):
            name = key[len(_UNSENT) :].decode()
            self.dirty.add(name)
            self.garbage[name] = {Written(*entry) for entry in json.loads(row)}

    def _refresh(self) -> None:
        """Kept rows of an older format are written anew, once."""
        now = b"%d" % kept_codec.VERSION
        if self.store.get(_FORMAT) == now:
            return
        puts = {_FORMAT: now}
        for key, row in self.store.scan(_KEPT):
            newer = kept_codec.refreshed(row)
            if newer is not None:
                puts[key] = newer
        self.store.write(puts)

    def kept(self, name: str) -> dict[int, bytes]:
        """The stored rows of a stream's micro-clusters, by slot; kept_codec reads them."""
        start = _KEPT + name.encode() + b"\0"
        return {int(key[len(start) :]): row for key, row in self.store.scan(start)}

    def marker(self) -> PartitionMarker | None:
        """The newest marker that was known to be in the topic when it was stored."""
        row = self.store.get(_MARKER)
        return None if row is None else marker_codec.decode(row)

    def streams(self) -> list[str]:
        """Names of the streams that the store has a state of."""
        return [key[len(_STREAM) :].decode() for key, _ in self.store.scan(_STREAM)]

    def blob(self, name: str) -> bytes | None:
        """The stored state of a stream, as bytes."""
        return self.store.get(_STREAM + name.encode())

    def state(self, name: str) -> StoredState | None:
        """The stored state of a stream; StateError if it is corrupt."""
        blob = self.blob(name)
        if blob is None:
            return None
        stored = state_codec.decode(blob, stream=name)
        if stored.epoch < self.moved_epoch:
            return replace(stored, source_offset=self.moved_offset)
        return stored

    def new_marker(self, covered: int, written_s: float) -> PartitionMarker:
        """A marker of this epoch."""
        return PartitionMarker(
            epoch=self.epoch,
            covered_offset=covered,
            source_partition=self.number,
            source_topic_id=self.events_topic,
            written_s=written_s,
            floor=self.floor,
            moved_epoch=self.moved_epoch,
            moved_offset=self.moved_offset,
        )

    def obey(self, marker: PartitionMarker) -> None:
        """What a valid marker says of older epochs holds from now on."""
        if marker.moved_epoch > self.moved_epoch:
            self.moved_epoch, self.moved_offset = marker.moved_epoch, marker.moved_offset
        if marker.floor > self.floor:
            self.floor = marker.floor
            self._forget_older()

    def _forget_older(self) -> None:
        """States before the floor are void; those that the topic still has become garbage."""
        deletes = []
        for name in self.streams():
            state = Written.of(self.blob(name) or b"")
            if state.epoch < self.floor:
                self.garbage.setdefault(name, set()).add(state)
                deletes += [_STREAM + name.encode(), _UNSENT + name.encode()]
                kept = _KEPT + name.encode() + b"\0"
                deletes += [key for key, _ in self.store.scan(kept)]
        self.store.write({}, deletes)
        self.dirty.clear()
        self._kept.clear()

    def knows(self, state_topic: str, end: int) -> bool:
        """Whether this is the state topic that the store was read from, or none was yet."""
        return self.state_topic in ("", state_topic) and self.state_next <= end

    def unsend(self, state_topic: str) -> None:
        """Nothing of what the store has is in the state topic: it is another one."""
        self.state_topic, self.state_next, self.fence = state_topic, 0, 0
        self.old_epochs.clear()
        self.garbage.clear()
        names = self.streams()
        self.store.write({_UNSENT + name.encode(): b"[]" for name in names})
        self.dirty.update(names)
        self.has_read(None)

    def put_states(self, blobs: Mapping[str, bytes]) -> None:
        """Write newer states of streams, in one step; they count as unsent until `sent`."""
        puts, self._kept = self._kept, {}
        for name, blob in blobs.items():
            before = self.blob(name)
            replaced = self.garbage.setdefault(name, set())
            if before is not None:
                replaced.add(Written.of(before))
            replaced.discard(Written.of(blob))
            puts[_STREAM + name.encode()] = blob
            puts[_UNSENT + name.encode()] = json.dumps(sorted(replaced)).encode()
        self.store.write(puts)

    def sent(self, names: Iterable[str], marker: PartitionMarker) -> None:
        """The topic has these streams' stored states, and this marker."""
        deletes = [_UNSENT + name.encode() for name in names]
        row = marker_codec.encode(marker)
        self.store.write({_MARKER: row, _READ: self._read_row()}, deletes)

    def take(self, blobs: Mapping[str, bytes]) -> None:
        """Write states that came from the topic, so need not be sent."""
        puts = {_STREAM + name.encode(): blob for name, blob in blobs.items()}
        self.store.write(puts, [_UNSENT + name.encode() for name in blobs])
        self.dirty -= blobs.keys()

    def has_read(self, marker: PartitionMarker | None) -> None:
        """The state topic is in the store up to `state_next`."""
        row = {} if marker is None else {_MARKER: marker_codec.encode(marker)}
        self.store.write({_READ: self._read_row(), **row})

    def keep(self, name: str, slot: int, event: bytes) -> None:
        """An event became a micro-cluster's member; written with the next states."""
        self._kept[_KEPT + name.encode() + b"\0%d" % slot] = event

    def _read_row(self) -> bytes:
        said = {
            "topic": self.state_topic,
            "next": self.state_next,
            "fence": self.fence,
            "epochs": sorted(self.old_epochs),
        }
        return json.dumps(said).encode()
