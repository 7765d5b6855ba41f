"""A worker that is stuck ends itself; one that only waits does not."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.runtime import admin
from streamlearn.runtime.broker import LocalBroker
from streamlearn.runtime.kafka_launch import can_use_java
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from tests.broker.running import PATIENCE_S, Running
from tests.broker.running import worker as usual_worker

pytestmark = pytest.mark.timeout(900)
STUCK_S, DEADLINE_S = 4.0, 12.0  # deadlines of who is stuck, and of who only waits
WEDGED = {"thread", "agent", "loop", "own"}


@contextmanager
def worker(
    kafka: KafkaConfig, topics: Topics, folder: Path, how: str = "", deadline_s: float = DEADLINE_S
) -> Iterator[Running]:
    """A worker with a short deadline; `how` wedges it, or slows it down."""
    deadline = STUCK_S if how in WEDGED else deadline_s
    with usual_worker(
        kafka.bootstrap,
        topics.prefix,
        folder,
        settings={"STREAMLEARN_WORKER__STALL_DEADLINE_S": str(deadline)},
        program=["tests.crash.wedged", how] if how else ["streamlearn"],
    ) as started:
        yield started


class Feed:
    """One event at a time to partition 0, as often as asked."""

    def __init__(self, kafka: KafkaConfig, topics: Topics) -> None:
        self.sent = 0
        self._events = topics["events"].full_name
        self._producer = Producer({**kafka.client_settings(), "log_level": 0})
        self._log = KafkaLog(kafka, group=topics.prefix + "group")

    def send(self, streams: int = 1) -> None:
        for stream in range(streams):
            value = b'{"x": %d, "label": "a"}' % self.sent
            self._producer.produce(self._events, value, f"s{stream}", partition=0)
            self.sent += 1
        assert self._producer.flush(PATIENCE_S) == 0

    def send_in_a_transaction(self, kafka: KafkaConfig, running: Running) -> None:
        """One event, learned; after it lies an offset without a message."""
        producer = Producer({**kafka.client_settings(), "transactional.id": self._events})
        producer.init_transactions()
        producer.begin_transaction()
        producer.produce(self._events, b'{"x": 1, "label": "a"}', "s0", partition=0)
        producer.commit_transaction()
        self.sent += 1
        self.wait_until_learned(running)
        self.sent += 1

    def wait_until_learned(self, running: Running) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._log.committed(self._events, 0) != self.sent:
            assert running.process.poll() is None and time.monotonic() < deadline, running.said()
            time.sleep(0.1)


@pytest.mark.parametrize("how", sorted(WEDGED))
def test_a_stuck_worker_ends_itself_and_the_next_one_goes_on(
    how: str, kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    feed = Feed(kafka, topics)
    with worker(kafka, topics, tmp_path, how) as running:
        deadline = time.monotonic() + PATIENCE_S
        while running.process.poll() is None:
            assert time.monotonic() < deadline, running.said()
            feed.send()
            time.sleep(0.3)
        said = running.said()
        assert running.process.wait() == 1, said
        last = said.splitlines()[-1]
        assert "nothing was learned for" in last and "ended, so that it is started again" in last
        assert "most recent call first" in said  # where its threads stood
    with worker(kafka, topics, tmp_path, deadline_s=60.0) as running:
        feed.wait_until_learned(running)
        running.process.terminate()
        assert running.process.wait(60) == 0, running.said()


def test_a_worker_that_fails_acknowledges_only_what_it_has_learned(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    feed = Feed(kafka, topics)
    feed.send(streams=200)  # most still wait in Faust's buffers when it fails
    with worker(kafka, topics, tmp_path, "fails") as running:
        assert running.process.wait(PATIENCE_S) == 1, running.said()
        assert running.said().splitlines()[-1] == "streamlearn: the disk is full"
        assert "Traceback" not in running.said()
    with worker(kafka, topics, tmp_path) as running:  # which stops where the group went too far
        feed.wait_until_learned(running)
        running.process.terminate()
        assert running.process.wait(60) == 0, running.said()


def test_idle_or_slow_to_restore_is_not_stuck(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    feed = Feed(kafka, topics)
    with worker(kafka, topics, tmp_path) as running:
        feed.send(streams=40)
        feed.wait_until_learned(running)
        feed.send_in_a_transaction(kafka, running)
        time.sleep(1.5 * DEADLINE_S)  # idle
        feed.send()
        feed.wait_until_learned(running)
        running.process.terminate()
        assert running.process.wait(60) == 0, running.said()
    (tmp_path / "state").rename(tmp_path / "old")
    feed.send()  # it waits during the restore
    with worker(kafka, topics, tmp_path, "slow") as running:
        begun = time.monotonic()
        feed.wait_until_learned(running)
        assert time.monotonic() - begun > DEADLINE_S  # else it tested nothing


def test_a_broker_that_is_away_for_long_is_waited_for(tmp_path: Path) -> None:
    if not can_use_java():
        pytest.skip("needs Java and Maven, for a broker that may be killed")
    with LocalBroker(data_dir=tmp_path / "kafka") as broker:
        kafka = KafkaConfig(bootstrap=broker.bootstrap)
        topics = topic_specs.load(prefix="t.", partitions=4)
        admin.apply(kafka, topics)
        feed = Feed(kafka, topics)
        with worker(kafka, topics, tmp_path) as running:
            feed.send()
            feed.wait_until_learned(running)
            broker.kill9()
            time.sleep(1.5 * DEADLINE_S)
            broker.restart()
            feed.send()
            feed.wait_until_learned(running)
            running.process.terminate()
            assert running.process.wait(60) == 0, running.said()
