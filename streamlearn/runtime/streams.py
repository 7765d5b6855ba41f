"""A worker's streams: in memory while there is room, else as states in their partitions' stores.

Whoever wants a stream gets it from here, wherever it is: to learn, so that it stays in memory, or
only to look at.
"""

from collections.abc import Mapping
from dataclasses import replace

from streamlearn.core.learner import StreamLearner
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.checkpoint import encode
from streamlearn.runtime.hot_streams import HotStream, HotStreams, Said, size_of
from streamlearn.runtime.partition import Partition


class Streams:
    """For the learning thread; `partitions` are those that the worker owns, as they come and go."""

    def __init__(
        self,
        settings: LearnerSettings,
        partitions: Mapping[int, Partition],
        *,
        memory_budget_bytes: int,
    ) -> None:
        self._settings = settings
        self._partitions = partitions
        self.hot = HotStreams(memory_budget_bytes, self._evict)

    def to_learn(self, partition: Partition, name: str) -> HotStream:
        """The stream in memory: loaded, or new, if it is not there yet."""
        stream = self.visit(partition, name)
        if self.hot.get(partition.number, name) is None:
            self.hot.add(stream)
        return stream

    def visit(self, partition: Partition, name: str) -> HotStream:
        """The stream to look at; what is loaded only for that does not stay in memory."""
        stream = self.hot.get(partition.number, name)
        if stream is not None:
            return stream
        stored = partition.state(name)
        if stored is None:
            return HotStream(partition.number, StreamLearner(name, self._settings), -1, None)
        learner = StreamLearner.restore(stored.state, self._settings)
        published = learner.model() if name in partition.announced else None
        found = HotStream(partition.number, learner, stored.source_offset, published)
        found.size, found.stored = size_of(stored.state), (stored.epoch, stored.source_offset)
        return found

    def said(self, partition: Partition, name: str) -> Said:
        """For the stream's next snapshot, wherever it is; its slot is the other one."""
        stream = self.hot.get(partition.number, name)
        if stream is not None:
            stream.slot = 1 - stream.slot
            return stream.said()
        said = self.hot.left(partition.number, name) or self.visit(partition, name).said()
        return replace(said, slot=1 - said.slot)

    def _evict(self, stream: HotStream) -> None:
        partition = self._partitions[stream.partition]
        as_of = partition.epoch, stream.offset
        if stream.name in partition.dirty and stream.stored != as_of:
            partition.put_states({stream.name: encode(stream, partition.epoch)})
            stream.stored = as_of
