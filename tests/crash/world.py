"""A small world in this process: a log of events, workers on it, and the truth to compare with.

The truth is a StreamLearner that reads the log once, uninterrupted. Workers read it in batches of
random size; whatever happens to them, every version that ever appears on the updates topic, and
the final models, must have the truth's hashes.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from streamlearn import topics as topic_specs
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.budget import Budget
from streamlearn.runtime.checkpoint import LostError
from streamlearn.runtime.partition import Arrival
from streamlearn.runtime.replica import Replica, Stamp
from streamlearn.runtime.trainer import Trainer
from streamlearn.stores.memory import MemoryStore
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.testing import Clock, MemoryKafka, MemoryPublisher
from streamlearn.wire import event_codec, update_codec
from streamlearn.wire.cloud_events import Message
from streamlearn.wire.update_codec import Role

SETTINGS = LearnerSettings(random_features=3, windows=(50.0, float("inf")), step_events=4)
STREAMS = {"a": 0, "b": 0, "c": 1}  # to their partitions
PARTITIONS = (0, 1)
TOPICS = topic_specs.load(prefix="", partitions=2)

ROLES = {"slow": Role.SLOW, "updates": Role.UPDATES, "snapshots": Role.SNAPSHOTS}

Disk = dict[int, dict[bytes, bytes]]  # partition to rows


def frame(stream: str, number: int) -> Frame:
    """The stream's frame of that number: 1 to 6 events of 2 columns."""
    rng = np.random.default_rng([number, *stream.encode()])
    n = int(rng.integers(1, 7))
    x = rng.normal(size=(n, 2))
    codes = (x[:, 0] > 0).astype(np.int32)
    times = 1e9 + number * 10 + np.arange(n, dtype=np.float64)
    return Frame(stream, ("x", "y"), x, codes, ("no", "yes"), times)


