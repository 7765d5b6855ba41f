"""Reads ranges of topics: for restores, and for what a worker must know before it may own.

Unlike the agent's consumer it belongs to no group: it reads what it is told, from the learning
thread, and never moves an offset.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime.connection import said
from streamlearn.wire.cloud_events import Headers

TIMEOUT_S = 10.0
SILENCE_S = 30.0
T = TypeVar("T")
_PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,  # a broker that has just come back
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it lies in a partition."""

    offset: int
    key: bytes | None
    value: bytes | None  # None: a tombstone
    headers: Headers
    timestamp_s: float  # seconds since the epoch, of its producer


class Log(Protocol):
    """What restores read from: Kafka's, or the one in `testing`."""

    def topic_id(self, topic: str) -> str:
        """Changes when a topic is deleted and made again under its name."""

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that is there, and the one that the next message will get."""

    def committed(self, topic: str, partition: int) -> int | None:
        """The next offset of the group, None where it has none yet."""

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        """The messages of [start, end) that are there."""


class KafkaLog:
    """The log on Kafka. `group` is the workers' group, whose offsets `committed` tells.

    `progress` is called with each record that was read.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        group: str,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._progress = progress
        settings = {**kafka.client_settings(), "log_level": 2}
        self._kafka, self._bootstrap = kafka, kafka.bootstrap
        self._admin = AdminClient(settings)
        self._consumer = Consumer(
            {
                **settings,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,  # a compacted tail has no last message
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 5,  # the default of 1000 stalls
                "queued.max.messages.kbytes": 32 << 10,
                "isolation.level": "read_uncommitted",
            }
        )

    def topic_id(self, topic: str) -> str:
        try:
            answer = self._admin.describe_topics(
                TopicCollection([topic]), request_timeout=TIMEOUT_S
            )
            return str(answer[topic].result().topic_id)
        except KafkaException as error:
            raise BrokerError(
                f"{self._bootstrap} does not describe {topic} ({error.args[0].str()}); create the "
                "topics with `streamlearn topics apply`"
            ) from error

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        place = TopicPartition(topic, partition)
        answer = self._patiently(
            place, lambda: self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
        )
        if answer is None:
            raise self._unanswered(topic, partition, "timed out")
        low, high = answer
        return low, high

    def committed(self, topic: str, partition: int) -> int | None:
        place = TopicPartition(topic, partition)
        [found] = self._patiently(
            place, lambda: self._consumer.committed([place], timeout=TIMEOUT_S)
        )
        return None if found.offset == OFFSET_INVALID else int(found.offset)

    def _patiently(self, place: TopicPartition, ask: Callable[[], T]) -> T:
        """Ask again while the broker is busy: electing a leader, loading a group."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return ask()
            except KafkaException as error:
                why = error.args[0]
                if time.monotonic() > deadline or why.code() not in _PASSING:
                    raise self._unanswered(place.topic, place.partition, why) from error
                time.sleep(0.05)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        low, high = self.watermarks(topic, partition)
        position, end = max(start, low), min(end, high)
        if position >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, position)])
        heard = time.monotonic()
        try:
            while position < end:
                # consume(n) waits for n messages or the timeout: never ask for more than are left
                messages = self._consumer.consume(min(500, end - position), timeout=0.2)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENCE_S:
                    raise self._unanswered(topic, partition, f"silent for {SILENCE_S:.0f} s")
                for message in messages:
                    error = message.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            return
                        raise self._unanswered(topic, partition, error)
                    offset, (_, stamp) = message.offset(), message.timestamp()
                    if offset is None or offset >= end:
                        return
                    position = offset + 1
                    self._progress()
                    yield Record(
                        offset,
                        message.key(),
                        message.value(),
                        _headers(message.headers()),
                        stamp / 1000,
                    )
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _unanswered(self, topic: str, partition: int, error: KafkaError | str) -> BrokerError:
        why = said(self._kafka, error) if isinstance(error, KafkaError) else error
        return BrokerError(
            f"{self._bootstrap} does not answer about {topic} partition {partition}: {why}"
        )


def _headers(raw: object) -> Headers:
    if not isinstance(raw, list):
        return ()
    return tuple((name, b"" if value is None else bytes(value)) for name, value in raw)
