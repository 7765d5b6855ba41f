"""Fakes, crash points and frozen workers, for tests of what must survive them.

`MemoryKafka` is a broker in this process: what was flushed is there, what was only sent may be
or not. `tests/contract` holds it to the same suite as a real broker. `CrashPoint` ends a worker
between any two of its effects, `Interlude` lets something else happen there, as to a worker that
was frozen.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from streamlearn.runtime.log import Record
from streamlearn.runtime.publisher import Acknowledged, TopicPartition
from streamlearn.wire.cloud_events import Message


class Clock:
    """A clock that only moves by hand.

    >>> clock = Clock(10.0)
    >>> clock.forward(2.5)
    >>> clock()
    12.5
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Crashed(BaseException):
    """The process ended here: not an Exception, so that nothing handles it."""


class CrashPoint:
    """An `effect` hook that ends the worker at the n-th effect (from 1), or the n-th of a name."""

    def __init__(self, after: int, name: str | None = None) -> None:
        self._left = after
        self._name = name

    def __call__(self, effect: str) -> None:
        if self._name in (None, effect):
            self._left -= 1
            if self._left == 0:
                raise Crashed(effect)


class Interlude:
    """An `effect` hook that does something once, at the n-th effect, and lets the worker go on.

    What happens meanwhile is what a frozen worker misses: others take over, learn, go again.
    """

    def __init__(self, after: int, action: Callable[[], None]) -> None:
        self._left = after
        self._action = action
        self.happened = False

    def __call__(self, effect: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.happened = True
            self._action()


class MemoryKafka:
    """Topics in memory: logs, watermarks, a group's offsets, compaction, retention."""

    def __init__(self) -> None:
        self._logs: dict[TopicPartition, list[Record]] = defaultdict(list)
        self._next: dict[TopicPartition, int] = defaultdict(int)
        self._low: dict[TopicPartition, int] = defaultdict(int)
        self._made: dict[str, int] = defaultdict(int)  # how often a topic was made anew
        self.offsets: dict[TopicPartition, int] = {}  # of the one group

    def append(self, topic: str, partition: int, message: Message, timestamp_s: float = 0.0) -> int:
        """One message; its offset."""
        place = topic, partition
        offset = self._next[place]
        self._next[place] = offset + 1
        headers = tuple(message.headers)
        self._logs[place].append(Record(offset, message.key, message.value, headers, timestamp_s))
        return offset

    def topic_id(self, topic: str) -> str:
        return f"{topic}#{self._made[topic]}"

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        return self._low[topic, partition], self._next[topic, partition]

    def committed(self, topic: str, partition: int) -> int | None:
        return self.offsets.get((topic, partition))

    def move(self, topic: str, offsets: Mapping[int, int]) -> None:
        self.offsets.update({(topic, number): offset for number, offset in offsets.items()})

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        for record in list(self._logs[topic, partition]):
            if start <= record.offset < end:
                yield record

    def compact(self, topic: str) -> None:
        """Keep only the last message of each key, and no tombstones."""
        for place, log in self._logs.items():
            if place[0] == topic:
                last = {record.key: record.offset for record in log}
                log[:] = [r for r in log if last[r.key] == r.offset and r.value is not None]

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Retention removed everything before `offset`."""
        log = self._logs[topic, partition]
        log[:] = [record for record in log if record.offset >= offset]
        self._low[topic, partition] = offset

    def lose_from(self, topic: str, partition: int, offset: int) -> None:
        """The topic ends at `offset`: what came after it is lost."""
        log = self._logs[topic, partition]
        log[:] = [record for record in log if record.offset < offset]
        self._next[topic, partition] = offset

    def make_anew(self, topic: str) -> None:
        """The topic was deleted and created again."""
        self._made[topic] += 1
        for places in (self._logs, self._next, self._low, self.offsets):
            for place in [place for place in places if place[0] == topic]:
                del places[place]


class MemoryPublisher:
    """Sends to a MemoryKafka. Of what was sent and not flushed, `die` keeps a random beginning."""

    def __init__(self, kafka: MemoryKafka, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._kafka = kafka
        self._clock = clock
        self._sent: list[tuple[str, int, Message]] = []

    def send(self, topic: str, partition: int, message: Message, *, vital: bool = True) -> None:
        self._sent.append((topic, partition, message))

    def flush(self) -> Mapping[TopicPartition, Acknowledged]:
        taken: dict[TopicPartition, Acknowledged] = {}
        sent, self._sent = self._sent, []
        for topic, partition, message in sent:
            offset = self._kafka.append(topic, partition, message, self._clock())
            before = taken.get((topic, partition))
            first, count = (offset, 0) if before is None else (before.first, before.count)
            taken[topic, partition] = Acknowledged(first, offset, count + 1)
        return taken

    def die(self, rng: random.Random) -> None:
        """The process was killed: some of what waited had reached the broker, in order."""
        del self._sent[rng.randint(0, len(self._sent)) :]
        self.flush()
