"""Late labels in a worker: passed on, met in the events log, learned once, whatever crashes."""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, Reason
from streamlearn.runtime.late_labels import Forwarding
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.replay import Replay, Step
from streamlearn.runtime.rollback import Rollbacks
from streamlearn.runtime.trainer import Trainer
from streamlearn.stores.memory import MemoryStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import Clock, Crashed, CrashPoint, MemoryKafka, MemoryPublisher
from streamlearn.topics import load
from streamlearn.wire import dead_letter_codec, event_codec, label_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.dead_letter_codec import DeadLetter
from tests.crash.world import SETTINGS, frame

TOPICS = load(prefix="", partitions=2)
REMEMBERING = replace(SETTINGS, late_labels=50)


def bare(number: int, stream: str = "a") -> tuple[Frame, list[Message]]:
    """A frame without labels, and a message with the label of each of its events."""
    whole = frame(stream, number)
    ids = tuple(f"{number}.{row}" for row in range(len(whole)))
    labels = [
        label_codec.encode(stream, event_id, label)
        for event_id, label in zip(ids, whole.labels(), strict=True)
        if label is not None
    ]
    none = np.full(len(whole), -1, np.int32)
    return replace(whole, label_codes=none, label_values=(), event_ids=ids), labels


class Bench:
    """A worker on both partitions; messages are fed to the logs, and taken from there."""

    def __init__(self) -> None:
        self.kafka, self.clock, self.metrics = MemoryKafka(), Clock(1e9), WorkerMetrics()
        self.rows: dict[int, dict[bytes, bytes]] = {0: {}, 1: {}}
        self.read = {"events": [0, 0], "labels": [0, 0]}
        self.acknowledged = [0, 0]
        self.generation = 0
        self.start()

    def start(self) -> None:
        """A new process on the same disk: from the committed offsets."""
        self.effect: Callable[[str], None] = lambda name: None
        self.publisher = MemoryPublisher(self.kafka, self.clock)
        self.trainer = Trainer(
            REMEMBERING,
            TOPICS,
            worker_id="w",
            open_store=lambda number: MemoryStore(self.rows[number]),
            memory_budget_bytes=1 << 30,
            publisher=self.publisher,
            log=self.kafka,
            metrics=self.metrics,
            clock=self.clock,
            effect=lambda name: self.effect(name),
        )
        self.forwarding = Forwarding(TOPICS, publisher=self.publisher, metrics=self.metrics)
        self.generation += 1
        self.trainer.own([0, 1], self.generation)
        self.read["events"] = [self.kafka.offsets.get(("events", n), 0) for n in (0, 1)]
        self.read["labels"] = list(self.acknowledged)

    def feed(self, *frames: Frame, partition: int = 0) -> None:
        for one in frames:
            value, headers = event_codec.encode(one)
            message = Message(one.stream.encode(), value, headers)
            self.kafka.append("events", partition, message, self.clock())

    def label(self, *messages: Message, partition: int = 0) -> None:
        for message in messages:
            self.kafka.append("labels", partition, message, self.clock())

    def _new(self, topic: str, number: int) -> list[Arrival]:
        start = self.read[topic][number]
        records = list(self.kafka.read(topic, number, start, 1 << 60))
        self.read[topic][number] += len(records)
        return [Arrival(r.offset, r.key, r.value, r.headers, r.timestamp_s) for r in records]

    def work(self) -> None:
        """Pass all labels on, acknowledge them, learn all."""
        labels = [(n, m) for n in (0, 1) for m in self._new("labels", n)]
        self.forwarding.forward(labels)
        self.acknowledged = list(self.read["labels"])
        self.trainer.learn({n: self._new("events", n) for n in (0, 1)})

    def checkpoint(self) -> None:
        for number, offset in self.trainer.checkpoint().items():
            self.kafka.offsets["events", number] = offset + 1

    def dead(self) -> list[DeadLetter]:
        records = self.kafka.read("deadletters", 0, 0, 999)
        return [dead_letter_codec.decode(r.value, r.key, r.headers) for r in records]

    def counted(self, result: str) -> float | None:
        name = "streamlearn_late_labels_total"
        return self.metrics.registry.get_sample_value(name, {"result": result})

    def hash(self, name: str) -> str:
        return self.trainer.learned()[name].hash

    def truth(self, name: str, partition: int = 0) -> StreamLearner:
        """The log of events, read once by a learner of its own."""
        learner = StreamLearner(name, REMEMBERING)
        for r in self.kafka.read("events", partition, 0, 1 << 60):
            if r.key != name.encode():
                continue
            if label_codec.is_labels(r.headers):
                late, _ = label_codec.decode(r.value, r.key, r.headers)
                learner.learn_labels(late.event_ids, late.labels)
            else:
                learner.learn(event_codec.decode(r.value, r.key, r.headers, r.timestamp_s)[0])
        return learner


