"""Holds models that are always current, and predicts with them in this process.

A thread (`update_reader`) reads slow weights, snapshots and updates into a `replica`; this file
is what other threads see. They read one reference to an immutable model, so a prediction never
waits for the network and never sees half an update.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from difflib import get_close_matches
from types import TracebackType

from streamlearn.config import KafkaConfig, TopicsConfig
from streamlearn.core.model import Model
from streamlearn.core.records import Label
from streamlearn.errors import BrokerError, InputError, NotYetError, StreamlearnError
from streamlearn.runtime.framing import frame_of_one
from streamlearn.runtime.keys import PublicKey, verifier
from streamlearn.runtime.replica import Held, Outcome, Replica, ReplicaState
from streamlearn.runtime.update_reader import UpdateReader
from streamlearn.telemetry.subscriber_metrics import SubscriberMetrics

BACKLOG = 1024  # versions that an iterator may lag behind; older ones are skipped

logger = logging.getLogger(__name__)


class StreamModel:
    """One stream's model, always the newest; thread-safe.

    Two calls may see two versions. Take `current` once where several predictions have to come
    from the same model.
    """

    def __init__(self, stream: str, replica: Replica, subscriber: "Subscriber") -> None:
        self.stream = stream
        self._replica = replica
        self._subscriber = subscriber

    def __repr__(self) -> str:
        return f"<StreamModel {self.stream!r} version {self.version}>"

    @property
    def held(self) -> Held:
        """The newest model with its epoch, hash and times."""
        held = self._replica.held(self.stream)
        if held is None:  # a handle is only given for a stream that has one, and none is taken away
            raise NotYetError(f"stream {self.stream!r} has no model yet; wait_for({self.stream!r})")
        return held

    @property
    def current(self) -> Model:
        """The newest model, immutable: predicts frames, tells its classes and columns."""
        return self.held.model

    @property
    def version(self) -> int:
        """Frames learned so far."""
        return self.current.version

    @property
    def updated_at(self) -> datetime:
        """When this process swapped to the current version (UTC)."""
        return datetime.fromtimestamp(self.held.swapped_s, UTC)

    @property
    def state(self) -> ReplicaState:
        """NEEDS_SNAPSHOT while a newer version is known than could be built."""
        return self._replica.state(self.stream)

    def wait_for(self, version: int, *, timeout_s: float = 30.0) -> Model:
        """The first model at hand that has learned `version` frames or more.

        Raises NotYetError after `timeout_s`.
        """
        return self._subscriber.wait_for(self.stream, version, timeout_s=timeout_s).current

    def versions(self, *, timeout_s: float | None = None) -> Iterator[Held]:
        """Each new version from now on: see `Subscriber.versions`."""
        return self._subscriber.versions(self.stream, timeout_s=timeout_s)

    def predict(self, features: Mapping[str, object]) -> Label | None:
        """The most probable label of one event, as if it were the stream's next.

        features: as for `Feeder.send`; unknown ones are ignored, missing ones imputed.
        None before the stream's first label was learned.
        """
        probabilities = self.predict_proba(features)
        return max(probabilities, key=probabilities.__getitem__) if probabilities else None

    def predict_proba(self, features: Mapping[str, object]) -> dict[Label, float]:
        """Each label's probability for one event; empty before the first label was learned."""
        model = self.current
        frame = frame_of_one(self.stream, features, time_s=time.time())
        row = model.predict_proba(frame)[0]  # (C,)
        return dict(zip(model.classes, row.tolist(), strict=True))


