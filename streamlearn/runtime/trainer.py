"""What the learning thread does: take partitions over, learn frames, publish, checkpoint.

A micro-batch, in order (1 of the worker's order of effects, see agents):
a decode; what can't be learned becomes a dead letter; a rollback replaces a stream's learner;
  late labels are learned with the events that the learner remembers
b test and learn, frame by frame, in the log's order; frames that a stream knows are skipped;
  streams' inner loops run in one call (core.cohort)
c slow weights that nobody has seen, acknowledged
d an update a stream (several frames of a stream make one) and dead letters, acknowledged

What is learned follows from the log alone; how frames were batched only decides which versions
are published. After an error nothing more is done: the worker ends, and the next one goes on from
the last checkpoint.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from streamlearn.core.cohort import Cohort, adapter_of
from streamlearn.core.model import Model
from streamlearn.core.settings import LearnerSettings
from streamlearn.runtime.budget import Budget
from streamlearn.runtime.checkpoint import Checkpoint, LostError, Sources
from streamlearn.runtime.dead_letters import DeadLetters
from streamlearn.runtime.label_requests import LabelRequests
from streamlearn.runtime.lessons import Lessons
from streamlearn.runtime.log import Log
from streamlearn.runtime.logs import OURS
from streamlearn.runtime.partition import Arrival, Partition
from streamlearn.runtime.predictions import Predictions
from streamlearn.runtime.progress import Progress
from streamlearn.runtime.publisher import Publisher
from streamlearn.runtime.relearn import Relearning
from streamlearn.runtime.restore import Restore
from streamlearn.runtime.rollback import Rollbacks
from streamlearn.runtime.streams import Streams
from streamlearn.runtime.updates import Updates
from streamlearn.stores.store import Store
from streamlearn.telemetry.metrics import WorkerMetrics
from streamlearn.topics import Topics
from streamlearn.wire import metrics_codec
from streamlearn.wire.signing import Signer, Verifier

log = logging.getLogger(OURS)

ANNOUNCED = 256  # streams that are published at a time when an epoch begins


class Trainer:
    """All learning of one worker. Every method runs on the learning thread, one at a time.

    `open_store` opens a partition's rows; `clock` is wall time in seconds; `budget` is for
    checkpoints, None: no limit; `effect` is called with the name of each effect when it is done.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        topics: Topics,
        *,
        worker_id: str,
        open_store: Callable[[int], Store],
        memory_budget_bytes: int,
        publisher: Publisher,
        log: Log,
        metrics: WorkerMetrics,
        clock: Callable[[], float],
        budget: Budget | None = None,
        predictions: bool = False,
        label_requests: int = 0,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
        effect: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._worker_id = worker_id
        self._open_store = open_store
        self._publisher = publisher
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._budget = budget
        self._names = {spec.name: spec.full_name for spec in topics}
        self._restore = Restore(
            topics,
            log=log,
            publisher=publisher,
            clock=clock,
            effect=effect,
            verifier=verifier,
            progress=Progress(_say, time.perf_counter),
        )
        self._checkpoint = Checkpoint(
            topics, log=log, publisher=publisher, clock=clock, signer=signer, effect=effect
        )
        self._partitions: dict[int, Partition] = {}
        self._streams = Streams(settings, self._partitions, memory_budget_bytes=memory_budget_bytes)
        self._updates = Updates(
            topics,
            publisher=publisher,
            metrics=metrics,
            clock=clock,
            signer=signer,
            effect=effect,
        )
        events = self._names["events"]
        rollbacks = Rollbacks(log, events, verifier=verifier)
        self._lessons = Lessons(
            self._streams,
            cohort=Cohort(lambda: adapter_of(settings)),
            updates=self._updates,
            publish=self._publish,
            rollbacks=rollbacks,
            relearning=Relearning(settings, log=log, events=events, rollbacks=rollbacks),
            dead_letters=DeadLetters(topics, publisher=publisher, metrics=metrics),
            predictions=Predictions(
                topics, settings, wanted=predictions, publisher=publisher, signer=signer
            ),
            requests=LabelRequests(label_requests, publisher, topics, signer=signer),
            metrics=metrics,
        )

    # --- ownership

    def own(self, partitions: Sequence[int], generation: int) -> None:
        """Take over these partitions and let go of all others."""
        for number in self._partitions.keys() - set(partitions):
            self._let_go(number)
        for number in partitions:
            self._take_over(number, generation)
        self._metrics.epochs({n: p.epoch for n, p in self._partitions.items()})

    def _let_go(self, number: int) -> None:
        self._streams.hot.drop(number)
        self._partitions.pop(number).store.close()

    def _take_over(self, number: int, generation: int) -> None:
        begun = time.perf_counter()
        partition = self._partitions.get(number)
        if partition is None:
            partition = Partition(number, self._open_store(number))
            partition.load()
            self._partitions[number] = partition
        found = self._restore.take_over(partition, generation)
        self._streams.hot.drop(number, None if found.amended else set(found.newer))
        if found.claimed:
            self._announce(partition)
        _, self._updates.next[number] = self._log.watermarks(self._names["updates"], number)
        seconds = time.perf_counter() - begun
        self._metrics.histogram("streamlearn_restore_seconds").observe(seconds)
        log.info(
            "partition %d: epoch %d, from offset %d, %d streams from %d records of the state "
            "topic, %.2f s",
            *(number, partition.epoch, partition.next_offset, len(found.newer), found.records),
            seconds,
        )

    def _announce(self, partition: Partition) -> None:
        """Begin an epoch: what may have been published in vain, by an owner cut off, comes again.

        These are the streams that are newer here than in the state topic.
        """
        for stream in self._streams.hot:
            if stream.partition == partition.number:
                stream.published = None  # the first update of an epoch is a full one
        for name in sorted(partition.dirty):
            self._updates.touch(self._streams.to_learn(partition, name))
            if self._updates.waiting == ANNOUNCED:
                self._publish()  # so that no more than these are in memory at once
        self._publish()

    # --- learning

    def learn(self, arrivals: Mapping[int, Sequence[Arrival]]) -> None:
        """Learn frames by partition, each in order of offsets; returns when all is published."""
        for number, messages in arrivals.items():
            partition = self._partitions[number]
            for message in messages:
                if self._follows(partition, message.offset):
                    self._lessons.take(partition, message)
                    partition.next_offset = message.offset + 1
        self._publish()
        self._metrics.gauge("streamlearn_hot_streams").set(len(self._streams.hot))
        self._metrics.gauge("streamlearn_hot_bytes").set(self._streams.hot.bytes)

    def _follows(self, partition: Partition, offset: int) -> bool:
        """Whether this message is the next one; RuntimeError if one before it was left out."""
        expected = partition.next_offset
        if offset > expected:  # legal only for offsets without a message, as transactions leave
            events, number = self._names["events"], partition.number
            for record in self._log.read(events, number, expected, offset):
                raise RuntimeError(
                    f"{events} partition {number}: the consumer left out offset {record.offset} "
                    f"(it went from {expected} to {offset}); start the worker again"
                )
        return offset >= expected

    def _publish(self) -> None:
        """An update for each stream that changed; then the memory budget holds again."""
        self._lessons.finish()
        self._updates.publish(self._partitions)
        self._streams.hot.make_room()

    # --- durability

    def checkpoint(self, *, everything: bool = True) -> Mapping[int, int]:
        """Make durable what was learned; partition to the offset that its marker covers.

        Not `everything`: as much as the budget allows.
        """
        begun, before = time.perf_counter(), self._checkpoint.bytes
        sources = Sources(
            hot=self._streams.hot,
            visit=self._streams.visit,
            said=self._streams.said,
            updates_next=self._updates.next,
        )
        chosen = list(self._partitions.values())
        if self._budget is not None and not everything:
            chosen = self._budget.choose(chosen)
        streams = sum(len(partition.dirty) for partition in chosen)
        try:
            covered = self._checkpoint.write(chosen, sources)
        except LostError as lost:
            self._let_go(lost.partition)
            raise
        self._streams.hot.make_room()
        size = self._checkpoint.bytes - before
        if self._budget is not None:
            self._budget.spend(chosen, streams=streams, size=size)
            waited_s = self._budget.waited_s(self._partitions.values())
            self._metrics.gauge("streamlearn_checkpoint_waiting_seconds").set(waited_s)
        if covered:
            seconds = time.perf_counter() - begun
            self._metrics.histogram("streamlearn_checkpoint_seconds").observe(seconds)
            self._metrics.counter("streamlearn_checkpoint_bytes").inc(size)
            log.debug("checkpoint: %s, %d KiB, %.3f s", dict(covered), size >> 10, seconds)
        return covered

    # --- telemetry

    def learned(self) -> Mapping[str, Model]:
        """The models of all streams of the owned partitions, for tests and audits."""
        names = {
            (number, name)
            for number, partition in self._partitions.items()
            for name in partition.streams()
        } | {(stream.partition, stream.name) for stream in self._streams.hot}
        return {
            name: self._streams.visit(self._partitions[number], name).learner.model()
            for number, name in sorted(names)
        }

    def publish_metrics(self) -> None:
        """The registry to the metrics topic; may get lost."""
        message = metrics_codec.encode(
            self._metrics.registry, worker=self._worker_id, written_s=self._clock()
        )
        self._publisher.send(self._names["metrics"], 0, message, vital=False)

    def show_lag(self, ends: Mapping[int, int]) -> None:
        """Frames that wait, from the ends of the events topic's partitions. From any thread."""
        owned = self._partitions.copy()
        lag = {n: max(0, end - owned[n].next_offset) for n, end in ends.items() if n in owned}
        self._metrics.lag(lag)

    def positions(self) -> Mapping[int, int]:
        """Partition to the next offset that it will learn. From any thread."""
        return {number: p.next_offset for number, p in self._partitions.copy().items()}

    def close(self) -> None:
        """Close the stores. What was not checkpointed is learned again."""
        for partition in self._partitions.values():
            partition.store.close()
        self._partitions.clear()


def _say(line: str) -> None:
    log.info(line)
