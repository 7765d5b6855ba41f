"""Topic `state` and the worker's own store: all that a worker needs to go on with a stream.

A state is one blob, the same on disk and (cut into parts) on the topic. Little-endian; wrong
magic, version, size or hash is refused, by StateError, naming what is wrong:

     0  4s   magic b"SLST"
     4  H    format version 2; 1 is read, too
     6  H    compression of the body: 0 none, 1 zstd
     8  q    epoch of the worker that wrote it
    16  q    newest source offset that it covers, -1: none
    24  Q    bytes of the body, inflated
    32  Q    bytes of the body
    40  32s  sha256 over bytes 0..40 and the body
    72  body safetensors: a tensor a dtype (flat); metadata {"stream": ..., "meta": {...},
             "layout": {...}}. Version 1: a tensor an array, no layout

On the topic, states and a partition's markers (`marker_codec`) are envelopes (see there) of role
`streamlearn.state`, with headers ce_subject (stream), ce_epoch, ce_kind (state, marker or
tombstone), and keys, NUL-separated: stream, epoch, `slot.part` (0.0 left out); a marker's: "",
"marker" or "claim", epoch. No two states share a slot: a checkpoint that stopped halfway leaves
the one before whole, whatever was compacted meanwhile.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import zstandard

from streamlearn.core.learner import LearnerState
from streamlearn.errors import FrameError, StateError, UpdateError
from streamlearn.wire import marker_codec
from streamlearn.wire import tensors as tensor_bytes
from streamlearn.wire.assembly import PartAssembler
from streamlearn.wire.cloud_events import Headers, Message, stream_of_key
from streamlearn.wire.envelope import (
    MAX_STATE_BYTES,
    PART_BYTES,
    Role,
    part_key,
    seal,
    split,
    unseal,
    whole,
)
from streamlearn.wire.flat import flatten, unflatten
from streamlearn.wire.marker_codec import PartitionMarker
from streamlearn.wire.signing import Signer, Verifier

_HEAD = struct.Struct("<4sHHqqQQ32s")
_HASHED = 40  # bytes of the head that the hash covers
_MAGIC, _VERSION = b"SLST", 2
_SAMPLE = 32 * 1024  # bytes tried before a body of more than four times as much is compressed


@dataclass(frozen=True, slots=True, eq=False)
class StoredState:
    """A stream's state, with what it covers. Its arrays are read-only."""

    stream: str
    epoch: int
    source_offset: int  # newest frame learned; -1: none
    state: LearnerState


class StateBlob(NamedTuple):
    """A state as it came from the topic: checked, not parsed; ready for a store, or decode."""

    stream: str
    epoch: int
    source_offset: int
    slot: int
    blob: bytes


class Forgotten(NamedTuple):
    """A tombstone: the record with this key is void."""

    key: bytes


StateRecord: TypeAlias = StateBlob | PartitionMarker | Forgotten


def encode(stored: StoredState) -> bytes:
    """One blob. Compressed only where a sample shrinks by a fifth: dense float32 does not."""
    try:
        tensors, layout = flatten(stored.state.arrays)
        said = {"stream": stored.stream, "meta": dict(stored.state.meta), "layout": layout}
        raw = tensor_bytes.pack(tensors, said, max_bytes=MAX_STATE_BYTES)
    except (UpdateError, TypeError, ValueError) as error:
        raise StateError(f"the state of {stored.stream!r} cannot be written: {error}") from error
    body, compression = _body(raw)
    head = _HEAD.pack(
        _MAGIC,
        _VERSION,
        compression,
        stored.epoch,
        stored.source_offset,
        len(raw),
        len(body),
        bytes(32),
    )[:_HASHED]
    return b"".join((head, _sha256(head, body), body))


