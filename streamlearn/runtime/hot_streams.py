"""Streams in memory: the ones used last, within a budget; the others lie in their stores.

A stream is let go only through `on_evict`, which puts its state into its partition's store, so a
budget that is too small costs time, never events. What a checkpoint will want to publish of it
stays, if there is room: else its state would have to be read and built again only for that.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streamlearn.core.learner import LearnerState, StreamLearner
from streamlearn.core.model import Model

UNMEASURED_BYTES = 1 << 20  # counted for a worker's first streams, until a checkpoint measures one
TYPICAL_OF = 16  # measured sizes, about, whose mean is counted for a stream that is new
OBJECTS_BYTES = 40 << 10  # learner, model, Python objects: 33 KiB with 8 columns and 2 classes
LEFT_SHARE = 8  # a budget's 1/8 at most is for what streams that left have said
ARRAYS_FACTOR = 1.15  # the published model beside the learner; what the allocator rounds up


def size_of(state: LearnerState) -> int:
    """Bytes that a stream of this state takes in memory, about.

    Measured, of 8 columns and 2 classes: 90 KiB with 3 random features, 105 with 16, 690 with 200;
    this gives 85, 99 and 781.
    """
    arrays = sum(array.nbytes for array in state.arrays.values())
    return OBJECTS_BYTES + int(ARRAYS_FACTOR * arrays)


@dataclass(frozen=True, slots=True)
class Said:
    """What a stream's snapshot is made of."""

    model: Model
    offset: int
    newest_event_s: float
    slot: int  # of the newest snapshot


@dataclass(slots=True)
class HotStream:
    """One stream in memory, with what was last said about it."""

    partition: int
    learner: StreamLearner
    offset: int  # source offset of the newest frame learned
    published: Model | None  # None: the next update is a full one
    newest_event_s: float = math.nan  # event time of the newest event, seconds since the epoch
    newest_record_s: float = math.nan  # Kafka's time of the newest frame, seconds since the epoch
    size: int = 0  # bytes, about; 0: as others of this worker
    stored: tuple[int, int] = (0, -1)  # epoch and offset of the state that the store has
    slot: int = 0  # of its newest snapshot: two in turn, so that one is always whole

    @property
    def name(self) -> str:
        return self.learner.stream

    def said(self) -> Said:
        """For a snapshot of it as it is now; updates come first, so usually this was published."""
        model = self.published or self.learner.model()
        return Said(model, self.offset, self.newest_event_s, self.slot)


class HotStreams:
    """Least recently used streams leave first, when bytes are over the budget."""

    def __init__(self, budget_bytes: int, on_evict: Callable[[HotStream], None]) -> None:
        self._budget = budget_bytes
        self._on_evict = on_evict
        self._streams: OrderedDict[tuple[int, str], HotStream] = OrderedDict()
        self._left: OrderedDict[tuple[int, str], Said] = OrderedDict()
        self._left_bytes = 0
        self._typical = float(UNMEASURED_BYTES)
        self.bytes = 0  # of the streams in memory

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[HotStream]:
        return iter(list(self._streams.values()))

    def get(self, partition: int, name: str) -> HotStream | None:
        """The stream if it is in memory; it counts as used now."""
        stream = self._streams.get((partition, name))
        if stream is not None:
            self._streams.move_to_end((partition, name))
        return stream

    def left(self, partition: int, name: str) -> Said | None:
        """What a stream that is not in memory had said when it left. Told once."""
        said = self._left.pop((partition, name), None)
        if said is not None:
            self._left_bytes -= _bytes(said)
        return said

    def add(self, stream: HotStream) -> None:
        """Keep a stream that was not in memory."""
        self.left(stream.partition, stream.name)
        self._streams[stream.partition, stream.name] = stream
        stream.size = stream.size or int(self._typical)
        self.bytes += stream.size

    def resize(self, stream: HotStream, size: int) -> None:
        """Its size was measured."""
        self.bytes += size - stream.size
        stream.size = size
        self._typical += (size - self._typical) / TYPICAL_OF

    def make_room(self, keep: int = 0) -> None:
        """Evict until the budget holds, but never the `keep` used last."""
        while self.bytes + self._left_bytes > self._budget and len(self._streams) > max(keep, 1):
            stream = next(iter(self._streams.values()))
            self._on_evict(stream)
            self._forget(stream)
            self._note(stream)

    def _note(self, stream: HotStream) -> None:
        """A stream left; the ones that left longest ago make room for it."""
        said = self._left[stream.partition, stream.name] = stream.said()
        self._left_bytes += _bytes(said)
        while self._left_bytes > self._budget // LEFT_SHARE:
            self.left(*next(iter(self._left)))

    def drop(self, partition: int, names: set[str] | None = None) -> None:
        """Forget streams of a partition without storing them; None: all of them."""
        for stream in self:
            if stream.partition == partition and (names is None or stream.name in names):
                self._forget(stream)
        for number, name in list(self._left):
            if number == partition and (names is None or name in names):
                self.left(number, name)

    def _forget(self, stream: HotStream) -> None:
        del self._streams[stream.partition, stream.name]
        self.bytes -= stream.size


def _bytes(said: Said) -> int:
    return sum(tensor.nbytes for tensor in said.model.tensors.values())
