"""What a feeder sends with: messages on their way to the broker, and what became of them.

A thread of its own serves librdkafka's delivery reports. Ctrl-C raises in the main thread, and
where that happens inside a report, confluent-kafka loses the exception (Python 3.11: `poll` ends
in a SystemError) or goes on to the next report with it (`flush`). So whoever sends never polls.
"""

import threading
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamlearn.config import KafkaConfig
from streamlearn.errors import BrokerError
from streamlearn.runtime.connection import (
    IDEMPOTENT,
    SILENT,
    Refusals,
    answer,
    no_topics,
    said,
)
from streamlearn.wire import event_codec

_SLICE_S = 0.1  # how often who waits looks again
_REASON_S = 5.0  # for the reason why a producer ended


class Outbox:
    """An idempotent producer to one topic; thread-safe.

    `dead`: why this producer will never send again. BrokerError where the broker can't be reached
    or lacks the topic.
    """

    def __init__(
        self, kafka: KafkaConfig, topic: str, *, delivery_timeout_s: float, connect_timeout_s: float
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._acknowledged = self._failed = self._messages = 0
        self.dead: str | None = None
        self._first_error: str | None = None
        self._changed = threading.Condition()  # guards all of the above
        self._closed = threading.Event()
        refusals = Refusals()
        self._producer = Producer(
            kafka.client_settings()
            | {
                **IDEMPOTENT,
                "partitioner": "murmur2_random",  # as Java's clients: a key, a partition
                "compression.type": "none",  # numbers hardly shrink
                "linger.ms": 1,  # frames are batches already
                "message.max.bytes": event_codec.MAX_FRAME_BYTES + (1 << 20),
                "queue.buffering.max.kbytes": 256 * 1024,
                "delivery.timeout.ms": int(delivery_timeout_s * 1000),
                "error_cb": refusals,
                "log_level": 0,
                "logger": SILENT,
            }
        )
        found = answer(self._producer, kafka, refusals, timeout_s=connect_timeout_s)
        if topic not in found.topics:
            raise no_topics(kafka, [topic])
        self._thread = threading.Thread(target=self._serve, name="delivery reports", daemon=True)
        self._thread.start()

    def put(
        self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], n_events: int
    ) -> None:
        """Hand one message over; waits while 256 MiB wait for the broker.

        BrokerError if it can't be sent; its events are counted as failed.
        """

        def delivered(error: KafkaError | None, message: Message) -> None:
            with self._changed:
                if error is None:
                    self._acknowledged += n_events
                    self._messages += 1
                else:
                    self._failed += n_events
                    self._first_error = self._first_error or said(self._kafka, error)

        while True:
            try:
                self._producer.produce(
                    self._topic, value, key, headers=[*headers], callback=delivered
                )
                return
            except BufferError:  # enough waits for the broker: let the caller wait, too
                with self._changed:
                    if self.dead is None:
                        self._changed.wait(_SLICE_S)
                why = self.dead
            except KafkaException as error:
                why = self._in_words(error.args[0])
            if why is not None:
                self.fail(n_events)
                raise BrokerError(f"frame of {n_events} events refused: {why}") from None

    def fail(self, n_events: int, why: str | None = None) -> None:
        """Count events that are never sent; `why`: for the next flush to tell."""
        with self._changed:
            self._failed += n_events
            self._first_error = self._first_error or why

    def tally(self) -> tuple[int, int, int]:
        """Events acknowledged, events failed, messages acknowledged."""
        with self._changed:
            return self._acknowledged, self._failed, self._messages

    def take_error(self) -> str | None:
        """The first failure since the last call."""
        with self._changed:
            error, self._first_error = self._first_error, None
            return error

    def wait(self, timeout_s: float) -> int:
        """How many messages are still on their way after that time, or when none will be taken."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(self._producer) > 0 and self.dead is None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(_SLICE_S, left_s))
            return len(self._producer)

    def close(self) -> None:
        """Serve no more reports."""
        self._closed.set()
        self._thread.join()

    def _in_words(self, refused: KafkaError) -> str:
        """A producer at its end refuses without the reason, which the thread hears a bit later."""
        with self._changed:
            if refused.code() == KafkaError._FATAL:
                self._changed.wait_for(lambda: self.dead is not None, timeout=_REASON_S)
            return self.dead or refused.str()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                self._producer.poll(_SLICE_S)
                dead = None
            except KafkaException as error:  # idempotent, and at its end: it may not write
                dead = said(self._kafka, error.args[0])
                self._closed.wait(_SLICE_S)
            with self._changed:
                self.dead = self.dead or dead
                self._changed.notify_all()
