"""What the broker says of a worker: whether it is in its group, and what waits for it.

Asked by clients of its own, from a thread of its own (`watchdog`), whatever the worker's other
clients are doing. With `list_groups`, though it is deprecated: librdkafka 2.x aborts the process
when `describe_consumer_groups` is under way and the broker goes (`eonce->refcnt > 0`).
"""

import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime.log import KafkaLog

Place: TypeAlias = tuple[str, int]  # topic and partition

_TIMEOUT_S = 10.0
_SETTLED = {"Stable", "Empty", "Dead"}


@dataclass(frozen=True, slots=True)
class Standing:
    """One worker, as its group and the logs see it."""

    settled: bool  # False while the group is being put in order
    member: bool
    ends: Mapping[Place, int]  # of the partitions that the group gave it: next offset to be written
    committed: Mapping[Place, int]  # next offset of the group; where it has none, the log's first


class GroupView:
    """Asks for the standing of the worker with this client id, or name (`worker.instance`)."""

    def __init__(
        self, kafka: KafkaConfig, *, group: str, client_id: str, instance: str | None
    ) -> None:
        warnings.filterwarnings("ignore", r"list_groups\(\) is deprecated", DeprecationWarning)
        self._admin = AdminClient({**kafka.client_settings(), "log_level": 0})
        self._log = KafkaLog(kafka, group=group)
        self._group = group
        self._client_id = client_id
        self._instance = instance

    def ask(self) -> Standing | None:
        """None when the broker does not answer."""
        try:
            return self._ask()
        except (KafkaException, BrokerError, struct.error):
            return None

    def has_message(self, place: Place, start: int, end: int) -> bool:
        """Whether there is a message in [start, end); False when the broker does not answer."""
        try:
            return next(self._log.read(*place, start, end), None) is not None
        except (KafkaException, BrokerError):
            return False

    def _ask(self) -> Standing:
        found = self._admin.list_groups(self._group, timeout=_TIMEOUT_S)
        settled = all(group.state in _SETTLED for group in found)
        # a named worker that was started again keeps the client id of its first life
        named = None if self._instance is None else f"{self._instance}-"
        mine = [
            member
            for group in found
            for member in group.members
            if member.client_id == self._client_id
            or (named is not None and str(member.id).startswith(named))
        ]
        places = [place for member in mine for place in assigned(member.assignment or b"")]
        ends, committed = self._offsets(places)
        return Standing(settled, bool(mine), ends, committed)

    def _offsets(self, places: Sequence[Place]) -> tuple[dict[Place, int], dict[Place, int]]:
        ends, committed = {}, {}
        for place in places:
            low, ends[place] = self._log.watermarks(*place)
            known = self._log.committed(*place)
            committed[place] = low if known is None else max(known, low)
        return ends, committed


def assigned(assignment: bytes) -> Iterator[Place]:
    """The partitions of a member: Kafka's ConsumerProtocolAssignment, whose head never changed.

    int16 version, int32 count of topics, each: int16 length, name, int32 count, int32 partitions.

    >>> list(assigned(b"\\0\\1" + b"\\0\\0\\0\\1" + b"\\0\\1t" + b"\\0\\0\\0\\1" + b"\\0\\0\\0\\7"))
    [('t', 7)]
    >>> list(assigned(b""))
    []
    """
    if not assignment:
        return
    _, topics = struct.unpack_from(">hi", assignment)
    at = 6
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", assignment, at)
        topic = assignment[at + 2 : at + 2 + length].decode()
        at += 2 + length
        (count,) = struct.unpack_from(">i", assignment, at)
        for number in struct.unpack_from(f">{count}i", assignment, at + 4):
            yield topic, number
        at += 4 + 4 * count
