"""The subscriber on a real broker, against the learner whose models were published."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import diff
from streamlearn.errors import BrokerError, InputError, NotYetError
from streamlearn.runtime import update_reader
from streamlearn.runtime.broker import free_port
from streamlearn.runtime.replica import Held, Outcome, ReplicaState
from streamlearn.runtime.subscriber import Subscriber
from streamlearn.topics import Topics
from streamlearn.wire import update_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.update_codec import Kind, Role, UpdateHeader

SETTINGS = LearnerSettings(random_features=8, step_events=4)
PARTITION = 2


def frame(seed: int, stream: str = "s", n: int = 6) -> Frame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return Frame(
        stream=stream,
        columns=("a", "b", "c"),
        numbers=x,
        label_codes=(x[:, 0] > 0).astype(np.int32),
        label_values=("no", "yes"),
        event_time_s=np.arange(n, dtype=np.float64),
    )


@pytest.fixture(scope="module")
def models() -> dict[int, Model]:
    """Versions 1..8 of stream s."""
    learner = StreamLearner("s", SETTINGS)
    made = {}
    for version in range(1, 9):
        learner.learn(frame(version))
        made[version] = learner.model()
    return made


class Owner:
    """Publishes as a worker does, one message at a time."""

    def __init__(
        self, kafka: KafkaConfig, topics: Topics, epoch: int = 1, partition: int = PARTITION
    ) -> None:
        self.epoch = epoch
        self._partition = partition
        self._topics = topics
        self._producer = Producer(kafka.client_settings() | {"linger.ms": 0, "log_level": 0})
        self.ends: dict[str, int] = {}  # topic to the offset after the last message

    def send(self, name: str, *messages: Message) -> None:
        topic = self._topics[name].full_name
        for key, value, headers in messages:

            def delivered(error: object, message: object) -> None:
                assert error is None
                self.ends[name] = message.offset() + 1  # type: ignore[attr-defined]

            partition = 0 if name == "slow" else self._partition
            self._producer.produce(
                topic, value, key, partition=partition, headers=[*headers], on_delivery=delivered
            )
            self._producer.flush()

    def slow(self, model: Model) -> None:
        self.send("slow", *update_codec.encode_slow(model.slow))

    def update(self, before: Model | None, now: Model) -> None:
        messages = update_codec.encode(
            diff(before, now), epoch=self.epoch, source_partition=self._partition, source_offset=0
        )
        self.send("updates", *messages)

    def snapshot(self, model: Model) -> None:
        messages = update_codec.encode_model(
            model, epoch=self.epoch, source_partition=self._partition, source_offset=0
        )
        self.send("snapshots", *messages)

    def marker(self, offset: int) -> None:
        header = UpdateHeader(
            kind=Kind.MARKER,
            epoch=self.epoch,
            source_partition=self._partition,
            updates_offset=offset,
        )
        self.send("snapshots", update_codec.encode_control(header, role=Role.SNAPSHOTS))


@pytest.fixture
def owner(kafka: KafkaConfig, topics: Topics) -> Owner:
    return Owner(kafka, topics)


@pytest.fixture
def subscriber(kafka: KafkaConfig, topics: Topics) -> Iterator[Subscriber]:
    with Subscriber(kafka, topic_prefix=topics.prefix) as subscriber:
        yield subscriber


def test_a_subscriber_that_comes_late_gets_snapshot_and_updates(
    kafka: KafkaConfig, topics: Topics, owner: Owner, models: dict[int, Model]
) -> None:
    owner.slow(models[1])
    owner.update(None, models[1])
    owner.update(models[1], models[2])
    owner.snapshot(models[2])
    owner.marker(owner.ends["updates"])
    owner.update(models[2], models[3])
    owner.update(models[3], models[5])
    with Subscriber(kafka, topic_prefix=topics.prefix) as subscriber:
        model = subscriber.model("s")
        assert model.version == 5 and model.current.hash == models[5].hash
        assert subscriber.streams() == ("s",)
        assert subscriber.counts == {Outcome.APPLIED: 3}  # the updates before the marker: not read


def test_predictions_have_the_learners_bits(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    owner.slow(models[1])
    owner.update(None, models[7])
    model = subscriber.wait_for("s", 7)
    learner = StreamLearner("s", SETTINGS)
    for version in range(1, 8):
        learner.learn(frame(version))
    step = frame(99, n=4)
    served = learner.learn(step).probabilities
    assert model.current.predict_next(step).tobytes() == served.tobytes()
    row = dict(zip("abc", step.numbers[0].tolist(), strict=True))
    alone = models[7].predict_proba(step.rows(0, 1))[0]
    assert model.predict_proba(row) == dict(zip(models[7].classes, alone.tolist(), strict=True))
    assert model.predict(row) == models[7].classes[int(alone.argmax())]
    assert model.predict(row | {"unknown": 3.0, "b": None}) in ("no", "yes")


def test_new_versions_are_told(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    told: list[int] = []

    def callback(held: Held) -> None:
        told.append(held.model.version)
        raise RuntimeError("what a callback raises harms nobody")

    end = subscriber.on_version(callback)
    versions = subscriber.versions("s", timeout_s=30)
    others = subscriber.versions("t", timeout_s=0.05)
    owner.slow(models[1])
    owner.update(None, models[1])
    owner.update(models[1], models[2])
    assert [next(versions).model.version for _ in range(2)] == [1, 2]
    end()
    owner.update(models[2], models[3])
    assert next(versions).hash == models[3].hash
    assert told == [1, 2] and list(others) == []


def test_waiting_ends_in_time_or_with_the_version(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    with pytest.raises(NotYetError, match="no model of stream 's'"):
        subscriber.wait_for("s", timeout_s=0.05)
    owner.slow(models[1])
    owner.update(None, models[1])
    assert subscriber.wait_for("s").version == 1
    with pytest.raises(NotYetError, match="it has version 1"):
        subscriber.wait_for("s", 2, timeout_s=0.05)
    threading.Timer(0.05, owner.update, (models[1], models[2])).start()
    model = subscriber.wait_for("s", 2)
    assert model.version == 2
    threading.Timer(0.05, owner.update, (models[2], models[3])).start()
    assert model.wait_for(3).hash == models[3].hash
    versions = model.versions(timeout_s=30)
    owner.update(models[3], models[4])
    assert next(versions).model.version == 4
    with pytest.raises(NotYetError, match="it has version 4"):
        model.wait_for(5, timeout_s=0.05)


def test_a_gap_is_mended_by_the_next_snapshot(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    owner.slow(models[1])
    owner.update(None, models[1])
    model = subscriber.wait_for("s")
    owner.update(models[2], models[3])  # 2 was never published
    owner.update(models[3], models[4])
    while not subscriber.counts.get(Outcome.GAP):
        pass  # pytest's timeout ends a failure
    assert (model.version, model.state) == (1, ReplicaState.NEEDS_SNAPSHOT)
    owner.snapshot(models[3])
    assert subscriber.wait_for("s", 4).current.hash == models[4].hash  # update 4 is read again
    assert (model.version, model.state) == (4, ReplicaState.CURRENT)


def test_what_others_write_on_the_topics_harms_nobody(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    owner.slow(models[1])
    owner.update(None, models[1])
    subscriber.wait_for("s")
    [genuine] = update_codec.encode(
        diff(models[1], models[2]), epoch=1, source_partition=PARTITION, source_offset=0
    )
    assert genuine.value is not None
    flipped = genuine._replace(value=genuine.value[:-1] + bytes([genuine.value[-1] ^ 1]))
    for name in ("updates", "snapshots", "slow"):
        owner.send(
            name,
            Message(b"s", b"junk", []),
            Message(b"t", None, []),
            Message(b"\xff", b"", [("ce_formatversion", b"999")]),
            flipped,
        )
    owner.update(models[1], models[2])
    model = subscriber.wait_for("s", 2)
    assert model.current.hash == models[2].hash
    owner.update(models[2], models[3])
    assert subscriber.wait_for("s", 3).state is ReplicaState.CURRENT
    assert subscriber.counts[Outcome.MALFORMED] == 9
    assert subscriber.counts[Outcome.CORRUPT] == 3
    registry = CollectorRegistry()
    registry.register(subscriber.metrics)
    for outcome in Outcome:
        shown = registry.get_sample_value(
            "streamlearn_subscriber_messages_total", {"outcome": outcome.value}
        )
        assert shown == subscriber.counts.get(outcome, 0), outcome
    assert registry.get_sample_value("streamlearn_subscriber_streams") == 1


def test_a_stream_in_two_partitions_is_told_once(
    owner: Owner,
    kafka: KafkaConfig,
    topics: Topics,
    models: dict[int, Model],
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere = Owner(kafka, topics, partition=PARTITION + 1)
    owner.slow(models[1])
    for one in (owner, elsewhere):
        one.update(None, models[1])
        one.update(models[1], models[2])
    with Subscriber(kafka, topic_prefix=topics.prefix) as subscriber:
        subscriber.model("s").wait_for(2)
    [told] = [record.getMessage() for record in caplog.records]
    assert "'s' was fed to partitions" in told and "one partitioner" in told


def test_an_old_owner_is_not_heard(
    kafka: KafkaConfig, topics: Topics, subscriber: Subscriber, models: dict[int, Model]
) -> None:
    old, new = Owner(kafka, topics, epoch=1), Owner(kafka, topics, epoch=2)
    old.slow(models[1])
    old.update(None, models[3])
    subscriber.wait_for("s", 3)
    new.update(None, models[2])  # it learned version 2 again: the same hash
    old.update(models[3], models[8])
    new.update(models[2], models[4])
    model = subscriber.wait_for("s", 4)
    new.update(models[4], models[5])
    assert subscriber.wait_for("s", 5).current.hash == models[5].hash
    assert model.version == 5 and subscriber.counts[Outcome.OLD_EPOCH] == 1


def test_an_unknown_stream_names_those_known(
    kafka: KafkaConfig, topics: Topics, owner: Owner, models: dict[int, Model]
) -> None:
    with Subscriber(kafka, topic_prefix=topics.prefix) as subscriber:
        with pytest.raises(InputError, match="nor of any other"):
            subscriber.model("s")
        owner.slow(models[1])
        owner.update(None, models[1])
        subscriber.wait_for("s")
        with pytest.raises(InputError, match=r"did you mean 's'.*Known: s"):
            subscriber.model("ss")


def test_errors_name_the_remedy(kafka: KafkaConfig) -> None:
    with pytest.raises(BrokerError, match="streamlearn broker"):
        Subscriber(f"127.0.0.1:{free_port()}", connect_timeout_s=0.5)
    with pytest.raises(BrokerError, match="streamlearn topics apply"):
        Subscriber(kafka, topic_prefix="not.there.")


def test_a_closed_subscriber_still_predicts(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    versions = subscriber.versions()
    owner.slow(models[1])
    owner.update(None, models[2])
    model = subscriber.wait_for("s")
    assert next(versions).model.version == 2
    subscriber.close()
    assert model.predict({"a": 1.0}) in ("no", "yes")
    assert list(versions) == []
    with pytest.raises(NotYetError):
        subscriber.wait_for("s", 3)


def test_threads_predict_while_versions_come(
    subscriber: Subscriber, owner: Owner, models: dict[int, Model]
) -> None:
    owner.slow(models[1])
    owner.update(None, models[1])
    model = subscriber.wait_for("s")
    event = {"a": 0.3, "b": -0.2, "c": 1.0}
    right = {
        version: dict(zip(m.classes, m.predict_proba(one).tolist()[0], strict=True))
        for version, m in models.items()
        for one in [_row(event)]
    }
    wrong: list[object] = []
    done = threading.Event()

    def predict() -> None:
        while not done.is_set():
            if (found := model.predict_proba(event)) not in right.values():
                wrong.append(found)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(2, 9):
        owner.update(models[version - 1], models[version])
    subscriber.wait_for("s", 8)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong and model.predict_proba(event) == right[8]


def _row(event: dict[str, float]) -> Frame:
    return Frame(
        stream="s",
        columns=tuple(event),
        numbers=np.array([list(event.values())]),
        label_codes=np.full(1, -1, np.int32),
        label_values=(),
        event_time_s=np.zeros(1),
    )


def test_what_waited_too_long_for_slow_weights_is_read_again(
    kafka: KafkaConfig,
    topics: Topics,
    owner: Owner,
    models: dict[int, Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamlearn.runtime.replica.MAX_WAITING", 0)
    monkeypatch.setattr(update_reader, "LAST_PATIENCE_S", 0.2)
    owner.update(None, models[1])
    owner.update(models[1], models[2])
    with Subscriber(kafka, topic_prefix=topics.prefix) as subscriber:
        assert subscriber.streams() == ()
        owner.slow(models[1])
        assert subscriber.wait_for("s", 2).current.hash == models[2].hash
