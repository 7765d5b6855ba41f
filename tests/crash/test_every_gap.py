"""A worker ends, or freezes, between any two of its effects: nothing is lost, nothing twice."""

import itertools

import pytest

from streamlearn.testing import Crashed, CrashPoint, Interlude
from tests.crash.world import Worker, World


def begin(seed: int) -> World:
    """A world with events that wait, and sometimes a past."""
    world = World(seed)
    world.feed(12)
    if world.rng.random() < 0.5:  # the group's generations restart when it was empty for long
        world.generation = 100
        first = world.worker("an old disk")
        first.own()
        first.work(1)
        world.generation = 0
    return world


def life(worker: Worker) -> None:
    """The same script for every worker: take over, learn and checkpoint, be fed in between."""
    worker.own()
    for _ in range(3):
        worker.learn()
        worker.learn()
        worker.checkpoint()
        worker.world.feed(4)


def check(world: World) -> None:
    """On an empty disk, from the topics alone, the final models are the truth's."""
    if world.rng.random() < 0.5:
        world.kafka.compact("state")
    last = world.worker("an empty disk")
    last.own()
    assert last.finish() == world.final
    replica = world.check_updates()
    for name, digest in world.final.items():
        held = replica.held(name)
        assert held is not None and held.hash == digest


def test_uninterrupted() -> None:
    world = World(0)
    world.feed(12)
    life(world.worker("disk"))
    check(world)


@pytest.mark.parametrize("wiped", [False, True], ids=["same disk", "disk wiped"])
def test_killed_after_each_effect(wiped: bool) -> None:
    seen: list[str] = []
    for gap in itertools.count(1):
        world = begin(gap)
        worker = world.worker("disk", CrashPoint(gap))
        try:
            life(worker)
        except Crashed as crash:
            seen.append(str(crash))
            worker.publisher.die(world.rng)
        else:
            break
        if wiped:
            world.disks.clear()
        if world.rng.random() < 0.5:
            world.kafka.compact("state")
        world.feed(3)
        successor = world.worker("disk")
        successor.own()
        successor.work(2)
        check(world)
    assert len(seen) > 20
    assert set(seen) == {
        "state topic read",
        "epoch claimed",
        "slow weights acknowledged",
        "updates sent",
        "updates acknowledged",
        "rows written",
        "states acknowledged",
        "markers acknowledged",
        "ownership verified",
        "tombstones acknowledged",
        "rows settled",
        "acknowledged",
    }


@pytest.mark.parametrize("back", [False, True], ids=["another goes on", "it gets them back"])
def test_frozen_after_each_effect_while_another_takes_over(back: bool) -> None:
    for gap in itertools.count(1):
        world = begin(1000 + gap)

        def meanwhile(world: World = world) -> None:
            other = world.worker("another disk")
            other.own()
            other.work(world.rng.randint(0, 4))
            world.feed(2)
            if world.rng.random() < 0.5:
                world.kafka.compact("state")

        interlude = Interlude(gap, meanwhile)
        worker = world.worker("disk", interlude)
        life(worker)  # what it does after it wakes up is late, and must do no harm
        if not interlude.happened:
            break
        if back:
            worker.own()
            worker.work(2)
        check(world)
    assert gap > 20


@pytest.mark.parametrize("seed", range(12))
def test_many_lives(seed: int) -> None:
    """Workers come, share, crash, lose disks and leave, in random order."""
    world = World(seed)
    for _ in range(6):
        world.feed(world.rng.randint(0, 6))
        disk = world.rng.choice(["one", "two"])
        worker = world.worker(disk, CrashPoint(world.rng.randint(1, 30)))
        try:
            worker.own(world.rng.choice([(0, 1), (0,), (1,)]))
            worker.work(3)
            worker.own(world.rng.choice([(0, 1), (0,), (1,)]))  # a rebalance keeps some
            worker.work(3)
        except Crashed:
            worker.publisher.die(world.rng)
        if world.rng.random() < 0.2:
            world.disks.pop(disk)
        if world.rng.random() < 0.3:
            world.kafka.compact("state")
    world.feed(1)
    check(world)
