"""What the broker says of a worker: whether it is in its group, and what waits for it.

Asked by clients of its own, from a thread of its own (`watchdog`), whatever the worker's other
clients are doing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime.log import KafkaLog

Place: TypeAlias = tuple[str, int]  # topic and partition

_TIMEOUT_S = 10.0
_SETTLED = {ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}


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
        self._admin = AdminClient({**kafka.client_settings(), "log_level": 0})
        self._log = KafkaLog(kafka, group=group)
        self._group = group
        self._client_id = client_id
        self._instance = instance

    def ask(self) -> Standing | None:
        """None when the broker does not answer."""
        try:
            return self._ask()
        except (KafkaException, BrokerError):
            return None

    def _ask(self) -> Standing:
        answer = self._admin.describe_consumer_groups([self._group], request_timeout=_TIMEOUT_S)
        found = answer[self._group].result()
        # a named worker that was started again keeps the client id of its first life
        mine = [
            member
            for member in found.members
            if member.client_id == self._client_id
            or (self._instance is not None and member.group_instance_id == self._instance)
        ]
        places = [
            (place.topic, place.partition)
            for member in mine
            if member.assignment is not None
            for place in member.assignment.topic_partitions
        ]
        ends, committed = self._offsets(places)
        return Standing(found.state in _SETTLED, bool(mine), ends, committed)

    def _offsets(self, places: Sequence[Place]) -> tuple[dict[Place, int], dict[Place, int]]:
        ends, committed = {}, {}
        for place in places:
            low, ends[place] = self._log.watermarks(*place)
            known = self._log.committed(*place)
            committed[place] = low if known is None else max(known, low)
        return ends, committed
