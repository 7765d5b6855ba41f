"""Which events labels are asked for, when, and by whom it is read."""

from dataclasses import replace

import numpy as np

from streamlearn.core.ask import ask
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime import recent
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.recent import waiting
from streamlearn.runtime.trainer import Trainer
from streamlearn.stores.memory import MemoryStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import Clock, MemoryKafka, MemoryPublisher
from streamlearn.topics import load
from streamlearn.wire import event_codec, label_codec, request_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.request_codec import LabelRequests

TOPICS = load(prefix="", partitions=1)
SETTINGS = LearnerSettings(random_features=8, step_events=16, late_labels=400)


def events(first: int, n: int, *, labelled: bool = False) -> Frame:
    """Events `first`.. of stream "s": three classes around three corners, ids by number."""
    rng = np.random.default_rng(first)
    codes = rng.integers(3, size=n).astype(np.int32)
    x = rng.normal(size=(n, 2)) + 4 * np.eye(3, 2)[codes]
    ids = tuple(f"e{i}" for i in range(first, first + n))
    times = 1e9 + first + np.arange(n, dtype=np.float64)
    whole = Frame("s", ("x", "y"), x, codes, ("a", "b", "c"), times, event_ids=ids)
    return whole if labelled else unlabelled(whole)


def unlabelled(frame: Frame) -> Frame:
    return replace(frame, label_codes=np.full(len(frame), -1, np.int32), label_values=())


def message(frame: Frame) -> Message:
    value, headers = event_codec.encode(frame)
    return Message(b"s", value, headers)


class Bench:
    """A worker that asks; frames go through the log."""

    def __init__(self, n: int) -> None:
        self.kafka, self.clock, self.metrics = MemoryKafka(), Clock(1e9), WorkerMetrics()
        self.trainer = Trainer(
            SETTINGS,
            TOPICS,
            worker_id="w",
            open_store=lambda number: MemoryStore({}),
            memory_budget_bytes=1 << 30,
            publisher=MemoryPublisher(self.kafka, self.clock),
            log=self.kafka,
            metrics=self.metrics,
            clock=self.clock,
            label_requests=n,
        )
        self.trainer.own([0], 1)

    def feed(self, *messages: Message) -> None:
        arrivals = []
        for m in messages:
            offset = self.kafka.append("events", 0, m, self.clock())
            arrivals.append(Arrival(offset, m.key, m.value, m.headers, self.clock()))
        self.trainer.learn({0: arrivals})

    def asked(self) -> list[LabelRequests]:
        records = self.kafka.read("label-requests", 0, 0, 999)
        return [request_codec.decode(r.value, r.key, r.headers) for r in records]


def feed_life(bench: Bench, *, together: bool) -> None:
    frames = [events(0, 30, labelled=True)]
    frames += [events(30 + 45 * k, 45) for k in range(9)]
    if together:
        bench.feed(*map(message, frames))
    else:
        for frame in frames:
            bench.feed(message(frame))


def test_requests_follow_from_the_count_of_events() -> None:
    bench = Bench(3)
    feed_life(bench, together=False)
    asked = bench.asked()
    total = 30 + 9 * 45
    assert [len(a.requests) for a in asked] == [3] * (total // 100)
    for k, one in enumerate(asked):
        numbers = [int(r.event_id[1:]) for r in one.requests]
        assert all(100 * k <= number < 100 * (k + 1) and number >= 30 for number in numbers)
        assert one.stream == "s" and {r.predicted for r in one.requests} <= {"a", "b", "c"}
        assert all(r.why.startswith(f"between {r.predicted} and ") for r in one.requests)
        assert all(r.event_time_s == 1e9 + n for r, n in zip(one.requests, numbers, strict=True))
    assert bench.metrics.registry.get_sample_value("streamlearn_label_requests_total") == 12
    other = Bench(3)
    feed_life(other, together=True)
    assert other.asked() == asked


def test_nobody_is_asked_without_the_setting_or_for_labelled_events() -> None:
    bench = Bench(0)
    feed_life(bench, together=True)
    assert bench.asked() == []
    bench = Bench(3)
    bench.feed(*(message(events(50 * k, 50, labelled=True)) for k in range(5)))
    assert bench.asked() == []


def test_what_is_asked_is_what_the_model_is_least_sure_of() -> None:
    learner = StreamLearner("s", SETTINGS)
    learner.learn(events(0, 300, labelled=True))
    pool = events(1000, 200)
    questions = ask(learner.model(), pool, 10)
    assert len({q.event_id for q in questions}) == 10
    said = learner.model().predict_proba(pool)
    top = np.sort(said, axis=1)
    margins = top[:, -1] - top[:, -2]
    assert margins[[q.row for q in questions]].mean() < 0.75 * margins.mean()
    assert margins[questions[0].row] == margins.min()
    for q in questions:
        assert q.event_id == pool.event_ids[q.row]
        assert q.probability == said[q.row].max()


def test_a_model_that_knows_nothing_asks_for_what_is_typical() -> None:
    questions = ask(StreamLearner("s", SETTINGS).model(), events(0, 100), 5)
    assert [q.predicted for q in questions] == [None]  # without a column all are alike
    learner = StreamLearner("s", SETTINGS)
    learner.learn(events(0, 100))
    pool = events(0, 100)
    questions = ask(learner.model(), pool, 3)
    assert {q.predicted for q in questions} == {None} and {q.probability for q in questions} == {0}
    corners = {tuple(np.rint(pool.numbers[q.row] / 4).astype(int).tolist()) for q in questions}
    assert corners == {(0, 0), (1, 0), (0, 1)}  # one of each, without a single label


def test_waiting_events_are_the_newest_that_have_no_label_yet() -> None:
    kafka = MemoryKafka()

    def send(one: Message) -> None:
        kafka.append("events", 0, one, 5.0)

    assert waiting(kafka, "events", 0, "s") is None
    send(message(events(0, 10)))
    send(Message(b"other", *message(events(500, 10))[1:]))
    send(Message(b"s", b"garbage", []))
    late = label_codec.encode("s", "e3", "a")
    send(label_codec.passed_on(late.value, late.key, late.headers, source="/w", place="0.1"))
    send(message(events(10, 5, labelled=True)))
    send(message(replace(events(7, 1, labelled=True))))  # e7 comes again, with its label
    send(message(replace(events(20, 4), event_ids=())))
    found = waiting(kafka, "events", 0, "s")
    assert found is not None
    ids = [f"e{i}" for i in range(10) if i not in (3, 7)]
    assert list(found.event_ids) == [*ids, "", "", "", ""]
    assert found.numbers[0].tolist() == events(0, 10).numbers[0].tolist()
    for start in range(1000, 1000 + 2 * recent.POOL, 100):
        send(message(events(start, 100)))
    found = waiting(kafka, "events", 0, "s")
    assert found is not None and len(found) == recent.POOL
    assert found.event_ids[-1] == f"e{1000 + 2 * recent.POOL - 1}"
