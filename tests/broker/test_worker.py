"""The worker as a process on a real broker: bad messages, metrics, and how it ends."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streamlearn import topics as topic_specs
from streamlearn.config import Config, KafkaConfig, TopicsConfig, WorkerConfig
from streamlearn.errors import ConfigError
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.connection import IDEMPOTENT
from streamlearn.runtime.log import KafkaLog
from streamlearn.runtime.worker import run
from streamlearn.topics import Topics
from streamlearn.wire import dead_letter_codec, metrics_codec
from tests.broker.running import worker

PATIENCE_S = 120.0


@pytest.fixture
def mortal() -> Iterator[LocalBroker]:
    """A broker with topics "t.*" that may be killed: no other test has it."""
    with LocalBroker() as broker:
        admin.apply(broker.kafka, topic_specs.load(prefix="t.", partitions=4))
        yield broker


def test_bad_messages_cost_nothing_but_themselves(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    producer = Producer({**kafka.client_settings(), **IDEMPOTENT, "message.max.bytes": 60 << 20})
    events = topics["events"].full_name

    def good(number: int) -> bytes:
        return json.dumps({"x": number, "label": "ab"[number % 2]}).encode()

    with worker(kafka.bootstrap, topics.prefix, tmp_path) as running:
        log = KafkaLog(kafka, group=topics.prefix + "group")
        for number in range(20):
            producer.produce(events, good(number), "s", partition=0)
            if number == 10:
                for bad in (b"\xff\x00", b"", b'{"label": "a"}', bytes(50 << 20)):
                    producer.produce(events, bad, "s", partition=0)
        assert producer.flush(60) == 0
        deadline = time.monotonic() + PATIENCE_S
        while log.committed(events, 0) != 24:
            assert running.process.poll() is None and time.monotonic() < deadline, running.said()
            time.sleep(0.1)
        records = log.read(topics["deadletters"].full_name, 0, 0, 99)
        dead = [dead_letter_codec.decode(r.value, r.key, r.headers) for r in records]
        assert [(letter.reason.value, letter.offset) for letter in dead] == [
            ("undecodable", 11),
            ("empty_frame", 12),
            ("no_features", 13),
            ("too_large", 14),
        ]
        assert dead[3].cut_from == 50 << 20
        url = running.wait_until_said(r"http://\S+/metrics")[0]
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        assert 'streamlearn_events_total{stream="s"} 20.0' in text
        assert 'streamlearn_dead_letters_total{reason="too_large"} 1.0' in text
        while not (record := list(log.read(topics["metrics"].full_name, 0, 0, 1))):
            assert time.monotonic() < deadline, running.said()
            time.sleep(0.1)
        samples = metrics_codec.decode(record[0].value)
        assert "streamlearn_events_total" in {sample.name for sample in samples}
        log.close()
        running.process.terminate()
        assert running.process.wait(15) == 0, running.said()


def test_sigterm_ends_it_in_time_though_no_broker_answers(
    mortal: LocalBroker, tmp_path: Path
) -> None:
    with worker(mortal.bootstrap, "t.", tmp_path) as running:
        running.wait_until_said("partition 3: epoch")
        mortal.kill9()
        running.process.terminate()
        assert running.process.wait(15) == 1
        assert "nothing is lost" in running.said()


def test_a_broker_that_goes_away_while_it_starts_is_its_last_word(
    mortal: LocalBroker, tmp_path: Path
) -> None:
    with worker(mortal.bootstrap, "t.", tmp_path) as running:
        running.wait_until_said("warming up")
        mortal.kill9()
        assert running.process.wait(PATIENCE_S) == 1
        last = running.said().splitlines()[-1]
        assert "stopped by itself: " in last and str(mortal.port) in last, running.said()


def test_missing_topics_are_named_with_the_remedy(kafka: KafkaConfig, tmp_path: Path) -> None:
    with worker(kafka.bootstrap, "nowhere.", tmp_path) as running:
        assert running.process.wait(PATIENCE_S) == 1
        assert "nowhere.events is missing" in running.said()
        assert "streamlearn topics apply" in running.said()
        assert "Traceback" not in running.said()


def test_a_folder_or_port_that_cannot_be_had_is_named_with_the_remedy(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    def end(**settings: object) -> str:
        where = TopicsConfig(prefix=topics.prefix)
        with pytest.raises(ConfigError) as stopped:
            run(Config(kafka=kafka, topics=where, worker=WorkerConfig.model_validate(settings)))
        return str(stopped.value)

    (tmp_path / "file").touch()
    said = end(state_dir=tmp_path / "file", group="a/../b", metrics_port=0)
    assert f"{topics.prefix}a%2F..%2Fb cannot be made or written: Not a directory" in said
    assert "--state-dir" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = end(state_dir=tmp_path / "state", metrics_port=taken.getsockname()[1])
    assert "Address already in use" in said and "--metrics-port" in said
