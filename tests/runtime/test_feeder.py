"""The feeder against a real broker: what it says it sent is what lies on the topic, in order."""

import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from streamlearn.config import KafkaConfig
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError, InputError
from streamlearn.runtime import outbox, packing
from streamlearn.runtime.broker import free_port
from streamlearn.runtime.feeder import Counts, Feeder
from streamlearn.topics import Topics
from streamlearn.wire import event_codec, image_codec
from tests.wire.pictures import file_of


def on_the_topic(kafka: KafkaConfig, topic: str, partitions: int) -> Iterator[tuple[int, Frame]]:
    """Every frame from the start to the end: (partition, frame)."""
    consumer = Consumer(
        kafka.client_settings() | {"group.id": "t", "enable.partition.eof": True, "log_level": 0}
    )
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
        ended = set[int | None]()
        while len(ended) < partitions:
            message = consumer.poll(10.0)
            assert message is not None, "the topic did not answer"
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
                continue
            frame, rejected = event_codec.decode(message.value(), message.key(), None, 0.0)
            assert not rejected
            yield message.partition() or 0, frame
    finally:
        consumer.close()


def numbers_by_stream(kafka: KafkaConfig, topics: Topics) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for _, frame in on_the_topic(kafka, topics["events"].full_name, 4):
        found[frame.stream] += frame.numbers[:, 0].tolist()
    return found


def test_all_events_arrive_once_and_in_order(kafka: KafkaConfig, topics: Topics) -> None:
    streams = [f"s{i}" for i in range(5)]
    with Feeder(kafka, topic_prefix=topics.prefix, frame_events=7, linger_ms=10_000) as feeder:
        for number in range(100):
            for stream in streams:
                feeder.send(stream, {"n": number}, label=number % 3, event_id=f"{stream}/{number}")
        counts = feeder.flush()
    assert counts == Counts(sent=500, acknowledged=500, failed=0, frames=5 * 15)
    assert numbers_by_stream(kafka, topics) == {s: list(map(float, range(100))) for s in streams}


def test_frames_hold_what_was_sent(kafka: KafkaConfig, topics: Topics) -> None:
    with Feeder(kafka, topic_prefix=topics.prefix, linger_ms=10_000) as feeder:
        feeder.send("s", {"a": 1, "t": "x"}, label="ok", event_id="e1", event_time=5.0)
        feeder.send("s", {"a": 2}, event_time="1970-01-01T00:00:06")
    [(_, frame)] = on_the_topic(kafka, topics["events"].full_name, 4)
    assert frame.labels() == ("ok", None)
    assert frame.event_ids[0] == "e1"
    assert frame.event_time_s.tolist() == [5.0, 6.0]
    assert frame.texts == {"t": ("x", None)}


def test_the_linger_sends_what_is_not_full(kafka: KafkaConfig, topics: Topics) -> None:
    arrived = threading.Event()
    with Feeder(kafka, topic_prefix=topics.prefix, linger_ms=1) as feeder:
        feeder.send("s", {"a": 1})
        while feeder.counts.acknowledged < 1:  # nobody flushes; pytest's timeout ends a failure
            arrived.wait(0.01)
        assert feeder.counts.frames == 1


