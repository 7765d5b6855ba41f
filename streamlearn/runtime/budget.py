"""How many bytes a second checkpoints may write: which partitions' turn it is.

A partition is written whole or not at all, since its marker covers all its streams. Those that
waited longest come first; one larger than what is left is written when anything is left, and paid
off later, so over time the budget holds and nobody waits for ever. Hand-overs don't ask.
"""

import math
from collections.abc import Callable, Iterable

from streamlearn.runtime.partition import Partition

TYPICAL_OF = 8  # checkpoints, about, whose mean size a stream is expected


class Budget:
    """Bytes that gather at `bytes_per_s`, at most `burst_s` of them; `clock` is monotonic seconds.

    >>> from streamlearn.stores.memory import MemoryStore
    >>> now = [0.0]
    >>> budget = Budget(100, burst_s=1.0, clock=lambda: now[0])
    >>> partitions = [Partition(0, MemoryStore(), dirty={"a"}), Partition(1, MemoryStore())]
    >>> [partition.number for partition in budget.choose(partitions)]
    [0, 1]
    >>> budget.spend(partitions, streams=1, size=250)
    >>> partitions[0].dirty
    {'a'}
    >>> [partition.number for partition in budget.choose(partitions)]  # 1 costs a marker only
    [1]
    >>> now[0] = 2.0
    >>> [partition.number for partition in budget.choose(partitions)]  # paid off
    [0, 1]
    """

    def __init__(self, bytes_per_s: float, *, burst_s: float, clock: Callable[[], float]) -> None:
        self._rate = bytes_per_s
        self._burst = bytes_per_s * burst_s
        self._clock = clock
        self._left = self._burst
        self._at_s = clock()
        self._typical = 0.0  # bytes a stream
        self._written_s: dict[int, float] = {}  # partition to its last checkpoint

    def choose(self, partitions: Iterable[Partition]) -> list[Partition]:
        """Those that may be written now; at least one with changed streams if anything is left."""
        now = self._clock()
        self._left = min(self._left + (now - self._at_s) * self._rate, self._burst)
        self._at_s = now
        chosen, planned, full = [], 0.0, self._left <= 0
        for partition in sorted(partitions, key=self._waits_since):
            size = len(partition.dirty) * max(self._typical, 1.0)
            full = full or (planned > 0 and planned + size > self._left)
            if not size or not full:
                chosen.append(partition)
                planned += size
        return chosen

    def spend(self, partitions: Iterable[Partition], *, streams: int, size: int) -> None:
        """These were written: so many streams, so many bytes."""
        now = self._clock()
        self._written_s.update({partition.number: now for partition in partitions})
        self._left -= size
        if streams:
            first = self._typical == 0
            self._typical += (size / streams - self._typical) / (1 if first else TYPICAL_OF)

    def waited_s(self, partitions: Iterable[Partition]) -> float:
        """How long the longest waiting changes wait for their checkpoint, at most."""
        now = self._clock()
        dirty = [partition for partition in partitions if partition.dirty]
        return max((now - self._written_s.get(p.number, now) for p in dirty), default=0.0)

    def _waits_since(self, partition: Partition) -> tuple[float, int]:
        return self._written_s.get(partition.number, -math.inf), partition.number
