"""The witness on a real broker: what equals, what differs, what nobody can compare."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from confluent_kafka import Producer

from streamlearn.config import KafkaConfig
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.update import diff
from streamlearn.runtime.scoreboard import Check, Verdict
from streamlearn.runtime.subscriber import Subscriber
from streamlearn.runtime.witness import Witness
from streamlearn.topics import Topics
from streamlearn.wire import event_codec, prediction_codec, update_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.prediction_codec import Predictions

SETTINGS = LearnerSettings(random_features=8, step_events=4)


def frame(seed: int) -> Frame:
    """Six events: a step of four, and two that are predicted after it was learned."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 2))
    return Frame(
        stream="s",
        columns=("a", "b"),
        numbers=x,
        label_codes=(x[:, 0] > 0).astype(np.int32),
        label_values=("no", "yes"),
        event_time_s=np.zeros(6),
        event_ids=tuple(f"{seed}/{i}" for i in range(6)),
    )


class Worker:
    """Learns and publishes as the real one, but can be told to lie or to be lazy."""

    def __init__(self, kafka: KafkaConfig, topics: Topics) -> None:
        self._topics = topics
        self._producer = Producer(kafka.client_settings() | {"log_level": 0})
        self._learner = StreamLearner("s", SETTINGS)
        self._offset = -1

    def _send(self, name: str, messages: list[Message]) -> None:
        topic = self._topics[name].full_name
        for key, value, headers in messages:
            self._producer.produce(topic, value, key, partition=0, headers=[*headers])
        assert self._producer.flush(10) == 0

    def learn(
        self,
        frame: Frame,
        *,
        publish: bool = True,
        lie: Callable[[np.ndarray], None] = lambda probabilities: None,
    ) -> None:
        value, headers = event_codec.encode(frame)
        self._send("events", [Message(b"s", value, headers)])
        self._offset += 1
        outcome = self._learner.learn(frame)
        probabilities = outcome.probabilities.copy()
        lie(probabilities)
        predictions = Predictions(
            stream="s",
            model_version=outcome.base_version,
            step_events=SETTINGS.step_events if outcome.base_version else 1,
            source_partition=0,
            source_offset=self._offset,
            probabilities=probabilities,
            classes=outcome.classes,
            event_ids=frame.event_ids,
        )
        self._send("predictions", prediction_codec.encode(predictions))
        if publish:
            model = self._learner.model()
            self._send("slow", update_codec.encode_slow(model.slow))
            update = diff(None, model)
            self._send(
                "updates",
                update_codec.encode(update, epoch=1, source_partition=0, source_offset=0),
            )


@pytest.fixture
def worker(kafka: KafkaConfig, topics: Topics) -> Worker:
    return Worker(kafka, topics)


@pytest.fixture
def checks(kafka: KafkaConfig, topics: Topics) -> Iterator[Callable[[], Check]]:
    """The next check, each time it is called."""
    with (
        Subscriber(kafka, topic_prefix=topics.prefix) as subscriber,
        Witness(kafka, subscriber, topic_prefix=topics.prefix) as witness,
    ):
        found: list[Check] = []

        def next_check() -> Check:
            while not found:  # pytest's timeout ends a failure
                found.extend(witness.poll(0.05))
            return found.pop(0)

        yield next_check


def test_an_honest_worker(worker: Worker, checks: Callable[[], Check]) -> None:
    for seed in range(3):
        worker.learn(frame(seed))
        check = checks()
        assert (check.stream, check.base_version) == ("s", seed)
        assert check.event_ids == frame(seed).event_ids
        assert check.verdict is Verdict.SAME
    assert set(check.predicted) <= {"no", "yes"}


def test_one_bit_shows(worker: Worker, checks: Callable[[], Check]) -> None:
    def lie(probabilities: np.ndarray) -> None:
        probabilities.view(np.uint32)[2, 0] ^= 1

    worker.learn(frame(0))
    worker.learn(frame(1), lie=lie)
    assert [checks().verdict, checks().verdict] == [Verdict.SAME, Verdict.DIFFERENT]


def test_a_first_prediction_out_of_nothing_shows(
    worker: Worker, checks: Callable[[], Check]
) -> None:
    def lie(probabilities: np.ndarray) -> None:
        probabilities[0, 0] = 0.5

    worker.learn(frame(0), lie=lie)
    assert checks().verdict is Verdict.DIFFERENT


def test_events_after_the_first_step_are_not_compared(
    worker: Worker, checks: Callable[[], Check]
) -> None:
    def lie(probabilities: np.ndarray) -> None:
        probabilities[4:] = 0.5

    worker.learn(frame(0))
    worker.learn(frame(1), lie=lie)
    assert [checks().verdict, checks().verdict] == [Verdict.SAME, Verdict.SAME]


def test_a_version_that_was_never_published_cannot_be_compared(
    worker: Worker, checks: Callable[[], Check]
) -> None:
    worker.learn(frame(0), publish=False)
    assert checks().verdict is Verdict.SAME  # nothing was known, which needs no model
    worker.learn(frame(1))
    check = checks()
    assert (check.base_version, check.verdict) == (1, Verdict.UNSEEN)