def test_threads_may_share_a_feeder(kafka: KafkaConfig, topics: Topics) -> None:
    with Feeder(kafka, topic_prefix=topics.prefix, frame_events=16, linger_ms=1) as feeder:

        def feed(stream: str) -> None:
            for number in range(500):
                feeder.send(stream, {"n": number})

        threads = [threading.Thread(target=feed, args=(f"s{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert feeder.flush().acknowledged == 2000
    expected = {f"s{i}": list(map(float, range(500))) for i in range(4)}
    assert numbers_by_stream(kafka, topics) == expected


def test_large_frames_are_halved_until_they_fit(
    kafka: KafkaConfig, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_PART_BYTES", 4096)
    n = 1000
    frame = Frame(
        stream="s",
        columns=("n",),
        numbers=np.arange(n, dtype=np.float64)[:, None],
        label_codes=np.zeros(n, np.int32),
        label_values=("a",),
        event_time_s=np.zeros(n),
    )
    with Feeder(kafka, topic_prefix=topics.prefix) as feeder:
        feeder.send_frame(frame)
        counts = feeder.flush()
    assert counts.acknowledged == n and counts.frames > 4
    assert numbers_by_stream(kafka, topics)["s"] == list(map(float, range(n)))


@pytest.mark.parametrize("limit", ["bytes", "pixels"])
def test_frames_of_large_images_are_halved(
    kafka: KafkaConfig, topics: Topics, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    rng = np.random.default_rng(0)
    files = [file_of(rng.integers(0, 256, (30, 40), dtype=np.uint8)) for _ in range(64)]
    if limit == "bytes":
        monkeypatch.setattr(packing, "MAX_PART_BYTES", 10 * len(files[0]))
    else:
        monkeypatch.setattr(image_codec, "MAX_FRAME_PIXELS", 10 * 30 * 40)
    pictures = image_codec.column_of([image_codec.read(raw) for raw in files])
    bare, times = np.full(64, -1, np.int32), np.arange(64.0)
    frame = Frame("s", (), np.zeros((64, 0)), bare, (), times, images={"i": pictures})
    with Feeder(kafka, topic_prefix=topics.prefix) as feeder:
        feeder.send_frame(frame)
        for at, raw in enumerate(files):
            feeder.send("t", {"i": raw}, event_time=at)
    topic = topics["events"]
    for stream in "st":
        found = [
            one
            for _, one in on_the_topic(kafka, topic.full_name, topic.partitions)
            if one.stream == stream
        ]
        assert max(map(len, found)) <= 10 and len(found) >= 7
        assert [raw for one in found for raw in one.images["i"].raw] == files


def test_a_frame_comes_after_the_events_before_it(kafka: KafkaConfig, topics: Topics) -> None:
    with Feeder(kafka, topic_prefix=topics.prefix, linger_ms=10_000) as feeder:
        feeder.send("s", {"n": 0})
        feeder.send_frame(
            Frame("s", ("n",), np.ones((1, 1)), np.full(1, -1, np.int32), (), np.zeros(1))
        )
        feeder.send("s", {"n": 2})
    assert numbers_by_stream(kafka, topics) == {"s": [0.0, 1.0, 2.0]}


def test_a_bad_event_costs_nothing_but_itself(kafka: KafkaConfig, topics: Topics) -> None:
    with Feeder(kafka, topic_prefix=topics.prefix, linger_ms=10_000) as feeder:
        feeder.send("s", {"n": 0})
        with pytest.raises(InputError, match="whole number"):
            feeder.send("s", {"n": 1}, label=0.5)
        with pytest.raises(InputError, match="stream's name"):
            feeder.send("", {"n": 1})
        feeder.send("s", {"n": 2})
        assert feeder.flush() == Counts(sent=2, acknowledged=2, failed=0, frames=1)


def test_errors_name_the_remedy(kafka: KafkaConfig, topics: Topics) -> None:
    with pytest.raises(BrokerError, match="streamlearn broker"):
        Feeder(f"127.0.0.1:{free_port()}", connect_timeout_s=0.5)
    with pytest.raises(BrokerError, match="streamlearn topics apply"):
        Feeder(kafka, topic_prefix="not.there.")
    feeder = Feeder(kafka, topic_prefix=topics.prefix)
    feeder.close()
    feeder.close()
    with pytest.raises(BrokerError, match="closed"):
        feeder.send("s", {"n": 1})


def test_the_blocks_own_error_is_the_one_that_is_seen(kafka: KafkaConfig, topics: Topics) -> None:
    def feed_and_fail() -> None:
        with Feeder(kafka, topic_prefix=topics.prefix, linger_ms=10_000) as feeder:
            feeder.send("s", {"n": 7})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        feed_and_fail()
    assert numbers_by_stream(kafka, topics) == {"s": [7.0]}


class Interrupting(Producer):
    """Each delivery report is a moment at which somebody presses Ctrl-C."""

    def produce(self, *args: Any, **options: Any) -> None:
        report = options.pop("callback")

        def interrupted(*what: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            report(*what)

        super().produce(*args, callback=interrupted, **options)


def test_ctrl_c_inside_a_delivery_report_is_just_that(
    kafka: KafkaConfig, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "Producer", Interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def feed_patiently() -> None:
        with Feeder(kafka, topic_prefix=topics.prefix, linger_ms=10_000) as feeder:
            feeder.send("s", {"n": 7})
            feeder.flush()
            threading.Event().wait(30)  # the report comes in another thread

    try:
        with pytest.raises(KeyboardInterrupt):
            feed_patiently()
    finally:
        signal.signal(signal.SIGINT, before)
    assert numbers_by_stream(kafka, topics) == {"s": [7.0]}


def test_a_feeder_that_is_never_closed_loses_nothing(kafka: KafkaConfig, topics: Topics) -> None:
    program = (
        "from streamlearn import Feeder\n"
        f"feeder = Feeder({kafka.bootstrap!r}, topic_prefix={topics.prefix!r}, linger_ms=1e6)\n"
        "feeder.send('s', {'n': 7})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert numbers_by_stream(kafka, topics) == {"s": [7.0]}
