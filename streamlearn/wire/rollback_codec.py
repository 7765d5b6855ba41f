"""Topic `events`, besides frames: a stream's old state, to go on from, as a message in the log.

An envelope (see there) of role `streamlearn.rollback`, in parts under the stream's key:

| part / header     | is                                                                         |
|-------------------|----------------------------------------------------------------------------|
| value             | a piece of a state_codec blob: the learner's state at the old version      |
| ce_subject        | the stream; the same as the key                                            |
| ce_toversion      | the version that the state is of                                           |
| ce_resulthash     | Model.hash of that version, sha256 hex                                     |
| ce_afteroffset    | where the partition ended when it was sent: all parts lie there or later   |

Nothing here knows offsets: `runtime.rollback` finds the parts, and says which of them count.
FormatError, IntegrityError and ForeignError are all that reading raises.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from streamlearn.errors import FormatError, IntegrityError, StateError
from streamlearn.wire import state_codec
from streamlearn.wire.cloud_events import CONTENT_TYPE, Headers, Message, first_values, rfc3339
from streamlearn.wire.envelope import PART_BYTES, Part, Role, seal, split, unseal, whole
from streamlearn.wire.signing import Signer, Verifier
from streamlearn.wire.state_codec import StoredState

_CONTENT = "application/x-streamlearn-state"
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Piece(NamedTuple):
    """One record of a rollback, checked."""

    stream: str
    version: int  # to go back to
    result_hash: str  # Model.hash of that version
    after_offset: int
    part: Part

    @property
    def last(self) -> bool:
        """Whether the rollback takes place here."""
        return self.part.part == self.part.parts - 1

    def belongs_with(self, other: "Piece") -> bool:
        """Whether both are pieces of the same rollback."""
        own = (self[:4], self.part.payload_hash, self.part.parts)
        return own == (other[:4], other.part.payload_hash, other.part.parts)


def is_rollback(headers: Headers | None) -> bool:
    """Whether a message of the events topic means to be one, and is no frame."""
    return first_values(headers).get("ce_type") == Role.ROLLBACK.value.encode()


def encode(
    stored: StoredState,
    *,
    version: int,
    result_hash: str,
    after_offset: int,
    sent_s: float,
    signer: Signer | None = None,
    part_bytes: int = PART_BYTES,
) -> list[Message]:
    """The records, in the order in which they must be sent; times in seconds since the epoch."""
    parts = split(state_codec.encode(stored), part_bytes)
    said = [
        ("source", "/streamlearn/rollback"),
        ("id", f"{stored.stream}.rollback.{version}.{after_offset}"),
        ("subject", stored.stream),
        ("time", rfc3339(sent_s)),
        ("toversion", str(version)),
        ("resulthash", result_hash),
        ("afteroffset", str(after_offset)),
        (CONTENT_TYPE, _CONTENT),
    ]
    fields = [(name, text) for name, text in said if text is not None]
    return seal(Role.ROLLBACK, fields, [stored.stream.encode()] * len(parts), parts, signer)


def decode(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    verifier: Verifier | None = None,
) -> Piece:
    """One record: its seal, signature and sizes are right. Nothing is inflated or parsed yet."""
    part = unseal(value, key, headers, role=Role.ROLLBACK, verifier=verifier)
    fields = part.fields
    if not part.subject or (key or b"") != part.subject.encode():
        raise FormatError(f"the rollback of {part.subject[:80]!r} lies under another stream's key")
    if not _HASH.fullmatch(fields.get("resulthash", "")):
        raise FormatError("a rollback without the hash of its model")
    return Piece(
        stream=part.subject,
        version=whole("toversion", fields.get("toversion", "")),
        result_hash=fields["resulthash"],
        after_offset=whole("afteroffset", fields.get("afteroffset", "")),
        part=part,
    )


def join(pieces: Mapping[int, Piece]) -> StoredState:
    """The state that all pieces of one rollback, by part number, are."""
    first = next(iter(pieces.values()))
    missing = set(range(first.part.parts)) - pieces.keys()
    if missing:
        raise IntegrityError(
            f"the rollback of {first.stream!r} lacks {len(missing)} of {first.part.parts} parts; "
            "send it again"
        )
    blob = b"".join(pieces[number].part.value or b"" for number in range(first.part.parts))
    if len(blob) != first.part.size:
        raise IntegrityError(f"{len(blob)} bytes of a rollback, but {first.part.size} were sealed")
    try:
        return state_codec.decode(blob, stream=first.stream)  # which has a hash of its own
    except StateError as error:
        raise FormatError(str(error)) from error
