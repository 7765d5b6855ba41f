"""How our own messages travel: sealed headers, a payload in parts, a digest, a signature.

update_codec and state_codec say what is inside. An envelope is one or more Kafka records:

| header              | is                                                                       |
|---------------------|--------------------------------------------------------------------------|
| ce_specversion      | `1.0`                                                                    |
| ce_type             | the role: which topic it is for (`Role`); another topic refuses it       |
| ce_source, ce_id    | who wrote it; unique within that                                         |
| ce_subject          | the stream, if it is one stream's                                        |
| ce_time             | when it was written, RFC 3339                                            |
| content-type        | of the payload once it is inflated                                       |
| ce_formatversion    | `1`; a newer one is refused with the advice to upgrade                   |
| ce_part, ce_parts   | which part of the payload the value is, from 0; of how many              |
| ce_size             | bytes of all parts together                                              |
| ce_payloadhash      | sha256 hex of all parts together                                         |
| ce_compression      | `zstd` or `none`                                                         |
| ce_rawsize          | bytes once inflated                                                      |
| ce_digest           | sha256 hex of what `_sealed_text` spells: all headers above, all other   |
|                     | `ce_` headers, the Kafka key, the sha256 of the value                    |
| ce_keyid            | which key signed (optional)                                              |
| ce_signature        | Ed25519 over the digest, hex (optional)                                  |

So a changed bit anywhere is noticed at the first part, with or without a key, and before anything
is joined, inflated or parsed. Headers without `ce_` are others' (tracing): neither read nor sealed.
A payload's parts have Kafka keys of their own on compacted topics: `part_key`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from streamlearn.errors import ForeignError, FormatError, FrameError, IntegrityError, SizeError
from streamlearn.wire.cloud_events import (
    CONTENT_TYPE,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    SPEC_VERSION,
    Headers,
    Message,
    stream_of_key,
)
from streamlearn.wire.signing import Signer, Verifier

FORMAT_VERSION = 1
PART_BYTES = 900 * 1024
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024  # compressed, all parts, of what others sent
MAX_STATE_BYTES = 256 * 1024 * 1024  # of what workers left for themselves
MAX_PARTS = 1024
_MAX_PART_BYTES = 1024 * 1024  # the topics' max.message.bytes
_SEAL = b"streamlearn envelope 1\0"
_NOTHING = hashlib.sha256().digest()
_DIGEST, _KEY_ID, _SIGNATURE = "ce_digest", "ce_keyid", "ce_signature"


class Role(StrEnum):
    """What a message is for; its `ce_type`, so that none passes for another topic's."""

    UPDATES = "streamlearn.update"
    SNAPSHOTS = "streamlearn.snapshot"
    SLOW = "streamlearn.slow"
    STATE = "streamlearn.state"
    PREDICTIONS = "streamlearn.prediction"
    LABEL_REQUESTS = "streamlearn.labelrequest"
    ROLLBACK = "streamlearn.rollback"


@dataclass(frozen=True, slots=True)
class Part:
    """One record of an envelope, checked: digest, signature and sizes fit."""

    role: Role
    fields: Mapping[str, str]  # header name without `ce_` to text
    key: bytes | None
    value: bytes | None  # this part's bytes; None: a tombstone
    part: int
    parts: int
    size: int
    payload_hash: str

    @property
    def subject(self) -> str:
        """The stream, "" where it is not one stream's."""
        return self.fields.get("subject", "")


def part_key(name: str, *qualifiers: str | int, slot: int = 0, part: int = 0) -> bytes:
    """The Kafka key of a part on a compacted topic: no two parts replace each other.

    `slot` alternates between two envelopes of the same name, so that the older one stays whole
    until the newer one is: `name`, then NUL-separated qualifiers, then `slot.part` (0.0: left out).
    """
    place = [f"{slot}.{part}"] if slot or part else []
    return "\0".join([name, *map(str, qualifiers), *place]).encode()


def seal(
    role: Role,
    fields: Sequence[tuple[str, str]],
    keys: Sequence[bytes | None],
    parts: Sequence[bytes | None],
    signer: Signer | None,
) -> list[Message]:
    """The records of one envelope: `fields` and what is said of the parts, digested, signed."""
    hashes = [None if part is None else hashlib.sha256(part).digest() for part in parts]
    if len(parts) == 1:
        payload_hash = (hashes[0] or _NOTHING).hex()
    else:
        payload_hash = hashlib.sha256(b"".join(part or b"" for part in parts)).hexdigest()
    common = [
        ("ce_specversion", SPEC_VERSION),
        ("ce_type", role.value),
        ("ce_formatversion", str(FORMAT_VERSION)),
        *((name if name == CONTENT_TYPE else f"ce_{name}", text) for name, text in fields),
        ("ce_parts", str(len(parts))),
        ("ce_size", str(sum(len(part or b"") for part in parts))),
        ("ce_payloadhash", payload_hash),
    ]
    messages = []
    sealed = {name: text.encode() for name, text in common}
    identity = sealed.get("ce_id", payload_hash[:32].encode())
    for index, (key, value) in enumerate(zip(keys, parts, strict=True)):
        place = b"%d" % index
        headers = [*{**sealed, "ce_part": place, "ce_id": identity + b"." + place}.items()]
        if signer is not None:
            headers.append((_KEY_ID, signer.key_id.encode()))
        digest = hashlib.sha256(_sealed_text(dict(headers), key, hashes[index])).digest()
        headers.append((_DIGEST, digest.hex().encode()))
        if signer is not None:
            headers.append((_SIGNATURE, signer.sign(digest).hex().encode()))
        messages.append(Message(key, value, headers))
    return messages


