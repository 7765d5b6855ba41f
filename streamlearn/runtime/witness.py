"""Compares what a subscriber predicts with what the worker predicted, bit by bit.

In: events and the worker's predictions (`worker.predictions` switched on) from now on, and the
models of a subscriber in this process. Out: a `Check` a frame. Only the first step of a frame is
compared, since the worker learned from it before it predicted the second.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeAlias

import numpy as np
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from numpy.typing import NDArray

from streamlearn import topics
from streamlearn.config import KafkaConfig
from streamlearn.core.model import Model
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError, FrameError, UpdateError
from streamlearn.runtime.keys import PublicKey, verifier
from streamlearn.runtime.replica import Held
from streamlearn.runtime.scoreboard import Check, Verdict
from streamlearn.runtime.subscriber import Subscriber
from streamlearn.runtime.update_reader import consumer_settings, headers_of
from streamlearn.wire import event_codec, prediction_codec
from streamlearn.wire.prediction_codec import Predictions

MAX_WAITING = 4096  # frames and predictions that wait for each other
RECENT = 64  # models kept a stream
TIMEOUT_S = 10.0

Place: TypeAlias = tuple[int, int]  # partition and offset in the events topic

logger = logging.getLogger(__name__)


class Witness(AbstractContextManager["Witness"]):
    """Begins with what is sent after it was made."""

    def __init__(
        self,
        kafka: KafkaConfig,
        subscriber: Subscriber,
        *,
        topic_prefix: str,
        public_key: PublicKey | Sequence[PublicKey] = (),
    ) -> None:
        names = topics.load(prefix=topic_prefix, partitions=1)
        self._events = names["events"].full_name
        self._predictions = names["predictions"].full_name
        self._verifier = verifier(public_key, prefix=topic_prefix)
        self._subscriber = subscriber
        self._frames: OrderedDict[Place, Frame] = OrderedDict()
        self._waiting: OrderedDict[tuple[Place, int], Predictions] = OrderedDict()
        self._models: dict[str, OrderedDict[int, Model]] = {}
        self._lock = threading.Lock()  # of _models, written by the subscriber's thread
        for stream in subscriber.streams():
            self._keep(subscriber.model(stream).held)
        self._forget = subscriber.on_version(self._keep)
        self._consumer = Consumer(consumer_settings(kafka))
        try:
            self._consumer.assign([*self._ends(self._events), *self._ends(self._predictions)])
        except KafkaException as error:
            self._consumer.close()
            raise BrokerError(
                f"{kafka.bootstrap} does not tell where {self._events} ends: {error}"
            ) from None

    def poll(self, timeout_s: float) -> Iterator[Check]:
        """Wait for a message; the checks that it makes possible."""
        message = self._consumer.poll(timeout_s)
        if message is not None and message.error() is None:
            try:
                self._take(message)
            except (FrameError, UpdateError) as error:  # the worker refuses it, too
                logger.info("%s at %s: %s", message.topic(), message.offset(), error)
        for key, predictions in list(self._waiting.items()):
            verdict = self._verdict(key[0], predictions)
            if verdict is not None:
                del self._waiting[key]
                yield Check(
                    stream=predictions.stream,
                    base_version=predictions.model_version,
                    event_ids=predictions.event_ids,
                    predicted=predictions.predicted(),
                    verdict=verdict,
                )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._forget()
        self._consumer.close()

    def _ends(self, topic: str) -> list[TopicPartition]:
        known = self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions
        ends = []
        for partition in known:
            place = TopicPartition(topic, partition)
            _, end = self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
            ends.append(TopicPartition(topic, partition, end))
        return ends

    def _keep(self, held: Held) -> None:
        with self._lock:
            models = self._models.setdefault(held.model.stream, OrderedDict())
            models[held.model.version] = held.model
            while len(models) > RECENT:
                models.popitem(last=False)

    def _take(self, message: Message) -> None:
        key = message.key()
        key = key.encode() if isinstance(key, str) else key
        headers = headers_of(message)
        if message.topic() == self._events:
            timestamp_s = message.timestamp()[1] / 1000
            frame, _ = event_codec.decode(message.value(), key, headers, timestamp_s)
            self._frames[message.partition() or 0, message.offset() or 0] = frame
        else:
            found = prediction_codec.decode(message.value(), key, headers, verifier=self._verifier)
            place = found.source_partition, found.source_offset
            self._waiting[place, found.row] = found
        for waiting in (self._frames, self._waiting):
            while len(waiting) > MAX_WAITING:
                waiting.popitem(last=False)

    def _verdict(self, place: Place, theirs: Predictions) -> Verdict | None:
        """None: frame or model may still come."""
        frame = self._frames.get(place)
        if frame is None:
            return None
        if theirs.model_version == 0:
            ours = np.zeros((min(len(frame), theirs.step_events), 0), np.float32)
        else:
            with self._lock:
                models = self._models.get(theirs.stream)
                model = models.get(theirs.model_version) if models else None
                newest = max(models) if models else 0
            if model is None:
                return Verdict.UNSEEN if newest > theirs.model_version else None
            ours = model.predict_next(frame.rows(0, theirs.step_events))
        return Verdict.SAME if _equal(ours, theirs) else Verdict.DIFFERENT


def _equal(ours: NDArray[np.float32], theirs: Predictions) -> bool:
    """Bit by bit; a class that came with the frame has probability 0 for its first step."""
    n_classes = theirs.probabilities.shape[1]
    if ours.shape[1] > n_classes:
        return False
    step = ours[theirs.row :]  # this record's rows of the first step
    said = theirs.probabilities[: len(step)]
    padded = np.zeros((len(step), n_classes), np.float32)
    padded[:, : ours.shape[1]] = step
    return padded[: len(said)].tobytes() == said.tobytes()