@cache
def encoded(stream: str, number: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The same as a message's value and headers."""
    return event_codec.encode(frame(stream, number))


class Truth:
    """Hashes of every stream's versions: it learns the log once, uninterrupted, for all worlds."""

    def __init__(self) -> None:
        self._learners: dict[str, StreamLearner] = {}
        self._hashes: dict[str, list[str]] = defaultdict(list)

    def hash(self, name: str, version: int) -> str:
        """Of the stream's model after its first `version` frames."""
        hashes = self._hashes[name]
        learner = self._learners.setdefault(name, StreamLearner(name, SETTINGS))
        while len(hashes) < version:
            learner.learn(frame(name, len(hashes)))
            hashes.append(learner.model().hash)
        return hashes[version - 1]


TRUTH = Truth()


class World:
    """The broker, the disks, and who owns what."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kafka = MemoryKafka()
        self.disks: dict[str, Disk] = {}
        self.generation = 0
        self.clock = Clock(1e9)
        self._fed: dict[str, int] = defaultdict(int)

    def feed(self, frames: int) -> None:
        """Frames of random streams, and bad ones between them."""
        for _ in range(frames):
            name = self.rng.choice(sorted(STREAMS))
            if self.rng.random() < 0.1:
                self._append(name, b"nonsense", [])
            self._append(name, *encoded(name, self._fed[name]))
            self._fed[name] += 1

    def _append(self, name: str, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        message = Message(name.encode(), value, headers)
        self.kafka.append("events", STREAMS[name], message, self.clock())

    @property
    def final(self) -> Mapping[str, str]:
        """Each fed stream's newest hash."""
        return {name: TRUTH.hash(name, fed) for name, fed in self._fed.items()}

    def worker(self, disk: str, effect: Callable[[str], None] = lambda name: None) -> "Worker":
        """A worker process on a disk of that name, which it may find in use from before."""
        return Worker(self, self.disks.setdefault(disk, {}), effect)

    def check_updates(self) -> Replica:
        """A subscriber that read everything: updates, snapshots, and the updates after a gap.

        Every update and snapshot ever published has the truth's hash; an epoch begins with a
        full one.
        """
        replica = Replica(clock=self.clock)
        begun: set[tuple[str, int]] = set()  # stream and epoch
        for topic in ("slow", "updates", "snapshots", "updates"):
            role, assembler = ROLES[topic], update_codec.Assembler()
            for number in (0,) if topic == "slow" else PARTITIONS:
                for r in self.kafka.read(topic, number, 0, 1 << 60):
                    chunk = update_codec.decode(r.value, r.key, r.headers, role=role)
                    received = assembler.add(chunk)
                    if received is None:
                        continue
                    if received.slow is not None:
                        replica.offer_slow(received.slow)
                    if received.update is not None:
                        update = received.update
                        assert update.result_hash == TRUTH.hash(update.stream, update.version)
                        epoch = update.stream, received.header.epoch
                        assert update.full or epoch in begun
                        begun.add(epoch)
                        replica.offer(update, Stamp(received.header.epoch))
        return replica


class Worker:
    """One process: a trainer, a position in the log, acknowledgements as Faust would make them."""

    def __init__(self, world: World, disk: Disk, effect: Callable[[str], None]) -> None:
        self.world = world
        self._effect = effect
        self.publisher = MemoryPublisher(world.kafka, world.clock)
        self.metrics = WorkerMetrics()
        self.generation = 0
        self._position: dict[int, int] = {}
        self._lost = False
        self.trainer = Trainer(
            SETTINGS,
            TOPICS,
            worker_id="w",
            open_store=lambda number: MemoryStore(disk.setdefault(number, {})),
            memory_budget_bytes=world.rng.choice([1, 1 << 18, 1 << 30]),  # cold: all, some, none
            publisher=self.publisher,
            log=world.kafka,
            metrics=self.metrics,
            clock=world.clock,
            budget=Budget(1000, burst_s=1.0, clock=world.clock),
            effect=effect,
        )

    def own(self, partitions: tuple[int, ...] = PARTITIONS) -> None:
        """Join the group: a new generation, from the committed offsets."""
        self.world.generation += 1
        self.generation = self.world.generation
        self.trainer.own(partitions, self.generation)
        self._position, self._lost = {}, False
        if self.generation == self.world.generation:  # else the group has moved on: no events
            offsets = self.world.kafka.offsets
            self._position = {n: offsets.get(("events", n), 0) for n in partitions}

    def learn(self) -> bool:
        """One micro-batch of random size; False if nothing waits."""
        arrivals: dict[int, list[Arrival]] = {}
        for number, position in self._position.items():
            size = self.world.rng.randint(0, 5)
            for r in self.world.kafka.read("events", number, position, position + size):
                arrival = Arrival(r.offset, r.key, r.value, r.headers, r.timestamp_s)
                arrivals.setdefault(number, []).append(arrival)
                self._position[number] = r.offset + 1
        if arrivals:
            self.trainer.learn(arrivals)
        kafka = self.world.kafka
        return any(p < kafka.watermarks("events", n)[1] for n, p in self._position.items())

    def checkpoint(self, *, everything: bool = False) -> None:
        """A checkpoint and its acknowledgements, which the group refuses from an old owner.

        Not `everything`: of the partitions whose turn it is, within a budget that is too small.
        """
        if self._lost:
            return
        try:
            self.world.clock.forward(self.world.rng.choice([0.1, 10.0]))
            covered = self.trainer.checkpoint(everything=everything)
        except LostError:  # it waits for a rebalance
            self._lost, self._position = True, {}
            return
        if self.generation == self.world.generation:
            for number, offset in covered.items():
                place = "events", number
                assert offset + 1 >= self.world.kafka.offsets.get(place, 0)
                self.world.kafka.offsets[place] = offset + 1
        self._effect("acknowledged")

    def work(self, rounds: int) -> None:
        """Some micro-batches and checkpoints."""
        for _ in range(rounds):
            self.learn()
            if self.world.rng.random() < 0.5:
                self.checkpoint()

    def finish(self) -> dict[str, str]:
        """Learn all that waits, checkpoint; each stream's hash."""
        while self.learn():
            pass
        self.checkpoint(everything=True)
        return {name: model.hash for name, model in self.trainer.learned().items()}
