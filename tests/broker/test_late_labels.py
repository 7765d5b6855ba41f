"""Labels that come later than their events, on a real broker with a worker that is killed."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, Reason
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.child import ChildProcess
from streamlearn.runtime.log import KafkaLog
from streamlearn.topics import Topics
from streamlearn.wire import dead_letter_codec, event_codec, label_codec, update_codec
from tests.crash.world import frame

SETTINGS = LearnerSettings(random_features=20, step_events=4, late_labels=100)
PATIENCE_S = 90.0


@pytest.fixture
def worker(bootstrap: str, topics: Topics, tmp_path: Path) -> Iterator[ChildProcess]:
    env = {
        **os.environ,
        "STREAMLEARN_BOOTSTRAP": bootstrap,
        "STREAMLEARN_TOPICS__PREFIX": topics.prefix,
        "STREAMLEARN_WORKER__GROUP": topics.prefix + "workers",
        "STREAMLEARN_WORKER__METRICS_PORT": "0",
        "STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S": "3600",  # killed, it learns all of it again
        "STREAMLEARN_WORKER__INSTANCE": "one",
        "STREAMLEARN_WORKER__LATE_LABELS": "true",
        "STREAMLEARN_WORKER__STATE_DIR": str(tmp_path / "state"),
        "STREAMLEARN_LEARNER__RANDOM_FEATURES": str(SETTINGS.random_features),
        "STREAMLEARN_LEARNER__STEP_EVENTS": str(SETTINGS.step_events),
        "STREAMLEARN_LEARNER__LATE_LABELS": str(SETTINGS.late_labels),
    }
    command = [sys.executable, "-m", "streamlearn", "worker"]
    with ChildProcess("worker", command, env=env, log_file=tmp_path / "log") as process:
        yield process


def named(number: int) -> Frame:
    """A frame whose events have ids."""
    whole = frame("a", number)
    return replace(whole, event_ids=tuple(f"{number}.{row}" for row in range(len(whole))))


class Feeding:
    """Sends events without labels, then labels, into partition 1; watches what is published."""

    def __init__(self, bootstrap: str, log: KafkaLog, topics: Topics, worker_log: Path) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._log, self._topics, self._worker_log = log, topics, worker_log

    def events(self, number: int) -> None:
        whole = named(number)
        none = np.full(len(whole), -1, np.int32)
        value, headers = event_codec.encode(replace(whole, label_codes=none, label_values=()))
        topic = self._topics["events"].full_name
        self._producer.produce(topic, value, b"a", partition=1, headers=[*headers])
        assert self._producer.flush(30) == 0

    def label(self, event_id: str, label: str | int) -> None:
        message = label_codec.encode("a", event_id, label)
        self._producer.produce(
            self._topics["labels"].full_name, message.value, message.key, partition=1
        )
        assert self._producer.flush(30) == 0

    def labels(self, number: int) -> None:
        whole = named(number)
        for event_id, label in zip(whole.event_ids, whole.labels(), strict=True):
            assert label is not None
            self.label(event_id, label)

    def truth(self) -> StreamLearner:
        """A learner that reads the log of events once, uninterrupted."""
        learner = StreamLearner("a", SETTINGS)
        for r in self._log.read(self._topics["events"].full_name, 1, 0, 1 << 60):
            if label_codec.is_labels(r.headers):
                late, _ = label_codec.decode(r.value, r.key, r.headers)
                learner.learn_labels(late.event_ids, late.labels)
            else:
                learner.learn(event_codec.decode(r.value, r.key, r.headers, r.timestamp_s)[0])
        return learner

    def published(self) -> dict[int, str]:
        """Version to hash; every version has one."""
        found: dict[int, str] = {}
        for r in self._log.read(self._topics["updates"].full_name, 1, 0, 1 << 60):
            header = update_codec.decode(r.value, r.key, r.headers).header
            hash_ = found.setdefault(header.version, header.result_hash)
            assert hash_ == header.result_hash
        return found

    def reasons(self) -> list[Reason]:
        topic = self._topics["deadletters"].full_name
        records = self._log.read(topic, 0, 0, 1 << 60)
        return [dead_letter_codec.decode(r.value, r.key, r.headers).reason for r in records]

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, self._worker_log.read_text()
            time.sleep(0.1)

    def wait_for_labels(self, n: int) -> None:
        """Until n labelled events are learned and published."""

        def done() -> bool:
            truth = self.truth()
            return truth.prequential.n == n and truth.version in self.published()

        self.wait(done)


def test_late_labels_are_learned_once_whatever_happens(
    bootstrap: str, worker: ChildProcess, topics: Topics, kafka: KafkaConfig, tmp_path: Path
) -> None:
    log = KafkaLog(kafka, group="watcher")
    feeding = Feeding(bootstrap, log, topics, tmp_path / "log")
    sizes = [len(named(number)) for number in range(3)]
    feeding.events(0)
    feeding.wait(lambda: 1 in feeding.published())
    feeding.labels(0)
    feeding.wait_for_labels(sizes[0])
    feeding.events(1)
    feeding.label("stranger", "yes")
    feeding.wait(lambda: Reason.UNKNOWN_EVENT in feeding.reasons())

    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    while worker.exit_code is None:
        time.sleep(0.01)
    feeding.events(2)
    worker.start()
    feeding.wait(lambda: feeding.truth().version in feeding.published())
    feeding.labels(1)
    feeding.labels(0)  # again: known
    feeding.labels(2)
    feeding.wait_for_labels(sum(sizes))
    assert feeding.truth().version > 3  # a version each for frames, and for labels that taught

    truth, published = feeding.truth(), feeding.published()
    assert published[truth.version] == truth.model().hash
    assert set(feeding.reasons()) == {Reason.UNKNOWN_EVENT}
    log.close()
