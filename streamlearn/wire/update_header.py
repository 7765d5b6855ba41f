"""What an update, snapshot or slow message says about itself beside its values.

Headers of an envelope (see there for those of all envelopes), `ce_` left out:

| header          | is                                                                           |
|-----------------|------------------------------------------------------------------------------|
| subject         | the stream; absent in a heartbeat or marker of a whole partition             |
| kind            | `Kind`: full, delta, snapshot, heartbeat, tombstone, marker, slow            |
| epoch           | one ownership of the partition by one worker; grows at every hand-over       |
| modelversion    | frames learned from                                                          |
| baseversion     | version that a delta changes                                                 |
| basehash        | Model.hash of that, sha256 hex                                               |
| resulthash      | Model.hash afterwards, sha256 hex                                            |
| slowhash        | SlowWeights.hash that the model computes with, sha256 hex                    |
| sourcepartition | partition of the events topic                                                |
| sourceoffset    | newest offset there that is covered; absent: none                            |
| newestevent     | event time of the newest event learned from, seconds since the epoch         |
| newestrecord    | Kafka time of the newest record learned from, seconds since the epoch        |
| updatesoffset   | marker: where to go on in the updates topic after the snapshots              |

Whole numbers are plain digits below 2^63, hashes lower-case hex, seconds decimal; anything else
is refused by FormatError. update_codec says which of them each kind must have.
"""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from streamlearn.errors import FormatError
from streamlearn.wire.cloud_events import rfc3339
from streamlearn.wire.envelope import Part, whole

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Kind(StrEnum):
    """What a message says."""

    FULL = "full"  # a whole model, on updates: the first after a hand-over
    DELTA = "delta"  # what changed since the base
    SNAPSHOT = "snapshot"  # a whole model, on snapshots
    HEARTBEAT = "heartbeat"  # idle, not dead
    TOMBSTONE = "tombstone"  # the stream is forgotten
    MARKER = "marker"  # on snapshots: updates up to `updates_offset` are in the snapshots
    SLOW = "slow"  # slow weights


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHeader:
    """What a message says about itself beside its values. NaN, -1 and "": not known or not due."""

    kind: Kind
    epoch: int
    stream: str = ""
    version: int = 0
    base_version: int | None = None
    base_hash: str | None = None
    result_hash: str = ""
    slow_hash: str = ""
    source_partition: int = 0
    source_offset: int = -1
    newest_event_s: float = math.nan
    newest_record_s: float = math.nan
    sent_s: float = math.nan  # to the microsecond
    updates_offset: int = -1


def to_fields(header: UpdateHeader) -> list[tuple[str, str]]:
    """The header as an envelope's fields; what is not known is left out."""
    identity = f"{header.kind}.{header.epoch}.{header.version}.{header.result_hash[:12]}"
    said: list[tuple[str, str | int | float | None]] = [
        ("source", f"/streamlearn/partitions/{header.source_partition}"),
        ("id", f"{header.stream}.{identity}"),
        ("subject", header.stream or None),
        ("time", rfc3339(header.sent_s)),
        ("kind", header.kind.value),
        ("epoch", header.epoch),
        ("modelversion", header.version),
        ("baseversion", header.base_version),
        ("basehash", header.base_hash),
        ("resulthash", header.result_hash or None),
        ("slowhash", header.slow_hash or None),
        ("sourcepartition", header.source_partition),
        ("sourceoffset", header.source_offset if header.source_offset >= 0 else None),
        ("newestevent", _finite(header.newest_event_s)),
        ("newestrecord", _finite(header.newest_record_s)),
        ("updatesoffset", header.updates_offset if header.updates_offset >= 0 else None),
    ]
    return [(name, str(value)) for name, value in said if value is not None]


def _finite(seconds: float) -> float | None:
    return float(seconds) if math.isfinite(seconds) else None


def from_part(part: Part) -> UpdateHeader:
    """The header of a checked record; FormatError where a field is missing or malformed."""
    fields = part.fields

    def number(name: str) -> int | None:
        return whole(name, fields[name]) if name in fields else None

    def required(name: str) -> int:
        return whole(name, fields.get(name, ""))

    def digest(name: str) -> str | None:
        text = fields.get(name)
        if text is not None and not _HASH.fullmatch(text):
            raise FormatError(f"header {name} is {text[:20]!r}, not a sha256 in hex")
        return text

    def seconds(name: str) -> float:
        if name not in fields:
            return math.nan
        try:
            found = float(fields[name])
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise FormatError(f"header {name} is {fields[name][:20]!r}, not seconds")
        return found

    def offset(name: str) -> int:
        found = number(name)
        return -1 if found is None else found

    try:
        kind = Kind(fields.get("kind", ""))
        sent_s = _timestamp(fields["time"]) if "time" in fields else math.nan
    except (ValueError, OverflowError, OSError) as error:
        raise FormatError(f"kind or time of a message: {error}") from error
    return UpdateHeader(
        kind=kind,
        epoch=required("epoch"),
        stream=part.subject,
        version=required("modelversion"),
        base_version=number("baseversion"),
        base_hash=digest("basehash"),
        result_hash=digest("resulthash") or "",
        slow_hash=digest("slowhash") or "",
        source_partition=required("sourcepartition"),
        source_offset=offset("sourceoffset"),
        newest_event_s=seconds("newestevent"),
        newest_record_s=seconds("newestrecord"),
        sent_s=sent_s,
        updates_offset=offset("updatesoffset"),
    )


def _timestamp(text: str) -> float:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.timestamp()