def _body(raw: bytes) -> tuple[bytes, int]:
    """What is stored of it, and its compression."""
    start = max(0, len(raw) // 2 - _SAMPLE // 2)
    sample = raw if len(raw) <= 4 * _SAMPLE else raw[start : start + _SAMPLE]
    packed = _compressed(sample)
    if len(packed) > 0.8 * len(sample):
        return raw, 0
    return packed if len(sample) == len(raw) else _compressed(raw), 1


def _compressed(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(raw)


def _sha256(head: bytes, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(body)
    return digest.digest()


def covers(blob: bytes) -> tuple[int, int]:
    """(epoch, source offset) of a blob, without reading its body."""
    epoch, source_offset, *_ = _head(blob, "a state")[2:]
    return epoch, source_offset


def decode(blob: bytes, *, stream: str) -> StoredState:
    """The state in a blob. StateError: not a whole, unchanged state of `stream`."""
    what = f"the state of {stream!r}"
    version, compression, epoch, source_offset, raw_size, claimed = _head(blob, what)
    body = memoryview(blob)[_HEAD.size :]
    if _sha256(blob[:_HASHED], body) != claimed:
        raise StateError(f"{what} is corrupt: its sha256 does not fit; {_REMEDY}")
    try:
        raw = tensor_bytes.decompress(
            bytes(body), ("none", "zstd")[compression], raw_size, max_bytes=MAX_STATE_BYTES
        )
        arrays, said = tensor_bytes.unpack(raw)
        if version > 1:
            arrays = unflatten(arrays, said.get("layout"))
    except UpdateError as error:
        raise StateError(f"{what} is corrupt: {error}; {_REMEDY}") from error
    if said.get("stream") != stream or not isinstance(said.get("meta"), dict):
        raise StateError(f"{what} is corrupt: it belongs to {said.get('stream')!r}; {_REMEDY}")
    return StoredState(stream, epoch, source_offset, LearnerState(said["meta"], arrays))


_REMEDY = "remove the state directory to restore from the state topic"


def _head(blob: bytes, what: str) -> tuple[int, int, int, int, int, bytes]:
    """(version, compression, epoch, source offset, raw size, sha256), each within its bounds."""
    if len(blob) < _HEAD.size:
        raise StateError(f"{what} is cut off after {len(blob)} bytes; {_REMEDY}")
    magic, version, compression, epoch, offset, raw_size, size, claimed = _HEAD.unpack_from(blob)
    if magic != _MAGIC:
        raise StateError(f"{what} starts with {magic!r}, not {_MAGIC!r}; {_REMEDY}")
    if not 1 <= version <= _VERSION:
        raise StateError(
            f"{what} has format version {version}, not 1 to {_VERSION}: upgrade streamlearn"
        )
    if size != len(blob) - _HEAD.size:
        raise StateError(
            f"{what} has {len(blob) - _HEAD.size} of {size} bytes of its body; {_REMEDY}"
        )
    if compression > 1 or raw_size > MAX_STATE_BYTES or epoch < 0 or offset < -1:
        raise StateError(f"{what} is corrupt: impossible numbers in its head; {_REMEDY}")
    return version, compression, epoch, offset, raw_size, claimed


# --- the topic ---------------------------------------------------------------------------------


def seal_state(
    blob: bytes,
    *,
    stream: str,
    slot: int,
    signer: Signer | None = None,
    part_bytes: int = PART_BYTES,
) -> list[Message]:
    """A blob from encode as records, in the order in which they must be sent; slot 0, 1, 0, ..."""
    epoch, source_offset = covers(blob)
    parts = split(blob, part_bytes)
    keys = [part_key(stream, epoch, slot=slot, part=part) for part in range(len(parts))]
    fields = [
        *_fields(f"{stream}.{epoch}.{source_offset}.{slot}", "state"),
        ("subject", stream),
        ("epoch", str(epoch)),
        ("slot", str(slot)),
    ]
    if source_offset >= 0:
        fields.append(("sourceoffset", str(source_offset)))
    return seal(Role.STATE, fields, keys, parts, signer)


def seal_marker(
    marker: PartitionMarker, *, claim: bool = False, signer: Signer | None = None
) -> Message:
    """A partition's marker as a record. Send it when the states that it covers are acknowledged.

    `claim`: an epoch's first one. It keeps a key of its own, so that compaction leaves it where
    it is: what older epochs write after it is void.
    """
    what = "claim" if claim else "marker"
    identity = f"{what}.{marker.source_partition}.{marker.epoch}.{marker.covered_offset}"
    fields = [*_fields(identity, "marker"), ("epoch", str(marker.epoch))]
    key = part_key("", what, marker.epoch)
    return seal(Role.STATE, fields, [key], [marker_codec.encode(marker)], signer)[0]


def seal_tombstones(keys: Iterable[bytes], *, signer: Signer | None = None) -> list[Message]:
    """Null values, so that compaction forgets these records: an older epoch's, or a stream's."""
    return [
        seal(
            Role.STATE,
            _fields(f"tombstone.{hashlib.sha256(key).hexdigest()[:32]}", "tombstone"),
            [key],
            [None],
            signer,
        )[0]
        for key in keys
    ]


def _fields(identity: str, kind: str) -> list[tuple[str, str]]:
    return [("source", "/streamlearn/worker"), ("id", identity), ("kind", kind)]


class StateReader:
    """Records of one partition of the state topic, in their order, to states and markers.

    The same stream may come with several epochs and slots: the highest (epoch, source offset)
    counts, never the last written. For one thread.
    """

    def __init__(self, *, verifier: Verifier | None = None) -> None:
        self._verifier = verifier
        self._parts = PartAssembler(max_bytes=2 * MAX_STATE_BYTES)

    @property
    def dropped(self) -> int:
        """Parts that led to nothing: of checkpoints that stopped halfway."""
        return self._parts.dropped

    def add(
        self, value: bytes | None, key: bytes | None, headers: Headers | None
    ) -> StateRecord | None:
        """What this record completes, None while parts are missing; StateError: corrupt."""
        try:
            return self._add(value, key, headers)
        except UpdateError as error:
            raise StateError(
                f"the state topic's record with key {key!r:.120} is corrupt: {error}"
            ) from error

    def _add(
        self, value: bytes | None, key: bytes | None, headers: Headers | None
    ) -> StateRecord | None:
        part = unseal(value, key, headers, role=Role.STATE, verifier=self._verifier)
        kind = part.fields.get("kind")
        if kind == "tombstone" or value is None:
            return Forgotten(key or b"")
        if kind == "marker":
            return marker_codec.decode(value)
        if kind != "state" or not part.subject:
            raise StateError(f"a record of kind {str(kind)[:20]!r} on the state topic")
        epoch = whole("epoch", part.fields.get("epoch", ""))
        slot = whole("slot", part.fields.get("slot", ""))
        blob = self._parts.add(part, epoch=epoch, name=f"{part.subject}\0{epoch}\0{slot}")
        if blob is None:
            return None
        covered = covers(blob)
        if covered[0] != epoch:
            raise StateError(f"the state of {part.subject!r} has another epoch than its headers")
        return StateBlob(part.subject, epoch, covered[1], slot, blob)


def stream_and_epoch(key: bytes) -> tuple[str, int]:
    """What a state record's key is about; ("", epoch) for a marker's."""
    try:
        name, rest = key.decode().split("\0", 1)
        if not name:
            return "", int(rest.removeprefix("marker\0").removeprefix("claim\0"))
        return stream_of_key(name.encode()), int(rest.split("\0")[0])
    except (ValueError, FrameError) as error:
        raise StateError(f"{key!r:.120} is no key of the state topic") from error
