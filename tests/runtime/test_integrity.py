"""Who has a public key believes the worker alone: what strangers write changes nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from streamlearn import topics as topic_specs
from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import diff
from streamlearn.errors import ForeignError, InputError
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.replica import Outcome, ReplicaState
from streamlearn.runtime.subscriber import Subscriber
from streamlearn.runtime.trainer import Trainer
from streamlearn.stores.memory import MemoryStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import Clock, MemoryKafka, MemoryPublisher
from streamlearn.topics import Topics
from streamlearn.wire import event_codec, prediction_codec, update_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.envelope import Role
from streamlearn.wire.signing import Signer, Verifier, generate_keys
from streamlearn.wire.update_codec import Kind, UpdateHeader

SETTINGS = LearnerSettings(random_features=4, windows=(50.0, float("inf")), step_events=4)
PRIVATE, PUBLIC = generate_keys()
STRANGER = generate_keys()
PARTITION = 1


def frame(seed: int, stream: str = "s") -> Frame:
    x = np.random.default_rng(seed).normal(size=(6, 2))
    codes = (x[:, 0] > 0).astype(np.int32)
    return Frame(stream, ("a", "b"), x, codes, ("no", "yes"), np.arange(6.0))


def test_everything_that_subscribers_read_is_signed() -> None:
    """A real trainer and its checkpoint: every record on these topics, markers included."""
    kafka, clock = MemoryKafka(), Clock(1e9)
    trainer = Trainer(
        SETTINGS,
        topic_specs.load(prefix="", partitions=2),
        worker_id="w",
        open_store=lambda number: MemoryStore({}),
        memory_budget_bytes=1 << 30,
        publisher=MemoryPublisher(kafka, clock),
        log=kafka,
        metrics=WorkerMetrics(),
        clock=clock,
        predictions=True,
        signer=Signer(PRIVATE, scope="here."),
    )
    trainer.own([0], 1)
    for seed in range(3):
        value, headers = event_codec.encode(frame(seed))
        offset = kafka.append("events", 0, Message(b"s", value, headers), clock())
        trainer.learn({0: [Arrival(offset, b"s", value, headers, clock())]})
        trainer.checkpoint()
    ours = Verifier(PUBLIC, scope="here.")
    foreign = [Verifier(PUBLIC, scope="there."), Verifier(STRANGER[1], scope="here.")]
    roles = {"slow": Role.SLOW, "updates": Role.UPDATES, "snapshots": Role.SNAPSHOTS}
    read = 0
    for topic in (*roles, "predictions"):
        records = list(kafka.read(topic, 0, 0, 1 << 60))
        assert records, topic
        for r in records:
            read += 1
            for verifier in (ours, *foreign):
                try:
                    if topic == "predictions":
                        prediction_codec.decode(r.value, r.key, r.headers, verifier=verifier)
                    else:
                        update_codec.decode(
                            r.value, r.key, r.headers, role=roles[topic], verifier=verifier
                        )
                except ForeignError:
                    assert verifier is not ours
                else:
                    assert verifier is ours
    assert read == 1 + 3 + 3 * 2 + 3  # slow; updates; snapshots with their markers; predictions


@pytest.fixture(scope="module")
def models() -> dict[int, Model]:
    """Versions 1..5 of stream s."""
    learner, made = StreamLearner("s", SETTINGS), {}
    for version in range(1, 6):
        learner.learn(frame(version))
        made[version] = learner.model()
    return made


class Writer:
    """Somebody who may write on the topics, with a key or without."""

    def __init__(self, kafka: KafkaConfig, topics: Topics, signer: Signer | None) -> None:
        self.signer = signer
        self._topics = topics
        self._producer = Producer(kafka.client_settings() | {"linger.ms": 0, "log_level": 0})

    def send(self, name: str, *messages: Message, partition: int = PARTITION) -> None:
        topic = self._topics[name].full_name
        for key, value, headers in messages:
            at = 0 if name == "slow" else partition
            self._producer.produce(topic, value, key, partition=at, headers=[*headers])
        assert self._producer.flush(20) == 0

    def slow(self, model: Model) -> None:
        self.send("slow", *update_codec.encode_slow(model.slow, signer=self.signer))

    def update(self, before: Model | None, now: Model, epoch: int = 1) -> list[Message]:
        """An update of partition PARTITION, not sent yet."""
        return update_codec.encode(
            diff(before, now),
            epoch=epoch,
            source_partition=PARTITION,
            source_offset=now.version,
            signer=self.signer,
        )

    def snapshot(self, model: Model, epoch: int = 1) -> list[Message]:
        return update_codec.encode_model(
            model, epoch=epoch, source_partition=PARTITION, source_offset=1, signer=self.signer
        )


def wait_until_counted(subscriber: Subscriber, outcome: Outcome, count: int) -> None:
    while subscriber.counts.get(outcome, 0) < count:  # pytest's timeout ends a failure
        time.sleep(0.01)


@pytest.fixture
def worker(kafka: KafkaConfig, topics: Topics) -> Writer:
    return Writer(kafka, topics, Signer(PRIVATE, scope=topics.prefix))


@pytest.fixture
def follower(
    kafka: KafkaConfig, topics: Topics, worker: Writer, models: dict[int, Model], tmp_path: Path
) -> Iterator[Subscriber]:
    """Holds version 2 of stream s, and has the public key as a file."""
    file = tmp_path / "public.pem"
    file.write_bytes(PUBLIC)
    worker.slow(models[1])
    worker.send("updates", *worker.update(None, models[2]))
    with Subscriber(kafka, topic_prefix=topics.prefix, public_key=file) as subscriber:
        assert subscriber.wait_for("s").version == 2
        yield subscriber


def test_strangers_and_copies_are_refused_and_counted(
    kafka: KafkaConfig,
    topics: Topics,
    worker: Writer,
    follower: Subscriber,
    models: dict[int, Model],
) -> None:
    unsigned = Writer(kafka, topics, None)
    stranger = Writer(kafka, topics, Signer(STRANGER[0], scope=topics.prefix))
    elsewhere = Writer(kafka, topics, Signer(PRIVATE, scope="other."))
    n = 0
    for evil in (unsigned, stranger, elsewhere):
        evil.slow(models[1])
        evil.send("updates", *evil.update(None, models[5], epoch=9))
        evil.send("updates", *evil.update(models[2], models[4]))
        evil.send("snapshots", *evil.snapshot(models[5], epoch=9))
        forget = UpdateHeader(
            kind=Kind.TOMBSTONE, epoch=9, stream="s", version=9, source_partition=PARTITION
        )
        control = update_codec.encode_control(forget, signer=evil.signer)
        evil.send("updates", control)
        n += 5
    genuine = worker.update(models[2], models[3])
    unsigned.send("updates", *genuine, partition=PARTITION - 1)  # copied to another partition
    unsigned.send("snapshots", *genuine)  # to another topic
    unsigned.send("updates", *worker.snapshot(models[3]))
    n += 3
    wait_until_counted(follower, Outcome.FOREIGN, n)
    model = follower.model("s")
    assert (model.version, model.current.hash) == (2, models[2].hash)
    assert model.state is ReplicaState.CURRENT, "strangers can't even cause a second reading"
    assert follower.counts == {Outcome.FOREIGN: n, Outcome.APPLIED: 1}

    # under another stream's key the digest no longer fits; an old message again is a duplicate
    [other] = [message._replace(key=b"t") for message in genuine]
    unsigned.send("updates", other, *worker.update(None, models[2]))
    wait_until_counted(follower, Outcome.DUPLICATE, 1)
    assert follower.counts[Outcome.CORRUPT] == 1
    worker.send("updates", *genuine)
    assert follower.wait_for("s", 3).current.hash == models[3].hash
    assert follower.counts[Outcome.FOREIGN] == n


def test_a_key_is_replaced_without_a_break(
    kafka: KafkaConfig, topics: Topics, worker: Writer, models: dict[int, Model]
) -> None:
    new = Writer(kafka, topics, Signer(STRANGER[0], scope=topics.prefix))
    worker.slow(models[1])
    worker.send("updates", *worker.update(None, models[1]))
    with (
        Subscriber(kafka, topic_prefix=topics.prefix, public_key=[PUBLIC, STRANGER[1]]) as both,
        Subscriber(kafka, topic_prefix=topics.prefix, public_key=PUBLIC) as late,
        Subscriber(kafka, topic_prefix=topics.prefix) as trusting,
    ):
        new.send("updates", *new.update(models[1], models[2]))
        for subscriber in (both, trusting):
            assert subscriber.wait_for("s", 2).current.hash == models[2].hash
            assert Outcome.FOREIGN not in subscriber.counts
        wait_until_counted(late, Outcome.FOREIGN, 1)
        assert late.model("s").version == 1


def test_who_trusts_nothing_that_is_there_is_told_why(
    kafka: KafkaConfig, topics: Topics, models: dict[int, Model]
) -> None:
    unsigned = Writer(kafka, topics, None)
    unsigned.slow(models[1])
    unsigned.send("updates", *unsigned.update(None, models[1]))
    with (
        Subscriber(kafka, topic_prefix=topics.prefix, public_key=PUBLIC) as subscriber,
        pytest.raises(InputError, match=r"can be trusted: 2 messages .* refused.*not signed"),
    ):
        subscriber.model("s")