def test_labels_are_passed_on_and_learned_once() -> None:
    bench = Bench()
    frames = [bare(number) for number in range(4)]
    for events, labels in frames:
        bench.feed(events)
        bench.work()
        bench.label(*labels, labels[0])
        bench.work()
    n = sum(len(events) for events, _ in frames)
    truth = bench.truth("a")
    assert bench.hash("a") == truth.model().hash and truth.prequential.n == n
    assert (bench.counted("learned"), bench.counted("repeated")) == (n, 4)
    assert bench.dead() == []
    sample = bench.metrics.registry.get_sample_value
    assert sample("streamlearn_events_total", {"stream": "a"}) == n
    assert sample("streamlearn_labelled_total", {"stream": "a"}) == n


def test_unknown_events_and_no_labels_become_dead_letters() -> None:
    bench = Bench()
    events, labels = bare(0)
    bench.feed(events)
    bench.work()
    stranger = label_codec.encode("a", "stranger", "yes")
    bench.label(stranger, Message(b"a", b'{"label": 1}', []), Message(None, labels[0].value, []))
    bench.label(labels[0], partition=1)  # where the stream has no events
    bench.work()
    letters = {(d.topic, d.partition, d.reason) for d in bench.dead()}
    assert letters == {
        ("events", 0, Reason.UNKNOWN_EVENT),
        ("labels", 0, Reason.WRONG_TYPE),
        ("labels", 0, Reason.NO_STREAM),
        ("events", 1, Reason.UNKNOWN_EVENT),
    }
    assert json.loads(bench.dead()[2].value or b"")["event_id"] == "stranger"
    assert not bench.counted("learned")
    bench.label(*labels)
    bench.work()
    assert bench.counted("learned") == len(events)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_crashes_the_log_decides(seed: int) -> None:
    """Crashes between any effects; labels that were passed on and not acknowledged come again."""
    rng = random.Random(seed)
    bench = Bench()
    waiting: list[Message] = []
    for number in range(12):
        events, labels = bare(number)
        bench.feed(events)
        waiting += labels
        rng.shuffle(waiting)
        bench.label(*waiting[:4])
        del waiting[:4]
        if rng.random() < 0.6:
            bench.effect = CrashPoint(rng.randint(1, 9))
        try:
            if rng.random() < 0.3:  # passed on, and ended before it was acknowledged
                bench.forwarding.forward([(0, m) for m in bench._new("labels", 0)])
                raise Crashed
            bench.work()
            bench.checkpoint()
        except Crashed:
            bench.publisher.die(rng)
            if rng.random() < 0.5:
                bench.rows = {0: {}, 1: {}}  # on another disk
            bench.start()
    bench.work()
    truth = bench.truth("a")
    assert bench.hash("a") == truth.model().hash
    assert truth.prequential.n > 10
    replay = Replay(
        "a", REMEMBERING, partition=0, rollbacks=Rollbacks(bench.kafka, "events", verifier=None)
    )
    steps = [replay.take(r) for r in bench.kafka.read("events", 0, 0, 1 << 60)]
    assert replay.learner.model().hash == truth.model().hash
    made = [step for step in steps if isinstance(step, Step)]
    assert [step.version for step in made] == list(range(1, truth.version + 1))
    assert sum(step.n_labelled for step in made) == truth.prequential.n
