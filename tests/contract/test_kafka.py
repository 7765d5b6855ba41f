"""One suite for the log and the publisher on Kafka and for their fakes in `testing`."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from streamlearn.config import KafkaConfig
from streamlearn.runtime.log import KafkaLog, Log
from streamlearn.runtime.publisher import KafkaPublisher, Publisher
from streamlearn.testing import MemoryKafka, MemoryPublisher
from streamlearn.topics import Topics
from streamlearn.wire.cloud_events import Message


@dataclass
class Side:
    """A publisher and a log on the same topics, and the name of one of them."""

    publisher: Publisher
    log: Log
    topic: str


@pytest.fixture(params=["memory", "kafka"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "memory":
        memory = MemoryKafka()
        yield Side(MemoryPublisher(memory), memory, "state")
        return
    kafka: KafkaConfig = request.getfixturevalue("kafka")
    topics: Topics = request.getfixturevalue("topics")
    log = KafkaLog(kafka, group="contract")
    yield Side(KafkaPublisher(kafka, client_id="contract"), log, topics["state"].full_name)
    log.close()


def message(number: int, value: bytes | None = b"value") -> Message:
    return Message(b"key %d" % number, value, [("ce_n", b"%d" % number), ("ce_n", b"")])


def test_an_empty_partition(side: Side) -> None:
    assert side.log.watermarks(side.topic, 1) == (0, 0)
    assert side.log.committed(side.topic, 1) is None
    assert list(side.log.read(side.topic, 1, 0, 1 << 60)) == []
    assert side.publisher.flush() == {}


def test_what_was_flushed_is_read_back_in_order(side: Side) -> None:
    for number in range(5):
        side.publisher.send(side.topic, 1, message(number))
    side.publisher.send(side.topic, 2, message(9, None))
    taken = side.publisher.flush()
    one = taken[side.topic, 1]
    assert (one.first, one.last, one.count) == (0, 4, 5)
    assert one.continues(0) and not one.continues(1)
    assert side.log.watermarks(side.topic, 1) == (0, 5)
    records = list(side.log.read(side.topic, 1, 0, 1 << 60))
    assert [(r.offset, r.key, r.value) for r in records] == [
        (number, b"key %d" % number, b"value") for number in range(5)
    ]
    assert list(records[3].headers) == [("ce_n", b"3"), ("ce_n", b"")]
    [tombstone] = side.log.read(side.topic, 2, 0, 1 << 60)
    assert tombstone.value is None


def test_a_range_has_its_beginning_and_not_its_end(side: Side) -> None:
    for number in range(6):
        side.publisher.send(side.topic, 0, message(number))
    side.publisher.flush()
    assert [r.offset for r in side.log.read(side.topic, 0, 2, 4)] == [2, 3]
    assert [r.offset for r in side.log.read(side.topic, 0, 5, 4)] == []
    assert [r.offset for r in side.log.read(side.topic, 0, 4, 99)] == [4, 5]


def test_a_stranger_between_two_of_ours_is_noticed(side: Side) -> None:
    side.publisher.send(side.topic, 3, message(0))
    assert side.publisher.flush()[side.topic, 3].continues(0)
    side.publisher.send(side.topic, 3, message(1))  # as if another worker's
    side.publisher.flush()
    side.publisher.send(side.topic, 3, message(2))
    assert not side.publisher.flush()[side.topic, 3].continues(1)


def test_large_messages_come_through(side: Side) -> None:
    for number in range(3):
        side.publisher.send(side.topic, 0, message(number, bytes([number]) * 900_000))
    side.publisher.flush()
    sizes = [len(record.value or b"") for record in side.log.read(side.topic, 0, 0, 3)]
    assert sizes == [900_000] * 3


def test_a_topic_has_an_identity(side: Side) -> None:
    assert side.log.topic_id(side.topic) == side.log.topic_id(side.topic) != ""
