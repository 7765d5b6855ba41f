"""Topics that are deleted and made anew under a worker's feet, on a real broker."""

import time
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from streamlearn import Subscriber
from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import StreamlearnError
from streamlearn.runtime import admin
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from streamlearn.wire import event_codec
from tests.broker.running import PATIENCE_S, worker

pytestmark = pytest.mark.timeout(900)
FEATURES = 3


class Installation:
    """Topics of a test's own, one stream in partition 1, and what it should know."""

    def __init__(self, kafka: KafkaConfig, topics: Topics) -> None:
        self.kafka, self.topics = kafka, topics
        self.events = topics["events"].full_name
        self.log = KafkaLog(kafka, group=topics.prefix + "group")
        self.truth = self.new_learner()
        self._producer = Producer({**kafka.client_settings(), "log_level": 0})
        self._sent = 0

    def new_learner(self) -> StreamLearner:
        return StreamLearner("s", LearnerSettings(random_features=FEATURES))

    def send(self, events: int) -> None:
        for _ in range(events):
            value = b'{"x": %d, "label": "%s"}' % (self._sent, (b"a", b"b")[self._sent % 2])
            self._sent += 1
            at_ms = int(time.time() * 1000)
            self._producer.produce(self.events, value, "s", partition=1, timestamp=at_ms)
            self.truth.learn(event_codec.decode(value, b"s", [], at_ms / 1000)[0])
        assert self._producer.flush(PATIENCE_S) == 0

    def make_anew(self, name: str) -> None:
        """Delete the topic and create it again."""
        topic, deadline = self.topics[name].full_name, time.monotonic() + PATIENCE_S
        old = new = self.log.topic_id(topic)
        client = AdminClient({**self.kafka.client_settings(), "log_level": 0})
        client.delete_topics([topic])[topic].result()
        while new == old:
            assert time.monotonic() < deadline
            time.sleep(0.2)
            with suppress(StreamlearnError):  # the broker has not forgotten it yet
                admin.apply(self.kafka, self.topics)
                new = self.log.topic_id(topic)

    def learn(self, folder: Path, *flags: str) -> str:
        """A worker learns all that waits and is stopped; what it said."""
        with worker(self.kafka.bootstrap, self.topics.prefix, folder, *flags) as running:
            deadline = time.monotonic() + PATIENCE_S
            while self.log.committed(self.events, 1) != self.log.watermarks(self.events, 1)[1]:
                assert running.process.poll() is None, running.said()
                assert time.monotonic() < deadline, running.said()
                time.sleep(0.1)
            running.process.terminate()
            assert running.process.wait(60) == 0, running.said()
            return running.said()

    def refused(self, folder: Path, *flags: str) -> str:
        """The last line of a worker that stopped by itself."""
        with worker(self.kafka.bootstrap, self.topics.prefix, folder, *flags) as running:
            assert running.process.wait(PATIENCE_S) == 1, running.said()
            return running.said().splitlines()[-1]

    def published(self) -> str:
        """The hash that a subscriber gets to, that starts now."""
        with Subscriber(self.kafka, topic_prefix=self.topics.prefix) as subscriber:
            return subscriber.wait_for("s", self.truth.version).current.hash


@pytest.mark.parametrize("flag", ["--accept-gap", "--from-earliest"])
def test_an_events_topic_made_anew(
    flag: str, kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    here = Installation(kafka, topics)
    here.send(9)
    here.learn(tmp_path)
    here.make_anew("events")
    if flag == "--from-earliest":
        here.truth = here.new_learner()
    here.send(12)
    last = here.refused(tmp_path)
    assert "made anew" in last and flag in last
    said = here.learn(tmp_path, flag)
    assert f"{flag}: partition 1" in said and "offset 0" in said
    assert here.published() == here.truth.model().hash
    here.send(2)
    here.learn(tmp_path)
    assert here.published() == here.truth.model().hash


def test_a_state_topic_and_a_disk_that_are_gone_cost_nothing_while_the_log_is_whole(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    here = Installation(kafka, topics)
    here.send(9)
    here.learn(tmp_path)
    here.make_anew("state")
    (tmp_path / "lost").mkdir()
    (tmp_path / "state").rename(tmp_path / "lost" / "state")
    here.send(2)
    last = here.refused(tmp_path)
    assert "states cover only the events before 0" in last and "nothing is left out" in last
    with worker(kafka.bootstrap, topics.prefix, tmp_path / "lost") as other:
        other.process.wait(PATIENCE_S)  # its store knows the old topic
        assert "made anew since this worker's store" in other.said()
    here.learn(tmp_path, "--accept-gap")
    assert here.published() == here.truth.model().hash  # an epoch that subscribers hear


def test_forgetting_is_refused_while_another_worker_of_the_group_runs(
    kafka: KafkaConfig, topics: Topics, tmp_path: Path
) -> None:
    here = Installation(kafka, topics)
    here.send(3)
    (tmp_path / "other").mkdir()
    with worker(kafka.bootstrap, topics.prefix, tmp_path / "other") as running:
        running.wait_until_said("partition 3: epoch")
        assert "stop all its workers first" in here.refused(tmp_path, "--from-earliest")
        assert running.process.poll() is None
