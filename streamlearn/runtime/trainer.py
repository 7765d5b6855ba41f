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
from dataclasses import replace

import numpy as np

from streamlearn.core.cohort import Cohort, adapter_of
from streamlearn.core.learner import LateOutcome, Outcome, StreamLearner
from streamlearn.core.model import Model
from streamlearn.core.records import Frame, Reason, Rejection
from streamlearn.core.rehearsal import CLUSTERS, UNIFORM
from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import FrameError
from streamlearn.runtime.budget import Budget
from streamlearn.runtime.checkpoint import Checkpoint, LostError, Sources, encode
from streamlearn.runtime.dead_letters import DeadLetters
from streamlearn.runtime.hot_streams import HotStream, HotStreams, size_of
from streamlearn.runtime.label_requests import LabelRequests
from streamlearn.runtime.late_labels import unknown
from streamlearn.runtime.log import Log
from streamlearn.runtime.logs import OURS
from streamlearn.runtime.partition import Arrival, Partition
from streamlearn.runtime.progress import Progress
from streamlearn.runtime.publisher import Publisher
from streamlearn.runtime.relearn import Relearning
from streamlearn.runtime.restore import Restore
from streamlearn.runtime.rollback import Rollbacks
from streamlearn.runtime.updates import Place, Updates
from streamlearn.stores.store import Store
from streamlearn.telemetry.metrics import DRIFT_CODES, FrameScore, WorkerMetrics
from streamlearn.topics import Topics
from streamlearn.wire import (
    dead_letter_codec,
    event_codec,
    kept_codec,
    label_codec,
    metrics_codec,
    prediction_codec,
    rollback_codec,
)
from streamlearn.wire.cloud_events import stream_of_key
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
        self._settings = settings
        self._worker_id = worker_id
        self._open_store = open_store
        self._publisher = publisher
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._budget = budget
        self._predictions = predictions  # whether they are published
        self._requests = LabelRequests(label_requests, publisher, topics, signer=signer)
        self._effect = effect
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
        self._rollbacks = Rollbacks(log, self._names["events"], verifier=verifier)
        self._relearning = Relearning(
            settings, log=log, events=self._names["events"], rollbacks=self._rollbacks
        )
        self._cohort = Cohort(lambda: adapter_of(settings))
        self._dead_letters = DeadLetters(topics, publisher=publisher, metrics=metrics)
        self._signer = signer  # of updates, predictions, slow weights; and of snapshots
        self._checkpoint = Checkpoint(
            topics, log=log, publisher=publisher, clock=clock, signer=signer, effect=effect
        )
        self._partitions: dict[int, Partition] = {}
        self._hot = HotStreams(memory_budget_bytes, self._evict)
        self._updates = Updates(
            topics,
            publisher=publisher,
            metrics=metrics,
            clock=clock,
            signer=signer,
            effect=effect,
        )
        self._touched: dict[Place, HotStream] = {}  # changed since their last update
        self._arrived_s: list[float] = []  # Kafka's times of the frames that changed them

    # --- ownership

    def own(self, partitions: Sequence[int], generation: int) -> None:
        """Take over these partitions and let go of all others."""
        for number in self._partitions.keys() - set(partitions):
            self._let_go(number)
        for number in partitions:
            self._take_over(number, generation)
        self._metrics.epochs({n: p.epoch for n, p in self._partitions.items()})

    def _let_go(self, number: int) -> None:
        self._hot.drop(number)
        self._partitions.pop(number).store.close()

    def _take_over(self, number: int, generation: int) -> None:
        begun = time.perf_counter()
        partition = self._partitions.get(number)
        if partition is None:
            partition = Partition(number, self._open_store(number))
            partition.load()
            self._partitions[number] = partition
        found = self._restore.take_over(partition, generation)
        self._hot.drop(number, None if found.amended else set(found.newer))
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
        for stream in self._hot:
            if stream.partition == partition.number:
                stream.published = None  # the first update of an epoch is a full one
        for name in sorted(partition.dirty):
            self._touched[partition.number, name] = self._stream(partition, name)
            if len(self._touched) == ANNOUNCED:
                self._publish()  # so that no more than these are in memory at once
        self._publish()

    # --- learning

    def learn(self, arrivals: Mapping[int, Sequence[Arrival]]) -> None:
        """Learn frames by partition, each in order of offsets; returns when all is published."""
        for number, messages in arrivals.items():
            partition = self._partitions[number]
            for message in messages:
                if self._follows(partition, message.offset):
                    self._learn(partition, message)
                    partition.next_offset = message.offset + 1
        self._publish()
        self._metrics.gauge("streamlearn_hot_streams").set(len(self._hot))
        self._metrics.gauge("streamlearn_hot_bytes").set(self._hot.bytes)

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

    def _learn(self, partition: Partition, message: Arrival) -> None:
        try:
            if rollback_codec.is_rollback(message.headers):
                self._roll_back(partition, message)
                return
            if label_codec.is_labels(message.headers):
                self._learn_labels(partition, message)
                return
            frame, rejected = event_codec.decode(
                message.value, message.key, message.headers, message.timestamp_s
            )
        except FrameError as error:
            self._dead_letters.bury(partition.number, message, (dead_letter_codec.of_frame(error),))
            return
        stream = self._stream(partition, frame.stream)
        if message.offset <= stream.offset:
            self._metrics.counter("streamlearn_replayed_frames").inc()
            return
        if rejected:
            self._dead_letters.bury(partition.number, message, rejected)
        begun = time.perf_counter()

        def done(outcome: Outcome) -> None:
            seconds = time.perf_counter() - begun
            self._take(partition, message, stream, frame, outcome)
            self._metrics.counter("streamlearn_repeated_events").inc(outcome.n_repeated)
            if self._predictions:
                self._tell(partition, message.offset, frame, outcome)
            learner, offset = stream.learner, message.offset
            asked = self._requests.after(learner, partition.number, offset, len(frame))
            self._metrics.counter("streamlearn_label_requests").inc(asked)
            self._metrics.learned(_score(frame, outcome), seconds)

        def failed(error: Exception) -> None:  # our fault, but one frame must not stop all streams
            self._refuse(partition, message, stream, error)

        place = partition.number, stream.name
        self._cohort.begin(place, stream.learner.learning(frame), done, failed)

    def _learn_labels(self, partition: Partition, message: Arrival) -> None:
        """Late labels, to the events that their stream remembers; FrameError where they are none.

        A message of which nothing is learned makes no version.
        """
        late, rejected = label_codec.decode(message.value, message.key, message.headers)
        stream = self._stream(partition, late.stream)
        if message.offset <= stream.offset:
            self._metrics.counter("streamlearn_replayed_frames").inc()
            return
        begun = time.perf_counter()

        def done(told: LateOutcome) -> None:
            seconds = time.perf_counter() - begun
            refused = (*rejected, *(unknown(late, row) for row in told.unknown))
            if refused:
                self._dead_letters.bury(partition.number, message, refused)
            count = self._metrics.counter("streamlearn_late_labels")
            count.labels("unknown").inc(len(told.unknown))
            count.labels("repeated").inc(len(told.repeated))
            if told.frame is not None and told.outcome is not None:
                count.labels("learned").inc(len(told.frame))
                self._take(partition, message, stream, told.frame, told.outcome)
                score = _score(told.frame, told.outcome)  # its events were counted when they came
                self._metrics.learned(replace(score, events=0), seconds)

        def failed(error: Exception) -> None:
            self._refuse(partition, message, stream, error)

        learning = stream.learner.learning_labels(late.event_ids, late.labels)
        self._cohort.begin((partition.number, stream.name), learning, done, failed)

    def _take(
        self,
        partition: Partition,
        message: Arrival,
        stream: HotStream,
        frame: Frame,
        outcome: Outcome,
    ) -> None:
        """A message gave the stream a new version."""
        stream.offset = message.offset
        stream.newest_event_s = float(np.fmax(stream.newest_event_s, frame.event_time_s.max()))
        stream.newest_record_s = message.timestamp_s
        partition.dirty.add(frame.stream)
        self._touched[partition.number, frame.stream] = stream
        self._arrived_s.append(message.timestamp_s)
        self._keep(partition, frame, outcome)

    def _refuse(
        self, partition: Partition, message: Arrival, stream: HotStream, error: Exception
    ) -> None:
        """The learner broke off at this frame: go on as if it had never seen it."""
        log.exception("%s broke off at offset %d", stream.name, message.offset)
        detail = f"{type(error).__name__}: {error}; please report it, with this frame"
        self._dead_letters.bury(
            partition.number, message, (Rejection(Reason.LEARNER_ERROR, detail),)
        )
        stream.learner = self._relearning.before(partition, stream.name, message.offset)

    def _roll_back(self, partition: Partition, message: Arrival) -> None:
        """With a rollback's last part, its state replaces the stream's, and is published."""
        stream = self._stream(partition, stream_of_key(message.key))
        if message.offset <= stream.offset:
            self._metrics.counter("streamlearn_replayed_frames").inc()
            return
        learner = self._rollbacks.meet(partition.number, message, stream.learner)
        if learner is None:
            return
        stream.learner, stream.published = learner, None  # so that a full update follows
        stream.offset, stream.newest_record_s = message.offset, message.timestamp_s
        partition.dirty.add(stream.name)
        self._touched[partition.number, stream.name] = stream
        self._publish()
        log.info("%s was rolled back: version %d has old values", stream.name, learner.version)

    def _stream(self, partition: Partition, name: str) -> HotStream:
        """The stream in memory, to learn: loaded, or new, if it is not there yet."""
        self._cohort.finish((partition.number, name))
        stream = self._visit(partition, name)
        if self._hot.get(partition.number, name) is None:
            self._hot.add(stream)
        return stream

    def _visit(self, partition: Partition, name: str) -> HotStream:
        """The stream to look at; what is loaded only for that does not stay in memory."""
        stream = self._hot.get(partition.number, name)
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

    def _keep(self, partition: Partition, frame: Frame, outcome: Outcome) -> None:
        """Members of micro-clusters, as rows for people to look at and for later learning."""
        for row in np.flatnonzero(outcome.kept_slots >= 0).tolist():
            slot, why = int(outcome.kept_slots[row]), int(outcome.kept_why[row])
            kept = kept_codec.encode(frame, row, event=int(outcome.event[row]), why=why)
            partition.keep(frame.stream, slot, kept)

    def _tell(self, partition: Partition, offset: int, frame: Frame, outcome: Outcome) -> None:
        """What was predicted for the frame's events before their labels were learned."""
        predictions = prediction_codec.Predictions(
            stream=frame.stream,
            model_version=outcome.base_version,
            step_events=self._settings.step_events if outcome.base_version else 1,
            source_partition=partition.number,
            source_offset=offset,
            probabilities=outcome.probabilities,
            classes=outcome.classes,
            event_ids=frame.event_ids,
        )
        for message in prediction_codec.encode(predictions, signer=self._signer):
            self._publisher.send(self._names["predictions"], partition.number, message)

    def _publish(self) -> None:
        """An update for each stream that changed; then the memory budget holds again."""
        self._cohort.finish()
        touched, arrived_s = self._touched, self._arrived_s
        self._touched, self._arrived_s = {}, []
        self._updates.publish(touched, self._partitions, arrived_s)
        self._hot.make_room()

    # --- durability

    def checkpoint(self, *, everything: bool = True) -> Mapping[int, int]:
        """Make durable what was learned; partition to the offset that its marker covers.

        Not `everything`: as much as the budget allows.
        """
        begun, before = time.perf_counter(), self._checkpoint.bytes
        sources = Sources(
            hot=self._hot,
            visit=self._visit,
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
        self._hot.make_room()
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

    def _evict(self, stream: HotStream) -> None:
        partition = self._partitions[stream.partition]
        as_of = partition.epoch, stream.offset
        if stream.name in partition.dirty and stream.stored != as_of:
            partition.put_states({stream.name: encode(stream, partition.epoch)})
            stream.stored = as_of

    # --- telemetry

    def learned(self) -> Mapping[str, Model]:
        """The models of all streams of the owned partitions, for tests and audits."""
        names = {
            (number, name)
            for number, partition in self._partitions.items()
            for name in partition.streams()
        } | {(stream.partition, stream.name) for stream in self._hot}
        return {
            name: self._visit(self._partitions[number], name).learner.model()
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
        owned = self._partitions
        lag = {n: max(0, end - owned[n].next_offset) for n, end in ends.items() if n in owned}
        self._metrics.lag(lag)

    def positions(self) -> Mapping[int, int]:
        """Partition to the next offset that it will learn. From any thread."""
        return {number: p.next_offset for number, p in self._partitions.copy().items()}

    def close(self) -> None:
        """Close the stores. What was not checkpointed is learned again."""
        for partition in self._partitions.values():
            partition.store.close()
        self._partitions = {}


def _say(line: str) -> None:
    log.info(line)


def _score(frame: Frame, outcome: Outcome) -> FrameScore:
    return FrameScore(
        stream=frame.stream,
        events=len(frame),
        labelled=outcome.n_labelled,
        correct=outcome.n_correct,
        no_change_correct=outcome.n_no_change_correct,
        majority_correct=outcome.n_majority_correct,
        drift=DRIFT_CODES[outcome.drift.value],
        recall_clusters=outcome.recalls.get(CLUSTERS, float("nan")),
        recall_uniform=outcome.recalls.get(UNIFORM, float("nan")),
        replay_uniform=outcome.trusted == UNIFORM,
    )