def split(payload: bytes, part_bytes: int = PART_BYTES) -> list[bytes]:
    """Consecutive pieces of at most part_bytes; one empty piece for an empty payload."""
    return [payload[at : at + part_bytes] for at in range(0, len(payload), part_bytes)] or [b""]


def unseal(
    value: bytes | None,
    key: bytes | None,
    headers: Headers | None,
    *,
    role: Role,
    verifier: Verifier | None = None,
) -> Part:
    """One record, checked. FormatError: not ours, newer, too large. IntegrityError: a hash does not
    fit. ForeignError: another topic's; with a verifier, also one without a signature that fits.
    """
    sealed = _own_headers(headers)
    version = _number(sealed, "ce_formatversion")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"unknown format version {version}; this program reads {FORMAT_VERSION}: "
            + ("upgrade streamlearn" if version > FORMAT_VERSION else "it was never released")
        )
    if value is not None and len(value) > _MAX_PART_BYTES:
        raise SizeError(f"a part of {len(value)} bytes; at most {_MAX_PART_BYTES} are accepted")
    _check_seal(sealed, key, value, verifier)
    try:
        fields = {name.removeprefix("ce_"): text.decode() for name, text in sealed.items()}
    except UnicodeDecodeError as error:
        raise FormatError("a header is not UTF-8") from error
    if fields.get("type") != role.value:
        raise ForeignError(f"a {fields.get('type', '')[:40]!r} where a {role.value!r} belongs")
    part = Part(
        role=role,
        fields=fields,
        key=key,
        value=value,
        part=_number(sealed, "ce_part"),
        parts=_number(sealed, "ce_parts"),
        size=_number(sealed, "ce_size"),
        payload_hash=fields.get("payloadhash", ""),
    )
    if part.subject:
        _check_subject(part.subject)
    _check_sizes(part)
    return part


def _own_headers(headers: Headers | None) -> dict[str, bytes]:
    own: dict[str, bytes] = {}
    if len(headers or ()) > MAX_HEADERS:
        raise SizeError(f"{len(headers or ())} headers; at most {MAX_HEADERS} are accepted")
    for name, text in headers or ():
        if not name.startswith("ce_") and name != CONTENT_TYPE:
            continue
        if name in own:
            raise FormatError(f"header {name[:40]!r} comes twice")
        if text is None or len(text) > MAX_HEADER_BYTES:
            raise FormatError(f"header {name[:40]!r} is null or over {MAX_HEADER_BYTES} bytes")
        own[name] = text
    return own


def _check_seal(
    sealed: dict[str, bytes], key: bytes | None, value: bytes | None, verifier: Verifier | None
) -> None:
    signature = sealed.pop(_SIGNATURE, None)
    claimed = sealed.pop(_DIGEST, None)
    digest = _digest(sealed, key, value)
    if claimed != digest.hex().encode():
        raise IntegrityError("the headers, key or value are not those that were sealed")
    if verifier is not None:
        key_id = sealed.get(_KEY_ID)
        raw = None if signature is None else _from_hex(signature)
        verifier.check(digest, None if key_id is None else key_id.decode(errors="replace"), raw)


def _from_hex(text: bytes) -> bytes:
    """One spelling only: a message can't be changed into another one that is valid too."""
    if not re.fullmatch(rb"(?:[0-9a-f]{2})*", text):
        raise ForeignError("the signature is not in lower-case hexadecimal digits")
    return bytes.fromhex(text.decode())


def _check_subject(subject: str) -> None:
    try:
        stream_of_key(subject.encode())
    except FrameError as error:
        raise FormatError(f"no stream's name: {error.detail}") from error


def _check_sizes(part: Part) -> None:
    length = len(part.value or b"")
    if not 1 <= part.parts <= MAX_PARTS or not 0 <= part.part < part.parts:
        raise SizeError(f"part {part.part} of {part.parts}; at most {MAX_PARTS} are accepted")
    limit = MAX_STATE_BYTES if part.role is Role.STATE else MAX_PAYLOAD_BYTES
    if part.size > limit:
        raise SizeError(f"{part.size} bytes announced; at most {limit} are accepted")
    if length > part.size or (part.parts == 1 and length != part.size):
        raise FormatError(f"part {part.part} has {length} of {part.size} bytes")


def _number(sealed: Mapping[str, bytes], name: str) -> int:
    digits = sealed.get(name)
    if digits is None:
        raise FormatError(f"no header {name}; not a message of streamlearn's own")
    return whole(name, digits.decode(errors="replace"))


def whole(name: str, digits: str) -> int:
    """A whole number of 0..2^63-1 in plain digits, or FormatError."""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise FormatError(f"header {name} is {digits[:40]!r}, not a whole number")
    number = int(digits)
    if number >= 1 << 63:
        raise FormatError(f"header {name} is {number}; at most 2^63-1")
    return number


def _digest(sealed: Mapping[str, bytes], key: bytes | None, value: bytes | None) -> bytes:
    value_hash = None if value is None else hashlib.sha256(value).digest()
    return hashlib.sha256(_sealed_text(sealed, key, value_hash)).digest()


def _sealed_text(sealed: Mapping[str, bytes], key: bytes | None, value_hash: bytes | None) -> bytes:
    """Every piece with its length, so that no two messages share a text; null is not empty."""
    pieces: list[bytes | None] = [key, value_hash]
    for name in sorted(sealed):
        pieces += [name.encode(errors="surrogatepass"), sealed[name]]
    text = [_SEAL]
    for piece in pieces:
        text.append(b"-" if piece is None else b"+" + len(piece).to_bytes(8, "little") + piece)
    return b"".join(text)
