"""CloudEvents 1.0, Kafka protocol binding, binary mode: what all topics' headers have in common.

An attribute `a` travels as the Kafka header `ce_a` (UTF-8); `datacontenttype` travels as
`content-type`; the Kafka value is the data itself. Extension attributes are lower-case letters
and digits, at most 20 of them. Source: github.com/cloudevents/spec, kafka-protocol-binding.md.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from streamlearn.core.records import Reason
from streamlearn.errors import FrameError

Headers: TypeAlias = Sequence[tuple[str, bytes]]

CONTENT_TYPE = "content-type"
SPEC_VERSION = "1.0"
MAX_STREAM_BYTES = 512  # a stream's name is a Kafka key, a metric label and a file's name
MAX_HEADERS = 128
MAX_HEADER_BYTES = 16 * 1024  # of one value


class Message(NamedTuple):
    """One Kafka record to send: the runtime adds topic, partition and timestamp."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def attributes(
    kind: str, *, source: str, id: str, subject: str = "", time_s: float | None = None
) -> list[tuple[str, bytes]]:
    """The standard attributes as headers; `kind` is CloudEvents' `type`, time in epoch seconds."""
    headers = [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_type", kind.encode()),
        ("ce_source", source.encode()),
        ("ce_id", id.encode()),
    ]
    if subject:
        headers.append(("ce_subject", subject.encode()))
    time = None if time_s is None else rfc3339(time_s)
    if time is not None:
        headers.append(("ce_time", time.encode()))
    return headers


def rfc3339(time_s: float) -> str | None:
    """Seconds since the epoch as a date, to the microsecond; None: NaN, no year of ours."""
    try:
        return datetime.fromtimestamp(time_s, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def first_values(headers: Headers | None) -> Mapping[str, bytes]:
    """Header name to its first value: Kafka allows names twice and null, CloudEvents doesn't."""
    first: dict[str, bytes] = {}
    for name, value in headers or ():
        if value is not None:
            first.setdefault(name, value)
    return first


def stream_of_key(key: bytes | None) -> str:
    """The stream that a Kafka key names; FrameError (no_stream) where it names none."""
    if not key:
        raise FrameError(Reason.NO_STREAM, "the message has no key; send the stream's name as key")
    if len(key) > MAX_STREAM_BYTES:
        raise FrameError(
            Reason.NO_STREAM,
            f"the key has {len(key)} bytes; a stream's name has at most {MAX_STREAM_BYTES}",
        )
    try:
        stream = key.decode()
    except UnicodeDecodeError as error:
        raise FrameError(Reason.NO_STREAM, "the key is not UTF-8; use text as name") from error
    if "\0" in stream:  # separates a stream from its parts in the keys of compacted topics
        raise FrameError(Reason.NO_STREAM, "the key has a NUL character; leave it out of names")
    return stream
