"""What was not learned, to its topic, and counted by reason."""

from collections.abc import Sequence

from streamlearn.core.records import Rejection
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.publisher import Publisher
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.topics import Topics
from streamlearn.wire import dead_letter_codec


class DeadLetters:
    """Sends dead letters; they are acknowledged with the updates of their micro-batch."""

    def __init__(self, topics: Topics, *, publisher: Publisher, metrics: WorkerMetrics) -> None:
        self._topic = topics["deadletters"].full_name
        self._events = topics["events"].full_name
        self._publisher = publisher
        self._metrics = metrics

    def bury(
        self,
        partition: int,
        message: Arrival,
        rejected: Sequence[Rejection],
        *,
        topic: str | None = None,
    ) -> None:
        """One message's rejections, of rows or of all of it; `topic` where it is not events."""
        letters = dead_letter_codec.encode(
            rejected,
            message.value,
            message.key,
            message.headers,
            topic=topic or self._events,
            partition=partition,
            offset=message.offset,
        )
        for letter in letters:
            self._publisher.send(self._topic, 0, letter)
        for rejection in rejected:
            self._metrics.counter("streamlearn_dead_letters").labels(rejection.reason.value).inc()
