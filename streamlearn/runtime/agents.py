"""The agent: takes frames from Faust to the learning thread, and acknowledges what is covered.

All of Faust is met on the event loop; all learning, encoding, sending and storing is done by one
`Trainer` on one thread, a job at a time. A job is a micro-batch, a checkpoint or a take-over.

Order of effects for a micro-batch (4 is here, the others in trainer and checkpoint):
1 updates, predictions and dead letters, acknowledged by the broker
2 at a checkpoint: rows of the streams that changed, in RocksDB
3 state topic and snapshots, then the partition's marker, acknowledged
4 events up to the marker are acknowledged to the group, in order

A crash after 1: the frames come again, are learned again to the same weights, and their updates
are replays. After 2: streams are ahead of the topic; they skip what they know, and are written to
the topic with the next checkpoint. After 3: the events come again and are skipped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from streamlearn.errors import BrokerError
from streamlearn.runtime.checkpoint import LostError
from streamlearn.runtime.logs import OURS
from streamlearn.runtime.partition import Arrival

T = TypeVar("T")

log = logging.getLogger(OURS)

MAX_FRAMES = 64  # of one micro-batch
LOST_S = 20.0  # that a worker waits for a rebalance when another one claimed its partitions
WITHIN_S = 0.005  # that a micro-batch waits for more frames: 8 ms at the median, 6 % idle CPU


class Learning(Protocol):
    """What runs on the learning thread (`trainer.Trainer`)."""

    def own(self, partitions: Sequence[int], generation: int) -> None:
        """Take over these partitions and let go of all others."""

    def learn(self, arrivals: Mapping[int, Sequence[Arrival]]) -> None:
        """Learn frames by partition, each in order of offsets; returns when 1 is done."""

    def checkpoint(self, *, everything: bool) -> Mapping[int, int]:
        """Steps 2 and 3; partition to the offset that its marker covers.

        Not `everything`: as much as the budget for checkpoints allows.
        """


@dataclass(slots=True)
class _Pending:
    """Messages of one partition that wait for a marker; their payloads are let go."""

    messages: deque[Any] = field(default_factory=deque)  # faust Message, by offset


class Agent:
    """What the worker does with Faust's events, rebalances and shutdown.

    `acknowledge` tells Faust that a message is done with; `clock` is monotonic seconds.
    """

    def __init__(
        self,
        learning: Learning,
        *,
        acknowledge: Callable[[Any], None],
        clock: Callable[[], float],
        checkpoint_interval_s: float,
    ) -> None:
        self._learning = learning
        self._acknowledge = acknowledge
        self._clock = clock
        self._interval_s = checkpoint_interval_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._turn = asyncio.Lock()  # rebalances, micro-batches and checkpoints: one at a time
        self._generation: int | None = None  # of the group; None while partitions are not ours
        self._pending: dict[int, _Pending] = {}
        self._checkpoint_due = clock() + checkpoint_interval_s
        self._failed = False
        self._lost_at: float | None = None  # when it turned out that another worker owns them

    @property
    def pending(self) -> int:
        """Messages that were learned and wait for a marker."""
        return sum(len(pending.messages) for pending in self._pending.values())

    async def take(self, events: Sequence[Any]) -> None:
        """Learn one micro-batch; events of an earlier ownership are left to the next owner."""
        async with self._turn:
            arrivals = self._accept(events)
            if arrivals:
                await self._job(self._learning.learn, arrivals)
            if self._clock() >= self._checkpoint_due:
                await self._checkpoint()

    async def tick(self) -> None:
        """Checkpoint if it is time: for streams that pause. To be called every now and then."""
        if self._lost_at is not None and self._clock() - self._lost_at > LOST_S:
            raise BrokerError(
                f"another worker claimed our partitions, but the group left them to us for "
                f"{LOST_S:.0f} s; start this worker again: it takes them over anew. If that "
                "happens again, workers of two groups (worker.group) learn the same topics: give "
                "them one group, or the second a prefix of its own (topics.prefix)"
            )
        if self._clock() >= self._checkpoint_due and self._generation is not None:
            async with self._turn:
                await self._checkpoint()

    async def own(self, partitions: Sequence[int], generation: int) -> None:
        """After a rebalance, before events flow: take the partitions over, kept ones too."""
        async with self._turn:
            self._pending = {}
            await self._job(self._learning.own, sorted(partitions), generation)
            self._pending = {number: _Pending() for number in partitions}
            self._generation, self._lost_at = generation, None
            self._checkpoint_due = self._clock() + self._interval_s

    async def hand_over(self) -> None:
        """Before partitions are taken away: a last checkpoint, then nothing is acknowledged."""
        async with self._turn:
            if self._generation is None:
                return
            try:
                if not self._failed:
                    await self._checkpoint(everything=True)
            finally:
                self._generation = None

    async def pass_on(
        self, events: Sequence[Any], job: Callable[[Sequence[tuple[int, Arrival]]], None]
    ) -> None:
        """Have messages of another topic sent on; they are acknowledged when the broker has them.

        Those of an earlier ownership are left to the next owner.
        """
        async with self._turn:
            messages = [e.message for e in events if e.message.generation_id == self._generation]
            if messages:
                await self._job(job, [(m.partition, _arrival(m)) for m in messages])
            for message in messages:
                self._acknowledge(message)

    def close(self) -> None:
        """End the learning thread, after its last job."""
        self._thread.shutdown(wait=True)

    async def call(self, job: Callable[..., T], *arguments: Any) -> T:
        """Run something else on the learning thread."""
        return await self._job(job, *arguments)

    def _accept(self, events: Sequence[Any]) -> dict[int, list[Arrival]]:
        arrivals: dict[int, list[Arrival]] = {}
        for event in events:
            message = event.message
            pending = self._pending.get(message.partition)
            if pending is None or message.generation_id != self._generation:
                continue  # of an earlier ownership: it comes again, here or to the next owner
            arrivals.setdefault(message.partition, []).append(_arrival(message))
            message.value, message.headers = None, None  # what waits keeps offsets, no payloads
            pending.messages.append(message)
        return arrivals

    async def _checkpoint(self, *, everything: bool = False) -> None:
        try:
            covered = await self._job(partial(self._learning.checkpoint, everything=everything))
        except LostError as lost:
            log.warning("%s; waiting for the group to say who owns it", lost)
            self._generation, self._lost_at = None, self._clock()
            return
        self._checkpoint_due = self._clock() + self._interval_s
        if self._generation is None:
            return
        for number, offset in covered.items():  # 4
            waiting = self._pending[number].messages
            while waiting and waiting[0].offset <= offset:
                self._acknowledge(waiting.popleft())

    async def _job(self, job: Callable[..., T], *arguments: Any) -> T:
        def run() -> T:  # here, so that a job whose caller was cancelled is noticed, too
            if self._failed:
                raise RuntimeError("the learning thread has failed; nothing more is learned")
            try:
                return job(*arguments)
            except LostError:
                raise
            except BaseException:
                self._failed = True
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)


def _arrival(message: Any) -> Arrival:
    return Arrival(
        message.offset, message.key, message.value, message.headers or (), message.timestamp
    )
