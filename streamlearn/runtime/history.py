"""What workers published of each stream: the updates that are retained, and the newest snapshots.

Only headers are believed, and only after their seal (and signature, with a verifier) was checked;
no tensor is unpacked. `audit` compares these hashes with a replay's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from streamlearn.errors import InputError, UpdateError
from streamlearn.runtime.log import Log
from streamlearn.topics import Topics
from streamlearn.wire import update_codec
from streamlearn.wire.signing import Verifier
from streamlearn.wire.update_codec import Kind, Role

_KINDS = {Kind.FULL, Kind.DELTA, Kind.SNAPSHOT}


@dataclass(frozen=True, slots=True)
class Published:
    """One version as one worker published it once. A new owner may publish it again."""

    stream: str
    partition: int
    version: int
    epoch: int
    kind: str  # full, delta or snapshot
    sent_s: float  # seconds since the epoch, of the worker's clock
    source_offset: int  # of the event or rollback that made the version
    bytes: int  # of all parts
    hash: str  # Model.hash, sha256 hex


@dataclass(slots=True)
class Found:
    """All that was found, oldest first, partition by partition."""

    published: list[Published]
    refused: int = 0  # messages that are not a worker's, or were changed
    why: str = ""  # the last one was refused

    def of(self, stream: str) -> list[Published]:
        """One stream's, oldest first."""
        return [entry for entry in self.published if entry.stream == stream]

    def partition_of(self, stream: str) -> int | None:
        """Where the stream lies; None if nothing was published. InputError: in several."""
        numbers = sorted({entry.partition for entry in self.of(stream)})
        if len(numbers) > 1:
            raise InputError(
                f"{stream!r} was fed to partitions {', '.join(map(str, numbers))}, each with a "
                "model of its own: say which one with --partition"
            )
        return numbers[0] if numbers else None


def find_published(
    log: Log, topics: Topics, *, verifier: Verifier | None, snapshots: bool = True
) -> Found:
    """Read the updates topic, and the snapshots, from their beginning to their present end."""
    found = Found([])
    roles = [("updates", Role.UPDATES)] + ([("snapshots", Role.SNAPSHOTS)] if snapshots else [])
    for name, role in roles:
        spec = topics[name]
        for number in range(spec.partitions):
            found.published += _joined(_read(log, spec.full_name, number, role, verifier, found))
    return found


def _read(
    log: Log, topic: str, number: int, role: Role, verifier: Verifier | None, found: Found
) -> Iterator[Published]:
    low, end = log.watermarks(topic, number)
    for record in log.read(topic, number, low, end):
        if record.value is None:
            continue
        try:
            header, part = update_codec.decode(
                record.value, record.key, record.headers, role=role, verifier=verifier
            )
        except UpdateError as error:
            found.refused += 1
            found.why = f"{topic} partition {number} offset {record.offset}: {error}"
            continue
        if header.kind in _KINDS and header.source_partition == number:
            yield Published(
                stream=header.stream,
                partition=number,
                version=header.version,
                epoch=header.epoch,
                kind=header.kind.value,
                sent_s=header.sent_s,
                source_offset=header.source_offset,
                bytes=len(part.value or b""),
                hash=header.result_hash,
            )


def _joined(parts: Iterable[Published]) -> list[Published]:
    """Parts of one message as one entry."""
    entries: dict[tuple[str, int, int, str, float], Published] = {}
    for part in parts:
        key = part.stream, part.version, part.epoch, part.hash, part.sent_s
        before = entries.get(key)
        entries[key] = part if before is None else replace(part, bytes=before.bytes + part.bytes)
    return list(entries.values())
