"""One event out of a frame, as a row of a worker's local store that people and tools can read.

A row, little-endian; wrong magic or version is refused:

     0  4s   magic b"SLKR"
     4  H    format version 1
     6  b    why it was kept, as core.microclusters.Why; -1: not known
     7  x
     8  q    the stream's event count when it came; -1: not known
    16  the event: a flat JSON object as on the events topic (event_codec reads it); events with
        images, which JSON has no place for, as an Arrow frame of one

What changes later, an event's replays and its cluster's count, lies in the stream's state, which
is written in the same step. Rows of format 0 were the event alone; `refreshed` writes them anew.
"""

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from streamlearn.core.microclusters import Why
from streamlearn.core.records import Frame
from streamlearn.errors import FrameError, StateError
from streamlearn.wire import event_codec
from streamlearn.wire.event_rules import EVENT_ID, EVENT_TIME, LABEL

_HEAD = struct.Struct("<4sHbxq")
VERSION = 1
_MAGIC = b"SLKR"
_REMEDY = "remove it: the next event of its cluster takes its place"


@dataclass(frozen=True, slots=True, eq=False)
class KeptEvent:
    """What a row says."""

    frame: Frame  # of this one event, as it came
    event: int | None  # the stream's event count when it came
    why: Why | None


def encode(frame: Frame, row: int, *, event: int, why: int) -> bytes:
    """Event `row` of the frame; missing numbers are left out."""
    return _HEAD.pack(_MAGIC, VERSION, why, event) + _payload(frame, row)


def _payload(frame: Frame, row: int) -> bytes:
    if frame.images:
        return event_codec.encode(frame.rows(row, row + 1))[0]
    numbers = zip(frame.columns, frame.numbers[row].tolist(), strict=True)
    event: dict[str, Any] = {name: x for name, x in numbers if math.isfinite(x)}
    event |= {name: column[row] for name, column in frame.texts.items()}
    code = int(frame.label_codes[row])
    if code >= 0:
        event[LABEL] = frame.label_values[code]
    event[EVENT_TIME] = float(frame.event_time_s[row])
    if frame.event_ids:
        event[EVENT_ID] = frame.event_ids[row]
    return json.dumps(event, separators=(",", ":")).encode()


def decode(row: bytes, stream: str) -> KeptEvent:
    """A row of today's format; StateError where it is none, or holds no event."""
    if len(row) < _HEAD.size or not row.startswith(_MAGIC):
        raise StateError(f"a kept event of {stream!r} is no row of a store; {_REMEDY}")
    _, version, why, event = _HEAD.unpack_from(row)
    if version != VERSION:
        raise StateError(f"a kept event of {stream!r} has format {version}: upgrade streamlearn")
    try:
        frame, _ = event_codec.decode(row[_HEAD.size :], stream.encode(), [], 0.0)
        reason = None if why < 0 else Why(why)
    except (FrameError, ValueError) as error:
        raise StateError(f"a kept event of {stream!r} is corrupt: {error}; {_REMEDY}") from error
    return KeptEvent(frame, None if event < 0 else event, reason)


def refreshed(row: bytes) -> bytes | None:
    """A row of an older format in today's; None where it is today's, or a newer one."""
    return None if row.startswith(_MAGIC) else _HEAD.pack(_MAGIC, VERSION, -1, -1) + row
