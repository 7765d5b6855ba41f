"""Parts back to payloads, in bounded memory, whatever comes in between.

Kafka keeps a partition's order, so the parts of one payload come in order, possibly with other
streams' between them, and with a frozen old owner's. A part that does not go on where its stream's
open payload stopped is dropped; a first part of the same or a newer epoch starts over. Compacted
topics may have lost parts of superseded payloads: those never complete, and are dropped too.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

from streamlearn.errors import IntegrityError
from streamlearn.wire.envelope import Part, Role

MAX_OPEN = 64
MAX_OPEN_BYTES = 128 * 1024 * 1024


@dataclass(slots=True)
class _Open:
    first: Part
    epoch: int
    pieces: list[bytes] = field(default_factory=list)
    bytes: int = 0


class PartAssembler:
    """Joins parts. `dropped` counts parts that led to nothing. For one thread."""

    def __init__(self, *, max_open: int = MAX_OPEN, max_bytes: int = MAX_OPEN_BYTES) -> None:
        self._max_open = max_open
        self._max_bytes = max_bytes
        self._open: OrderedDict[tuple[Role, str], _Open] = OrderedDict()
        self._bytes = 0
        self.dropped = 0

    @property
    def open_bytes(self) -> int:
        """Bytes that wait for the rest of their payload."""
        return self._bytes

    def add(self, part: Part, *, epoch: int, name: str) -> bytes | None:
        """The whole payload with its last part, else None. IntegrityError: its hash is wrong.

        `name` is whose payload it is, for example the stream: one payload a name is open.
        """
        slot = part.role, name
        current = self._open.get(slot)
        if current is not None and epoch < current.epoch:
            self.dropped += 1
            return None
        if part.part == 0:
            self._drop(slot)
            current = _Open(part, epoch)
            self._open[slot] = current
        elif current is None or not _continues(current, part):
            repeated = current is not None and _same(current.first, part)
            self.dropped += 1
            if not (repeated and current is not None and part.part < len(current.pieces)):
                self._drop(slot)
            return None
        piece = part.value or b""
        current.pieces.append(piece)
        current.bytes += len(piece)
        self._bytes += len(piece)
        if len(current.pieces) == part.parts:
            return self._joined(slot)
        self._make_room(slot)
        return None

    def _joined(self, slot: tuple[Role, str]) -> bytes:
        done = self._open.pop(slot)
        self._bytes -= done.bytes
        payload = done.pieces[0] if len(done.pieces) == 1 else b"".join(done.pieces)
        if hashlib.sha256(payload).hexdigest() != done.first.payload_hash:
            raise IntegrityError(
                f"the {done.first.parts} parts of {slot[1]!r} are not the payload that was sealed"
            )
        return payload

    def _drop(self, slot: tuple[Role, str]) -> None:
        gone = self._open.pop(slot, None)
        if gone is not None:
            self._bytes -= gone.bytes
            self.dropped += len(gone.pieces)

    def _make_room(self, keep: tuple[Role, str]) -> None:
        while len(self._open) > self._max_open or self._bytes > self._max_bytes:
            oldest = next((slot for slot in self._open if slot != keep), keep)
            self._drop(oldest)


def _same(first: Part, part: Part) -> bool:
    """Whether two parts are of one payload."""
    own = ("part", "id")
    return (
        first.payload_hash == part.payload_hash
        and first.size == part.size
        and first.parts == part.parts
        and all(first.fields.get(n) == t for n, t in part.fields.items() if n not in own)
    )


def _continues(current: _Open, part: Part) -> bool:
    length = current.bytes + len(part.value or b"")
    return _same(current.first, part) and part.part == len(current.pieces) and length <= part.size
