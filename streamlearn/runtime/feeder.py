"""Sends events: frames them stream by stream and hands the frames to Kafka.

Effects in order: 1 an event joins its stream's frame; 2 a frame that is full, or older than the
linger, is encoded and produced; 3 the broker acknowledges it on all replicas. `flush` returns
after 3, so what it counts as acknowledged is durable. Retries can't duplicate a frame
(idempotent producer); frames of one stream stay in order, in the partition that Java's clients
would choose as well.
"""

import atexit
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamlearn import topics
from streamlearn.config import FeederConfig, KafkaConfig, TopicsConfig
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError, FrameError, InputError, StreamlearnError
from streamlearn.runtime.connection import (
    IDEMPOTENT,
    Refusals,
    answer,
    no_topics,
    said,
    wait_for_reports,
)
from streamlearn.runtime.framing import (
    FrameBuilder,
    checked_features,
    events_of,
    frame_of_one,
    seconds,
)
from streamlearn.wire import event_codec, image_codec
from streamlearn.wire.cloud_events import stream_of_key
from streamlearn.wire.event_rules import RefusedError

logger = logging.getLogger(__name__)
_SILENT = logging.getLogger("streamlearn.librdkafka")  # what matters, callbacks say
_SILENT.disabled = True

CONNECT_TIMEOUT_S = 10.0
MAX_FRAME_BYTES = 900 * 1024  # a larger frame of several events is halved until it fits


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the events handed to a feeder; sent = acknowledged + failed + on the way."""

    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    frames: int = 0


class Feeder(AbstractContextManager["Feeder"]):
    """Sends labelled and unlabelled events; thread-safe.

        with Feeder("host:9092") as feeder:
            feeder.send("boiler-7", {"temp": 71.5, "flow": 3.0}, label="ok")
            feeder.send("boiler-7", {"temp": 93.1, "flow": 0.2})  # unlabelled: predicted only

    An event is learned with the others of its frame: `frame_events` of them, or what came within
    `linger_ms`. Leaving the `with` block flushes.

    Raises BrokerError when the broker can't be reached or lacks the events topic, and from
    `flush` for frames that it did not take; InputError for events that nothing can be learned
    from.
    """

    def __init__(
        self,
        bootstrap: str | KafkaConfig = "localhost:9092",
        *,
        topic_prefix: str = TopicsConfig().prefix,
        frame_events: int = FeederConfig().frame_events,
        linger_ms: float = FeederConfig().linger_ms,
        delivery_timeout_s: float = 60.0,
        connect_timeout_s: float | None = None,
    ) -> None:
        framing = FeederConfig(frame_events=frame_events, linger_ms=linger_ms)
        kafka = KafkaConfig(bootstrap=bootstrap) if isinstance(bootstrap, str) else bootstrap
        self._kafka = kafka
        self._bootstrap = kafka.bootstrap
        self._topic = topics.load(prefix=topic_prefix, partitions=1)["events"].full_name
        self._frame_events = framing.frame_events
        self._linger_s = framing.linger_ms / 1000
        self._delivery_timeout_s = delivery_timeout_s
        self._lock = threading.RLock()
        self._builders: dict[str, FrameBuilder] = {}
        self._due: dict[str, float] = {}  # stream to the monotonic second when its frame goes
        self._sent = self._acknowledged = self._failed = self._frames = 0
        self._first_error: str | None = None
        self._dead: str | None = None  # why this producer will never send again
        self._closed = threading.Event()
        self._wake = threading.Condition(self._lock)
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
                "logger": _SILENT,  # else its end is a line on standard error as well
            }
        )
        found = answer(
            self._producer, kafka, refusals, timeout_s=connect_timeout_s or CONNECT_TIMEOUT_S
        )
        if self._topic not in found.topics:
            raise no_topics(kafka, [self._topic])
        self._thread = threading.Thread(target=self._linger, name="feeder", daemon=True)
        self._thread.start()
        # Arrow imports what it can when it first encodes, which is slow, and at exit too late.
        event_codec.encode(frame_of_one("first", {"x": 0.0}, time_s=0.0))
        atexit.register(self._close_at_exit)  # where nobody closes it, nothing is lost silently

    @property
    def counts(self) -> Counts:
        """Events sent, acknowledged, failed so far, and frames acknowledged."""
        with self._lock:
            return Counts(self._sent, self._acknowledged, self._failed, self._frames)

    def send(
        self,
        stream: str,
        features: Mapping[str, object],
        *,
        label: object = None,
        event_id: str | None = None,
        event_time: float | str | datetime | None = None,
    ) -> None:
        """Send one event; returns at once unless 256 MiB wait for the broker.

        features: numbers, texts or image bytes (PNG, JPEG) by name; None where missing.
        label: a text or a whole number; None if unknown: the event is predicted, not learned.
        event_time: seconds since the epoch, ISO 8601 or a datetime; now, if not given.
        """
        self._check_stream(stream)
        time_s = seconds(event_time, time.time())
        row = checked_features(features)  # before the lock: reading an image takes a while
        with self._lock:
            self._refuse_if_closed()
            if not self._builder(stream).add_row(
                row, label=label, event_id=event_id, time_s=time_s
            ):
                self._release(stream)
                self._builder(stream).add_row(row, label=label, event_id=event_id, time_s=time_s)
            self._sent += 1
            if len(self._builder(stream)) >= self._frame_events:
                self._release(stream)
            elif stream not in self._due:
                self._due[stream] = time.monotonic() + self._linger_s
                self._wake.notify()

    def collect(self, frame: Frame) -> None:
        """Send a frame's events as `send` does: joined with others of their stream."""
        for event in events_of(frame):
            self.send(
                frame.stream,
                event.features,
                label=event.label,
                event_id=event.event_id,
                event_time=event.time_s,
            )

    def send_frame(self, frame: Frame) -> None:
        """Send a ready-made frame, after what waits of its stream."""
        self._check_stream(frame.stream)
        with self._lock:
            self._refuse_if_closed()
            self._release(frame.stream)
            self._sent += len(frame)
            self._produce(frame)

    def flush(self, timeout_s: float | None = None) -> Counts:
        """Wait until everything sent is acknowledged; the counts.

        Raises BrokerError if events failed since the last flush, or are still on the way after
        `timeout_s` (default: the delivery timeout).
        """
        with self._lock:
            for stream in list(self._due):
                self._release(stream)
        left = self._wait_for_all(timeout_s or self._delivery_timeout_s + 5)
        if self._dead is not None:
            raise BrokerError(f"nothing more can be sent to {self._topic}: {self._dead}")
        with self._lock:
            error, self._first_error = self._first_error, None
            counts = self.counts
        if error is not None:
            raise BrokerError(
                f"{counts.failed} of {counts.sent} events were not taken by {self._bootstrap}: "
                f"{error}; send them again when `streamlearn doctor` finds the broker well"
            )
        if left:
            raise BrokerError(
                f"{counts.sent - counts.acknowledged} of {counts.sent} events are not "
                f"acknowledged by {self._bootstrap}; is it up? They may still arrive"
            )
        return counts

    def _wait_for_all(self, timeout_s: float) -> int:
        """How many frames are left after that time, or when no more will be taken."""
        deadline = time.monotonic() + timeout_s
        left = 0
        while True:
            try:
                left_s = max(0.0, deadline - time.monotonic())
                left = wait_for_reports(self._producer, min(0.5, left_s))
            except KafkaException as error:
                self._dead = said(self._kafka, error.args[0])
            if self._dead is not None or left == 0 or time.monotonic() >= deadline:
                return left

    def close(self) -> Counts:
        """Flush, then end; sending afterwards is an error. May be called twice."""
        try:
            return self.flush() if not self._closed.is_set() else self.counts
        finally:
            self._end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:  # an error of the block itself is what the caller wants to see
            self.flush(5.0)
        except BrokerError as also:
            error.add_note(f"and while closing the feeder: {also}")
        finally:
            self._end()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except BrokerError as error:
            logger.error("a feeder that was never closed: %s", error)

    def _end(self) -> None:
        self._closed.set()
        atexit.unregister(self._close_at_exit)
        with self._lock:
            self._wake.notify()
        self._thread.join()

    def _check_stream(self, stream: str) -> None:
        try:
            stream_of_key(stream.encode())
        except (FrameError, UnicodeEncodeError, AttributeError) as error:
            raise InputError(f"{stream!r:.60} can't be a stream's name: {error}") from None

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set():
            raise BrokerError("this feeder is closed; send inside its `with` block")

    def _linger(self) -> None:
        """Release frames that are due, and serve delivery reports."""
        while not self._closed.is_set():
            with self._lock:
                now = time.monotonic()
                for stream in [s for s, due in self._due.items() if due <= now]:
                    try:
                        self._release(stream)
                    except StreamlearnError as error:  # nobody to tell here: flush tells it
                        self._first_error = self._first_error or str(error)
                next_due = min(self._due.values(), default=now + 0.1)
                self._wake.wait(min(0.1, max(0.001, next_due - now)))
            self._poll(0)

    def _poll(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:  # an idempotent producer is at its end: it may not write
            self._dead = said(self._kafka, error.args[0])

    def _builder(self, stream: str) -> FrameBuilder:
        return self._builders.setdefault(stream, FrameBuilder(stream))

    def _release(self, stream: str) -> None:
        self._due.pop(stream, None)
        builder = self._builders.pop(stream, None)
        if builder:
            self._produce(builder.take())

    def _produce(self, frame: Frame) -> None:
        n = len(frame)
        if n > 1 and frame.images and _too_much(frame):
            self._produce_halves(frame)
            return
        try:
            value, headers = event_codec.encode(frame)
        except FrameError as error:
            self._failed += n
            raise InputError(f"frame of stream {frame.stream!r}: {error}") from None
        if len(value) > MAX_FRAME_BYTES and n > 1:
            self._produce_halves(frame)
            return
        if len(value) > event_codec.MAX_FRAME_BYTES:
            self._failed += n
            raise InputError(
                f"one event of stream {frame.stream!r} has {len(value):,} bytes; at most "
                f"{event_codec.MAX_FRAME_BYTES:,} are learned from: send smaller images or texts"
            )

        def delivered(error: KafkaError | None, message: Message) -> None:
            self._delivered(error, n)

        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value,
                    frame.stream.encode(),
                    headers=[*headers],
                    callback=delivered,
                )
                return
            except BufferError:  # enough waits for the broker: let the caller wait, too
                self._poll(0.05)
                if self._dead is not None:
                    self._failed += n
                    raise BrokerError(f"frame of {n} events refused: {self._dead}") from None
            except KafkaException as error:
                self._failed += n
                self._poll(0)  # a producer at its end says here why
                why = self._dead or error.args[0].str()
                raise BrokerError(f"frame of {n} events refused: {why}") from None

    def _produce_halves(self, frame: Frame) -> None:
        n = len(frame)
        self._produce(frame.rows(0, n // 2))
        self._produce(frame.rows(n // 2, n))

    def _delivered(self, error: KafkaError | None, n_events: int) -> None:
        with self._lock:
            if error is None:
                self._acknowledged += n_events
                self._frames += 1
                return
            self._failed += n_events
            self._first_error = self._first_error or said(self._kafka, error)


def _too_much(frame: Frame) -> bool:
    """Whether images' files alone are too large for a frame, or more pixels than a worker reads."""
    files = [raw for column in frame.images.values() for raw in column.raw if raw is not None]
    if sum(map(len, files)) > MAX_FRAME_BYTES:
        return True
    return sum(map(_n_pixels, set(files))) > image_codec.MAX_FRAME_PIXELS


def _n_pixels(raw: bytes) -> int:
    try:
        return image_codec.n_pixels_of(raw)
    except RefusedError:  # the worker says so, where whoever made the frame did not look
        return 0
