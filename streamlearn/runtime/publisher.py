"""Sends what a worker has to say; `flush` returns when the broker has all of it.

One producer a worker, used from the learning thread only. Idempotent with acks=all, so retries
neither duplicate nor reorder; the partition is always given, so that what belongs to a stream
stays in the partition number that its events came from.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime.connection import IDEMPOTENT, SILENT, said, wait_for_reports
from streamlearn.wire import cloud_events as wire

TopicPartition: TypeAlias = tuple[str, int]

_SLICE_S = 0.2  # how often a flush looks whether it should give up


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What the broker took of one partition since the last flush."""

    first: int  # offsets
    last: int
    count: int

    def continues(self, offset: int) -> bool:
        """Whether these are the messages from `offset` on, and nobody else's came between."""
        return self.first == offset and self.last - self.first + 1 == self.count


def and_one(before: Acknowledged | None, offset: int | None) -> Acknowledged:
    """One message more. A broker that got it twice, as its first answer was late, may not say where
    it is (None): then nobody knows whether others wrote between, and nothing continues.

    >>> and_one(and_one(None, 7), 8).continues(7)
    True
    >>> and_one(and_one(None, 7), None).continues(7), and_one(None, None).continues(0)
    (False, False)
    """
    offset = -1 if offset is None else offset
    if before is None:
        return Acknowledged(offset, offset, 1)
    return Acknowledged(min(before.first, offset), max(before.last, offset), before.count + 1)


class Publisher(Protocol):
    """What learning and checkpoints send with: Kafka's, or the one in `testing`."""

    def send(
        self,
        topic: str,
        partition: int,
        message: wire.Message,
        *,
        vital: bool = True,
    ) -> None:
        """Hand one message over (no value: a tombstone). What is not vital may get lost."""

    def flush(self) -> Mapping[TopicPartition, Acknowledged]:
        """Block until all is acknowledged; BrokerError if anything vital was not."""


class KafkaPublisher:
    """The publisher on Kafka. `give_up` may be set from any thread: it ends a waiting flush.

    `progress` is called with each acknowledgement; `waiting`: they are waited for just now.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        client_id: str,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.give_up = threading.Event()
        self.waiting = False
        self._progress = progress
        self._kafka = kafka
        self._bootstrap = kafka.bootstrap
        self._acknowledged: dict[TopicPartition, Acknowledged] = {}
        self._failed: KafkaError | None = None
        self._producer = KafkaProducer(
            {
                **kafka.client_settings(),
                "client.id": client_id,
                **IDEMPOTENT,
                "linger.ms": 0,  # a flush follows
                "queue.buffering.max.kbytes": 128 << 10,
                "message.max.bytes": 2 << 20,  # chunks are at most 900 KiB
                "compression.type": "none",  # values come compressed
                "log_level": 0,
                "logger": SILENT,
            }
        )

    def send(
        self,
        topic: str,
        partition: int,
        message: wire.Message,
        *,
        vital: bool = True,
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    value=message.value,
                    key=message.key,
                    partition=partition,
                    headers=[*message.headers],
                    on_delivery=self._on_delivery if vital else None,
                )
            except BufferError:  # the queue is full: wait for room
                self._check()
                self._serve(lambda: self._producer.poll(_SLICE_S))
            except KafkaException as error:
                raise BrokerError(f"{topic} cannot take a message: {error}") from error
            else:
                self._serve(lambda: self._producer.poll(0))
                return

    def flush(self) -> Mapping[TopicPartition, Acknowledged]:
        while self._serve(lambda: wait_for_reports(self._producer, _SLICE_S)) > 0:
            self._check()
        self._check()
        taken, self._acknowledged = self._acknowledged, {}
        return taken

    def _serve(self, wait: Callable[[], int]) -> int:
        """Wait for acknowledgements; BrokerError where the producer is at its end."""
        self.waiting = True
        try:
            return wait()
        except KafkaException as error:
            raise BrokerError(
                f"nothing more can be sent to {self._bootstrap}: {said(self._kafka, error.args[0])}"
            ) from error
        finally:
            self.waiting = False

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = error
            return
        self._progress()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None:
            raise BrokerError("a message was acknowledged that was never sent anywhere")
        before = self._acknowledged.get((topic, partition))
        self._acknowledged[topic, partition] = and_one(before, offset)

    def _check(self) -> None:
        if self._failed is not None:
            raise BrokerError(
                f"the broker at {self._bootstrap} did not take a message: "
                f"{said(self._kafka, self._failed)}; "
                "nothing was acknowledged, so a restarted worker learns it again"
            )
        if self.give_up.is_set() and len(self._producer) > 0:
            raise BrokerError(
                f"the broker at {self._bootstrap} does not answer and the worker has to stop; "
                "nothing was acknowledged, so the next worker learns it again"
            )
