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

from streamlearn import topics
from streamlearn.config import FeederConfig, KafkaConfig, TopicsConfig
from streamlearn.core.records import Frame
from streamlearn.errors import BrokerError, FrameError, InputError, StreamlearnError
from streamlearn.runtime.framing import (
    FrameBuilder,
    checked_features,
    events_of,
    frame_of_one,
    seconds,
)
from streamlearn.runtime.outbox import Outbox
from streamlearn.runtime.packing import pack
from streamlearn.wire import event_codec
from streamlearn.wire.cloud_events import stream_of_key

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0


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
        self._bootstrap = kafka.bootstrap
        self._topic = topics.load(prefix=topic_prefix, partitions=1)["events"].full_name
        self._frame_events = framing.frame_events
        self._linger_s = framing.linger_ms / 1000
        self._delivery_timeout_s = delivery_timeout_s
        self._lock = threading.RLock()  # keeps a stream's frames in order
        self._builders: dict[str, FrameBuilder] = {}
        self._due: dict[str, float] = {}  # stream to the monotonic second when its frame goes
        self._sent = 0
        self._closed = threading.Event()
        self._wake = threading.Condition(self._lock)
        self._outbox = Outbox(
            kafka,
            self._topic,
            delivery_timeout_s=delivery_timeout_s,
            connect_timeout_s=connect_timeout_s or CONNECT_TIMEOUT_S,
        )
        self._thread = threading.Thread(target=self._linger, name="feeder", daemon=True)
        self._thread.start()
        # Arrow imports what it can when it first encodes, which is slow, and at exit too late.
        event_codec.encode(frame_of_one("first", {"x": 0.0}, time_s=0.0))
        atexit.register(self._close_at_exit)  # where nobody closes it, nothing is lost silently

    @property
    def counts(self) -> Counts:
        """Events sent, acknowledged, failed so far, and frames acknowledged."""
        with self._lock:
            return Counts(self._sent, *self._outbox.tally())

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
        left = self._outbox.wait(timeout_s or self._delivery_timeout_s + 5)
        if self._outbox.dead is not None:
            raise BrokerError(f"nothing more can be sent to {self._topic}: {self._outbox.dead}")
        counts, error = self.counts, self._outbox.take_error()
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
        self._outbox.close()

    def _check_stream(self, stream: str) -> None:
        try:
            stream_of_key(stream.encode())
        except (FrameError, UnicodeEncodeError, AttributeError) as error:
            raise InputError(f"{stream!r:.60} can't be a stream's name: {error}") from None

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set():
            raise BrokerError("this feeder is closed; send inside its `with` block")

    def _linger(self) -> None:
        """Release frames that are due."""
        while not self._closed.is_set():
            with self._lock:
                now = time.monotonic()
                for stream in [s for s, due in self._due.items() if due <= now]:
                    try:
                        self._release(stream)
                    except StreamlearnError as error:  # nobody to tell here: flush tells it
                        self._outbox.fail(0, str(error))
                next_due = min(self._due.values(), default=now + 0.1)
                self._wake.wait(min(0.1, max(0.001, next_due - now)))

    def _builder(self, stream: str) -> FrameBuilder:
        return self._builders.setdefault(stream, FrameBuilder(stream))

    def _release(self, stream: str) -> None:
        self._due.pop(stream, None)
        builder = self._builders.pop(stream, None)
        if builder:
            self._produce(builder.take())

    def _produce(self, frame: Frame) -> None:
        left = len(frame)
        try:
            for part in pack(frame):
                left -= part.n_events
                self._outbox.put(frame.stream.encode(), part.value, part.headers, part.n_events)
        finally:
            if left:
                self._outbox.fail(left)
