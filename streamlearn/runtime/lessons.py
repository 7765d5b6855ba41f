"""What one message of the events topic does to its stream.

A frame is tested and learned; late labels are learned with the events that the learner remembers;
a rollback replaces the learner; what can't be learned becomes a dead letter. A message that the
stream knows already is skipped. Whoever changed is published with the next updates.

Learners that stop for the inner loop (core.cohort) go on when others ask for the same stream, or
with `finish`. One that breaks off is put back to what it was before the message.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from streamlearn.core.cohort import Cohort
from streamlearn.core.learner import LateOutcome, Outcome
from streamlearn.core.records import Frame, Reason, Rejection
from streamlearn.core.rehearsal import CLUSTERS, UNIFORM
from streamlearn.errors import FrameError
from streamlearn.runtime.dead_letters import DeadLetters
from streamlearn.runtime.hot_streams import HotStream
from streamlearn.runtime.label_requests import LabelRequests
from streamlearn.runtime.late_labels import unknown
from streamlearn.runtime.logs import OURS
from streamlearn.runtime.partition import Arrival, Partition
from streamlearn.runtime.predictions import Predictions
from streamlearn.runtime.relearn import Relearning
from streamlearn.runtime.rollback import Rollbacks
from streamlearn.runtime.streams import Streams
from streamlearn.runtime.updates import Updates
from streamlearn.telemetry.catalogue import DRIFT_CODES
from streamlearn.telemetry.metrics import FrameScore, WorkerMetrics
from streamlearn.wire import dead_letter_codec, event_codec, kept_codec, label_codec, rollback_codec
from streamlearn.wire.cloud_events import stream_of_key

log = logging.getLogger(OURS)


class Lessons:
    """For the learning thread. `publish` sends all updates that wait, now."""

    def __init__(
        self,
        streams: Streams,
        *,
        cohort: Cohort,
        updates: Updates,
        publish: Callable[[], None],
        rollbacks: Rollbacks,
        relearning: Relearning,
        dead_letters: DeadLetters,
        predictions: Predictions,
        requests: LabelRequests,
        metrics: WorkerMetrics,
    ) -> None:
        self._streams = streams
        self._cohort = cohort
        self._updates = updates
        self._publish = publish
        self._rollbacks = rollbacks
        self._relearning = relearning
        self._dead_letters = dead_letters
        self._predictions = predictions
        self._requests = requests
        self._metrics = metrics

    def take(self, partition: Partition, message: Arrival) -> None:
        """One message, in the log's order; what it teaches may take effect with `finish` only."""
        try:
            if rollback_codec.is_rollback(message.headers):
                self._roll_back(partition, message)
            elif label_codec.is_labels(message.headers):
                self._learn_labels(partition, message)
            else:
                self._learn(partition, message)
        except FrameError as error:
            self._dead_letters.bury(partition.number, message, (dead_letter_codec.of_frame(error),))

    def finish(self) -> None:
        """Whatever was begun is learned."""
        self._cohort.finish()

    def _learn(self, partition: Partition, message: Arrival) -> None:
        frame, rejected = event_codec.decode(
            message.value, message.key, message.headers, message.timestamp_s
        )
        stream = self._unless_known(partition, frame.stream, message)
        if stream is None:
            return
        if rejected:
            self._dead_letters.bury(partition.number, message, rejected)
        begun, diverged = time.perf_counter(), stream.learner.n_rolled_back

        def done(outcome: Outcome) -> None:
            seconds = time.perf_counter() - begun
            self._change(partition, message, stream, frame, outcome)
            self._metrics.counter("streamlearn_repeated_events").inc(outcome.n_repeated)
            self._count_diverged(stream.learner.n_rolled_back - diverged)
            self._predictions.tell(partition.number, message.offset, frame, outcome)
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
        stream = self._unless_known(partition, late.stream, message)
        if stream is None:
            return
        begun, diverged = time.perf_counter(), stream.learner.n_rolled_back

        def done(told: LateOutcome) -> None:
            seconds = time.perf_counter() - begun
            refused = (*rejected, *(unknown(late, row) for row in told.unknown))
            if refused:
                self._dead_letters.bury(partition.number, message, refused)
            self._count_diverged(stream.learner.n_rolled_back - diverged)
            count = self._metrics.counter("streamlearn_late_labels")
            count.labels("unknown").inc(len(told.unknown))
            count.labels("repeated").inc(len(told.repeated))
            if told.frame is not None and told.outcome is not None:
                count.labels("learned").inc(len(told.frame))
                self._change(partition, message, stream, told.frame, told.outcome)
                score = _score(told.frame, told.outcome)  # its events were counted when they came
                self._metrics.learned(replace(score, events=0), seconds)

        def failed(error: Exception) -> None:
            self._refuse(partition, message, stream, error)

        learning = stream.learner.learning_labels(late.event_ids, late.labels)
        self._cohort.begin((partition.number, stream.name), learning, done, failed)

    def _count_diverged(self, times: int) -> None:
        self._metrics.counter("streamlearn_network_diverged").inc(times)

    def _roll_back(self, partition: Partition, message: Arrival) -> None:
        """With a rollback's last part, its state replaces the stream's, and is published."""
        stream = self._unless_known(partition, stream_of_key(message.key), message)
        if stream is None:
            return
        learner = self._rollbacks.meet(partition.number, message, stream.learner)
        if learner is None:
            return
        stream.learner, stream.published = learner, None  # so that a full update follows
        stream.offset, stream.newest_record_s = message.offset, message.timestamp_s
        partition.dirty.add(stream.name)
        self._updates.touch(stream)
        self._publish()
        log.info("%s was rolled back: version %d has old values", stream.name, learner.version)

    def _unless_known(self, partition: Partition, name: str, message: Arrival) -> HotStream | None:
        """The stream, to learn this message; None: it has, before a crash."""
        self._cohort.finish((partition.number, name))
        stream = self._streams.to_learn(partition, name)
        if message.offset > stream.offset:
            return stream
        self._metrics.counter("streamlearn_replayed_frames").inc()
        return None

    def _change(
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
        self._updates.touch(stream, message.timestamp_s)
        for row in np.flatnonzero(outcome.kept_slots >= 0).tolist():
            slot, why = int(outcome.kept_slots[row]), int(outcome.kept_why[row])
            kept = kept_codec.encode(frame, row, event=int(outcome.event[row]), why=why)
            partition.keep(frame.stream, slot, kept)  # for people, and for later learning

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
