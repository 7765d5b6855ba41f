"""Topics `updates`, `snapshots` and `slow`: what workers publish and subscribers believe.

Headers: update_header, and of all envelopes: envelope.

The payload is safetensors: `=NAME` a whole tensor, `#NAME` and `@NAME` row numbers and rows; its
metadata is {"manifest": {...} or null, "removed": [NAME, ...]}. A snapshot is a full update; slow
weights have plain names. heartbeat, tombstone and marker have no payload.

Keys: updates: the stream. snapshots: stream, then `slot.part` (envelope.part_key). slow: the hash
and part. A tombstone on snapshots has a null value, so that compaction forgets the stream.

Reading: `decode` checks one record (seal, signature, sizes), `Assembler.add` returns the whole
message with its last part. FormatError and IntegrityError are all that they raise.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.model import Model, SlowWeights
from streamlearn.core.update import Update, diff
from streamlearn.errors import FormatError, IntegrityError
from streamlearn.wire import tensors as tensor_bytes
from streamlearn.wire.assembly import PartAssembler
from streamlearn.wire.cloud_events import CONTENT_TYPE, Headers, Message
from streamlearn.wire.envelope import PART_BYTES, Part, Role, part_key, seal, split, unseal, whole
from streamlearn.wire.signing import Signer, Verifier
from streamlearn.wire.update_header import Kind, UpdateHeader, from_part, to_fields

__all__ = [
    "Assembler",
    "Chunk",
    "Kind",
    "Received",
    "Role",
    "UpdateHeader",
    "decode",
    "encode",
    "encode_control",
    "encode_model",
    "encode_slow",
]

SAFETENSORS = "application/x-safetensors"
_WHOLE, _ROWS, _VALUES = "=", "#", "@"


_WITH_PAYLOAD = {Kind.FULL, Kind.DELTA, Kind.SNAPSHOT, Kind.SLOW}
_ROLES = {
    Role.UPDATES: {Kind.FULL, Kind.DELTA, Kind.HEARTBEAT, Kind.TOMBSTONE},
    Role.SNAPSHOTS: {Kind.SNAPSHOT, Kind.TOMBSTONE, Kind.MARKER},
    Role.SLOW: {Kind.SLOW},
}


class Chunk(NamedTuple):
    """One Kafka record, checked: all of a message, or one part of it."""

    header: UpdateHeader
    part: Part


class Received(NamedTuple):
    """A whole message. `update` for full, delta and snapshot, `slow` for slow weights."""

    header: UpdateHeader
    update: Update | None = None
    slow: SlowWeights | None = None


# --- writing -----------------------------------------------------------------------------------


def encode(
    update: Update,
    *,
    epoch: int,
    source_partition: int,
    source_offset: int,
    newest_event_s: float = math.nan,
    newest_record_s: float = math.nan,
    sent_s: float = math.nan,
    role: Role = Role.UPDATES,
    slot: int = 0,
    signer: Signer | None = None,
    part_bytes: int = PART_BYTES,
) -> list[Message]:
    """An update as one or more records, in the order in which they must be sent.

    `slot`, 0 or 1 in turn, matters for snapshots of several parts only: see envelope.part_key.
    """
    whole_kind = Kind.SNAPSHOT if role is Role.SNAPSHOTS else Kind.FULL
    header = UpdateHeader(
        kind=whole_kind if update.full else Kind.DELTA,
        epoch=epoch,
        stream=update.stream,
        version=update.version,
        base_version=update.base_version,
        base_hash=update.base_hash,
        result_hash=update.result_hash,
        slow_hash=update.slow_hash,
        source_partition=source_partition,
        source_offset=source_offset,
        newest_event_s=newest_event_s,
        newest_record_s=newest_record_s,
        sent_s=sent_s,
    )
    tensors: dict[str, NDArray[Any]] = {_WHOLE + n: tensor for n, tensor in update.changed.items()}
    for name, (rows, values) in update.changed_rows.items():
        tensors[_ROWS + name] = rows
        tensors[_VALUES + name] = values
    manifest = None if update.manifest is None else dict(update.manifest)
    raw = tensor_bytes.pack(tensors, {"manifest": manifest, "removed": list(update.removed)})

    def key(part: int) -> bytes:
        if role is Role.UPDATES:
            return update.stream.encode()
        return part_key(update.stream, slot=slot, part=part)

    return _messages(role, header, raw, key, signer, part_bytes)


def encode_model(model: Model, *, slot: int = 0, **said: Any) -> list[Message]:
    """A whole model (without slow weights) for the snapshots topic; `said` as in encode."""
    return encode(diff(None, model), role=Role.SNAPSHOTS, slot=slot, **said)


def encode_slow(
    slow: SlowWeights,
    *,
    epoch: int = 0,
    sent_s: float = math.nan,
    signer: Signer | None = None,
    part_bytes: int = PART_BYTES,
) -> list[Message]:
    """Slow weights for the slow topic, under their hash: the same ones replace themselves."""
    header = UpdateHeader(kind=Kind.SLOW, epoch=epoch, slow_hash=slow.hash, sent_s=sent_s)
    raw = tensor_bytes.pack(slow.tensors, {})

    def key(part: int) -> bytes:
        return part_key(slow.hash, part=part)

    return _messages(Role.SLOW, header, raw, key, signer, part_bytes)


def encode_control(
    header: UpdateHeader, *, role: Role = Role.UPDATES, signer: Signer | None = None, slot: int = 0
) -> Message:
    """A heartbeat, tombstone or marker."""
    if header.kind in _WITH_PAYLOAD or header.kind not in _ROLES[role]:
        raise FormatError(f"no {header.kind} without values on {role}")
    key: bytes | None = part_key(header.stream, slot=slot)
    if not header.stream:
        key = part_key("", "marker") if role is Role.SNAPSHOTS else None
    forgotten = role is Role.SNAPSHOTS and header.kind is Kind.TOMBSTONE
    return seal(role, to_fields(header), [key], [None if forgotten else b""], signer)[0]


def _messages(
    role: Role,
    header: UpdateHeader,
    raw: bytes,
    key: Callable[[int], bytes],
    signer: Signer | None,
    part_bytes: int,
) -> list[Message]:
    payload, compression = tensor_bytes.compress(raw)
    parts = split(payload, part_bytes)
    fields = [
        *to_fields(header),
        (CONTENT_TYPE, SAFETENSORS),
        ("compression", compression),
        ("rawsize", str(len(raw))),
    ]
    return seal(role, fields, [key(part) for part in range(len(parts))], parts, signer)


# --- reading -----------------------------------------------------------------------------------


def decode(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    role: Role = Role.UPDATES,
    verifier: Verifier | None = None,
) -> Chunk:
    """One record, its seal, signature and sizes checked; nothing is inflated or parsed yet."""
    part = unseal(value, key, headers, role=role, verifier=verifier)
    header = from_part(part)
    if header.kind not in _ROLES[role]:
        raise FormatError(f"a {header.kind} does not belong on {role}")
    if header.kind in _WITH_PAYLOAD:
        whole("rawsize", part.fields.get("rawsize", ""))
        if not header.slow_hash or (header.kind is not Kind.SLOW and not header.result_hash):
            raise FormatError(f"a {header.kind} without its hashes")
        if header.kind is not Kind.SLOW and not header.stream:
            raise FormatError(f"a {header.kind} without its stream")
    elif part.size or part.parts > 1:
        raise FormatError(f"a {header.kind} with {part.size} bytes; it has none")
    based = header.base_version is not None and header.base_hash is not None
    if based != (header.kind is Kind.DELTA):
        raise FormatError(f"a {header.kind} {'with' if based else 'without'} a base")
    return Chunk(header, part)


class Assembler:
    """Chunks to whole messages, in bounded memory. For one thread, one or several topics."""

    def __init__(self, parts: PartAssembler | None = None) -> None:
        self.parts = parts or PartAssembler()

    def add(self, chunk: Chunk) -> Received | None:
        """The message that this chunk completes, or None while parts are missing.

        FormatError or IntegrityError where its bytes are not what its headers say.
        """
        header, part = chunk
        if header.kind not in _WITH_PAYLOAD:
            return Received(header)
        name = header.stream or header.slow_hash
        packed = self.parts.add(part, epoch=header.epoch, name=name)
        if packed is None:
            return None
        raw_size = whole("rawsize", part.fields["rawsize"])
        raw = tensor_bytes.decompress(packed, part.fields.get("compression", ""), raw_size)
        tensors, meta = tensor_bytes.unpack(raw)
        if header.kind is Kind.SLOW:
            slow = SlowWeights(tensors)
            if slow.hash != header.slow_hash:
                raise IntegrityError(f"slow weights {header.slow_hash[:12]} have another hash")
            return Received(header, slow=slow)
        return Received(header, update=_update(header, tensors, meta))


def _update(header: UpdateHeader, tensors: dict[str, NDArray[Any]], meta: dict[str, Any]) -> Update:
    manifest, removed = meta.get("manifest"), meta.get("removed")
    if not isinstance(manifest, dict | None) or not (
        isinstance(removed, list) and all(isinstance(name, str) for name in removed)
    ):
        raise FormatError("manifest or removed names are not of the types they should be")
    if manifest is None and header.kind is not Kind.DELTA:
        raise FormatError(f"a {header.kind} without a manifest")
    changed: dict[str, NDArray[Any]] = {}
    rows: dict[str, NDArray[np.int32]] = {}
    values: dict[str, NDArray[Any]] = {}
    groups = {_WHOLE: changed, _ROWS: rows, _VALUES: values}
    for name, tensor in tensors.items():
        if name[:1] not in groups:
            raise FormatError(f"tensor {name[:80]!r} is neither whole nor rows")
        groups[name[:1]][name[1:]] = tensor
    if rows.keys() != values.keys() or any(row.dtype != np.int32 for row in rows.values()):
        raise FormatError("rows without their values, or the other way round")
    return Update(
        stream=header.stream,
        version=header.version,
        base_version=header.base_version,
        base_hash=header.base_hash,
        result_hash=header.result_hash,
        slow_hash=header.slow_hash,
        manifest=manifest,
        changed=changed,
        changed_rows={name: (rows[name], values[name]) for name in rows},
        removed=tuple(removed),
    )
