"""Sets a group's offsets, which Kafka allows while none of its workers runs."""

import time
from collections.abc import Mapping
from typing import Protocol

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime.connection import said

PATIENCE_S = 10.0  # a killed worker is in its group for another 6 s
_TIMEOUT_S = 10.0


class GroupOffsets(Protocol):
    """Kafka's, or the one in `testing`."""

    def move(self, topic: str, offsets: Mapping[int, int]) -> None:
        """The group goes on from these offsets, by partition."""


class KafkaGroupOffsets:
    """On Kafka. `move` raises BrokerError while workers of the group run."""

    def __init__(self, kafka: KafkaConfig, *, group: str) -> None:
        self._admin = AdminClient({**kafka.client_settings(), "log_level": 0})
        self._kafka = kafka
        self._group = group

    def move(self, topic: str, offsets: Mapping[int, int]) -> None:
        places = [TopicPartition(topic, number, offset) for number, offset in offsets.items()]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._alter(places)
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"the offsets of group {self._group} cannot be set: "
                        f"{said(self._kafka, error.args[0])}; stop all its workers first"
                    ) from error
                time.sleep(0.5)
            else:
                return

    def _alter(self, places: list[TopicPartition]) -> None:
        wanted = [ConsumerGroupTopicPartitions(self._group, places)]
        answer = self._admin.alter_consumer_group_offsets(wanted, request_timeout=_TIMEOUT_S)
        for place in answer[self._group].result().topic_partitions:
            if place.error is not None:
                raise KafkaException(place.error)