class Subscriber(AbstractContextManager["Subscriber"]):
    """Follows every stream's model.

        with Subscriber("host:9092") as subscriber:
            boiler = subscriber.model("boiler-7")
            boiler.predict({"temp": 93.1, "flow": 0.2})  # "leak"

    The constructor returns when the broker has answered; `model` and `streams` wait until what
    was on the topics then has been read. With a `public_key` (a PEM file, or its bytes; several
    while keys are replaced), what isn't signed with one of them, for this prefix, is refused, and
    counted as `foreign`. Raises BrokerError for a broker or topics that aren't
    there, InputError for a stream that nobody knows, NotYetError for what did not come in time.
    """

    def __init__(
        self,
        bootstrap: str | KafkaConfig = "localhost:9092",
        *,
        topic_prefix: str = TopicsConfig().prefix,
        public_key: PublicKey | Sequence[PublicKey] = (),
        connect_timeout_s: float = 10.0,
    ) -> None:
        kafka = KafkaConfig(bootstrap=bootstrap) if isinstance(bootstrap, str) else bootstrap
        self._bootstrap = kafka.bootstrap
        self._changed = threading.Condition()
        self._backlogs: list[tuple[str | None, deque[Held]]] = []
        self._callbacks: list[Callable[[Held], None]] = []
        self._closed = False
        self._replica = Replica(clock=time.time, on_swap=self._swapped)
        self._reader = UpdateReader(
            kafka,
            topic_prefix=topic_prefix,
            replica=self._replica,
            verifier=verifier(public_key, prefix=topic_prefix),
            connect_timeout_s=connect_timeout_s,
            on_change=self._notify,
        )
        self._reader.start()

    def model(self, stream: str, *, timeout_s: float = 30.0) -> StreamModel:
        """The stream's model; it stays current by itself.

        Raises InputError if no model of that stream was published, with those that were.
        """
        self._wait_until_caught_up(timeout_s)
        if self._replica.held(stream) is None:
            raise InputError(self._unknown(stream))
        return StreamModel(stream, self._replica, self)

    def streams(self, *, timeout_s: float = 30.0) -> tuple[str, ...]:
        """The streams that have a model, sorted."""
        self._wait_until_caught_up(timeout_s)
        return self._replica.streams()

    def wait_for(self, stream: str, version: int = 1, *, timeout_s: float = 30.0) -> StreamModel:
        """Wait until the stream's model has learned `version` frames or more.

        Raises NotYetError after `timeout_s`.
        """

        def there() -> bool:
            held = self._replica.held(stream)
            return held is not None and held.model.version >= version

        if not self._wait(there, timeout_s):
            held = self._replica.held(stream)
            have = f"it has version {held.model.version}" if held else self._unknown(stream)
            raise NotYetError(
                f"stream {stream!r} did not reach version {version} within {timeout_s:g} s; "
                f"{have}; is it fed, and does a worker run?"
            )
        return StreamModel(stream, self._replica, self)

    def on_version(self, callback: Callable[[Held], None]) -> Callable[[], None]:
        """Call `callback` with each new version, in the reading thread; returns what ends that.

        Be quick in it, since nothing is read meanwhile. What it raises is logged, no more.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def versions(
        self, stream: str | None = None, *, timeout_s: float | None = None
    ) -> Iterator[Held]:
        """Each new version from now on, of one stream or of all, as they are swapped in.

        Ends when the subscriber is closed, or when none came for `timeout_s`. A reader that is
        more than 1,024 versions behind misses the oldest, never the newest.
        """
        backlog: deque[Held] = deque(maxlen=BACKLOG)
        with self._changed:  # from the call on, not from the first next()
            self._backlogs.append((stream, backlog))
        return self._iterate((stream, backlog), timeout_s)

    def _iterate(
        self, entry: tuple[str | None, deque[Held]], timeout_s: float | None
    ) -> Iterator[Held]:
        backlog = entry[1]
        try:
            while self._wait(lambda: bool(backlog), timeout_s) and backlog:
                yield backlog.popleft()
        finally:
            with self._changed:
                self._backlogs.remove(entry)

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many messages had which outcome."""
        return dict(self._replica.counts)

    @property
    def metrics(self) -> SubscriberMetrics:
        """For any Prometheus registry: `registry.register(subscriber.metrics)`."""
        replica = self._replica
        return SubscriberMetrics(
            outcomes=tuple(Outcome),
            counts=lambda: {outcome.value: n for outcome, n in self.counts.items()},
            streams=lambda: len(replica.streams()),
            behind=replica.behind,
        )

    @property
    def refused(self) -> str | None:
        """How many messages were signed by nobody who is trusted, and the last; None: none."""
        last = self._reader.unusable.foreign
        if last is None:
            return None
        count = self._replica.counts[Outcome.FOREIGN]
        return f"{count} messages at {self._bootstrap} were refused; the last: {last}"

    def close(self) -> None:
        """End the reading thread. Models at hand go on predicting, and no longer change."""
        self._closed = True
        self._notify()
        self._reader.stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _swapped(self, held: Held) -> None:
        """In the reading thread, after each swap."""
        with self._changed:
            for stream, backlog in self._backlogs:
                if stream is None or stream == held.model.stream:
                    backlog.append(held)
            self._changed.notify_all()
        for callback in tuple(self._callbacks):
            try:
                callback(held)
            except Exception:
                logger.exception("a callback for %s failed", held.model.stream)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait(self, there: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait for it, or until closed or failed; whether it is there."""
        with self._changed:
            self._changed.wait_for(
                lambda: there() or self._closed or self._reader.error is not None, timeout_s
            )
            if not there() and self._reader.error is not None:
                raise self._failure()
            return there()

    def _wait_until_caught_up(self, timeout_s: float) -> None:
        if not self._wait(lambda: self._reader.caught_up, timeout_s) and not self._closed:
            raise NotYetError(
                f"the models at {self._bootstrap} are not read after {timeout_s:g} s; "
                "is the broker up? Give timeout_s where there are many"
            )

    def _failure(self) -> StreamlearnError:
        error = self._reader.error
        return error if isinstance(error, StreamlearnError) else BrokerError(f"{error!r}")

    def _unknown(self, stream: str) -> str:
        known = self._replica.streams()
        if not known and self.refused is not None:
            return f"no model of stream {stream!r} that can be trusted: {self.refused}"
        if not known:
            return (
                f"no model of stream {stream!r}, nor of any other, was published at "
                f"{self._bootstrap}; feed some events and run a worker"
            )
        close = get_close_matches(stream, known, n=1)
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"no model of stream {stream!r} was published; {hint}Known: {shown}"
