"""What an Arrow IPC stream declares, added up before Arrow makes anything of it.

event_codec hands every Arrow message in here first. Rows, columns and inflated bytes are only
claims in a few dozen bytes of metadata; believing 10^9 of them costs memory, so they are read
from the FlatBuffers here and bounded. Arrow's own reader has verified the FlatBuffers' offsets
when it hands out a message. Tables (arrow/format/Message.fbs, Schema.fbs), field numbers:

    Message          1 header type (1 schema, 2 dictionary batch, 3 record batch)   2 header
    Schema           1 fields
    DictionaryBatch  1 data: a RecordBatch
    RecordBatch      0 length   2 buffers: [(offset i64, length i64)]   3 compression
A compressed buffer starts with its inflated size, i64; -1: stored as it is.
"""

import struct
from dataclasses import dataclass

import pyarrow as pa

from streamlearn.core.records import MAX_FRAME_EVENTS, Reason
from streamlearn.errors import FrameError

MAX_COLUMNS = 4096
MAX_CELLS = 1 << 22  # rows x columns: 32 MiB as float64
MAX_INFLATED_BYTES = 64 * 1024 * 1024  # of all compressed buffers; also of all texts and images
MAX_IMAGES = 1 << 16  # rows x image columns: 49 MiB of pixels, whether there are images or not
MAX_DICTIONARY = 1 << 20  # entries; a feeder's dictionary may hold more than its frame uses
MAX_MESSAGES = 1024
MAX_BUFFERS = 1 << 16

_SCHEMA, _DICTIONARY_BATCH, _RECORD_BATCH = 1, 2, 3

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")


@dataclass(slots=True)
class _Declared:
    rows: int = 0
    columns: int = 0
    inflated: int = 0
    messages: int = 0


def check(value: bytes) -> None:
    """Read all messages' metadata; FrameError where a declared size is over its bound.

    Raises Arrow's own errors where `value` is no Arrow IPC stream.
    """
    source = pa.BufferReader(value)
    reader = pa.ipc.MessageReader.open_stream(source)
    declared = _Declared()
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            break
        declared.messages += 1
        _at_most(declared.messages, MAX_MESSAGES, "messages in one frame")
        _count(memoryview(message.metadata), message.body, declared)
    if source.tell() != len(value):
        raise FrameError(
            Reason.UNDECODABLE,
            f"{len(value) - source.tell()} bytes after the end of the Arrow stream; "
            "send one stream a message",
        )


def _count(metadata: memoryview, body: pa.Buffer | None, declared: _Declared) -> None:
    root = _U32.unpack_from(metadata, 0)[0]
    kind = metadata[_field(metadata, root, 1)]
    header = _table(metadata, root, 2)
    if kind == _SCHEMA:
        declared.columns, _ = _vector(metadata, header, 1)
        _at_most(declared.columns, MAX_COLUMNS, "columns")
        return
    if kind == _DICTIONARY_BATCH:
        header = _table(metadata, header, 1)
    elif kind != _RECORD_BATCH:
        raise FrameError(Reason.UNSUPPORTED, f"Arrow message of kind {kind}; send record batches")
    place = _field(metadata, header, 0)
    length = _I64.unpack_from(metadata, place)[0] if place else 0
    if length < 0:
        raise FrameError(Reason.UNDECODABLE, f"a batch of {length} rows")
    if kind == _DICTIONARY_BATCH:
        _at_most(length, MAX_DICTIONARY, "entries in a dictionary")
    else:
        declared.rows += length
        _at_most(declared.rows, MAX_FRAME_EVENTS, "rows; cut it into several frames")
        _at_most(declared.rows * declared.columns, MAX_CELLS, "rows x columns")
    if _field(metadata, header, 3):
        declared.inflated += _inflated_bytes(metadata, header, body)
        _at_most(declared.inflated, MAX_INFLATED_BYTES, "bytes after decompression")


def _inflated_bytes(metadata: memoryview, batch: int, body: pa.Buffer | None) -> int:
    count, start = _vector(metadata, batch, 2)
    _at_most(count, MAX_BUFFERS, "buffers in a batch")
    data = memoryview(body) if body is not None else memoryview(b"")
    total = 0
    for index in range(count):
        offset, length = struct.unpack_from("<qq", metadata, start + 16 * index)
        if length == 0:
            continue
        if offset < 0 or length < 8 or offset + length > len(data):
            raise FrameError(Reason.UNDECODABLE, f"a buffer at {offset}+{length} of {len(data)}")
        total += max(0, _I64.unpack_from(data, offset)[0])
    return total


def _at_most(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise FrameError(Reason.TOO_LARGE, f"{count} > {limit} {what}")


# FlatBuffers: a table starts with the distance back to its vtable (u16 size, u16 table size, then
# a u16 offset for each field, 0 where absent); tables and vectors in fields are relative offsets.


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a table's field starts, 0 where it is absent."""
    vtable = table - _I32.unpack_from(data, table)[0]
    if vtable < 0:
        raise FrameError(Reason.UNDECODABLE, "Arrow metadata points before its start")
    slot = 4 + 2 * number
    if slot >= _U16.unpack_from(data, vtable)[0]:
        return 0
    offset = _U16.unpack_from(data, vtable + slot)[0]
    return table + offset if offset else 0


def _table(data: memoryview, table: int, number: int) -> int:
    place = _field(data, table, number)
    if not place:
        raise FrameError(Reason.UNDECODABLE, f"Arrow metadata without its field {number}")
    return int(place + _U32.unpack_from(data, place)[0])


def _vector(data: memoryview, table: int, number: int) -> tuple[int, int]:
    """(items, where the first one starts)."""
    if not _field(data, table, number):
        return 0, 0
    place = _table(data, table, number)
    return _U32.unpack_from(data, place)[0], place + 4
