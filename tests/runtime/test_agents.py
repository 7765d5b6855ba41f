"""The agent beside a learning thread that only takes notes."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from streamlearn.errors import BrokerError
from streamlearn.runtime.agents import LOST_S, Agent
from streamlearn.runtime.checkpoint import LostError
from streamlearn.runtime.partition import Arrival, Partition
from streamlearn.stores.memory import MemoryStore
from streamlearn.testing import Clock


@dataclass
class Notes:
    """What was asked of the learning thread."""

    learned: list[tuple[int, int]] = field(default_factory=list)  # partition, offset
    owned: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    checkpoints: int = 0
    everything: bool = False  # whether the last one was told so
    fails: BaseException | None = None

    def own(self, partitions: Sequence[int], generation: int) -> None:
        self.owned.append((tuple(partitions), generation))

    def learn(self, arrivals: Mapping[int, Sequence[Arrival]]) -> None:
        if self.fails is not None:
            raise self.fails
        self.learned += [(n, a.offset) for n, each in arrivals.items() for a in each]

    def checkpoint(self, *, everything: bool) -> Mapping[int, int]:
        if self.fails is not None:
            raise self.fails
        self.checkpoints += 1
        self.everything = everything
        newest: dict[int, int] = {}
        for number, offset in self.learned:
            newest[number] = max(offset, newest.get(number, -1))
        return newest


def event(partition: int, offset: int, generation: int = 1) -> Any:
    message = SimpleNamespace(
        partition=partition,
        offset=offset,
        generation_id=generation,
        key=b"s",
        value=bytes(10),
        headers=[],
        timestamp=0.0,
    )
    return SimpleNamespace(message=message)


class Bench:
    """An agent, its notes, its clock, and what it acknowledged."""

    def __init__(self) -> None:
        self.notes, self.clock = Notes(), Clock()
        self.acknowledged: list[tuple[int, int]] = []
        self.agent = Agent(
            self.notes,
            acknowledge=lambda m: self.acknowledged.append((m.partition, m.offset)),
            clock=self.clock,
            checkpoint_interval_s=5.0,
        )


def test_events_are_acknowledged_at_the_checkpoint_and_in_order() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.agent.own([1, 0], generation=1)
        events = [event(0, 0), event(1, 7), event(0, 1)]
        await bench.agent.take(events)
        assert bench.notes.learned == [(0, 0), (0, 1), (1, 7)]
        assert bench.acknowledged == [] and bench.agent.pending == 3
        assert all(e.message.value is None for e in events)  # no payloads are kept
        await bench.agent.tick()
        assert bench.acknowledged == []
        bench.clock.forward(5.0)
        await bench.agent.tick()
        assert bench.acknowledged == [(0, 0), (0, 1), (1, 7)] and bench.agent.pending == 0
        assert not bench.notes.everything  # as much as the budget allows

    bench = Bench()
    asyncio.run(scenario(bench))
    assert bench.notes.owned == [((0, 1), 1)]


def test_a_checkpoint_that_is_due_comes_with_the_batch() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.agent.own([0], generation=1)
        bench.clock.forward(6.0)
        await bench.agent.take([event(0, 3)])
        assert bench.acknowledged == [(0, 3)]

    asyncio.run(scenario(Bench()))


def test_events_of_an_earlier_ownership_are_left_to_the_next_owner() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.agent.take([event(0, 0)])  # before anything is owned
        await bench.agent.own([0], generation=2)
        await bench.agent.take([event(0, 0, generation=1), event(1, 0, generation=2)])
        assert bench.notes.learned == []
        await bench.agent.take([event(0, 0, generation=2)])
        await bench.agent.hand_over()
        assert bench.acknowledged == [(0, 0)]
        await bench.agent.take([event(0, 1, generation=2)])
        await bench.agent.hand_over()
        assert bench.notes.learned == [(0, 0)] and bench.notes.checkpoints == 1
        assert bench.notes.everything

    asyncio.run(scenario(Bench()))


def test_after_an_error_nothing_more_is_learned_or_checkpointed() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.agent.own([0], generation=1)
        bench.notes.fails = BrokerError("no broker")
        with pytest.raises(BrokerError, match="no broker"):
            await bench.agent.take([event(0, 0)])
        bench.notes.fails = None
        with pytest.raises(RuntimeError, match="has failed"):
            await bench.agent.take([event(0, 1)])
        await bench.agent.hand_over()
        assert bench.notes.checkpoints == 0 and bench.acknowledged == []

    asyncio.run(scenario(Bench()))


def test_a_lost_partition_waits_for_a_rebalance_but_not_for_ever() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.agent.own([0], generation=1)
        bench.notes.fails = LostError(Partition(0, MemoryStore(), epoch=1, fence=2))
        bench.clock.forward(5.0)
        await bench.agent.tick()
        bench.notes.fails = None
        await bench.agent.take([event(0, 0)])
        assert bench.notes.learned == []
        await bench.agent.own([0], generation=2)
        await bench.agent.take([event(0, 0, generation=2)])
        assert bench.notes.learned == [(0, 0)]

        bench.notes.fails = LostError(Partition(0, MemoryStore(), epoch=2, fence=3))
        bench.clock.forward(5.0)
        await bench.agent.tick()
        bench.clock.forward(LOST_S + 1)
        with pytest.raises(BrokerError, match=r"start this worker again.*two groups"):
            await bench.agent.tick()

    asyncio.run(scenario(Bench()))


def test_a_cancelled_caller_does_not_hide_an_error() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.agent.own([0], generation=1)
        bench.notes.fails = BrokerError("no broker")
        task = asyncio.ensure_future(bench.agent.take([event(0, 0)]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, BrokerError)):
            await task
        bench.notes.fails = None
        bench.agent.close()
        assert bench.notes.checkpoints == 0

    asyncio.run(scenario(Bench()))
