"""Publishes what changed: slow weights that are new, then an update a stream, acknowledged.

Several frames of a stream since its last update make one update: its version jumps. After an
error the streams' `published` is as before, and nobody goes on.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from streamlearn.core.model import Model
from streamlearn.core.update import diff
from streamlearn.runtime.hot_streams import HotStream
from streamlearn.runtime.partition import Partition
from streamlearn.runtime.publisher import Publisher
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.topics import Topics
from streamlearn.wire import update_codec
from streamlearn.wire.signing import Signer

Place: TypeAlias = tuple[int, str]  # partition and stream


class Updates:
    """For the learning thread; `clock` is wall time, `effect` is told of each effect done."""

    def __init__(
        self,
        topics: Topics,
        *,
        publisher: Publisher,
        metrics: WorkerMetrics,
        clock: Callable[[], float],
        signer: Signer | None,
        effect: Callable[[str], None],
    ) -> None:
        self._slow = topics["slow"].full_name
        self._updates = topics["updates"].full_name
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._signer = signer
        self._effect = effect
        self._seen: set[str] = set()  # hashes of slow weights that we published
        self._touched: dict[Place, HotStream] = {}  # changed since their last update
        self._arrived_s: list[float] = []  # Kafka's times of the frames that changed them
        self.next: dict[int, int] = {}  # partition to the updates topic's offset after our last

    @property
    def waiting(self) -> int:
        """Streams that changed since their last update."""
        return len(self._touched)

    def touch(self, stream: HotStream, arrived_s: float | None = None) -> None:
        """It changed, by a frame of this Kafka time: the next `publish` says so."""
        self._touched[stream.partition, stream.name] = stream
        if arrived_s is not None:
            self._arrived_s.append(arrived_s)

    def publish(self, partitions: Mapping[int, Partition]) -> None:
        """Everything sent so far, and an update for each stream that changed, acknowledged."""
        streams, self._touched = self._touched, {}
        arrived_s, self._arrived_s = self._arrived_s, []
        models = {place: stream.learner.model() for place, stream in streams.items()}
        self._publish_slow(models.values())
        sizes = {
            place: self._send(partitions[place[0]], stream, models[place])
            for place, stream in streams.items()
        }
        self._effect("updates sent")
        for (topic, number), acknowledged in self._publisher.flush().items():
            if topic == self._updates and acknowledged.last >= 0:  # else it was not said where
                self.next[number] = acknowledged.last + 1
        self._effect("updates acknowledged")
        for (number, name), stream in streams.items():
            kind = "full" if stream.published is None else "delta"
            stream.published = models[number, name]
            partitions[number].announced.add(name)
            self._metrics.published(name, stream.published.version, kind, sizes[number, name])
        now = self._clock()
        latency = self._metrics.histogram("streamlearn_event_to_update_seconds")
        for timestamp_s in arrived_s:
            latency.observe(max(0.0, now - timestamp_s))

    def _publish_slow(self, models: Iterable[Model]) -> None:
        """Slow weights come before the first update that refers to them."""
        for digest, slow in {model.slow.hash: model.slow for model in models}.items():
            if digest in self._seen:
                continue
            sent_s, signer = self._clock(), self._signer
            for message in update_codec.encode_slow(slow, sent_s=sent_s, signer=signer):
                self._publisher.send(self._slow, 0, message)
            self._publisher.flush()
            self._seen.add(digest)
            self._effect("slow weights acknowledged")

    def _send(self, partition: Partition, stream: HotStream, model: Model) -> int:
        """One update; its bytes."""
        messages = update_codec.encode(
            diff(stream.published, model),
            epoch=partition.epoch,
            source_partition=partition.number,
            source_offset=stream.offset,
            newest_event_s=stream.newest_event_s,
            newest_record_s=stream.newest_record_s,
            sent_s=self._clock(),
            signer=self._signer,
        )
        for message in messages:
            self._publisher.send(self._updates, partition.number, message)
        return sum(len(message.value or b"") for message in messages)
